"""Ed25519 signatures over DSSE's pre-authentication encoding.

Source: RFC 8032; DSSE protocol, version 1 (the signature covers the payload's type and length, so one kind of document
is never taken for another).
"""

import base64
import binascii

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from lethe.crypto.derive import sha256
from lethe.model.errors import CryptoError, SignatureError

RAW_BYTES = 32


def pre_authentication_encoding(payload_type: str, payload: bytes) -> bytes:
    """Return the bytes that a DSSE signature covers."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def key_id(public_key: bytes) -> str:
    """Return the id of a raw public key: the first 16 hex digits of its SHA-256."""
    return sha256(public_key).hex()[:16]


class Signer:
    """Holds a signing key."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public_key = key.public_key().public_bytes_raw()
        self.key_id = key_id(self.public_key)

    @classmethod
    def generate(cls) -> "Signer":
        """Make a new key."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_pem(cls, pem: bytes) -> "Signer":
        """Load a PKCS#8 PEM private key."""
        try:
            key = serialization.load_pem_private_key(pem, password=None)
        except ValueError as error:
            raise CryptoError("the signing key is not an unencrypted PKCS#8 PEM file") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise CryptoError(f"the signing key is a {type(key).__name__}, expected Ed25519")
        return cls(key)

    def to_pem(self) -> bytes:
        """Return the private key as PKCS#8 PEM."""
        return self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def sign(self, payload_type: str, payload: bytes) -> bytes:
        """Return the signature, 64 bytes."""
        return self._key.sign(pre_authentication_encoding(payload_type, payload))


def verify(public_key: bytes, payload_type: str, payload: bytes, signature: bytes) -> None:
    """Check a signature made by `Signer.sign`; raise SignatureError."""
    try:
        key = Ed25519PublicKey.from_public_bytes(public_key)
        key.verify(signature, pre_authentication_encoding(payload_type, payload))
    except (InvalidSignature, ValueError) as error:
        raise SignatureError(
            f"the signature does not verify with key {key_id(public_key)}: changed, or signed by another key"
        ) from error


def decode_public_key(text: str) -> bytes:
    """Read a base64 raw public key; raise CryptoError."""
    try:
        raw = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise CryptoError("the public key is not base64") from error
    if len(raw) != RAW_BYTES:
        raise CryptoError(f"an Ed25519 public key has {RAW_BYTES} bytes, found {len(raw)}")
    return raw
