"""End whatever still holds a GPU: after a forced delete a pod is gone while its process runs on.

1. Who it was is read before the kill: the name, and the pod from the process's cgroup.
2. A process id may be used again. The process is held by a file descriptor, its start time compared before and after
   that was opened, and the signal goes to the descriptor.
3. Bounded: what still holds the GPU when the time is over is a GpuError. A process that waits inside the driver does
   not die, and one that this PID namespace cannot see cannot be killed.
4. Never a process of its own, and never process 1.
"""

import os
import re
import select
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import msgspec

from lethe.model import reasons
from lethe.model.errors import GpuError
from lethe.model.scrub import KilledProcess

_POD_UID: Final = re.compile(r"pod([0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12})")
_PAUSE_SECONDS: Final = 0.05


class Process(msgspec.Struct, frozen=True, kw_only=True):
    """A process as /proc shows it; pid and start time together are unique within a boot."""

    pid: int
    start_time: int
    """Clock ticks after the boot."""
    name: str
    pod_uid: str = ""


def read_process(proc: Path, pid: int) -> Process | None:
    """Return a process, or None when it has ended."""
    try:
        stat = (proc / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
        cgroup = (proc / str(pid) / "cgroup").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name stands in parentheses and may hold any character, parentheses included.
    name, _, rest = stat.partition("(")[2].rpartition(")")
    fields = rest.split()
    if fields[0] in ("Z", "X"):
        return None
    pod = _POD_UID.search(cgroup)
    return Process(
        pid=pid,
        start_time=int(fields[19]),
        name="".join(c if c.isprintable() else "?" for c in name),
        pod_uid=pod[1].replace("_", "-") if pod else "",
    )


def evict(holders: Callable[[], Iterable[int]], proc: Path, seconds: float) -> list[KilledProcess]:
    """Kill the processes that `holders` lists until it lists none; return those killed, in order.

    Raise GpuError with LeftoverProcess when some are left after `seconds`.
    """
    deadline = time.monotonic() + seconds
    killed: dict[tuple[int, int], KilledProcess] = {}
    while pids := sorted(holders()):
        for pid in pids:
            process = _kill(proc, pid, deadline)
            if process is not None:
                victim = KilledProcess(pid=pid, name=process.name, pod_uid=process.pod_uid)
                killed[pid, process.start_time] = victim
        if time.monotonic() > deadline:
            raise GpuError(reasons.LEFTOVER_PROCESS, _sentence(pids, proc, seconds))
        # The driver takes a moment to notice a death.
        time.sleep(_PAUSE_SECONDS)
    return list(killed.values())


def refuse(holders: Callable[[], Iterable[int]], proc: Path) -> list[KilledProcess]:
    """Kill nobody; raise GpuError with LeftoverProcess when `holders` lists a process."""
    if pids := sorted(holders()):
        raise GpuError(reasons.LEFTOVER_PROCESS, f"held by {_describe(pids, proc)}: end them first")
    return []


def _kill(proc: Path, pid: int, deadline: float) -> Process | None:
    """Kill one process and wait for its end; return what it was, or None when there was nothing to kill."""
    if pid in (0, 1, os.getpid()):
        return None
    before = read_process(proc, pid)
    try:
        with open(os.pidfd_open(pid), "rb", buffering=0) as descriptor:
            after = read_process(proc, pid)
            if before is None or after is None or before.start_time != after.start_time:
                return None
            signal.pidfd_send_signal(descriptor.fileno(), signal.SIGKILL)
            select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
            return before
    except ProcessLookupError:
        return None
    except OSError as error:
        raise GpuError(
            reasons.LEFTOVER_PROCESS,
            f"process {pid} holds the GPU and cannot be killed: {error}; the scrub pod needs the capability KILL",
        ) from error


def _sentence(pids: list[int], proc: Path, seconds: float) -> str:
    described = _describe(pids, proc)
    return f"still held after {seconds:g} s by {described}: end them, or reset the GPU or reboot the node"


def _describe(pids: list[int], proc: Path) -> str:
    described = []
    for pid in pids:
        process = read_process(proc, pid)
        name = process.name if process else "not visible here"
        pod = f", pod {process.pod_uid}" if process and process.pod_uid else ""
        described.append(f"{pid} ({name}{pod})")
    return ", ".join(described)
