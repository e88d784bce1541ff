"""Runs one function over many tasks, in this process or in several.

1. Processes, not threads: at 64 KiB records threads lose. They are started anew (`spawn`), never forked, so no lock,
   connection or half-written object is copied into them. A program that uses several must guard its main module.
2. `state` goes to each process once, through its private pipe; it may hold keys.
3. A process ends when the one that started it does, however that ended: nobody waits for its result.
4. The first failure cancels what has not begun, waits for what has, and is raised.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing import get_context, parent_process
from typing import Any, TypeVar

from lethe.model.errors import UnavailableError

State = TypeVar("State")
Task = TypeVar("Task")
Result = TypeVar("Result")

MAX_WORKERS = 8
SMALL_BYTES = 48 << 20
"""Less than this is done sooner than other processes have started."""

_state: Any = None


def choose_workers(tasks: int, total_bytes: int) -> int:
    """Return how many processes pay for this amount of work."""
    if total_bytes < SMALL_BYTES:
        return 1
    return max(1, min(tasks, len(os.sched_getaffinity(0)), MAX_WORKERS))


def run_tasks(
    function: Callable[[State, Task], Result], state: State, tasks: Iterable[Task], workers: int
) -> Iterator[Result]:
    """Yield results as they come, in any order. `function` is a module's own, so that other processes find it."""
    if workers <= 1:
        for task in tasks:
            yield function(state, task)
        return
    waiting = iter(tasks)
    with ProcessPoolExecutor(workers, get_context("spawn"), _start, (state,)) as executor:
        running: set[Future[Result]] = set()
        try:
            while True:
                for task in islice(waiting, 2 * workers - len(running)):
                    running.add(executor.submit(_run, function, task))
                if not running:
                    return
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
        except BrokenProcessPool as error:
            raise UnavailableError(
                f"one of {workers} worker processes ended early. If memory ran out: allow more, or fewer workers. In a "
                "program of your own: begin its work below `if __name__ == '__main__':`, as `multiprocessing` needs it"
            ) from error
        finally:
            executor.shutdown(cancel_futures=True)


def _start(state: Any) -> None:
    global _state
    _state = state
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _run(function: Callable[[Any, Task], Result], task: Task) -> Result:
    return function(_state, task)
