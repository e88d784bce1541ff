"""One data object in memory: written record by record, or opened and read.

1. One process writes an object, and writes it once: a writer that was copied by `fork` refuses, because two processes
   that went on with the same key and record numbers would reuse nonces.
2. An object is genuine when its header is (kind, dataset, name, key), and its commitment, epoch and record size are
   those that the index pins. An older version of it has another salt, and so another commitment.
3. Nothing that was read is handed out before its tag was checked.
"""

import os

from lethe.crypto.aead import TAG_BYTES, RecordCipher
from lethe.crypto.derive import is_equal
from lethe.formats.header import HEADER_BYTES, Kind, build_header, open_header
from lethe.formats.index import ObjectEntry
from lethe.formats.layout import fill_sizes
from lethe.model.errors import AuthenticationError, CommitmentError, CryptoError, IntegrityError


class ObjectWriter:
    """Seals the records of one data object into one buffer."""

    def __init__(
        self, dek: bytes, *, dataset_id: bytes, object_id: bytes, epoch: int, record_bits: int, salt: bytes, length: int
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
        self._buffer = bytearray(length)
        self._view = memoryview(self._buffer)
        self._view[:HEADER_BYTES] = header.encode()
        self._end = HEADER_BYTES
        self._record_size = 1 << record_bits
        self.records = 0
        self._pid = os.getpid()

    def append(self, plaintext: bytes | memoryview) -> None:
        """Seal one record."""
        if os.getpid() != self._pid:
            raise CryptoError("this object's writer was copied by fork: begin a new object, with a new salt")
        end = self._end + len(plaintext) + TAG_BYTES
        if end > len(self._buffer):
            raise IntegrityError(f"a record does not fit: the object was planned with {len(self._buffer)} bytes")
        self._cipher.seal_into(self.records, plaintext, self._view[self._end : end])
        self._end = end
        self.records += 1

    def finish(self) -> bytearray:
        """Seal the fill and return the whole object."""
        for size in fill_sizes(len(self._buffer) - self._end, self._record_size):
            self.append(bytes(size))
        self._view.release()
        return self._buffer


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


def verify_fill(cipher: RecordCipher, entry: ObjectEntry, data: memoryview, end: int, record_size: int) -> None:
    """Check what follows the last content record, which ends at `end`."""
    room = len(data) - end
    if 0 < room < TAG_BYTES:
        raise IntegrityError(f"object {entry.id} has {room} bytes after its last record, which no writer leaves")
    for number, size in enumerate(fill_sizes(room, record_size), start=entry.records):
        if open_record(cipher, entry, number, data[end : end + size + TAG_BYTES]).count(0) != size:
            raise IntegrityError(f"object {entry.id} has something other than zeros in its fill")
        end += size + TAG_BYTES
