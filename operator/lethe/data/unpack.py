"""Unpacks a sealed dataset into files: all of them, or none.

1. Files are written below a temporary folder and moved into place when the last one is verified. On any error nothing
   is left: no partial plaintext.
2. `unpack` is for a pod: the target is a memory volume of its own, what an earlier attempt left is removed, and files
   are readable by the volume's group, as the training container may run as another user.
3. `unseal` is for the owner's machine: the target must be new or empty, and files get the modes that they had.
4. Names come from the index, which refuses absolute names and `..`; nothing is ever opened through a link, because the
   temporary folder is new and private while it is filled.
"""

import collections
import contextlib
import os
import shutil
import tempfile
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Self

from lethe.crypto.aead import RecordCipher
from lethe.data.access import Access
from lethe.data.objects import open_into, verify_fill
from lethe.data.pool import choose_workers, run_tasks
from lethe.data.seal import Progress
from lethe.formats.contents import Contents
from lethe.formats.header import HEADER_BYTES
from lethe.formats.index import Index, ObjectEntry, folders_of
from lethe.formats.layout import Piece, sealed_size
from lethe.model.dataset import DatasetSource
from lethe.model.errors import InputError, LetheError

PAGE_BYTES = 4096
BUFFER_BYTES = 1 << 20
GROUP_READABLE = 0o440
GROUP_MODES = 0o750
PRIVATE = 0o600


@dataclass(frozen=True)
class Unpacked:
    """What was written or verified."""

    files: int
    bytes: int


@dataclass(frozen=True)
class _State:
    access: Access
    index: Index
    root: Path | None
    """None: verify only."""

    @cached_property
    def contents(self) -> Contents:
        """Return what lies in each object, found out once in each process."""
        return Contents(self.index)


