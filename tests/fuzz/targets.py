"""What each fuzz target does with some bytes.

A target returns when all is well. It lets an exception through, or raises Disagreement, when

1. anything but an error of `lethe.model.errors` comes out of the package,
2. the package and the second decoder of tests/vectors, written from the specification, do not agree: one takes what the
   other refuses, they read different values, or they name different classes of errors, or
3. what was parsed does not encode to the same bytes, where the format leaves no choice. In an index it leaves the
   padding and the compression of the names.

No target is nondeterministic, so an input that fails, fails again.
"""

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from struct import Struct
from typing import Any

from lethe.crypto.aead import RecordCipher
from lethe.crypto.derive import sha256
from lethe.formats import header, index, keyring, stream
from lethe.formats.contents import Contents
from lethe.formats.layout import Piece
from lethe.model.errors import LetheError
from lethe.model.resources import IndexPin
from tests.vectors.decoder import dataset as second_dataset
from tests.vectors.decoder import index as second_index
from tests.vectors.decoder import keyring as second_keyring
from tests.vectors.decoder.primitives import DecodeError
from tests.vectors.forge import ACME

DEK, DATASET, OBJECT, SALT = bytes(range(32)), b"d" * 16, b"o" * 16, b"s" * 32
FIXED = Struct(">QIB3sQQ")
STREAM_RECORD = 64
OBJECT_BITS = 12


class Disagreement(Exception):
    """Two readers, or a reader and a writer, do not agree."""


@dataclass(frozen=True)
class Outcome:
    """A value, or the class of an error."""

    value: Any = None
    error: str = ""


def attempt(read: Callable[[], Any]) -> Outcome:
    """Call a reader of either side."""
    try:
        return Outcome(value=read())
    except (LetheError, DecodeError) as error:
        return Outcome(error=type(error).__name__)


def agree(one: Outcome, two: Outcome) -> None:
    """Demand that both have read something, or have raised an error of the same class."""
    if one.error != two.error:
        raise Disagreement(f"the package: {one.error or 'taken'}; the second decoder: {two.error or 'taken'}")


def same(what: str, one: object, two: object) -> None:
    """Demand equal values."""
    if one != two:
        raise Disagreement(f"{what}: {one!r:.200}, and {two!r:.200}")


def fuzz_header(data: bytes) -> None:
    """Parse a header; derive its keys."""
    ours, theirs = attempt(lambda: header.parse_header(data)), attempt(lambda: second_dataset.parse_header(data))
    agree(ours, theirs)
    if ours.error:
        return
    same("the header again", ours.value.encode(), data[: header.HEADER_BYTES])
    parsed = ours.value
    expected = {"kind": parsed.kind, "dataset_id": parsed.dataset_id, "object_id": parsed.object_id}
    ids = {"kind": int(parsed.kind), "dataset": parsed.dataset_id, "name": parsed.object_id}
    agree(
        attempt(lambda: header.open_header(data, DEK, **expected)),
        attempt(lambda: second_dataset.Records(theirs.value, DEK, **ids)),
    )


def fuzz_index(data: bytes) -> None:
    """Parse an index plaintext, and find every file."""
    ours, theirs = attempt(lambda: index.parse_index(data)), attempt(lambda: second_index.parse_index(data))
    agree(ours, theirs)
    if ours.error:
        return
    found, other = ours.value, theirs.value
    for column, field in (
        (found.names, "name"),
        (found.sizes, "size"),
        (found.modes, "mode"),
        (found.object_numbers, "object"),
        (found.offsets, "offset"),
        (found.first_records, "record"),
    ):
        same(field, list(column), [getattr(file, field) for file in other.files])
    entries = [
        (bytes.fromhex(entry.id), entry.length, entry.records, entry.epoch, entry.commitment) for entry in found.objects
    ]
    same("objects", entries, [(one.id, one.length, one.records, one.epoch, one.commitment) for one in other.objects])
    again = index.encode_index(found)
    columns = FIXED.size + 64 * len(found.objects) + 22 * len(found)
    same("the index again", (again[:24], again[FIXED.size : columns]), (data[:24], data[FIXED.size : columns]))
    same("the index twice", index.parse_index(again), found)
    pieces, others = attempt(lambda: all_pieces(found)), attempt(lambda: second_index.all_pieces(other))
    agree(pieces, others)
    if not pieces.error:
        same(
            "pieces",
            [[(piece.file, piece.offset, piece.record, piece.size) for piece in one] for one in pieces.value],
            [[(piece.file, piece.offset, piece.record, piece.size) for piece in one] for one in others.value],
        )


