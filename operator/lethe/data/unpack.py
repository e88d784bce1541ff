"""Unpacks a sealed dataset into files: all of them, or none.

1. Files are written below a temporary folder and moved into place when the last one is verified. On any error nothing
   is left: no partial plaintext.
2. `unpack` is for a pod: the target is a memory volume of its own, what an earlier attempt left is removed, and files
   are readable by the volume's group, as the training container may run as another user.
3. `unseal` is for the owner's machine: the target must be new or empty, and files get the modes that they had.
4. Names come from the index, which refuses absolute names and `..`; nothing is ever opened through a link, because the
   temporary folder is new and private while it is filled.
"""

import contextlib
import os
import shutil
import tempfile
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from lethe.data.access import Access
from lethe.data.objects import iterate_records, sealed_piece, verify_fill
from lethe.data.pool import choose_workers, run_tasks
from lethe.data.seal import Progress
from lethe.formats.index import Index, ObjectEntry
from lethe.formats.layout import Piece, sealed_size
from lethe.model.dataset import DatasetSource
from lethe.model.errors import InputError, LetheError

PAGE_BYTES = 4096
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
    record_bits: int
    root: Path | None
    """None: verify only."""


@dataclass(frozen=True, slots=True)
class _Part:
    name: str
    mode: int
    piece: Piece
    is_whole: bool


@dataclass(frozen=True, slots=True)
class _Task:
    entry: ObjectEntry
    parts: tuple[_Part, ...]


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
    folders = sorted({parent for name in index.names for parent in Path(name).parents} - {Path(".")})
    for folder in folders:
        (root / folder).mkdir(mode=folder_mode)
    index = replace(index, modes=array("H", [mode_of(mode) for mode in index.modes]))
    split = [file for file, size in enumerate(index.sizes) if not _is_whole(index, file, size)]
    for file in split:
        with _created(root / index.names[file], PRIVATE) as descriptor:
            os.ftruncate(descriptor, index.sizes[file])
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
    tasks = [
        _Task(
            entry,
            tuple(
                _Part(index.names[piece.file], index.modes[piece.file], piece, piece.size == index.sizes[piece.file])
                for piece in pieces
            ),
        )
        for entry, pieces in zip(index.objects, index.pieces_by_object(), strict=True)
    ]
    state = _State(access, index.record_bits, root)
    if progress:
        progress(Progress(0, total, len(index)))
    for size in run_tasks(_open_object, state, tasks, workers or choose_workers(len(tasks), total)):
        done += size
        if progress:
            progress(Progress(done, total, len(index)))
    return Unpacked(len(index), total)


def _open_object(state: _State, task: _Task) -> int:
    cipher, data = state.access.fetch(task.entry, state.record_bits)
    record_size = 1 << state.record_bits
    end = 0
    for part in task.parts:
        sealed = sealed_piece(data, part.piece, record_size)
        records = iterate_records(cipher, task.entry, part.piece, sealed, record_size)
        if state.root is None:
            for _ in records:
                pass
        else:
            _write(state.root / part.name, part, records)
        end = part.piece.offset + sealed_size(part.piece.size, record_size)
    verify_fill(cipher, task.entry, data, end, record_size)
    return sum(part.piece.size for part in task.parts)


def _write(path: Path, part: _Part, records: Iterator[bytes]) -> None:
    with _created(path, PRIVATE) if part.is_whole else _opened(path) as descriptor:
        position = part.piece.start
        for record in records:
            view = memoryview(record)
            while view:
                count = os.pwrite(descriptor, view, position)
                position, view = position + count, view[count:]
        if part.is_whole:
            os.fchmod(descriptor, part.mode)


@contextlib.contextmanager
def _created(path: Path, mode: int) -> Iterator[int]:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


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


def _is_whole(index: Index, file: int, size: int) -> bool:
    return next(index.pieces(file))[1].size == size


def _group_readable(mode: int) -> int:
    return (mode | GROUP_READABLE) & GROUP_MODES


def _as_sealed(mode: int) -> int:
    return mode
