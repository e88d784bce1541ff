"""Background processes of ours, remembered so that exactly they are stopped later.

1. A process is known by its id and the time it started (which the kernel keeps): an id that was given to somebody
   else since is never touched.
2. Signals go through a pidfd, opened before the start time is compared.
"""

import json
import os
import select
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from .errors import ClusterError

# Python warns of a child whose object is dropped while it runs; these are meant to outlive this program.
_CHILDREN: list[subprocess.Popen[bytes]] = []


@dataclass(frozen=True, kw_only=True)
class Process:
    """A process that was started: its id and its start time in clock ticks since the machine's boot."""

    pid: int
    started: int


def start_time(pid: int) -> int | None:
    """Return when a live process started, in ticks; None when there is none, or only a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


def only_child(pid: int) -> int | None:
    """Return the one child of a process, or None when it has none yet."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(children[0]) if children else None


class Processes:
    """The processes of one cluster; one record a process, in one folder."""

    def __init__(self, records: Path, logs: Path) -> None:
        self.records = records
        self.logs = logs

    def start(
        self,
        name: str,
        argv: Sequence[str | Path],
        *,
        env: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (),
    ) -> Process:
        """Start a process in a session of its own unless it runs; its output goes to `<logs>/<name>.log`."""
        running = self.find(name)
        if running is not None:
            return running
        self.records.mkdir(parents=True, exist_ok=True)
        self.logs.mkdir(parents=True, exist_ok=True)
        with (self.logs / f"{name}.log").open("ab") as log:
            child = subprocess.Popen(
                [str(word) for word in argv],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **env} if env else None,
                start_new_session=True,
                pass_fds=pass_fds,
                cwd="/",
            )
        _CHILDREN.append(child)
        started = start_time(child.pid)
        if started is None:
            raise ClusterError(f"{name} ended at once; its log is {self.logs / name}.log.")
        process = Process(pid=child.pid, started=started)
        (self.records / f"{name}.json").write_text(json.dumps(asdict(process)))
        return process

    def find(self, name: str) -> Process | None:
        """Return the process of this name if it lives."""
        record = self.records / f"{name}.json"
        if not record.exists():
            return None
        process = Process(**json.loads(record.read_text()))
        return process if start_time(process.pid) == process.started else None

    def stop(self, name: str, *, grace: float = 10.0) -> None:
        """End the process: by SIGTERM, after `grace` seconds by SIGKILL (at once when grace is 0)."""
        process = self.find(name)
        if process is not None:
            end(process, grace=grace)
        (self.records / f"{name}.json").unlink(missing_ok=True)

    def names(self) -> list[str]:
        """Return the names of all that were started and not stopped."""
        return sorted(path.stem for path in self.records.glob("*.json"))


def end(process: Process, *, grace: float) -> None:
    """End one process and wait until it is gone."""
    with suppress(ProcessLookupError):
        handle = os.pidfd_open(process.pid)
        try:
            if start_time(process.pid) != process.started:
                return
            if grace > 0:
                signal.pidfd_send_signal(handle, signal.SIGTERM)
            if grace <= 0 or not _gone(handle, grace):
                signal.pidfd_send_signal(handle, signal.SIGKILL)
                if not _gone(handle, 30):
                    raise ClusterError(
                        f"Process {process.pid} is still there 30 s after SIGKILL; look at /proc/{process.pid}/stack."
                    )
        finally:
            os.close(handle)
        with suppress(ChildProcessError):
            os.waitpid(process.pid, os.WNOHANG)


def _gone(handle: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    return bool(poll.poll(seconds * 1000))