def all_pieces(found: index.Index) -> list[list[Piece]]:
    """Return what lies in each object."""
    contents = Contents(found)
    return [list(contents.pieces(number)) for number in range(len(found.objects))]


def fuzz_index_names(data: bytes) -> None:
    """The same, the names deflated here: what a mutator changes in a name does not have to survive zlib."""
    fuzz_index(fold(data))


def fold(data: bytes) -> bytes:
    """Return an index plaintext, whose names are what follows the columns."""
    if len(data) < FIXED.size:
        return data
    files, objects, bits, zero, _, _ = FIXED.unpack_from(data)
    names_at = FIXED.size + 64 * objects + 22 * files
    names = data[names_at:]
    deflated = zlib.compress(names, 1)
    return FIXED.pack(files, objects, bits, zero, len(names), len(deflated)) + data[FIXED.size : names_at] + deflated


def unfold(plain: bytes) -> bytes:
    """Return what `fold` makes such a plaintext of; of another one what is there."""
    if len(plain) < FIXED.size:
        return plain
    files, objects, _, _, _, length = FIXED.unpack_from(plain)
    names_at = FIXED.size + 64 * objects + 22 * files
    try:
        names = zlib.decompress(plain[names_at : names_at + length])
    except (zlib.error, OverflowError):
        return plain
    return plain[:names_at] + names


def fuzz_index_object(data: bytes) -> None:
    """Open an index object, pinned as it is; an even first byte seals the rest, so that it opens."""
    raw = data[1:]
    if data[:1] and data[0] % 2 == 0:
        head, cipher = header.build_header(
            DEK,
            kind=header.Kind.INDEX,
            record_bits=OBJECT_BITS,
            epoch=1,
            dataset_id=DATASET,
            object_id=OBJECT,
            salt=SALT,
        )
        raw = head.encode() + stream.seal_stream(cipher, 1 << OBJECT_BITS, raw)
    pin = IndexPin(object=OBJECT.hex(), sha256=sha256(raw).hex())
    given = second_dataset.Dataset(DATASET.hex(), pin.object, pin.sha256, "", {pin.object: raw})
    agree(
        attempt(lambda: index.open_index(raw, pin, DATASET.hex(), {1: DEK})),
        attempt(lambda: second_index.parse_index(second_dataset.read_index_plaintext(given, {1: DEK}))),
    )


def fuzz_keyring(data: bytes) -> None:
    """Parse a keyring; open it; check its MACs."""
    ours, theirs = attempt(lambda: keyring.parse_keyring(data)), attempt(lambda: second_keyring.parse_keyring(data))
    agree(ours, theirs)
    if ours.error:
        return
    parsed, other = ours.value, theirs.value
    body = len(data) - 68 * len(parsed.macs)
    again = keyring.encode_keyring(parsed.dataset_id, parsed.stanzas, dict.fromkeys(parsed.macs, DEK))
    same("the keyring again", again[:body], data[:body])
    for epoch in parsed.epochs():
        attempt(lambda epoch=epoch: keyring.verify_keyring(parsed, epoch, DEK))
    ours = attempt(lambda: keyring.open_keyring(parsed, ACME))
    theirs = attempt(lambda: second_keyring.open_keyring(other, second_keyring.read_private_key(ACME.encode())))
    agree(ours, theirs)
    same("keys", ours.value, theirs.value)


def fuzz_stream(data: bytes) -> None:
    """Seal and open under the stream rule; cut off; open what was never sealed."""
    cipher = RecordCipher(DEK, bytes(12))
    sealed = stream.seal_stream(cipher, STREAM_RECORD, data)
    same("length", len(sealed), stream.sealed_length(len(data), STREAM_RECORD))
    same("plaintext", stream.open_stream(cipher, STREAM_RECORD, sealed), data)
    for kept in {0, len(data) % (len(sealed) + 1), len(sealed) - 1, len(sealed) // 80 * 80} - {len(sealed)}:
        if not attempt(lambda kept=kept: stream.open_stream(cipher, STREAM_RECORD, sealed[:kept])).error:
            raise Disagreement(f"a stream of {len(sealed)} bytes opens when it is cut off after {kept}")
    if not attempt(lambda: stream.open_stream(cipher, STREAM_RECORD, data)).error:
        raise Disagreement("bytes that were never sealed open as a stream")


TARGETS: dict[str, Callable[[bytes], None]] = {
    "header": fuzz_header,
    "index": fuzz_index,
    "index-names": fuzz_index_names,
    "index-object": fuzz_index_object,
    "keyring": fuzz_keyring,
    "stream": fuzz_stream,
}
"""By the name that the command line takes."""
