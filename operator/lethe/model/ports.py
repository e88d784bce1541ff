"""What the layers above adapters ask of the world.

Each Protocol has a real adapter and, in tests, a fake that passes the same contract tests.
"""

from collections.abc import Iterable
from typing import Protocol


class ObjectStore(Protocol):
    """Objects below one prefix. Keys are relative to it. Errors are of the StorageError family."""

    def get(self, key: str) -> bytes:
        """Return a whole object."""
        ...

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """Return exactly `length` bytes from `start`."""
        ...

    def put(self, key: str, data: bytes) -> None:
        """Write a whole object, replacing what was there."""
        ...

    def put_new(self, key: str, data: bytes) -> None:
        """Write a whole object; raise StorageError when one is there already."""
        ...

    def list(self) -> Iterable[tuple[str, int]]:
        """Yield key and size of every object."""
        ...

    def delete(self, key: str) -> None:
        """Remove an object; a missing one is no error."""
        ...
