"""One GPU through the CUDA driver API: the one importer of `cuda.bindings`.

1. A process opens one GPU, by UUID, since the order of CUDA's devices need not be NVML's, and lets the driver see no
   other: one that is lost would keep it from starting at all.
2. Running out of memory is an answer (None), not an error: whoever takes all memory meets it each time.
3. Every other failure is a GpuError with a reason fit for quarantine.
4. Memory taken here is what other processes left: nothing is cleared. It is given back by the end of the process,
   since a context that met an error may refuse to free; one piece may be given back before.
5. Kernels are loaded with the module, not at their first launch, when no memory would be left for them.
"""

import ctypes
import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Final

from cuda.bindings import driver

from lethe.model import reasons
from lethe.model.errors import GpuError
from lethe.model.ports import DeviceMemory

_Result: Final = driver.CUresult
_REASONS: Final = {
    _Result.CUDA_ERROR_OUT_OF_MEMORY: reasons.OUT_OF_MEMORY,
    _Result.CUDA_ERROR_NO_DEVICE: reasons.GPU_LOST,
    _Result.CUDA_ERROR_INVALID_DEVICE: reasons.GPU_LOST,
    _Result.CUDA_ERROR_ECC_UNCORRECTABLE: reasons.ECC_UNCORRECTABLE,
    _Result.CUDA_ERROR_CONTAINED: reasons.ECC_UNCORRECTABLE,
    _Result.CUDA_ERROR_LAUNCH_TIMEOUT: reasons.GPU_HANG,
    _Result.CUDA_ERROR_DEVICE_UNAVAILABLE: reasons.COMPUTE_MODE_EXCLUSIVE,
    _Result.CUDA_ERROR_SYSTEM_DRIVER_MISMATCH: reasons.DRIVER_MISMATCH,
    _Result.CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE: reasons.DRIVER_MISMATCH,
}
_THREADS: Final = 256
_BLOCKS_PER_MULTIPROCESSOR: Final = 8
"""256 × 8 threads fill a multiprocessor of every supported GPU, which streaming at full bandwidth takes."""
_SHARED_THREADS: Final = 1024
_Attribute: Final = driver.CUdevice_attribute


