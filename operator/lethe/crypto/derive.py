"""Key derivation, constant-time comparison, and the only source of randomness in Lethe.

Source: RFC 5869 (HKDF), with SHA-512.
"""

import os

from cryptography.hazmat.primitives import constant_time, hashes, hmac
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand


def random_bytes(count: int) -> bytes:
    """Return `count` bytes from the operating system's generator."""
    return os.urandom(count)


def hkdf_expand(key: bytes, info: bytes, length: int) -> bytes:
    """Expand a uniformly random 32-byte (or longer) key to `length` bytes, bound to `info`."""
    return HKDFExpand(algorithm=hashes.SHA512(), length=length, info=info).derive(key)


def hkdf(secret: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    """Extract and expand a secret that need not be uniform."""
    return HKDF(algorithm=hashes.SHA512(), length=length, salt=salt, info=info).derive(secret)


def sha256(data: bytes) -> bytes:
    """Return the SHA-256 of `data`, 32 bytes."""
    digest = hashes.Hash(hashes.SHA256())
    digest.update(data)
    return digest.finalize()


def sha512(data: bytes) -> bytes:
    """Return the SHA-512 of `data`, 64 bytes."""
    digest = hashes.Hash(hashes.SHA512())
    digest.update(data)
    return digest.finalize()


def mac(key: bytes, data: bytes) -> bytes:
    """Return the HMAC-SHA-512 of `data`, 64 bytes."""
    state = hmac.HMAC(key, hashes.SHA512())
    state.update(data)
    return state.finalize()


def is_equal(left: bytes, right: bytes) -> bool:
    """Compare two byte strings in time that does not depend on where they differ."""
    return constant_time.bytes_eq(left, right)


def length_prefixed(*parts: bytes) -> bytes:
    """Join parts, each after its length in 8 big-endian bytes, so that no two different lists give the same bytes."""
    return b"".join(len(part).to_bytes(8, "big") + part for part in parts)
