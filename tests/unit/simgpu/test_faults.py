"""Each fault does what tests/simgpu/faults.py says of it."""

import pytest

from tests.simgpu import faults
from tests.simgpu.fixtures import Machine

SCRUB = """
    open_gpu()
    words = (4 << 20) // WORD
    kernels, base, out = Kernels(), allocate(words * WORD), allocate(24)
    def mismatches(name, *arguments):
        write_counters(out, 0, ALL_ONES)
        kernels.run(name, base, words, *arguments, out)
        return read_counters(out, 2)
    kernels.run("lethe_fill", base, words, 0, 5)
    pattern = mismatches("lethe_verify", 0, 5)
    kernels.run("lethe_zero", base, words)
    answer(pattern=pattern, zero=mismatches("lethe_verify_zero", 0))
"""

NOTHING = [0, 2**64 - 1]
# Reserved pages and the context come first in the memory of a fresh GPU, then what is allocated.
BASE_OFFSET = (256 << 10) + (512 << 10)


def test_without_faults_nothing_goes_wrong(machine: Machine) -> None:
    assert machine.run(SCRUB) == {"pattern": NOTHING, "zero": NOTHING}


@pytest.mark.parametrize(
    ("after", "expected"),
    [("fill", {"pattern": [1, 2], "zero": NOTHING}), ("zero", {"pattern": NOTHING, "zero": [1, 2]})],
)
def test_a_bit_flip_shows_after_its_write(machine: Machine, after: str, expected: dict[str, list[int]]) -> None:
    machine.set_faults(bit_flip_offset=BASE_OFFSET + 33, bit_flip_mask=0x10, bit_flip_after=after)
    assert machine.run(SCRUB) == expected


def test_a_bit_flip_elsewhere_does_not_show(machine: Machine) -> None:
    machine.set_faults(bit_flip_offset=15 << 20)
    assert machine.run(SCRUB) == {"pattern": NOTHING, "zero": NOTHING}


def test_a_stuck_cell_keeps_its_value(machine: Machine) -> None:
    machine.set_faults(stuck_offset=BASE_OFFSET + 16 * 1000, stuck_value=0x5A)
    found = machine.run(SCRUB)
    assert found["zero"] == [1, 1000]
    assert found["pattern"] == [1, 1000]


def test_memory_runs_out_early(machine: Machine) -> None:
    machine.set_faults(out_of_memory_after=8 << 20)
    found = machine.run("""
        open_gpu()
        held = sum(size for _, size in allocate_all())
        answer(held=held, vmm=error_of(driver.cuMemCreate(2 << 20, vmm_properties(), 0)))
    """)
    assert found == {"held": (8 << 20) - (512 << 10), "vmm": "CUDA_ERROR_OUT_OF_MEMORY"}


def test_a_lost_gpu_fails_every_call(machine: Machine) -> None:
    program = """
        import pynvml
        pynvml.nvmlInit()
        device = open_gpu()
        handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        answer(ready=True)
        sys.stdin.readline()
        def nvml_error(function, *arguments):
            try:
                function(*arguments)
            except pynvml.NVMLError as error:
                return type(error).__name__
        calls = driver.cuMemAlloc(1), driver.cuDeviceGet(0), driver.cuCtxSynchronize()
        answer(cuda=[error_of(call) for call in calls],
               nvml=[nvml_error(pynvml.nvmlDeviceGetMemoryInfo, handle),
                     nvml_error(pynvml.nvmlDeviceGetHandleByIndex, 0),
                     nvml_error(pynvml.nvmlDeviceGetUUID, handle)],
               count=pynvml.nvmlDeviceGetCount())
    """
    with machine.start(program) as client:
        client.next_answer()
        machine.set_faults(lost=1)
        client.go_on()
        assert client.next_answer() == {
            "cuda": ["CUDA_ERROR_UNKNOWN"] * 3,
            "nvml": ["NVMLError_GpuIsLost"] * 3,
            "count": 1,
        }


def test_an_uncorrectable_error_breaks_the_context(machine: Machine) -> None:
    machine.set_faults(uncorrectable_ecc=1)
    found = machine.run("""
        import pynvml
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        open_gpu()
        kernels, base = Kernels(), allocate(1 << 16)
        launch = error_of(kernels.launch("lethe_zero", base, 16))
        action = pynvml.nvmlDeviceGetFieldValues(handle, [pynvml.NVML_FI_DEV_GET_GPU_RECOVERY_ACTION])[0]
        answer(launch=launch, later=error_of(driver.cuMemAlloc(1)), action=[action.nvmlReturn, action.value.uiVal],
               counted=pynvml.nvmlDeviceGetTotalEccErrors(handle, pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED,
                                                          pynvml.NVML_VOLATILE_ECC))
    """)
    assert found == {
        "launch": "CUDA_ERROR_ECC_UNCORRECTABLE",
        "later": "CUDA_ERROR_ECC_UNCORRECTABLE",
        "action": [0, 1],
        "counted": 1,
    }


def test_a_hanging_launch_returns_when_the_fault_is_gone(machine: Machine) -> None:
    program = """
        import threading
        open_gpu()
        context = check(driver.cuCtxGetCurrent())
        kernels, base = Kernels(), allocate(1 << 16)
        def launch():
            check(driver.cuCtxSetCurrent(context))
            kernels.run("lethe_zero", base, 16)
        thread = threading.Thread(target=launch)
        thread.start()
        thread.join(timeout=0.3)
        answer(hangs=thread.is_alive())
        thread.join()
        answer(hangs=thread.is_alive())
    """
    machine.set_faults(hang=1)
    with machine.start(program) as client:
        assert client.next_answer() == {"hangs": True}
        machine.set_faults()
        assert client.next_answer() == {"hangs": False}


