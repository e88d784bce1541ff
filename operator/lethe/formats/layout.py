"""Where the records of each file lie in the data objects of a dataset.

R is the record size; a sealed record has 16 bytes more than its plaintext.

1. A file of up to R bytes is one record, an empty file an empty record. A larger one is full records and a tail.
2. Files follow one another, in the order of the index, from byte 128 of an object. An object has `object_bytes` bytes;
   only the last one is shorter, with a Padmé length.
3. A record never spans two objects, a file may: when no further full record fits, the file goes on with record 0 of the
   next object. Every piece but a file's last consists of full records.
4. What is left of an object after its last content record is *fill*: sealed records of zeros with the next record
   numbers, full ones and a shorter last one. So every byte of an object is authentic, and fill looks like content.
   Less than 16 bytes cannot be a record: a writer never leaves 1 to 15 bytes.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from lethe.crypto.aead import TAG_BYTES
from lethe.formats.header import HEADER_BYTES, MAX_RECORD_BITS, MIN_RECORD_BITS
from lethe.formats.padding import padme
from lethe.model.errors import InputError

DEFAULT_OBJECT_BYTES: Final = 64 << 20
MAX_OBJECT_BYTES: Final = 1 << 30


@dataclass(frozen=True, slots=True)
class Piece:
    """The part of one file that lies in one object."""

    file: int
    """Number of the file in the index."""
    start: int
    """First byte of the file."""
    size: int
    """Plaintext bytes."""
    offset: int
    """Where its first record begins in the object."""
    record: int
    """Number of its first record."""


@dataclass(frozen=True, slots=True)
class ObjectPlan:
    """One data object, before it has an id and keys."""

    pieces: tuple[Piece, ...]
    records: int
    """Records of content, fill not counted."""
    length: int
    """Bytes of the whole object."""


def record_count(size: int, record_size: int) -> int:
    """Return how many records a file, or a piece of one, has."""
    return max(1, -(-size // record_size))


def sealed_size(size: int, record_size: int) -> int:
    """Return how many bytes the records of a file, or of a piece of one, have."""
    return size + TAG_BYTES * record_count(size, record_size)


def record_sizes(size: int, record_size: int) -> Iterable[int]:
    """Yield the plaintext length of each record."""
    for start in range(0, size, record_size):
        yield min(record_size, size - start)
    if size == 0:
        yield 0


def clip(piece: Piece, start: int, end: int, record_size: int) -> Piece | None:
    """Return the records of a piece that hold the file's bytes from `start` to before `end`, None when none does."""
    begin, stop = max(start - piece.start, 0), min(end - piece.start, piece.size)
    if begin >= stop:
        return None
    first = begin // record_size
    skipped = first * record_size
    size = min(record_count(stop, record_size) * record_size, piece.size) - skipped
    offset = piece.offset + first * (record_size + TAG_BYTES)
    return Piece(piece.file, piece.start + skipped, size, offset, piece.record + first)


def fill_sizes(room: int, record_size: int) -> list[int]:
    """Return the plaintext length of each fill record that together take exactly `room` bytes; room is 0 or ≥ 16."""
    full = record_size + TAG_BYTES
    count, rest = divmod(room, full)
    sealed = [full] * count
    if 0 < rest < TAG_BYTES:
        sealed[-1] -= TAG_BYTES
        rest += TAG_BYTES
    if rest:
        sealed.append(rest)
    return [size - TAG_BYTES for size in sealed]


def plan_objects(
    sizes: Sequence[int], record_bits: int, object_bytes: int = DEFAULT_OBJECT_BYTES
) -> tuple[ObjectPlan, ...]:
    """Lay files of these sizes, in this order, into objects."""
    if not MIN_RECORD_BITS <= record_bits <= MAX_RECORD_BITS:
        raise InputError(f"record size 2^{record_bits} is refused: use 2^{MIN_RECORD_BITS} to 2^{MAX_RECORD_BITS}")
    smallest = HEADER_BYTES + (1 << record_bits) + 2 * TAG_BYTES
    if not smallest <= object_bytes <= MAX_OBJECT_BYTES:
        raise InputError(f"objects of {object_bytes} bytes are refused: use {smallest} to {MAX_OBJECT_BYTES}")
    planner = _Planner(1 << record_bits, object_bytes)
    for file, size in enumerate(sizes):
        planner.add(file, size)
    return planner.finish()


class _Planner:
    def __init__(self, record_size: int, object_bytes: int) -> None:
        self._record_size = record_size
        self._object_bytes = object_bytes
        self._plans: list[ObjectPlan] = []
        self._pieces: list[Piece] = []
        self._end = HEADER_BYTES
        self._records = 0

    def add(self, file: int, size: int) -> None:
        start = 0
        while True:
            rest = size - start
            if self._fits(sealed_size(rest, self._record_size)):
                self._place(file, start, rest)
                return
            count = min(record_count(rest, self._record_size) - 1, self._full_records_that_fit())
            if count:
                self._place(file, start, count * self._record_size)
                start += count * self._record_size
            self._close(self._object_bytes)

    def finish(self) -> tuple[ObjectPlan, ...]:
        if self._pieces:
            length = padme(self._end)
            if 0 < length - self._end < TAG_BYTES:
                length = padme(self._end + TAG_BYTES)
            self._close(min(length, self._object_bytes))
        return tuple(self._plans)

    def _fits(self, sealed: int) -> bool:
        return _is_room(self._object_bytes - self._end - sealed)

    def _full_records_that_fit(self) -> int:
        full = self._record_size + TAG_BYTES
        count, rest = divmod(self._object_bytes - self._end, full)
        return count if _is_room(rest) else max(0, count - 1)

    def _place(self, file: int, start: int, size: int) -> None:
        self._pieces.append(Piece(file, start, size, self._end, self._records))
        self._end += sealed_size(size, self._record_size)
        self._records += record_count(size, self._record_size)

    def _close(self, length: int) -> None:
        self._plans.append(ObjectPlan(tuple(self._pieces), self._records, length))
        self._pieces, self._end, self._records = [], HEADER_BYTES, 0


def _is_room(rest: int) -> bool:
    return rest == 0 or rest >= TAG_BYTES
