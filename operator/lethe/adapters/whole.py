"""Objects for stores that take an object only whole: its pieces are collected in memory."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from lethe.model.errors import StorageError


@contextmanager
def collected(put: Callable[[memoryview], object], length: int) -> Iterator[Callable[[memoryview], object]]:
    """Give what takes pieces, `length` bytes in all, and then `put` them together."""
    whole, end = memoryview(bytearray(length)), 0

    def take(piece: memoryview) -> None:
        nonlocal end
        if end + len(piece) > length:
            raise too_long(length)
        whole[end : end + len(piece)] = piece
        end += len(piece)

    yield take
    if end != length:
        raise too_short(end, length)
    put(whole)


def too_long(length: int) -> StorageError:
    """Return what to raise for a piece too much."""
    return StorageError(f"an object of {length} bytes was to be written, and there are more")


def too_short(end: int, length: int) -> StorageError:
    """Return what to raise for an object that lacks bytes."""
    return StorageError(f"an object of {length} bytes was to be written, and there are only {end}")
