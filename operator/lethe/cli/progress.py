"""Progress of long work on standard error: a bar with rate on a terminal, plain lines on a pipe."""

import sys
import time
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

    def __init__(self, verb: str) -> None:
        self._verb = verb
        self._began = self._said = time.monotonic()
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
            self._bar.add_task("", total=None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def __call__(self, report: Progress) -> None:
        """Show how far the work has come."""
        if self._bar:
            self._bar.update(self._bar.task_ids[0], completed=report.done_bytes, total=report.total_bytes)
            return
        now = time.monotonic()
        if now - self._said < LINE_SECONDS and report.done_bytes < report.total_bytes:
            return
        self._said = now
        rate = report.done_bytes / max(now - self._began, 1e-3)
        print(
            f"{self._verb}: {decimal(report.done_bytes)} of {decimal(report.total_bytes)}, {decimal(int(rate))}/s",
            file=sys.stderr,
            flush=True,
        )
