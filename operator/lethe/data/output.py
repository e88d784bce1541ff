"""Results of a job: files that are either complete in the outputs folder or not there.

1. What is written goes into a hidden file beside its place, and takes its name when it is complete. The outputs sidecar
   leaves unfinished files out, so a checkpoint that a crash cut off is never taken for one.
2. A file is complete when it is closed, by `with` or `close`. Some savers leave the file open, `torch.save` among them:
   then it is complete when it was flushed after the last write, and nothing refers to it any more. A file that is
   abandoned otherwise, or while an exception passes, is removed and named in a warning.
"""

import contextlib
import io
import logging
import os
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

from lethe.crypto.derive import random_bytes
from lethe.formats.index import check_name
from lethe.model.errors import InputError
from lethe.model.names import OUTPUTS_PATH, OUTPUTS_VARIABLE, PARTIAL_SUFFIX

log = logging.getLogger("lethe.data")


class Output(io.BufferedWriter):
    """A result that is being written."""

    def __init__(self, path: Path) -> None:
        """`path` is the file's place; what lies there is replaced when this one is complete."""
        self._path = path
        self._partial = path.with_name(f".{path.name[:200]}.{random_bytes(4).hex()}{PARTIAL_SUFFIX}")
        self._is_flushed = False
        self._is_broken = False
        # What is handled already does not break a result: many save a last checkpoint then.
        self._handled = id(sys.exc_info()[1])
        super().__init__(io.FileIO(self._partial, "xb"))

    def write(self, data: Any, /) -> int:
        """Take bytes."""
        self._is_flushed = False
        return super().write(data)

    def flush(self) -> None:
        """Write out what was taken. Savers flush when an exception leaves their `with`, too: that completes nothing."""
        super().flush()
        if sys.exc_info()[0] is not None and id(sys.exc_info()[1]) != self._handled:
            self._is_broken = True
        self._is_flushed = True

    def close(self) -> None:
        """Complete the file, unless an exception passes."""
        if self.closed:
            return
        try:
            self.flush()
            os.fsync(self.fileno())
        except BaseException:
            self._is_broken = True
            raise
        finally:
            self._end(is_complete=not self._is_broken)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not None:
            self._is_broken = True
        self.close()

    def __del__(self) -> None:
        if not self.closed:
            self._end(is_complete=self._is_flushed and not self._is_broken)

    def _end(self, *, is_complete: bool) -> None:
        self.raw.close()
        if is_complete:
            os.replace(self._partial, self._path)
            return
        with contextlib.suppress(FileNotFoundError):
            self._partial.unlink()
        log.warning("output %s was not completed, and is not there: close it, or use `with`", self._path.name)


def output(name: str) -> Output:
    """Return a file to write a result into, below the outputs folder of this job; folders are made as needed.

    `torch.save(model, lethe.data.output("checkpoints/0003.pt"))`, or `with lethe.data.output("log") as file:`.
    """
    check_name(name)
    root = Path(os.environ.get(OUTPUTS_VARIABLE, OUTPUTS_PATH))
    if not root.is_dir():
        raise InputError(f"there is no outputs folder {root}: give the job spec.outputs, or set {OUTPUTS_VARIABLE}")
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return Output(path)
