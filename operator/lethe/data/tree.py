"""Finds the files of a folder that is to be sealed.

1. Files only, in the order of their names' bytes. Empty folders are not part of a dataset.
2. A symbolic link, a device, a socket, a pipe, or a name that a dataset may not hold is refused by name, or, where the
   caller asks for it, left out and named.
"""

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lethe.formats.index import MODE_MASK, check_name
from lethe.model.errors import DatasetIndexError, InputError

MENTIONED = 5


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file as the scan found it; sealing refuses one that has changed since."""

    name: str
    size: int
    mode: int
    mtime_ns: int
    ctime_ns: int

    @property
    def version(self) -> tuple[int, int, int]:
        """Return what is another when the content is: programs can set the time of modification, not that of change."""
        return self.size, self.mtime_ns, self.ctime_ns


@dataclass(frozen=True, slots=True)
class Tree:
    files: tuple[SourceFile, ...]
    left_out: tuple[str, ...]
    """Printable names, folders with a slash at the end."""


def scan_tree(root: Path, *, skip: Callable[[str], bool] | None = None) -> Tree:
    """Return the files below `root`.

    With `skip`, names of files or folders for which it is true, and whatever cannot be sealed, are left out; without it
    the latter raise InputError.
    """
    if not root.is_dir():
        raise InputError(f"{root} is not a folder")
    files: list[SourceFile] = []
    problems: list[str] = []
    left_out: list[str] = []
    for name, entry in _walk(root, "", skip, left_out):
        status = entry.stat(follow_symlinks=False)
        problem = _problem(name, status.st_mode)
        if problem:
            problems.append(problem)
        else:
            mode = status.st_mode & MODE_MASK
            files.append(SourceFile(name, status.st_size, mode, status.st_mtime_ns, status.st_ctime_ns))
    if problems and skip is None:
        more = f" and {len(problems) - MENTIONED} more" if len(problems) > MENTIONED else ""
        raise InputError(f"{root} cannot be sealed: {'; '.join(problems[:MENTIONED])}{more}. Remove or replace them")
    files.sort(key=lambda file: file.name)
    return Tree(tuple(files), tuple(sorted([*left_out, *problems])))


def _walk(
    root: Path, below: str, skip: Callable[[str], bool] | None, left_out: list[str]
) -> Iterator[tuple[str, "os.DirEntry[str]"]]:
    try:
        with os.scandir(root / below) as entries:
            found = list(entries)
    except OSError as error:
        raise InputError(f"{root / below} cannot be read: {error.strerror}") from error
    for entry in found:
        name = f"{below}/{entry.name}" if below else entry.name
        is_folder = entry.is_dir(follow_symlinks=False)
        if skip is not None and skip(entry.name):
            left_out.append(printable(name) + ("/" if is_folder else ""))
        elif is_folder:
            yield from _walk(root, name, skip, left_out)
        else:
            yield name, entry


def _problem(name: str, mode: int) -> str:
    if not stat.S_ISREG(mode):
        return f"{printable(name)} is {_KINDS.get(stat.S_IFMT(mode), 'a special file')}"
    try:
        check_name(name)
    except DatasetIndexError as error:
        return str(error)
    return ""


_KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFBLK: "a block device",
    stat.S_IFCHR: "a character device",
}


def printable(name: str) -> str:
    """Return a name without control characters or bytes that are not UTF-8, fit for a terminal."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in name)