def unpack(
    source: DatasetSource,
    deks: dict[int, bytes],
    target: Path,
    size_limit: int | None = None,
    *,
    workers: int | None = None,
) -> Unpacked:
    """Unpack a dataset into a pod's memory volume.

    `size_limit` is the volume's size in bytes; raise InputError, before anything is written, when the files need more.
    """
    access = Access.of(source, deks)
    index = access.load_index()
    needed = sum(-(-size // PAGE_BYTES) * PAGE_BYTES for size in index.sizes)
    if size_limit is not None and needed > size_limit:
        raise InputError(
            f"dataset {source.name} needs {needed} bytes unpacked, its volume has {size_limit}: raise unpackSize"
        )
    with _errors(target):
        target.mkdir(parents=True, exist_ok=True)
        _clear(target)
        temporary = Path(tempfile.mkdtemp(prefix=".lethe-", dir=target))
        try:
            result = _extract(access, index, temporary, _group_readable, GROUP_MODES, workers, None)
            for path in temporary.iterdir():
                path.rename(target / path.name)
            temporary.rmdir()
        except BaseException:
            _clear(target)
            raise
    return result


def unseal(
    access: Access,
    target: Path,
    *,
    workers: int | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Unpacked:
    """Write a dataset's files into a folder that does not exist yet, or is empty."""
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(f"{target} exists and is not an empty folder: choose another")
    index = access.load_index()
    with _errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name[:64]}.partial-", dir=target.parent))
        try:
            result = _extract(access, index, temporary, _as_sealed, 0o777, workers, progress)
            temporary.chmod(0o755)
            temporary.rename(target)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
    return result


def verify(
    access: Access, *, workers: int | None = None, progress: Callable[[Progress], None] | None = None
) -> Unpacked:
    """Read every byte of every object and check it, without keeping any."""
    return _run(access, access.load_index(), None, workers, progress)


def _extract(
    access: Access,
    index: Index,
    root: Path,
    mode_of: Callable[[int], int],
    folder_mode: int,
    workers: int | None,
    progress: Callable[[Progress], None] | None,
) -> Unpacked:
    for folder in sorted(folders_of(index.names)):
        os.mkdir(f"{root}/{folder}", folder_mode)
    index = replace(index, modes=array("H", [mode_of(mode) for mode in index.modes]))
    split = [
        file
        for file, size in enumerate(index.sizes)
        if size > index.record_size and next(index.pieces(file))[1].size < size
    ]
    for file in split:
        (root / index.names[file]).touch(PRIVATE, exist_ok=False)
        os.truncate(root / index.names[file], index.sizes[file])
    result = _run(access, index, root, workers, progress)
    for file in split:
        os.chmod(root / index.names[file], index.modes[file])
    return result


def _run(
    access: Access,
    index: Index,
    root: Path | None,
    workers: int | None,
    progress: Callable[[Progress], None] | None,
) -> Unpacked:
    total, done = index.total_bytes, 0
    objects = range(len(index.objects))
    state = _State(access, index, root)
    if progress:
        progress(Progress(0, total, len(index)))
    for size in run_tasks(_open_object, state, objects, workers or choose_workers(len(objects), total)):
        done += size
        if progress:
            progress(Progress(done, total, len(index)))
    return Unpacked(len(index), total)


def _open_object(state: _State, number: int) -> int:
    """Open every record of a data object, and write its files; return how many bytes they have in it."""
    index, entry, size = state.index, state.index.objects[number], state.index.record_size
    cipher, data = state.access.fetch(entry, index.record_bits)
    buffer = memoryview(bytearray(max(size, BUFFER_BYTES)))
    end, done = HEADER_BYTES, 0
    with _Files(state.root, index) as files:
        for piece in state.contents.pieces(number):
            sealed = data[piece.offset : piece.offset + sealed_size(piece.size, size)]
            chunks = _open_piece(cipher, entry, piece, sealed, buffer, size)
            if state.root is None:
                collections.deque(chunks, maxlen=0)
            else:
                files.write(piece, chunks)
            end, done = piece.offset + len(sealed), done + piece.size
    verify_fill(cipher, entry, data, end, size)
    return done


def _open_piece(
    cipher: RecordCipher, entry: ObjectEntry, piece: Piece, sealed: memoryview, buffer: memoryview, record_size: int
) -> Iterator[memoryview]:
    """Yield the plaintext of a piece, as much at a time as the buffer holds."""
    record, begin = piece.record, 0
    for start in range(0, max(piece.size, 1), len(buffer)):
        plain = buffer[: min(len(buffer), piece.size - start)]
        end = begin + sealed_size(len(plain), record_size)
        open_into(cipher, entry, record, sealed[begin:end], plain, record_size)
        yield plain
        record, begin = record + len(plain) // record_size, end


class _Files:
    """The files of an index below a root. The descriptor of the folder last used is kept: paths are long to walk."""

    def __init__(self, root: Path | None, index: Index) -> None:
        self._root = root
        self._index = index
        self._folder = ""
        self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)

    def write(self, piece: Piece, chunks: Iterable[memoryview]) -> None:
        """Write a piece into its file: a new one, unless it is only a part of it."""
        name, is_whole = self._index.names[piece.file], piece.size == self._index.sizes[piece.file]
        folder, _, last = name.rpartition("/")
        flags = os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC | (os.O_CREAT | os.O_EXCL if is_whole else 0)
        descriptor = os.open(last, flags, PRIVATE, dir_fd=self._open_folder(folder))
        try:
            position = piece.start
            for chunk in chunks:
                left = chunk
                while left:
                    count = os.pwrite(descriptor, left, position)
                    position, left = position + count, left[count:]
            if is_whole:
                os.fchmod(descriptor, self._index.modes[piece.file])
        finally:
            os.close(descriptor)

    def _open_folder(self, name: str) -> int:
        assert self._root is not None
        if self._descriptor < 0 or name != self._folder:
            descriptor = os.open(self._root / name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            if self._descriptor >= 0:
                os.close(self._descriptor)
            self._folder, self._descriptor = name, descriptor
        return self._descriptor


@contextlib.contextmanager
def _errors(target: Path) -> Iterator[None]:
    try:
        yield
    except LetheError:
        raise
    except OSError as error:
        raise InputError(f"unpacking into {target} failed: {error.strerror} ({error.filename or target})") from error


def _clear(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _group_readable(mode: int) -> int:
    return (mode | GROUP_READABLE) & GROUP_MODES


def _as_sealed(mode: int) -> int:
    return mode
