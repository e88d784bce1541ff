"""Index and stream objects, and their record rule: full records, and a last one that is strictly shorter.

1. A plaintext of n bytes becomes n // R records of R bytes and one of n % R, which may be empty. So an object that was
   cut at a record boundary has no short record at its end, and is refused before anything is used.
2. Each record is ciphertext and a 16-byte tag; records follow one another without anything between.
"""

from collections.abc import Mapping

from lethe.crypto.aead import TAG_BYTES, RecordCipher
from lethe.formats.header import HEADER_BYTES, Kind, build_header, open_header, parse_header
from lethe.model.errors import IntegrityError, UnwrapError


def seal_whole(
    plaintext: bytes,
    dek: bytes,
    *,
    kind: Kind,
    record_bits: int,
    epoch: int,
    dataset_id: bytes,
    object_id: bytes,
    salt: bytes,
) -> bytes:
    """Return a whole object, header and records."""
    header, cipher = build_header(
        dek, kind=kind, record_bits=record_bits, epoch=epoch, dataset_id=dataset_id, object_id=object_id, salt=salt
    )
    return header.encode() + seal_stream(cipher, 1 << record_bits, plaintext)


def open_whole(
    data: bytes | memoryview, deks: Mapping[int, bytes], *, what: str, kind: Kind, dataset_id: str, object_id: bytes
) -> bytes:
    """Return the plaintext of a whole object; `what` names it in messages.

    Raise UnwrapError when the key of its epoch is not at hand, and what `open_header` and `open_stream` raise.
    """
    epoch = parse_header(data).epoch
    if epoch not in deks:
        raise UnwrapError(f"the {what} needs the key of epoch {epoch}, at hand: {sorted(deks) or 'none'}")
    header, cipher = open_header(
        data, deks[epoch], kind=kind, dataset_id=bytes.fromhex(dataset_id), object_id=object_id
    )
    return open_stream(cipher, 1 << header.record_bits, memoryview(data)[HEADER_BYTES:])


def sealed_length(plaintext_length: int, record_size: int) -> int:
    """Return the length of all records of a plaintext, without the header."""
    return plaintext_length + TAG_BYTES * (plaintext_length // record_size + 1)


def seal_stream(cipher: RecordCipher, record_size: int, plaintext: bytes) -> bytes:
    """Return all records of `plaintext`."""
    view = memoryview(plaintext)
    count = len(view) // record_size + 1
    return b"".join(
        cipher.seal(number, view[number * record_size : (number + 1) * record_size]) for number in range(count)
    )


def open_stream(cipher: RecordCipher, record_size: int, sealed: bytes | memoryview) -> bytes:
    """Return the plaintext; raise IntegrityError when records are missing, AuthenticationError when one was changed."""
    view = memoryview(sealed)
    full = record_size + TAG_BYTES
    count, last = divmod(len(view), full)
    if last < TAG_BYTES:
        raise IntegrityError(
            f"a stream of {len(view)} bytes does not end with a short record: it was cut off, or something was appended"
        )
    return b"".join(cipher.open(number, view[number * full : (number + 1) * full]) for number in range(count + 1))
