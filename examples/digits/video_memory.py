"""Video memory through the CUDA driver API: take it, write to it, read it. Nothing here clears anything."""

from collections.abc import Iterator

from cuda.bindings import driver


class CudaError(RuntimeError):
    """A call of the driver API failed."""


def call(name: str, *arguments: object) -> object:
    """Call a function of the driver API and return what it gives back besides its status."""
    status, *results = getattr(driver, name)(*arguments)
    if int(status) != 0:
        raise CudaError(f"{name} failed: {driver.cuGetErrorName(status)[1].decode()}")
    if len(results) > 1:
        return tuple(results)
    return results[0] if results else None


class Gpu:
    """One GPU of this container. What it allocates stays until the process ends, as in most training code."""

    def __init__(self, ordinal: int) -> None:
        device = call("cuDeviceGet", ordinal)
        self._context = call("cuDevicePrimaryCtxRetain", device)
        self.activate()

    def activate(self) -> None:
        """Make this GPU the current one of the calling thread."""
        call("cuCtxSetCurrent", self._context)

    def upload(self, data: bytes) -> int:
        """Copy bytes into new video memory and return their address."""
        address = int(call("cuMemAlloc", len(data)))
        call("cuMemcpyHtoD", address, data, len(data))
        return address

    def overwrite(self, address: int, data: bytes) -> None:
        """Copy bytes over what stands at an address."""
        call("cuMemcpyHtoD", address, data, len(data))

    def download(self, address: int, size: int) -> bytes:
        """Copy bytes back from video memory."""
        data = bytearray(size)
        call("cuMemcpyDtoH", data, address, size)
        return bytes(data)

    def take_everything(self, largest: int = 8 << 20, smallest: int = 64 << 10) -> Iterator[tuple[int, int]]:
        """Allocate all memory that can be had and yield address and size of each piece."""
        size = largest
        while size >= smallest:
            try:
                yield int(call("cuMemAlloc", size)), size
            except CudaError:
                size //= 2


def open_gpus() -> list[Gpu]:
    """Open every GPU that this container was given."""
    call("cuInit", 0)
    return [Gpu(ordinal) for ordinal in range(int(call("cuDeviceGetCount")))]
