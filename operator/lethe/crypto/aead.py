"""AES-256-GCM for records and for keys wrapped at rest.

1. A record's nonce is the object's first nonce XOR the record number: unique under the object's own key
   (dataset format, Records).
2. Wrapping at rest takes a random nonce and associated data; a wrapping key wraps far fewer than 2^32 keys.
3. On a wrong tag nothing is returned; `open_into` wipes the caller's buffer, where the library leaves unverified bytes.
"""

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from lethe.crypto.derive import random_bytes
from lethe.model.errors import AuthenticationError

KEY_BYTES = 32
NONCE_BYTES = 12
TAG_BYTES = 16


class RecordCipher:
    """Seals and opens the numbered records of one object."""

    def __init__(self, key: bytes, nonce0: bytes) -> None:
        self._aead = AESGCM(key)
        self._nonce0 = int.from_bytes(nonce0, "big")

    def seal(self, number: int, plaintext: bytes | memoryview) -> bytes:
        """Return ciphertext and tag of record `number`."""
        return self._aead.encrypt(self._nonce(number), plaintext, None)

    def seal_into(self, number: int, plaintext: bytes | memoryview, out: bytearray | memoryview) -> int:
        """Write ciphertext and tag of record `number` into `out`, which must have their exact size; return the size."""
        return self._aead.encrypt_into(self._nonce(number), plaintext, None, out)

    def open(self, number: int, record: bytes | memoryview) -> bytes:
        """Return the plaintext of record `number`; raise AuthenticationError."""
        try:
            return self._aead.decrypt(self._nonce(number), record, None)
        except InvalidTag as error:
            raise AuthenticationError(_wrong_tag(number)) from error

    def open_into(self, number: int, record: bytes | memoryview, out: bytearray | memoryview) -> int:
        """Write the plaintext of record `number` into `out` and return its size.

        On a wrong tag wipe `out` and raise AuthenticationError.
        """
        try:
            return self._aead.decrypt_into(self._nonce(number), record, None, out)
        except InvalidTag as error:
            out[:] = bytes(len(out))
            raise AuthenticationError(_wrong_tag(number)) from error

    def _nonce(self, number: int) -> bytes:
        return (self._nonce0 ^ number).to_bytes(NONCE_BYTES, "big")


def wrap(key: bytes, secret: bytes, context: bytes) -> bytes:
    """Return `secret` encrypted under a wrapping key and bound to `context`: nonce, ciphertext, tag."""
    nonce = random_bytes(NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, secret, context)


def unwrap(key: bytes, wrapped: bytes, context: bytes) -> bytes:
    """Return what `wrap` was given; raise AuthenticationError."""
    try:
        return AESGCM(key).decrypt(wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], context)
    except (InvalidTag, ValueError) as error:
        raise AuthenticationError(
            "a wrapped key does not open: another wrapping key, another context, or changed bytes"
        ) from error


def _wrong_tag(number: int) -> str:
    return f"record {number} is not authentic: its bytes were changed, or it was written for another place"
