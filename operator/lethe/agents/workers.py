"""Two processes for each GPU, one after the other, and a watchdog outside of them.

A driver call that hangs cannot be interrupted from within, and a broken GPU may end the process. So:

1. Each GPU is scrubbed by processes of its own, started afresh: a process forked from one that has used the driver
   cannot use it.
2. A worker sends its report after each step. When it ends without a last one, or is killed at the deadline, the report
   is what it reached, with the reason; the other GPUs go on.
3. A worker that does not even die waits inside the driver. It is left behind and named: only a reset helps.
4. The second process of a GPU opens its context while the first holds all memory but what it gave up, and takes memory
   only when the first has ended. A first process that ended too soon left memory for that context that nobody verified.
"""

import multiprocessing
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Final

import msgspec

from lethe.agents.gpu_scrub import FirstProcess, SecondProcess, probe_gpu
from lethe.agents.kernels import load_ptx
from lethe.model import reasons
from lethe.model.errors import GpuError
from lethe.model.scrub import GpuReport

_DEATH_SECONDS = 10
_GIVEN_UP: Final = "give up memory for the second process"
_OPENED: Final = "end the first process"
_SECOND: Final = "second process, "
"""How the second one's steps begin."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """What the processes of one GPU do."""

    start: GpuReport
    """Facts and killed processes, for the second what the first reported; Failed until a worker says otherwise."""
    nonce: str
    coverage_floor: float
    probe_only: bool = False


class _Message(msgspec.Struct, frozen=True, kw_only=True):
    step: str
    """What begins now; empty in the last message."""
    report: GpuReport


@dataclass(frozen=True)
class _Worker:
    process: SpawnProcess
    connection: Connection


@dataclass(kw_only=True)
class _Scrub:
    """One GPU's scrub in progress."""

    task: Task
    report: GpuReport
    first: _Worker
    second: _Worker | None = None
    step: str = "start"
    is_done: bool = False

    @property
    def current(self) -> _Worker:
        """The worker that speaks."""
        return self.second or self.first

    @property
    def awaited(self) -> Connection | int:
        """What goes on next: a message of the worker that speaks, or the first one's end."""
        return self.first.process.sentinel if self.step == _OPENED else self.current.connection

    def fail(self, reason: str, message: str) -> None:
        self.report = _failed(self.report, reason, message)
        self.is_done = True


def scrub_in_workers(tasks: list[Task], seconds: float, say: Callable[[str], None]) -> tuple[list[GpuReport], bool]:
    """Scrub GPUs side by side; return their reports, in the order of the tasks, and whether every worker has ended."""
    deadline = time.monotonic() + seconds
    scrubs = [_Scrub(task=task, report=task.start, first=_start(_work_first, task)) for task in tasks]
    while running := [scrub for scrub in scrubs if not scrub.is_done]:
        ready = wait([scrub.awaited for scrub in running], timeout=max(0.0, deadline - time.monotonic()))
        for scrub in running:
            if scrub.awaited in ready:
                _go_on(scrub, say)
        if time.monotonic() >= deadline:
            break
    for scrub in scrubs:
        if not scrub.is_done:
            scrub.fail(reasons.GPU_HANG, f"step {scrub.step} had not ended after {seconds:.0f} s: it was killed")
        if scrub.report.verdict == "Failed":
            for worker in filter(None, (scrub.first, scrub.second)):
                worker.process.kill()
    have_ended = [_has_ended(worker) for scrub in scrubs for worker in (scrub.first, scrub.second) if worker]
    return [scrub.report for scrub in scrubs], all(have_ended)


def _start(work: Callable[[Task, Connection], None], task: Task) -> _Worker:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=work, args=(task, theirs), name=task.start.facts.uuid, daemon=True)
    process.start()
    theirs.close()
    return _Worker(process, ours)


def _go_on(scrub: _Scrub, say: Callable[[str], None]) -> None:
    """Take what a scrub waited for."""
    if scrub.step == _OPENED:
        scrub.step = f"{_SECOND}start"
        # Should the second have died meanwhile, its connection says so next.
        with suppress(BrokenPipeError):
            scrub.current.connection.send_bytes(b"")
        return
    _receive(scrub, say)
    if scrub.step == _GIVEN_UP:
        task = Task(start=scrub.report, nonce=scrub.task.nonce, coverage_floor=scrub.task.coverage_floor)
        scrub.second = _start(_work_second, task)
    elif scrub.step == _OPENED:
        if scrub.first.process.is_alive():
            scrub.first.connection.close()
        else:
            scrub.fail(
                reasons.LEAPFROG_FAILED,
                "the first process ended before the second had opened its context, which may lie where nobody verified",
            )


