"""Errors under the specification's names, bounded reading, and HKDF-Expand.

The number at the end of a message is the rule's.
"""

import hmac


class DecodeError(Exception):
    """Base of what this reader raises."""


class InputError(DecodeError):
    pass


class KeyringError(DecodeError):
    pass


class HeaderError(DecodeError):
    pass


class DatasetIndexError(DecodeError):
    pass


class UnwrapError(DecodeError):
    pass


class AuthenticationError(DecodeError):
    pass


class CommitmentError(DecodeError):
    pass


class IntegrityError(DecodeError):
    pass


class ObjectMissingError(DecodeError):
    pass


def demand(holds: bool, error: type[DecodeError], what: str) -> None:
    if not holds:
        raise error(what)


class Bytes:
    """Reads from the front; raises `error` when there is too little."""

    def __init__(self, data: bytes, error: type[DecodeError]) -> None:
        self.data, self.at, self.error = data, 0, error

    def take(self, count: int) -> bytes:
        demand(
            count <= len(self.data) - self.at, self.error, f"{count} bytes at {self.at} of {len(self.data)}: cut off"
        )
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, count: int) -> int:
        return int.from_bytes(self.take(count), "big")


def prefixed(*parts: bytes) -> bytes:
    return b"".join(len(part).to_bytes(8, "big") + part for part in parts)


def expand(digest: str, key: bytes, info: bytes, length: int) -> bytes:
    """HKDF-Expand of RFC 5869."""
    output = block = b""
    counter = 0
    while len(output) < length:
        counter += 1
        block = hmac.digest(key, block + info + bytes([counter]), digest)
        output += block
    return output[:length]
