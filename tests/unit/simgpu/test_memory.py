"""Classic allocation, virtual memory management, copies and contexts."""

from tests.simgpu.fixtures import Machine

TOTAL = 16 << 20
RESERVED = 256 << 10
CONTEXT = 512 << 10


def test_memory_is_counted(machine: Machine) -> None:
    found = machine.run("""
        device = open_gpu()
        before = check(driver.cuMemGetInfo())
        address = allocate(1)
        during = check(driver.cuMemGetInfo())
        check(driver.cuMemFree(address))
        answer(before=before, during=during, after=check(driver.cuMemGetInfo()),
               total=check(driver.cuDeviceTotalMem(device)))
    """)
    free = TOTAL - RESERVED - CONTEXT
    assert found["total"] == TOTAL - RESERVED
    assert found["before"] == found["after"] == [free, TOTAL - RESERVED]
    assert found["during"][0] == free - (64 << 10)


def test_no_more_than_all_of_it_can_be_had(machine: Machine) -> None:
    found = machine.run("""
        open_gpu()
        held = sum(size for _, size in allocate_all())
        answer(held=held, error=error_of(driver.cuMemAlloc(1)), zero=error_of(driver.cuMemAlloc(0)))
    """)
    assert found == {
        "held": TOTAL - RESERVED - CONTEXT,
        "error": "CUDA_ERROR_OUT_OF_MEMORY",
        "zero": "CUDA_ERROR_INVALID_VALUE",
    }


def test_a_released_handle_keeps_its_memory_until_the_last_unmap(machine: Machine) -> None:
    found = machine.run("""
        open_gpu()
        free = lambda: check(driver.cuMemGetInfo())[0]
        size = check(driver.cuMemGetAllocationGranularity(vmm_properties(), 0))
        before = free()
        handle = check(driver.cuMemCreate(size, vmm_properties(), 0))
        address = int(check(driver.cuMemAddressReserve(2 * size, 0, 0, 0)))
        for at in (address, address + size):                       # twice: both show the same memory
            check(driver.cuMemMap(at, size, 0, handle, 0))
            check(allow(at, size))
        write(address, b"once")
        twin = read(address + size, 4).decode()
        check(driver.cuMemRelease(handle))
        released = free()
        check(driver.cuMemUnmap(address, size))
        one_left = read(address + size, 4).decode()
        held = free()
        early = error_of(driver.cuMemAddressFree(address, 2 * size))
        check(driver.cuMemUnmap(address + size, size))
        check(driver.cuMemAddressFree(address, 2 * size))
        answer(size=size, twin=twin, one_left=one_left, early=early, again=error_of(driver.cuMemRelease(handle)),
               used=[before - released, before - held, before - free()])
    """)
    assert found["size"] == 2 << 20
    assert found["twin"] == found["one_left"] == "once"
    assert found["used"] == [2 << 20, 2 << 20, 0]
    assert found["early"] == found["again"] == "CUDA_ERROR_INVALID_VALUE"


def test_a_mapping_without_access_is_closed(machine: Machine) -> None:
    found = machine.run("""
        open_gpu()
        size = 2 << 20
        handle = check(driver.cuMemCreate(size, vmm_properties(), 0))
        address = int(check(driver.cuMemAddressReserve(size, 0, 0, 0)))
        unmapped = error_of(driver.cuMemsetD8(address, 1, size))
        check(driver.cuMemMap(address, size, 0, handle, 0))
        mapped = error_of(driver.cuMemsetD8(address, 1, size))
        check(allow(address, size))
        allowed = error_of(driver.cuMemsetD8(address, 1, size))
        odd = error_of(driver.cuMemCreate(1000, vmm_properties(), 0))
        answer(unmapped=unmapped, mapped=mapped, allowed=allowed, odd=odd)
    """)
    assert found == {
        "unmapped": "CUDA_ERROR_INVALID_VALUE",
        "mapped": "CUDA_ERROR_INVALID_VALUE",
        "allowed": "CUDA_SUCCESS",
        "odd": "CUDA_ERROR_INVALID_VALUE",
    }


def test_large_handles_halving_and_a_classic_tail_hold_all_but_the_context(machine: Machine) -> None:
    found = machine.run("""
        open_gpu()
        held, size = 0, 8 << 20
        while size >= 2 << 20:
            status, handle = driver.cuMemCreate(size, vmm_properties(), 0)
            if int(status) == 0:
                held += size
            else:
                size //= 2
        tail = sum(size for _, size in allocate_all(1 << 20))
        answer(held=held, tail=tail)
    """)
    assert found["held"] == 14 << 20
    assert found["held"] + found["tail"] == TOTAL - RESERVED - CONTEXT


def test_copies_and_memsets(machine: Machine) -> None:
    found = machine.run("""
        open_gpu()
        a, b = allocate(1 << 16), allocate(1 << 16)
        stream = check(driver.cuStreamCreate(0))
        check(driver.cuMemsetD8(a, 0x11, 2)), check(driver.cuMemsetD16(a + 2, 0x2233, 1))
        check(driver.cuMemsetD32(a + 4, 0x44556677, 1)), check(driver.cuMemsetD8Async(a + 8, 0x88, 1, stream))
        check(driver.cuMemcpyDtoDAsync(b, a, 9, stream))
        begin, end = check(driver.cuEventCreate(0)), check(driver.cuEventCreate(0))
        check(driver.cuEventRecord(begin, stream)), check(driver.cuEventRecord(end, stream))
        check(driver.cuStreamSynchronize(stream))
        answer(copied=read(b, 9).hex(), milliseconds=check(driver.cuEventElapsedTime(begin, end)),
               beyond=error_of(driver.cuMemsetD8(a, 0, (1 << 16) + 1)),
               crooked=error_of(driver.cuMemsetD32(a + 1, 0, 1)))
    """)
    assert found["copied"] == "1111" + "3322" + "77665544" + "88"
    assert found["milliseconds"] >= 0
    assert found["beyond"] == found["crooked"] == "CUDA_ERROR_INVALID_VALUE"


def test_a_destroyed_context_frees_its_memory(machine: Machine) -> None:
    found = machine.run("""
        device = open_gpu()
        first = check(driver.cuCtxGetCurrent())
        before = check(driver.cuMemGetInfo())[0]
        second = check(driver.cuCtxCreate(0, device))
        allocate(1 << 20)
        during = check(driver.cuMemGetInfo())[0]
        check(driver.cuCtxDestroy(second))
        after = check(driver.cuMemGetInfo())[0]
        check(driver.cuCtxSetCurrent(second))
        answer(taken=before - during, left=before - after, dead=error_of(driver.cuMemAlloc(1)))
    """)
    assert found == {"taken": (1 << 20) + CONTEXT, "left": 0, "dead": "CUDA_ERROR_CONTEXT_IS_DESTROYED"}


def test_the_current_context_is_needed(machine: Machine) -> None:
    found = machine.run("""
        early = error_of(driver.cuDeviceGet(0))
        check(driver.cuInit(0))
        answer(early=early, no_context=error_of(driver.cuMemAlloc(1)), no_device=error_of(driver.cuDeviceGet(7)))
    """)
    assert found == {
        "early": "CUDA_ERROR_NOT_INITIALIZED",
        "no_context": "CUDA_ERROR_INVALID_CONTEXT",
        "no_device": "CUDA_ERROR_INVALID_DEVICE",
    }
