"""Seals one data object: what each process of a sealing run does.

1. The plan (which bytes of which file lie where) follows from names and sizes alone. A file that is another than the
   scan found is an error, never a mixture.
2. Storage that takes an object only whole has it collected in memory; so a run holds at most as many objects as it has
   processes.
"""

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from lethe.crypto.derive import sha256
from lethe.data.access import Place
from lethe.data.objects import ObjectWriter
from lethe.data.tree import SourceFile, printable
from lethe.formats.layout import ObjectPlan, record_sizes
from lethe.model.errors import InputError


@dataclass(frozen=True)
class SealState:
    """What every process needs to seal objects."""

    root: Path
    place: Place
    dek: bytes = field(repr=False)
    dataset_id: bytes
    epoch: int
    record_bits: int


@dataclass(frozen=True, slots=True)
class Part:
    """The part of a file that lies in one object."""

    file: SourceFile
    start: int
    size: int


@dataclass(frozen=True, slots=True)
class SealTask:
    """One object to be sealed."""

    number: int
    object_id: str
    salt: bytes
    length: int
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class SealedObject:
    """An object that is complete on storage."""

    number: int
    commitment: bytes
    plain_bytes: int


def parts_of(plan: ObjectPlan, files: tuple[SourceFile, ...]) -> tuple[Part, ...]:
    """Return what an object is made from."""
    return tuple(Part(files[piece.file], piece.start, piece.size) for piece in plan.pieces)


def content_digest(parts: tuple[Part, ...], record_bits: int, length: int) -> bytes:
    """Return a digest that is another when a file, a version of it or its place in the object is."""
    rows = [(part.file.name, part.file.version, part.start, part.size) for part in parts]
    return sha256(msgspec.msgpack.encode((record_bits, length, rows)))


def seal_object(state: SealState, task: SealTask) -> SealedObject:
    """Seal an object and upload it."""
    with state.place.store.create(task.object_id, task.length) as write:
        writer = ObjectWriter(
            write,
            state.dek,
            dataset_id=state.dataset_id,
            object_id=bytes.fromhex(task.object_id),
            epoch=state.epoch,
            record_bits=state.record_bits,
            salt=task.salt,
            length=task.length,
        )
        record_size = 1 << state.record_bits
        buffer = memoryview(bytearray(record_size))
        for part in task.parts:
            _seal_part(state.root, part, writer, buffer, record_size)
        writer.finish()
    return SealedObject(task.number, writer.commitment, sum(part.size for part in task.parts))


def _seal_part(root: Path, part: Part, writer: ObjectWriter, buffer: memoryview, record_size: int) -> None:
    try:
        descriptor = os.open(f"{root}/{part.file.name}", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise InputError(f"{printable(part.file.name)} cannot be read: {error.strerror}") from error
    try:
        _check_unchanged(descriptor, part.file)
        position = part.start
        for size in record_sizes(part.size, record_size):
            _read_exactly(descriptor, buffer[:size], position, part.file)
            writer.append(buffer[:size])
            position += size
        _check_unchanged(descriptor, part.file)
    finally:
        os.close(descriptor)


def _read_exactly(descriptor: int, buffer: memoryview, position: int, file: SourceFile) -> None:
    filled = 0
    while filled < len(buffer):
        count = os.preadv(descriptor, [buffer[filled:]], position + filled)
        if count == 0:
            raise InputError(f"{printable(file.name)} became shorter while it was sealed: seal again")
        filled += count


def _check_unchanged(descriptor: int, file: SourceFile) -> None:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or (status.st_size, status.st_mtime_ns, status.st_ctime_ns) != file.version:
        raise InputError(
            f"{printable(file.name)} changed while the folder was sealed: seal again when nothing writes to it"
        )