class Gpu:
    """A GPU with a context on it and the kernels loaded; a VideoMemory."""

    def __init__(self, gpu_uuid: str, ptx: bytes) -> None:
        """Open the GPU and load a PTX module; raise GpuError."""
        _initialise(gpu_uuid)
        self._device = _find(gpu_uuid)
        context = _call(driver.cuDevicePrimaryCtxRetain, self._device)
        _call(driver.cuCtxSetCurrent, context)
        self._module = _call(driver.cuModuleLoadData, ptx)
        self._functions: dict[str, Any] = {}
        self.multiprocessors = self._attribute(_Attribute.CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)
        self.shared_bytes = self._attribute(_Attribute.CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)
        self._properties = self._pinned_memory()
        self.granularity = int(
            _call(
                driver.cuMemGetAllocationGranularity,
                self._properties,
                driver.CUmemAllocationGranularity_flags.CU_MEM_ALLOC_GRANULARITY_MINIMUM,
            )
        )

    def free_bytes(self) -> int:
        """Return how much memory the driver says can be had."""
        free, _ = _call(driver.cuMemGetInfo)
        return int(free)

    def used_bytes(self) -> int:
        """Return how much memory contexts and allocations take, this process's own among them."""
        free, total = _call(driver.cuMemGetInfo)
        return int(total) - int(free)

    def take_mapped(self, length: int) -> DeviceMemory | None:
        """Take a whole number of granules as one physical piece and map it; None when there is no such piece."""
        access = driver.CUmemAccessDesc()
        access.location = self._properties.location
        access.flags = driver.CUmemAccess_flags.CU_MEM_ACCESS_FLAGS_PROT_READWRITE
        with _none_left(), ExitStack() as undo:
            handle = _call(driver.cuMemCreate, length, self._properties, 0)
            undo.callback(_call, driver.cuMemRelease, handle)
            address = _call(driver.cuMemAddressReserve, length, 0, 0, 0)
            undo.callback(_call, driver.cuMemAddressFree, address, length)
            # The page tables of a mapping take memory too, so any of these may be the one that finds none left.
            _call(driver.cuMemMap, address, length, 0, handle, 0)
            undo.callback(_call, driver.cuMemUnmap, address, length)
            _call(driver.cuMemSetAccess, address, length, [access], 1)
            undo.pop_all()
            # The mapping keeps the memory, and its end gives it back.
            _call(driver.cuMemRelease, handle)
            return DeviceMemory(int(address), length)
        return None

    def give_back(self, piece: DeviceMemory) -> None:
        """Free a mapped piece."""
        _call(driver.cuMemUnmap, piece.address, piece.length)
        _call(driver.cuMemAddressFree, piece.address, piece.length)

    def take_classic(self, length: int) -> DeviceMemory | None:
        """Take memory from the ordinary allocator, which divides granules; None when it has none left."""
        with _none_left():
            return DeviceMemory(int(_call(driver.cuMemAlloc, length)), length)
        return None

    def write(self, memory: DeviceMemory, values: Sequence[int]) -> None:
        """Write 64-bit numbers to the beginning of a piece of memory."""
        buffer = (ctypes.c_uint64 * len(values))(*values)
        _call(driver.cuMemcpyHtoD, memory.address, ctypes.addressof(buffer), ctypes.sizeof(buffer))

    def read(self, memory: DeviceMemory, count: int) -> list[int]:
        """Return the first 64-bit numbers of a piece of memory, after everything launched has ended."""
        buffer = (ctypes.c_uint64 * count)()
        _call(driver.cuCtxSynchronize)
        _call(driver.cuMemcpyDtoH, ctypes.addressof(buffer), memory.address, ctypes.sizeof(buffer))
        return list(buffer)

    def launch(self, kernel: str, *arguments: int) -> None:
        """Start a kernel of the module; all its parameters are 64 bits wide."""
        self._launch(self._function(kernel), self.multiprocessors * _BLOCKS_PER_MULTIPROCESSOR, _THREADS, 0, arguments)

    def launch_on_multiprocessors(self, kernel: str, *arguments: int) -> None:
        """Start a kernel with as many blocks as multiprocessors, each of which takes all shared memory of one."""
        function = self._function(kernel)
        # More than 48 KiB must be asked for.
        attribute = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
        _call(driver.cuFuncSetAttribute, function, attribute, self.shared_bytes)
        self._launch(function, self.multiprocessors, _SHARED_THREADS, self.shared_bytes, arguments)

    def synchronize(self) -> None:
        """Wait until everything launched has ended."""
        _call(driver.cuCtxSynchronize)

    def _launch(self, function: Any, blocks: int, threads: int, shared_bytes: int, arguments: tuple[int, ...]) -> None:
        types = (ctypes.c_uint64,) * len(arguments)
        grid, block = (blocks, 1, 1), (threads, 1, 1)
        _call(driver.cuLaunchKernel, function, *grid, *block, shared_bytes, 0, (arguments, types), 0)

    def _function(self, kernel: str) -> Any:
        if kernel not in self._functions:
            self._functions[kernel] = _call(driver.cuModuleGetFunction, self._module, kernel.encode())
        return self._functions[kernel]

    def _attribute(self, attribute: Any) -> int:
        return int(_call(driver.cuDeviceGetAttribute, attribute, self._device))

    def _pinned_memory(self) -> Any:
        properties = driver.CUmemAllocationProp()
        properties.type = driver.CUmemAllocationType.CU_MEM_ALLOCATION_TYPE_PINNED
        properties.location.type = driver.CUmemLocationType.CU_MEM_LOCATION_TYPE_DEVICE
        properties.location.id = int(self._device)
        return properties


def _initialise(gpu_uuid: str) -> None:
    os.environ["CUDA_VISIBLE_DEVICES"] = gpu_uuid
    os.environ["CUDA_MODULE_LOADING"] = "EAGER"
    try:
        _call(driver.cuInit, 0)
    except RuntimeError as error:
        # What cuda.bindings raises when it finds no libcuda.so.1.
        raise GpuError(
            reasons.DRIVER_ERROR,
            f"the CUDA driver library does not load: {error}; run where NVIDIA's runtime mounts it",
        ) from error


def _find(gpu_uuid: str) -> Any:
    present = []
    for ordinal in range(_call(driver.cuDeviceGetCount)):
        device = _call(driver.cuDeviceGet, ordinal)
        name = f"GPU-{uuid.UUID(bytes=bytes(_call(driver.cuDeviceGetUuid, device).bytes))}"
        if name == gpu_uuid:
            return device
        present.append(name)
    raise GpuError(
        reasons.GPU_SET_MISMATCH,
        f"CUDA has no GPU {gpu_uuid}, only {', '.join(present) or 'none'}: NVML and CUDA see different devices; give "
        "the scrub pod every GPU of the node",
    )


def _call(function: Any, *arguments: Any) -> Any:
    """Call the driver; return its result, several as a tuple, or raise GpuError."""
    status, *results = function(*arguments)
    if status != _Result.CUDA_SUCCESS:
        raise _error(function, status)
    return results[0] if len(results) == 1 else tuple(results)


@contextmanager
def _none_left() -> Iterator[None]:
    """Go on after the block when the GPU is out of memory."""
    try:
        yield
    except GpuError as error:
        if error.reason != reasons.OUT_OF_MEMORY:
            raise


def _error(function: Any, status: Any) -> GpuError:
    name = getattr(status, "name", "an error that this version of cuda-bindings does not know")
    return GpuError(_REASONS.get(status, reasons.DRIVER_ERROR), f"{function.__name__} failed: {name} ({int(status)})")
