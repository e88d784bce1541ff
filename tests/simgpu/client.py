"""A few plain words over cuda-bindings, for test programs that are clients of the simulated (or a real) driver."""

import ctypes
import json
from typing import Any

from cuda.bindings import driver

from lethe.agents import kernels

KERNELS = ("lethe_probe", "lethe_fill", "lethe_verify", "lethe_zero", "lethe_verify_zero", "lethe_shared")
ALL_ONES = 2**64 - 1
WORD = 16


class CudaError(Exception):
    """A call of the driver failed; the text is the error's name."""


def error_of(result: tuple[Any, ...]) -> str:
    """Return the name of the status that a call returned."""
    return str(result[0].name)


def check(result: tuple[Any, ...]) -> Any:
    """Return what a call gave, or raise CudaError."""
    if int(result[0]) != 0:
        raise CudaError(error_of(result))
    return result[1] if len(result) == 2 else result[1:]


def open_gpu(ordinal: int = 0) -> Any:
    """Initialise the driver and make the primary context of a GPU current."""
    check(driver.cuInit(0))
    device = check(driver.cuDeviceGet(ordinal))
    check(driver.cuCtxSetCurrent(check(driver.cuDevicePrimaryCtxRetain(device))))
    return device


def allocate(size: int) -> int:
    return int(check(driver.cuMemAlloc(size)))


def allocate_all(piece: int = 8 << 20, least: int = 64 << 10) -> list[tuple[int, int]]:
    """Take all memory that can be had, in ever smaller pieces; return address and size of each."""
    pieces = []
    while piece >= least:
        status, address = driver.cuMemAlloc(piece)
        if int(status) == 0:
            pieces.append((int(address), piece))
        else:
            piece //= 2
    return pieces


def write(address: int, data: bytes) -> None:
    check(driver.cuMemcpyHtoD(address, data, len(data)))


def read(address: int, size: int) -> bytes:
    buffer = ctypes.create_string_buffer(size)
    check(driver.cuMemcpyDtoH(ctypes.addressof(buffer), address, size))
    return buffer.raw


def vmm_properties(ordinal: int = 0) -> driver.CUmemAllocationProp:
    """Describe plain device memory of a GPU, for cuMemCreate."""
    properties = driver.CUmemAllocationProp()
    properties.type = driver.CUmemAllocationType.CU_MEM_ALLOCATION_TYPE_PINNED
    properties.location.type = driver.CUmemLocationType.CU_MEM_LOCATION_TYPE_DEVICE
    properties.location.id = ordinal
    return properties


def allow(address: int, size: int, ordinal: int = 0) -> tuple[Any, ...]:
    """Give a GPU read and write access to mapped addresses; return the call's result."""
    access = driver.CUmemAccessDesc()
    access.location.type = driver.CUmemLocationType.CU_MEM_LOCATION_TYPE_DEVICE
    access.location.id = ordinal
    access.flags = driver.CUmemAccess_flags.CU_MEM_ACCESS_FLAGS_PROT_READWRITE
    return driver.cuMemSetAccess(address, size, [access], 1)


class Kernels:
    """The scrub kernels, loaded into the current context."""

    def __init__(self) -> None:
        module = check(driver.cuModuleLoadData(kernels.load_ptx()))
        self._functions = {name: check(driver.cuModuleGetFunction(module, name.encode())) for name in KERNELS}

    def allow_shared(self, name: str, size: int) -> tuple[Any, ...]:
        """Ask for dynamic shared memory of a kernel's blocks; return the call's result."""
        attribute = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
        return driver.cuFuncSetAttribute(self._functions[name], attribute, size)

    def launch(self, name: str, *arguments: int, grid: int = 8, block: int = 64, shared: int = 0) -> tuple[Any, ...]:
        """Launch a kernel, all of whose parameters are 64 bits wide; return the call's result."""
        values = (arguments, (ctypes.c_uint64,) * len(arguments))
        return driver.cuLaunchKernel(self._functions[name], grid, 1, 1, block, 1, 1, shared, 0, values, 0)

    def run(self, name: str, *arguments: int, grid: int = 8, block: int = 64, shared: int = 0) -> None:
        if shared:
            check(self.allow_shared(name, shared))
        check(self.launch(name, *arguments, grid=grid, block=block, shared=shared))
        check(driver.cuCtxSynchronize())


def write_counters(address: int, *values: int) -> None:
    write(address, b"".join(value.to_bytes(8, "little") for value in values))


def read_counters(address: int, count: int) -> list[int]:
    data = read(address, count * 8)
    return [int.from_bytes(data[i : i + 8], "little") for i in range(0, len(data), 8)]


def answer(**values: Any) -> None:
    """Tell the test what was found: one line of JSON."""
    print(json.dumps(values), flush=True)