def test_a_hanging_client_can_be_killed_and_its_memory_is_free(machine: Machine) -> None:
    machine.set_faults(hang=1)
    with machine.start("""
        open_gpu()
        kernels, base = Kernels(), allocate(1 << 20)
        answer(launching=True)
        kernels.run("lethe_zero", base, 16)
    """) as client:
        client.next_answer()
        client.kill()
    found = machine.run("open_gpu()\nanswer(free=check(driver.cuMemGetInfo())[0])")
    assert found["free"] == (16 << 20) - BASE_OFFSET


def test_a_driver_of_another_version_starts_nowhere(machine: Machine) -> None:
    machine.set_faults(driver_mismatch=1)
    found = machine.run("""
        import pynvml
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as error:
            answer(nvml=type(error).__name__, cuda=error_of(driver.cuInit(0)))
    """)
    assert found == {"nvml": "NVMLError_LibRmVersionMismatch", "cuda": "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH"}


STRIKE = """
    open_gpu()
    kernels, base = Kernels(), allocate(1 << 16)
    answer(results=[error_of(kernels.launch(name, base, 16, 0, 0)) for name in sys.argv[1:]])
"""
FINE, BROKEN = "CUDA_SUCCESS", "CUDA_ERROR_ECC_UNCORRECTABLE"


def test_a_fault_waits_for_the_event_it_strikes_at_over_all_clients(machine: Machine) -> None:
    machine.set_faults(uncorrectable_ecc=1, strike_at="lethe_fill", strike_after=2)
    assert machine.run(STRIKE, "lethe_fill", "lethe_zero", "lethe_zero")["results"] == [FINE] * 3
    assert faults.events_counted(machine.gpus[0].folder) == 1
    assert machine.run(STRIKE, "lethe_zero", "lethe_fill", "lethe_fill")["results"] == [FINE, FINE, BROKEN]
    assert machine.run(STRIKE, "lethe_zero")["results"] == [BROKEN]
    machine.set_faults(uncorrectable_ecc=1, strike_at="lethe_fill", strike_after=0)
    assert machine.run(STRIKE, "lethe_zero")["results"] == [FINE]


@pytest.mark.parametrize(("event", "after"), [("context", 0), ("allocation", 1)])
def test_a_fault_may_wait_for_a_context_or_an_allocation(machine: Machine, event: str, after: int) -> None:
    machine.set_faults(out_of_memory_after=1, strike_at=event, strike_after=after)
    found = machine.run("""
        check(driver.cuInit(0))
        status, context = driver.cuDevicePrimaryCtxRetain(check(driver.cuDeviceGet(0)))
        driver.cuCtxSetCurrent(context)
        answer(found=[str(status.name), *(error_of(driver.cuMemAlloc(1)) for _ in range(2) if int(status) == 0)])
    """)
    short = "CUDA_ERROR_OUT_OF_MEMORY"
    assert found["found"] == ([short] if event == "context" else [FINE, FINE, short])


def test_a_process_sees_only_the_gpus_that_it_asks_for(make_machine) -> None:
    machine = make_machine(count=3)
    machine.set_faults(0, lost=1)
    program = """
        import os
        os.environ["CUDA_VISIBLE_DEVICES"] = sys.argv[1]
        status = error_of(driver.cuInit(0))
        count = driver.cuDeviceGetCount()[1]
        answer(status=status, count=count, first=error_of(driver.cuDeviceGet(0)))
    """
    one = machine.run(program, machine.gpus[2].uuid)
    assert (one["status"], one["count"], one["first"]) == (FINE, 1, FINE)
    assert machine.run(program, "GPU-of-another-machine")["status"] == "CUDA_ERROR_NO_DEVICE"


def test_a_machine_without_gpus_has_no_driver(make_machine) -> None:
    found = make_machine(count=0).run("""
        import pynvml
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as error:
            answer(nvml=type(error).__name__, cuda=error_of(driver.cuInit(0)))
    """)
    assert found == {"nvml": "NVMLError_DriverNotLoaded", "cuda": "CUDA_ERROR_NO_DEVICE"}


def test_a_fault_that_is_no_number_ends_the_client(machine: Machine) -> None:
    machine.set_faults(stuck_offset="many")
    with machine.start("open_gpu()\nwrite(allocate(16), bytes(16))\nanswer()") as client:
        assert client.process.stdout is not None
        assert client.process.stdout.read() == ""
        assert client.process.wait(timeout=60) != 0


def test_unknown_faults_are_refused(machine: Machine) -> None:
    with pytest.raises(faults.UnknownFaultError, match="bitflip"):
        machine.set_faults(bitflip=1)
    assert faults.read_faults(machine.gpus[0].folder) == {}


def test_health_is_what_the_faults_say(machine: Machine) -> None:
    folder = machine.gpus[0].folder
    assert faults.is_healthy(folder)
    for sick in ("lost", "unhealthy"):
        machine.set_faults(**{sick: 1})
        assert not faults.is_healthy(folder)
    machine.set_faults(lost=0, hang=1)
    assert faults.is_healthy(folder)
