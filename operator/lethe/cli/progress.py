"""Progress of long work on standard error, with rate and remaining time: a bar on a terminal, plain lines on a pipe.

The rate is that of this run: what an earlier run has done counts as done, not as fast.
"""

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.progress import Progress as Bar

from lethe.data.seal import Progress

LINE_SECONDS = 5.0


class ProgressReport:
    """Shows `Progress` reports. Use as a context manager, and call it with each report."""

    def __init__(self, verb: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._verb = verb
        self._clock = clock
        self._began = self._said = clock()
        self._first: Progress | None = None
        self._bar: Bar | None = None

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            columns = (
                TextColumn(self._verb),
                BarColumn(),
                DownloadColumn(),
                TransferSpeedColumn(),
                TimeRemainingColumn(),
            )
            self._bar = Bar(*columns, console=Console(stderr=True))
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def __call__(self, report: Progress) -> None:
        """Show how far the work has come."""
        first, self._first = self._first, self._first or report
        if self._bar:
            if first is None:
                self._bar.add_task("", total=report.total_bytes, completed=report.done_bytes)
            else:
                self._bar.update(self._bar.task_ids[0], completed=report.done_bytes)
            return
        now = self._clock()
        if now - self._said < LINE_SECONDS and report.done_bytes < report.total_bytes:
            return
        self._said = now
        print(self._line(report, self._first, now - self._began), file=sys.stderr, flush=True)

    def _line(self, report: Progress, first: Progress, seconds: float) -> str:
        rate = (report.done_bytes - first.done_bytes) / max(seconds, 1e-3)
        line = f"{self._verb}: {decimal(report.done_bytes)} of {decimal(report.total_bytes)}, {decimal(int(rate))}/s"
        rest = report.total_bytes - report.done_bytes
        return f"{line}, {_duration(rest / rate)} left" if rest and rate else line


def _duration(seconds: float) -> str:
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}h{minute:02}m" if hours else f"{minute}m{second:02}s" if minute else f"{second}s"
