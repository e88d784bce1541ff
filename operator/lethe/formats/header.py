"""The 128-byte header that every object of a dataset begins with, and the keys that follow from it.

Big-endian:

| offset | bytes | field |
|---|---|---|
| 0 | 8 | magic, its last byte is the major version |
| 8 | 1 | suite: 1 = AES-256-GCM, HKDF-SHA-512 |
| 9 | 1 | kind: 1 data, 2 index, 3 stream |
| 10 | 1 | log2 of the record size |
| 11 | 1 | zero |
| 12 | 4 | key epoch, from 1 |
| 16 | 16 | dataset id |
| 32 | 16 | object id |
| 48 | 32 | salt, random at each write |
| 80 | 32 | key commitment |
| 112 | 16 | zero |

1. `key(32) || nonce0(12) || commitment(32) = HKDF-Expand(SHA-512, DEK, "lethe/v1" 00 || header[0:80])`. So the whole
   context of a record is in its key, and records need no associated data.
2. The commitment is compared, in constant time, before anything is decrypted: a ciphertext belongs to one key only.
3. A reader says what it expects (kind, dataset, object); another object under the same name is refused by name.
4. Anything unknown is refused: magic, suite, kind, record size, a byte that must be zero. Nothing is negotiated.

Specification of the whole format: docs/spec/dataset-format.md.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from lethe.crypto.aead import KEY_BYTES, NONCE_BYTES, RecordCipher
from lethe.crypto.derive import hkdf_expand, is_equal
from lethe.model.errors import CommitmentError, HeaderError, IntegrityError

MAGIC: Final = b"lethe\x00\x00\x01"
HEADER_BYTES: Final = 128
ID_BYTES: Final = 16
SALT_BYTES: Final = 32
COMMITMENT_BYTES: Final = 32
SUITE: Final = 1
MIN_RECORD_BITS: Final = 12
DEFAULT_RECORD_BITS: Final = 16
MAX_RECORD_BITS: Final = 24
MAX_EPOCH: Final = 2**32 - 1

_DERIVED_BYTES: Final = 80
_LABEL: Final = b"lethe/v1\x00"
_LAYOUT: Final = struct.Struct(">8sBBBBI16s16s32s32s16s")


class Kind(IntEnum):
    """What an object holds, and so which rule its records follow."""

    DATA = 1
    INDEX = 2
    STREAM = 3


@dataclass(frozen=True, slots=True)
class Header:
    """A header that has been checked for form; whether it is genuine only `open_header` says."""

    kind: Kind
    record_bits: int
    epoch: int
    dataset_id: bytes
    object_id: bytes
    salt: bytes
    commitment: bytes

    def encode(self) -> bytes:
        """Return the 128 bytes."""
        return _LAYOUT.pack(
            MAGIC,
            SUITE,
            self.kind,
            self.record_bits,
            0,
            self.epoch,
            self.dataset_id,
            self.object_id,
            self.salt,
            self.commitment,
            bytes(16),
        )


def build_header(
    dek: bytes, *, kind: Kind, record_bits: int, epoch: int, dataset_id: bytes, object_id: bytes, salt: bytes
) -> tuple[Header, RecordCipher]:
    """Return the header of a new object and the cipher for its records. `salt` must be fresh at each write."""
    if not MIN_RECORD_BITS <= record_bits <= MAX_RECORD_BITS:
        raise HeaderError(
            f"record size 2^{record_bits} is not allowed, expected 2^{MIN_RECORD_BITS} to 2^{MAX_RECORD_BITS}"
        )
    if not 1 <= epoch <= MAX_EPOCH:
        raise HeaderError(f"key epoch {epoch} is not allowed, expected 1 to {MAX_EPOCH}")
    for name, value, length in (
        ("dataset id", dataset_id, ID_BYTES),
        ("object id", object_id, ID_BYTES),
        ("salt", salt, SALT_BYTES),
    ):
        if len(value) != length:
            raise HeaderError(f"a {name} has {length} bytes, found {len(value)}")
    draft = Header(kind, record_bits, epoch, dataset_id, object_id, salt, bytes(COMMITMENT_BYTES))
    cipher, commitment = _derive(dek, draft.encode())
    return Header(kind, record_bits, epoch, dataset_id, object_id, salt, commitment), cipher


def parse_header(data: bytes | memoryview) -> Header:
    """Read the form of a header; raise HeaderError. The values are not authentic yet."""
    if len(data) < HEADER_BYTES:
        raise HeaderError(f"an object has at least {HEADER_BYTES} bytes, found {len(data)}: it was cut off")
    magic, suite, kind, bits, zero, epoch, dataset_id, object_id, salt, commitment, reserved = _LAYOUT.unpack_from(data)
    if magic != MAGIC:
        raise HeaderError(f"this is not an object of dataset format 1: it begins with {magic.hex()}, not {MAGIC.hex()}")
    if suite != SUITE:
        raise HeaderError(f"unknown suite {suite}, expected {SUITE}: a newer version of Lethe may have written this")
    if kind not in (Kind.DATA, Kind.INDEX, Kind.STREAM):
        raise HeaderError(f"unknown object kind {kind}, expected 1 (data), 2 (index) or 3 (stream)")
    if not MIN_RECORD_BITS <= bits <= MAX_RECORD_BITS:
        raise HeaderError(f"record size 2^{bits} is refused, expected 2^{MIN_RECORD_BITS} to 2^{MAX_RECORD_BITS}")
    if epoch == 0:
        raise HeaderError("key epoch 0 is refused: epochs count from 1")
    if zero or any(reserved):
        raise HeaderError("a reserved byte of the header is not zero: a newer version of Lethe may have written this")
    return Header(Kind(kind), bits, epoch, dataset_id, object_id, salt, commitment)


def open_header(
    data: bytes | memoryview, dek: bytes, *, kind: Kind, dataset_id: bytes, object_id: bytes
) -> tuple[Header, RecordCipher]:
    """Return the genuine header and the cipher for its records.

    Raise HeaderError for its form, IntegrityError for another object than expected, CommitmentError for another key.
    """
    header = parse_header(data)
    name = object_id.hex()
    if header.kind is not kind:
        raise IntegrityError(f"object {name} is of kind {header.kind.name}, expected {kind.name}")
    if header.dataset_id != dataset_id:
        raise IntegrityError(
            f"object {name} belongs to dataset {header.dataset_id.hex()}, expected {dataset_id.hex()}: mixed"
        )
    if header.object_id != object_id:
        raise IntegrityError(f"under the name {name} lies object {header.object_id.hex()}: objects were swapped")
    cipher, commitment = _derive(dek, bytes(data[:HEADER_BYTES]))
    if not is_equal(commitment, header.commitment):
        raise CommitmentError(
            f"object {name} was not written with the dataset's key of epoch {header.epoch}, or its header was changed"
        )
    return header, cipher


def _derive(dek: bytes, header: bytes) -> tuple[RecordCipher, bytes]:
    if len(dek) != KEY_BYTES:
        raise CommitmentError(f"a dataset key has {KEY_BYTES} bytes, found {len(dek)}")
    okm = hkdf_expand(dek, _LABEL + header[:_DERIVED_BYTES], KEY_BYTES + NONCE_BYTES + COMMITMENT_BYTES)
    nonce_end = KEY_BYTES + NONCE_BYTES
    return RecordCipher(okm[:KEY_BYTES], okm[KEY_BYTES:nonce_end]), okm[nonce_end:]