def _receive(scrub: _Scrub, say: Callable[[str], None]) -> None:
    worker = scrub.current
    try:
        message = msgspec.json.decode(worker.connection.recv_bytes(), type=_Message)
    except (EOFError, ConnectionResetError):
        worker.process.join(_DEATH_SECONDS)
        scrub.fail(
            reasons.DRIVER_ERROR,
            f"the worker process ended in step {scrub.step} with exit code {worker.process.exitcode}: see the log",
        )
        return
    scrub.step, scrub.report, scrub.is_done = message.step, message.report, not message.step
    name = message.report.facts.uuid
    say(f"{name}: {message.step}" if message.step else f"{name}: {_outcome(message.report)}")


def _outcome(report: GpuReport) -> str:
    if report.reason == reasons.PROBED_ONLY and report.residue is not None:
        return f"{report.bytes_probed} bytes were looked at, {report.residue.nonzero_bytes} bytes of residue were found"
    if report.verdict == "Failed":
        return f"failed, {report.reason}: {report.message}"
    residue = report.residue.nonzero_bytes if report.residue else 0
    second = report.leapfrog.durations if report.leapfrog else {}
    times = [f"{name} {seconds:.3f} s" for name, seconds in report.durations.items()]
    times += [f"{_SECOND}{name} {seconds:.3f} s" for name, seconds in second.items()]
    return (
        f"clear, {report.bytes_covered} of {report.bytes_total} bytes verified ({report.coverage:.2%}), {residue} "
        f"bytes of residue were found; {', '.join(times)}"
    )


class _Reporter:
    """Sends messages, in a worker process, and keeps the last one's report."""

    def __init__(self, connection: Connection, task: Task, prefix: str = "") -> None:
        self._connection = connection
        self._prefix = prefix
        self._last = task.start
        self._step = ""

    def tell(self, step: str, report: GpuReport) -> None:
        """Say what begins now."""
        self._step = f"{self._prefix}{step}"
        self._last = report
        self._send(self._step, report)

    def ask(self, step: str, report: GpuReport) -> None:
        """Say what the watchdog is to do now."""
        self._last = report
        self._send(step, report)

    def conclude(self, report: GpuReport) -> None:
        """Send the last message."""
        self._send("", report)

    def conclude_failed(self, error: GpuError) -> None:
        """Send the last message of a worker that the driver has failed."""
        self._send("", _failed(self._last, error.reason, f"step {self._step}: {error}"))

    def _send(self, step: str, report: GpuReport) -> None:
        self._connection.send_bytes(msgspec.json.encode(_Message(step=step, report=report)))


def _work_first(task: Task, connection: Connection) -> None:
    """Scrub one GPU but for this process's context, and stay until told to end."""
    # Only here: the library takes the driver's settings from this process.
    from lethe.adapters.cuda import Gpu

    reporter = _Reporter(connection, task)
    try:
        reporter.tell("open", task.start)
        gpu = Gpu(task.start.facts.uuid, load_ptx())
        if task.probe_only:
            report = probe_gpu(gpu, task.start, task.nonce, reporter.tell)
        else:
            report = FirstProcess(gpu, task.start, task.nonce, reporter.tell).run()
    except GpuError as error:
        reporter.conclude_failed(error)
        return
    if report.reason:
        reporter.conclude(report)
        return
    reporter.ask(_GIVEN_UP, report)
    with suppress(EOFError):
        connection.recv_bytes()


def _work_second(task: Task, connection: Connection) -> None:
    """Scrub what the first process held, and where its context was."""
    from lethe.adapters.cuda import Gpu

    reporter = _Reporter(connection, task, _SECOND)
    try:
        reporter.tell("open", task.start)
        gpu = Gpu(task.start.facts.uuid, load_ptx())
        second = SecondProcess(gpu, task.start, task.nonce, task.coverage_floor, reporter.tell)
        reporter.ask(_OPENED, second.report)
        connection.recv_bytes()
        reporter.conclude(second.run())
    except GpuError as error:
        reporter.conclude_failed(error)


def _failed(report: GpuReport, reason: str, message: str) -> GpuReport:
    return msgspec.structs.replace(report, verdict="Failed", reason=reason, message=message)


def _has_ended(worker: _Worker) -> bool:
    worker.process.join(_DEATH_SECONDS)
    return worker.process.exitcode is not None
