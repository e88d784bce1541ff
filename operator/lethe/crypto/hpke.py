"""HPKE (RFC 9180, base mode, single shot) for wrapping keys to a recipient.

1. Suite byte 2: KEM MLKEM768-X25519 as draft-ietf-hpke-pq; suite byte 1: DHKEM(X25519).
   Both with HKDF-SHA-256 and AES-256-GCM.
2. There is no public associated data: whatever a ciphertext must be bound to goes into `info`.
3. A public key is written as text `lethe-pub-1:<suite>:<base64>`, a private key as `lethe-key-1:<suite>:<base64>`,
   so that neither is taken for the other. Raw sizes: MLKEM768-X25519 public 1,216 bytes (ML-KEM-768 encapsulation key
   1,184, X25519 32), private 96 bytes (seeds 64 and 32); X25519 32 and 32.
"""

import base64
import binascii
from dataclasses import dataclass
from typing import Final, Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import mlkem, x25519
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, MLKEM768X25519PrivateKey, MLKEM768X25519PublicKey, Suite

from lethe.crypto.derive import length_prefixed, random_bytes, sha512
from lethe.model.errors import CryptoError, UnwrapError

SuiteName = Literal["X25519", "MLKEM768-X25519"]

MLKEM_PUBLIC: Final = 1184
MLKEM_SEED: Final = 64
X25519_BYTES: Final = 32
TAG_BYTES: Final = 16

_SUITE_BYTES: Final[dict[SuiteName, int]] = {"X25519": 1, "MLKEM768-X25519": 2}
_PUBLIC_BYTES: Final[dict[SuiteName, int]] = {"X25519": X25519_BYTES, "MLKEM768-X25519": MLKEM_PUBLIC + X25519_BYTES}
_PRIVATE_BYTES: Final[dict[SuiteName, int]] = {"X25519": X25519_BYTES, "MLKEM768-X25519": MLKEM_SEED + X25519_BYTES}
_ENCAPSULATION_BYTES: Final[dict[SuiteName, int]] = {"X25519": 32, "MLKEM768-X25519": 1088 + 32}
_SUITES: Final[dict[SuiteName, Suite]] = {
    "X25519": Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM),
    "MLKEM768-X25519": Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM),
}
_PUBLIC_PREFIX: Final = "lethe-pub-1"
_PRIVATE_PREFIX: Final = "lethe-key-1"


@dataclass(frozen=True)
class PublicKey:
    """A recipient. `raw` has the exact length of its suite."""

    suite: SuiteName
    raw: bytes

    def __post_init__(self) -> None:
        _check_length("public", self.suite, self.raw, _PUBLIC_BYTES)

    @property
    def suite_byte(self) -> int:
        """Return the byte that names the suite on the wire."""
        return _SUITE_BYTES[self.suite]

    @property
    def key_id(self) -> str:
        """Return the first 16 hex digits of the key's SHA-512: a name for lists and messages, never a check."""
        return sha512(length_prefixed(self.suite.encode(), self.raw)).hex()[:16]

    def encode(self) -> str:
        """Return the key as text."""
        return f"{_PUBLIC_PREFIX}:{self.suite}:{base64.b64encode(self.raw).decode()}"

    def seal(self, plaintext: bytes, info: bytes) -> bytes:
        """Return encapsulation, ciphertext and tag; only the private key, with the same `info`, opens it."""
        return _SUITES[self.suite].encrypt(plaintext, self._key(), info)

    def _key(self) -> x25519.X25519PublicKey | MLKEM768X25519PublicKey:
        if self.suite == "X25519":
            return x25519.X25519PublicKey.from_public_bytes(self.raw)
        return MLKEM768X25519PublicKey(
            mlkem.MLKEM768PublicKey.from_public_bytes(self.raw[:MLKEM_PUBLIC]),
            x25519.X25519PublicKey.from_public_bytes(self.raw[MLKEM_PUBLIC:]),
        )


