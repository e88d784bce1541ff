"""The record rule of index and stream objects: full records, and a last one that is strictly shorter.

1. A plaintext of n bytes becomes n // R records of R bytes and one of n % R, which may be empty. So an object that was
   cut at a record boundary has no short record at its end, and is refused before anything is used.
2. Each record is ciphertext and a 16-byte tag; records follow one another without anything between.
"""

from lethe.crypto.aead import TAG_BYTES, RecordCipher
from lethe.model.errors import IntegrityError


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
