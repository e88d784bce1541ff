"""What the layers above adapters ask of the world.

Each Protocol has a real adapter and, in tests, a fake that passes the same contract tests.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final, Protocol

LEFTOVER_PREFIX: Final = ".partial-"
"""How the name begins of what a writer that was killed has left of an object."""


class ObjectStore(Protocol):
    """Objects below one prefix. Keys are relative to it. Errors are of the StorageError family."""

    def get(self, key: str, limit: int | None = None) -> bytes:
        """Return a whole object; raise IntegrityError, before reading on, when it has more than `limit` bytes."""
        ...

    def get_tagged(self, key: str, limit: int | None = None) -> tuple[bytes, str]:
        """Return a whole object as `get` does, and a tag that is another one after each write."""
        ...

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """Return exactly `length` bytes from `start`; raise IntegrityError when the object ends before."""
        ...

    def view(self, key: str) -> memoryview | None:
        """Return a whole object without copying it, or None where that is not possible or its bytes could change."""
        ...

    def create(self, key: str, length: int) -> AbstractContextManager[Callable[[memoryview], object]]:
        """Give what takes the bytes of an object, `length` in all, piece by piece; with the last one it is there.

        Left early or by an exception, nothing is there. A piece may be changed as soon as it was taken.
        """
        ...

    def put(self, key: str, data: bytes | bytearray | memoryview) -> None:
        """Write a whole object, replacing what was there."""
        ...

    def put_new(self, key: str, data: bytes | bytearray | memoryview) -> None:
        """Write a whole object; raise StorageError when one is there already."""
        ...

    def replace(self, key: str, data: bytes | bytearray | memoryview, tag: str) -> None:
        """Write a whole object in place of the one with this tag; raise ConflictError when another is there by now."""
        ...

    def list(self) -> Iterable[tuple[str, int]]:
        """Yield key and size of every object, and of what killed writers left of one."""
        ...

    def delete(self, key: str) -> None:
        """Remove an object; a missing one is no error."""
        ...


@dataclass(frozen=True)
class DeviceMemory:
    """A range of a GPU's memory that this process holds."""

    address: int
    length: int


class VideoMemory(Protocol):
    """The memory of one GPU, and the scrub kernels on it. Errors are GpuErrors."""

    granularity: int
    """Bytes that the length of a mapped piece is a multiple of."""
    multiprocessors: int
    shared_bytes: int
    """What one block can take of a multiprocessor's shared memory."""

    def free_bytes(self) -> int:
        """Return how much memory the driver says can be had."""
        ...

    def used_bytes(self) -> int:
        """Return how much memory contexts and allocations take, this process's own among them."""
        ...

    def take_mapped(self, length: int) -> DeviceMemory | None:
        """Take one physical piece; None when the GPU has none so large."""
        ...

    def give_back(self, piece: DeviceMemory) -> None:
        """Free a mapped piece."""
        ...

    def take_classic(self, length: int) -> DeviceMemory | None:
        """Take memory from the allocator that divides granules; None when it has none left."""
        ...

    def write(self, memory: DeviceMemory, values: Sequence[int]) -> None:
        """Write 64-bit numbers to the beginning of a range."""
        ...

    def read(self, memory: DeviceMemory, count: int) -> list[int]:
        """Return the first 64-bit numbers of a range, after everything launched has ended."""
        ...

    def launch(self, kernel: str, *arguments: int) -> None:
        """Start a kernel; all its parameters are 64 bits wide."""
        ...

    def launch_on_multiprocessors(self, kernel: str, *arguments: int) -> None:
        """Start a kernel with as many blocks as multiprocessors, each of which takes all shared memory of one."""
        ...

    def synchronize(self) -> None:
        """Wait until everything launched has ended."""
        ...


class KeyVault(Protocol):
    """Wraps tenant keys under a wrapping key for each tenant, which never leaves it. Calls may block."""

    kind: str
    """For logs and status: file, pkcs11, transit."""
    is_for_development: bool
    """Whoever can read the vault's storage can read the keys."""

    def wrap(self, tenant: str, secret: bytes, context: bytes) -> bytes:
        """Return `secret` encrypted under the tenant's wrapping key and bound to `context`."""
        ...

    def unwrap(self, tenant: str, wrapped: bytes, context: bytes) -> bytes:
        """Return what `wrap` was given; raise AuthenticationError, or UnavailableError when the vault is away."""
        ...

    def check(self) -> None:
        """Raise UnavailableError when the vault cannot be used now."""
        ...
