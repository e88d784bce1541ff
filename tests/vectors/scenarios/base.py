"""The datasets that scenarios start from, and what storage does to bytes."""

from collections.abc import Callable, Iterator

from tests.vectors.forge import FULL, RECORD, Forged, fixed, forge
from tests.vectors.vector import Vector

Scenarios = Iterator[tuple[str, Vector]]

SMALL = {"a.txt": b"first", "b/empty": b"", "b/other.txt": b"second file"}
LARGE = {"a.bin": fixed("a.bin", 2 * RECORD + 100), "b.bin": fixed("b.bin", RECORD)}


def small() -> Forged:
    """Three files, one object: a record each, and fill."""
    return forge("small", SMALL)


def large() -> Forged:
    """Two files over two objects of two records each, the second with fill of one."""
    return forge("large", LARGE, object_bytes=128 + 2 * FULL + 16)


def flip(at: int, mask: int = 0x01) -> Callable[[bytes], bytes]:
    """Return a change that flips bits of one byte."""

    def change(data: bytes) -> bytes:
        place = at % len(data)
        return data[:place] + bytes([data[place] ^ mask]) + data[place + 1 :]

    return change


def put(at: int, value: bytes) -> Callable[[bytes], bytes]:
    """Return a change that overwrites bytes."""
    return lambda data: data[:at] + value + data[at + len(value) :]


def cut(length: int) -> Callable[[bytes], bytes]:
    """Return a change that cuts an object off; a negative length counts from the end."""
    return lambda data: data[:length]


HEADER_FIELDS = (
    # name, offset, mask, error in any object whose bytes are not pinned, rule
    ("magic", 0, 0x01, "HeaderError", "R7"),
    ("version", 7, 0x03, "HeaderError", "R7"),
    ("suite", 8, 0x02, "HeaderError", "R7"),
    ("kind-unknown", 9, 0x08, "HeaderError", "R7"),
    ("record-bits-too-large", 10, 0x40, "HeaderError", "R7"),
    ("record-bits-other", 10, 0x01, "CommitmentError", "R10"),
    ("reserved", 11, 0x01, "HeaderError", "R7"),
    ("dataset-id", 16, 0x01, "IntegrityError", "R9"),
    ("object-id", 47, 0x80, "IntegrityError", "R9"),
    ("salt", 48, 0x01, "CommitmentError", "R10"),
    ("commitment", 111, 0x80, "CommitmentError", "R10"),
    ("reserved-end", 112, 0x01, "HeaderError", "R7"),
    ("reserved-last", 127, 0x80, "HeaderError", "R7"),
)