@dataclass(frozen=True)
class PrivateKey:
    """The private half. It prints without its bytes."""

    suite: SuiteName
    raw: bytes

    def __post_init__(self) -> None:
        _check_length("private", self.suite, self.raw, _PRIVATE_BYTES)

    def __repr__(self) -> str:
        return f"PrivateKey(suite={self.suite!r})"

    @classmethod
    def generate(cls, suite: SuiteName = "MLKEM768-X25519") -> "PrivateKey":
        """Make a new key from the operating system's randomness."""
        return cls(suite, random_bytes(_PRIVATE_BYTES[suite]))

    def public_key(self) -> PublicKey:
        """Return the public half."""
        if self.suite == "X25519":
            return PublicKey(self.suite, _x25519(self.raw).public_key().public_bytes_raw())
        seed, scalar = self.raw[:MLKEM_SEED], self.raw[MLKEM_SEED:]
        encapsulation_key = mlkem.MLKEM768PrivateKey.from_seed_bytes(seed).public_key().public_bytes_raw()
        return PublicKey(self.suite, encapsulation_key + _x25519(scalar).public_key().public_bytes_raw())

    def encode(self) -> str:
        """Return the key as text. Whoever has it opens what was sealed to it."""
        return f"{_PRIVATE_PREFIX}:{self.suite}:{base64.b64encode(self.raw).decode()}"

    def open(self, sealed: bytes, info: bytes) -> bytes:
        """Return what was sealed to this key with the same `info`; raise UnwrapError."""
        try:
            return _SUITES[self.suite].decrypt(sealed, self._key(), info)
        except (InvalidTag, ValueError) as error:
            raise UnwrapError(
                "a sealed key does not open: it was sealed to another key, or bound to another context"
            ) from error

    def _key(self) -> x25519.X25519PrivateKey | MLKEM768X25519PrivateKey:
        if self.suite == "X25519":
            return _x25519(self.raw)
        return MLKEM768X25519PrivateKey(
            mlkem.MLKEM768PrivateKey.from_seed_bytes(self.raw[:MLKEM_SEED]), _x25519(self.raw[MLKEM_SEED:])
        )


def sealed_length(suite: SuiteName, plaintext_length: int) -> int:
    """Return the exact length of `PublicKey.seal`'s result."""
    return _ENCAPSULATION_BYTES[suite] + plaintext_length + TAG_BYTES


def suite_of(byte: int) -> SuiteName:
    """Return the suite that this byte names; raise CryptoError for any other."""
    for name, value in _SUITE_BYTES.items():
        if value == byte:
            return name
    raise CryptoError(f"unknown HPKE suite {byte}, expected one of {sorted(_SUITE_BYTES.values())}")


def parse_public(text: str) -> PublicKey:
    """Read what `PublicKey.encode` wrote."""
    suite, raw = _parse(text, _PUBLIC_PREFIX, "public")
    return PublicKey(suite, raw)


def parse_private(text: str) -> PrivateKey:
    """Read what `PrivateKey.encode` wrote. Error messages never repeat the text."""
    suite, raw = _parse(text, _PRIVATE_PREFIX, "private")
    return PrivateKey(suite, raw)


def _parse(text: str, prefix: str, half: str) -> tuple[SuiteName, bytes]:
    parts = text.strip().split(":")
    if len(parts) != 3 or parts[0] != prefix:
        raise CryptoError(f"this is not a {half} key: expected text that begins with {prefix}:")
    for suite in _SUITE_BYTES:
        if parts[1] == suite:
            try:
                return suite, base64.b64decode(parts[2], validate=True)
            except binascii.Error as error:
                raise CryptoError(f"the {half} key's last part is not base64: copy the whole line") from error
    raise CryptoError(f"the {half} key's suite is unknown, expected one of {', '.join(_SUITE_BYTES)}")


def _check_length(half: str, suite: SuiteName, raw: bytes, lengths: dict[SuiteName, int]) -> None:
    if len(raw) != lengths[suite]:
        raise CryptoError(f"a {half} key of suite {suite} has {lengths[suite]} bytes, found {len(raw)}")


def _x25519(raw: bytes) -> x25519.X25519PrivateKey:
    return x25519.X25519PrivateKey.from_private_bytes(raw)
