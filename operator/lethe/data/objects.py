"""One data object: written record by record, or opened and read.

1. One process writes an object, and writes it once: a writer that was copied by `fork` refuses, because two processes
   that went on with the same key and record numbers would reuse nonces.
2. An object is genuine when its header is (kind, dataset, name, key), and its commitment, epoch and record size are
   those that the index pins. An older version of it has another salt, and so another commitment.
3. Nothing that was read is handed out before its tag was checked.
"""

import os
from collections.abc import Callable

from lethe.crypto.aead import TAG_BYTES, RecordCipher
from lethe.crypto.derive import is_equal
from lethe.formats.header import HEADER_BYTES, Kind, build_header, open_header
from lethe.formats.index import ObjectEntry
from lethe.formats.layout import Piece, fill_sizes
from lethe.model.errors import AuthenticationError, CommitmentError, CryptoError, IntegrityError


class ObjectWriter:
    """Seals the records of one data object, and hands each on. `write` has no use for it when it returns."""

    def __init__(
        self,
        write: Callable[[memoryview], object],
        dek: bytes,
        *,
        dataset_id: bytes,
        object_id: bytes,
        epoch: int,
        record_bits: int,
        salt: bytes,
        length: int,
    ) -> None:
        header, self._cipher = build_header(
            dek,
            kind=Kind.DATA,
            record_bits=record_bits,
            epoch=epoch,
            dataset_id=dataset_id,
            object_id=object_id,
            salt=salt,
        )
        self.commitment = header.commitment
        self._write = write
        self._length = length
        self._record_size = 1 << record_bits
        self._buffer = memoryview(bytearray(self._record_size + TAG_BYTES))
        write(memoryview(header.encode()))
        self._end = HEADER_BYTES
        self.records = 0
        self._pid = os.getpid()

    def append(self, plaintext: bytes | memoryview) -> None:
        """Seal one record."""
        if os.getpid() != self._pid:
            raise CryptoError("this object's writer was copied by fork: begin a new object, with a new salt")
        sealed = self._buffer[: len(plaintext) + TAG_BYTES]
        if self._end + len(sealed) > self._length:
            raise IntegrityError(f"a record does not fit: the object was planned with {self._length} bytes")
        self._cipher.seal_into(self.records, plaintext, sealed)
        self._write(sealed)
        self._end += len(sealed)
        self.records += 1

    def finish(self) -> None:
        """Seal the fill: the object is as long as it was planned."""
        for size in fill_sizes(self._length - self._end, self._record_size):
            self.append(bytes(size))


def open_object(
    header: bytes | memoryview, entry: ObjectEntry, dek: bytes, *, dataset_id: str, record_bits: int
) -> RecordCipher:
    """Return the cipher of an object whose header is genuine and pinned; raise IntegrityError, CommitmentError."""
    found, cipher = open_header(
        header, dek, kind=Kind.DATA, dataset_id=bytes.fromhex(dataset_id), object_id=bytes.fromhex(entry.id)
    )
    if not is_equal(found.commitment, entry.commitment):
        raise CommitmentError(f"object {entry.id} is another version than the one that the index pins")
    if (found.epoch, found.record_bits) != (entry.epoch, record_bits):
        raise IntegrityError(f"object {entry.id} has another key epoch or record size than the index says")
    return cipher


def open_record(cipher: RecordCipher, entry: ObjectEntry, number: int, record: memoryview) -> bytes:
    """Return the plaintext of one record."""
    try:
        return cipher.open(number, record)
    except AuthenticationError as error:
        raise AuthenticationError(f"object {entry.id}: {error}") from error


def open_into(
    cipher: RecordCipher, entry: ObjectEntry, number: int, sealed: memoryview, out: memoryview, record_size: int
) -> None:
    """Write the plaintext of consecutive records into `out`, which has its size.

    `sealed` is exactly these records, the first of which is `number`. A record that is not genuine is wiped from `out`.
    """
    try:
        if len(out) <= record_size:
            cipher.open_into(number, sealed, out)
            return
        full, begin = record_size + TAG_BYTES, 0
        for start in range(0, len(out), record_size):
            cipher.open_into(number, sealed[begin : begin + full], out[start : start + record_size])
            number, begin = number + 1, begin + full
    except AuthenticationError as error:
        raise AuthenticationError(f"object {entry.id}: {error}") from error


def open_range_into(
    cipher: RecordCipher,
    entry: ObjectEntry,
    part: Piece,
    sealed: memoryview,
    skipped: int,
    out: memoryview,
    record_size: int,
) -> None:
    """Write the plaintext of consecutive records, from the byte `skipped` of the first one, into `out`.

    Whole records are opened straight into `out`; the first and the last, if only a part of them is wanted, on the way.
    """
    number, begin = part.record, 0
    for start in range(0, max(part.size, 1), record_size):
        size = min(record_size, part.size - start)
        record = sealed[begin : begin + size + TAG_BYTES]
        wanted = out[max(start - skipped, 0) : start + size - skipped]
        if len(wanted) == size:
            open_into(cipher, entry, number, record, wanted, record_size)
        else:
            first = max(skipped - start, 0)
            wanted[:] = open_record(cipher, entry, number, record)[first : first + len(wanted)]
        number, begin = number + 1, begin + size + TAG_BYTES


def verify_fill(cipher: RecordCipher, entry: ObjectEntry, data: memoryview, end: int, record_size: int) -> None:
    """Check what follows the last content record, which ends at `end`."""
    room = len(data) - end
    if 0 < room < TAG_BYTES:
        raise IntegrityError(f"object {entry.id} has {room} bytes after its last record, which no writer leaves")
    for number, size in enumerate(fill_sizes(room, record_size), start=entry.records):
        if open_record(cipher, entry, number, data[end : end + size + TAG_BYTES]).count(0) != size:
            raise IntegrityError(f"object {entry.id} has something other than zeros in its fill")
        end += size + TAG_BYTES
