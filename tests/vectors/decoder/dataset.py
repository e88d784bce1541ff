"""A second reader of the dataset format, written from docs/spec/dataset-format.md alone.

It imports nothing of the package under test: only the standard library, and AES-GCM, X25519 and ML-KEM-768 from
`cryptography`. HKDF, HPKE's key schedule and the layout are written out here, so that an error in the specification,
or in what a library calls a suite, shows as a disagreement. It is plain rather than quick: whole objects lie in memory.
"""

import binascii
import hashlib
import hmac
from dataclasses import dataclass, replace
from itertools import pairwise

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tests.vectors.decoder.index import Entry, Index, Piece, all_pieces, parse_index
from tests.vectors.decoder.keyring import open_keyring, parse_keyring, read_private_key
from tests.vectors.decoder.primitives import (
    AuthenticationError,
    Bytes,
    CommitmentError,
    HeaderError,
    InputError,
    IntegrityError,
    ObjectMissingError,
    UnwrapError,
    demand,
    expand,
)

MAGIC = bytes.fromhex("6c65746865000001")
DATA, INDEX, STREAM = 1, 2, 3


@dataclass(frozen=True)
class Header:
    kind: int
    record_bits: int
    epoch: int
    dataset: bytes
    object: bytes
    commitment: bytes
    derived_from: bytes


def parse_header(raw: bytes) -> Header:
    data = Bytes(raw, HeaderError)
    demand(data.take(8) == MAGIC, HeaderError, "magic (R7)")
    suite, kind, bits, zero, epoch = (data.number(width) for width in (1, 1, 1, 1, 4))
    dataset, name, _salt, commitment, reserved = (data.take(width) for width in (16, 16, 32, 32, 16))
    demand(suite == 1, HeaderError, "suite (R7)")
    demand(kind in (1, 2, 3), HeaderError, "kind (R7)")
    demand(12 <= bits <= 24, HeaderError, "record bits (R7)")
    demand(epoch > 0, HeaderError, "epoch (R7)")
    demand(zero == 0 and reserved == bytes(16), HeaderError, "reserved byte (R7)")
    return Header(kind, bits, epoch, dataset, name, commitment, raw[:80])


class Records:
    """The records of one object, after its header was checked."""

    def __init__(self, header: Header, dek: bytes, *, kind: int, dataset: bytes, name: bytes) -> None:
        demand(
            (header.kind, header.dataset, header.object) == (kind, dataset, name), IntegrityError, "another object (R9)"
        )
        derived = expand("sha512", dek, b"lethe/v1\x00" + header.derived_from, 76)
        demand(hmac.compare_digest(derived[44:], header.commitment), CommitmentError, "commitment (R10)")
        self.aead, self.nonce0 = AESGCM(derived[:32]), int.from_bytes(derived[32:44], "big")

    def open(self, number: int, record: bytes) -> bytes:
        try:
            return self.aead.decrypt((self.nonce0 ^ number).to_bytes(12, "big"), record, b"")
        except InvalidTag:
            raise AuthenticationError(f"record {number} (R12)") from None


def open_stream(records: Records, size: int, sealed: bytes) -> bytes:
    full, rest = divmod(len(sealed), size + 16)
    demand(rest >= 16, IntegrityError, "no short record at the end (R11)")
    bounds = [*range(0, full * (size + 16) + 1, size + 16), len(sealed)]
    return b"".join(records.open(number, sealed[start:end]) for number, (start, end) in enumerate(pairwise(bounds)))


@dataclass(frozen=True)
class Dataset:
    """What a reader is given, and what storage gives it. Without a pin, index and sha256 are empty."""

    dataset: str
    index: str
    sha256: str
    private_key: str
    objects: dict[str, bytes]


def fetch(dataset: Dataset, name: str) -> bytes:
    demand(name in dataset.objects, ObjectMissingError, f"{name} (R22)")
    return dataset.objects[name]


def check_form(dataset: Dataset) -> None:
    pin = ((dataset.index, 16), (dataset.sha256, 32)) if dataset.index or dataset.sha256 else ()
    for text, length in ((dataset.dataset, 16), *pin):
        try:
            good = binascii.unhexlify(text).hex() == text and len(text) == 2 * length
        except ValueError:
            good = False
        demand(good, InputError, "id or hash (R1)")


def read_keys(dataset: Dataset) -> dict[int, bytes]:
    raw = fetch(dataset, "keyring")
    demand(len(raw) <= 1 << 20, IntegrityError, "keyring too long (R3)")
    keyring = parse_keyring(raw)
    demand(keyring.dataset.hex() == dataset.dataset, IntegrityError, "keyring of another dataset (R3)")
    return open_keyring(keyring, read_private_key(dataset.private_key))


def newest(dataset: Dataset, deks: dict[int, bytes]) -> Dataset:
    """Return the dataset with the pin that its head names."""
    raw = fetch(dataset, "head")
    demand(len(raw) <= 192, IntegrityError, "head too long (R24)")
    header = parse_header(raw)
    demand(header.epoch in deks, UnwrapError, "key of the head (R8)")
    records = Records(header, deks[header.epoch], kind=STREAM, dataset=bytes.fromhex(dataset.dataset), name=bytes(16))
    pin = open_stream(records, 1 << header.record_bits, raw[128:])
    demand(len(pin) == 48, IntegrityError, "length of the head's content (R24)")
    return replace(dataset, index=pin[:16].hex(), sha256=pin[16:].hex())


def read_index_plaintext(dataset: Dataset, deks: dict[int, bytes]) -> bytes:
    raw = fetch(dataset, dataset.index)
    pinned = bytes.fromhex(dataset.sha256)
    demand(len(raw) <= 1 << 31, IntegrityError, "index too long (R6)")
    demand(hmac.compare_digest(hashlib.sha256(raw).digest(), pinned), IntegrityError, "pin (R6)")
    header = parse_header(raw)
    demand(header.epoch in deks, UnwrapError, "key of the index (R8)")
    ids = {"dataset": bytes.fromhex(dataset.dataset), "name": bytes.fromhex(dataset.index)}
    records = Records(header, deks[header.epoch], kind=INDEX, **ids)
    return open_stream(records, 1 << header.record_bits, raw[128:])


def read_object(dataset: Dataset, index: Index, entry: Entry, pieces: list[Piece], dek: bytes | None) -> list[bytes]:
    """Return the plaintext of each piece of one data object, all of it verified."""
    raw = fetch(dataset, entry.id.hex())
    demand(len(raw) == entry.length, IntegrityError, "length of an object (R18)")
    if dek is None:
        raise UnwrapError("key of an object (R8)")
    header = parse_header(raw)
    records = Records(header, dek, kind=DATA, dataset=bytes.fromhex(dataset.dataset), name=entry.id)
    demand(hmac.compare_digest(header.commitment, entry.commitment), CommitmentError, "another version (R19)")
    same = (header.epoch, 1 << header.record_bits) == (entry.epoch, index.record_size)
    demand(same, IntegrityError, "epoch or record bits (R20)")
    data, number, parts = Bytes(raw, IntegrityError), 0, []
    data.take(128)
    for piece in pieces:
        part = b""
        for _ in range(piece.records):
            part += records.open(number, data.take(min(index.record_size, piece.size - len(part)) + 16))
            number += 1
        parts.append(part)
    for length in fill_lengths(len(raw) - data.at, index.record_size + 16):
        fill = records.open(number, data.take(length))
        demand(not any(fill), IntegrityError, "fill (R21)")
        number += 1
    return parts


def fill_lengths(room: int, full: int) -> list[int]:
    demand(room == 0 or room >= 16, IntegrityError, "stray bytes (R21)")
    lengths = [full] * (room // full)
    rest = room % full
    if 0 < rest < 16:
        lengths[-1] -= 16
        rest += 16
    return lengths + [rest] * (rest > 0)


def decode(dataset: Dataset) -> dict[str, tuple[int, bytes]]:
    """Return mode and content of every file, or raise one DecodeError."""
    check_form(dataset)
    deks = read_keys(dataset)
    return decode_with(dataset if dataset.index else newest(dataset, deks), deks)


def decode_with(dataset: Dataset, deks: dict[int, bytes]) -> dict[str, tuple[int, bytes]]:
    """Do the same with keys that are at hand."""
    index = parse_index(read_index_plaintext(dataset, deks))
    contents = [b""] * len(index.files)
    for entry, pieces in zip(index.objects, all_pieces(index), strict=True):
        parts = read_object(dataset, index, entry, pieces, deks.get(entry.epoch))
        for piece, part in zip(pieces, parts, strict=True):
            contents[piece.file] += part
    return {file.name: (file.mode, content) for file, content in zip(index.files, contents, strict=True)}
