"""What the simulated NVML says to the unmodified nvidia-ml-py."""

import os
import select
from collections.abc import Callable

import pytest

from tests.simgpu.fixtures import Machine
from tests.simgpu.gpus import identity_of

NVML = """
    import pynvml as nvml
    nvml.nvmlInit()
    handle = nvml.nvmlDeviceGetHandleByIndex(0)
    def error(function, *arguments):
        try:
            function(*arguments)
        except nvml.NVMLError as problem:
            return type(problem).__name__
"""

HOLD = """
    open_gpu()
    allocate(2 << 20)
    answer(ready=True)
    sys.stdin.readline()
"""

LIST_PROCESSES = (
    NVML
    + """
    answer(processes=[[p.pid, p.usedGpuMemory] for p in nvml.nvmlDeviceGetComputeRunningProcesses(handle)],
           used=nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2).used)
    """
)


def test_identity_is_the_same_in_nvml_and_cuda(make_machine: Callable[..., Machine]) -> None:
    found = make_machine(count=2, node="gpu-1").run(
        NVML
        + """
    check(driver.cuInit(0))
    text = lambda buffer: buffer.split(b"\\0")[0].decode()
    gpus = []
    for number in range(nvml.nvmlDeviceGetCount()):
        handle = nvml.nvmlDeviceGetHandleByIndex(number)
        device = check(driver.cuDeviceGet(number))
        pci = nvml.nvmlDeviceGetPciInfo(handle)
        gpus.append(dict(
            uuid=nvml.nvmlDeviceGetUUID(handle), cuda_uuid=bytes(check(driver.cuDeviceGetUuid(device)).bytes).hex(),
            name=nvml.nvmlDeviceGetName(handle), cuda_name=text(check(driver.cuDeviceGetName(96, device))),
            pci=pci.busId, cuda_pci=text(check(driver.cuDeviceGetPCIBusId(32, device))),
            serial=nvml.nvmlDeviceGetSerial(handle), vbios=nvml.nvmlDeviceGetVbiosVersion(handle),
            minor=nvml.nvmlDeviceGetMinorNumber(handle), capability=nvml.nvmlDeviceGetCudaComputeCapability(handle),
            by_uuid=nvml.nvmlDeviceGetIndex(nvml.nvmlDeviceGetHandleByUUID(nvml.nvmlDeviceGetUUID(handle))),
            by_pci=nvml.nvmlDeviceGetIndex(nvml.nvmlDeviceGetHandleByPciBusId(pci.busId))))
    answer(gpus=gpus, unknown=error(nvml.nvmlDeviceGetHandleByUUID, "GPU-0"),
           beyond=error(nvml.nvmlDeviceGetHandleByIndex, 2),
           driver=nvml.nvmlSystemGetDriverVersion(), cuda=nvml.nvmlSystemGetCudaDriverVersion())
    """
    )
    for number, gpu in enumerate(found["gpus"]):
        expected = identity_of("gpu-1", number)
        assert gpu["uuid"] == expected["uuid"]
        assert gpu["cuda_uuid"] == expected["uuid"].removeprefix("GPU-").replace("-", "")
        assert gpu["name"] == gpu["cuda_name"] == expected["name"]
        assert (gpu["pci"], gpu["cuda_pci"]) == (f"00000000:4{number + 1}:00.0", f"0000:4{number + 1}:00.0")
        assert (gpu["serial"], gpu["vbios"], gpu["minor"]) == (expected["serial"], expected["vbios"], number)
        assert gpu["capability"] == [9, 0]
        assert gpu["by_uuid"] == gpu["by_pci"] == number
    assert len(found["gpus"]) == 2
    assert (found["unknown"], found["beyond"]) == ("NVMLError_NotFound", "NVMLError_InvalidArgument")
    assert (found["driver"], found["cuda"]) == ("575.0.0-simulated", 12090)


def test_memory_adds_up(machine: Machine) -> None:
    with machine.start(HOLD) as client:
        client.next_answer()
        found = machine.run(
            NVML
            + """
    now, old = nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2), nvml.nvmlDeviceGetMemoryInfo(handle)
    bar1 = nvml.nvmlDeviceGetBAR1MemoryInfo(handle)
    answer(now=[now.total, now.reserved, now.used, now.free], old=[old.total, old.used, old.free], bar1=bar1.bar1Used)
    """
        )
    used = (2 << 20) + (512 << 10)
    free = (16 << 20) - (256 << 10) - used
    assert found["now"] == [16 << 20, 256 << 10, used, free]
    assert found["old"] == [16 << 20, used + (256 << 10), free]
    assert found["bar1"] == 0


def test_processes_are_listed_until_they_end(machine: Machine) -> None:
    assert machine.run(LIST_PROCESSES) == {"processes": [], "used": 0}
    with machine.start(HOLD) as first, machine.start(HOLD) as second:
        first.next_answer()
        second.next_answer()
        used = (2 << 20) + (512 << 10)
        found = machine.run(LIST_PROCESSES)
        assert sorted(found["processes"]) == sorted([[first.process.pid, used], [second.process.pid, used]])
        first.kill()
        assert machine.run(LIST_PROCESSES) == {"processes": [[second.process.pid, used]], "used": used}


def test_a_process_sees_itself(machine: Machine) -> None:
    found = machine.run(
        NVML
        + """
    import os
    open_gpu()
    [process] = nvml.nvmlDeviceGetComputeRunningProcesses(handle)
    answer(same=process.pid == os.getpid(), name=nvml.nvmlSystemGetProcessName(process.pid),
           others=[len(nvml.nvmlDeviceGetGraphicsRunningProcesses(handle)),
                   len(nvml.nvmlDeviceGetMPSComputeRunningProcesses(handle))])
    """
    )
    assert found["same"]
    assert "python" in found["name"]
    assert found["others"] == [0, 0]


def test_processes_outside_the_callers_pid_namespace_are_not_listed_but_their_memory_is(machine: Machine) -> None:
    if os.geteuid() != 0:
        pytest.skip("new PID namespaces need root")
    with machine.start(HOLD) as client:
        client.next_answer()
        with machine.start(LIST_PROCESSES, prefix=("unshare", "--pid", "--fork", "--kill-child")) as other:
            assert other.next_answer() == {"processes": [], "used": (2 << 20) + (512 << 10)}
            other.process.wait(timeout=60)


def test_a_process_of_an_inner_namespace_has_the_pid_that_the_caller_sees(machine: Machine) -> None:
    if os.geteuid() != 0:
        pytest.skip("new PID namespaces need root")
    with machine.start(
        HOLD.replace("ready=True", "inner=__import__('os').getpid()"),
        prefix=("unshare", "--pid", "--fork", "--kill-child"),
    ) as client:
        inner = client.next_answer()["inner"]
        [[pid, _]] = machine.run(LIST_PROCESSES)["processes"]
        with open(f"/proc/{pid}/status") as status:
            [numbers] = [line.split()[1:] for line in status if line.startswith("NSpid:")]
        assert int(numbers[-1]) == inner != pid


def test_memory_kept_by_the_child_of_an_ended_process_has_no_owner_to_list(machine: Machine) -> None:
    program = """
        import os
        open_gpu()
        allocate(2 << 20)
        if os.fork() == 0:
            answer(child=os.getpid())
            sys.stdin.readline()
            os._exit(0)
        os._exit(0)
    """
    with machine.start(program) as client:
        child = client.next_answer()["child"]
        client.process.wait(timeout=60)
        assert machine.run(LIST_PROCESSES) == {"processes": [], "used": (2 << 20) + (512 << 10)}
        ended = os.pidfd_open(child)
        client.go_on()
        select.select([ended], [], [], 60)
        os.close(ended)
        assert machine.run(LIST_PROCESSES) == {"processes": [], "used": 0}


def test_modes_and_counters_are_healthy_by_default_and_settable(machine: Machine) -> None:
    program = (
        NVML
        + """
    errors = lambda kind: nvml.nvmlDeviceGetTotalEccErrors(handle, kind, nvml.NVML_AGGREGATE_ECC)
    action, unknown = nvml.nvmlDeviceGetFieldValues(handle, [nvml.NVML_FI_DEV_GET_GPU_RECOVERY_ACTION, 1])
    answer(mig=nvml.nvmlDeviceGetMigMode(handle), ecc=nvml.nvmlDeviceGetEccMode(handle), errors=[errors(0), errors(1)],
           compute=nvml.nvmlDeviceGetComputeMode(handle), persistence=nvml.nvmlDeviceGetPersistenceMode(handle),
           accounting=nvml.nvmlDeviceGetAccountingMode(handle), pids=nvml.nvmlDeviceGetAccountingPids(handle),
           rows=nvml.nvmlDeviceGetRemappedRows(handle), action=[action.nvmlReturn, action.value.uiVal],
           unknown=unknown.nvmlReturn, confidential=nvml.nvmlSystemGetConfComputeState().ccFeature)
    """
    )
    healthy = {
        "mig": [0, 0],
        "ecc": [1, 1],
        "errors": [0, 0],
        "compute": 0,
        "persistence": 1,
        "accounting": 0,
        "pids": [],
        "rows": [0, 0, 0, 0],
        "action": [0, 0],
        "unknown": 3,
        "confidential": 0,
    }
    assert machine.run(program) == healthy
    machine.set_faults(
        mig=1,
        ecc=0,
        ecc_corrected=4,
        ecc_uncorrected=2,
        compute_mode=3,
        persistence=0,
        accounting=1,
        remapped_correctable=1,
        remapped_uncorrectable=2,
        remap_pending=1,
        recovery_action=2,
    )
    assert machine.run(program) == healthy | {
        "mig": [1, 1],
        "ecc": [0, 0],
        "errors": [4, 2],
        "compute": 3,
        "persistence": 0,
        "accounting": 1,
        "rows": [1, 2, 1, 0],
        "action": [0, 2],
    }


def test_start_and_shutdown_are_counted(machine: Machine) -> None:
    found = machine.run(
        NVML
        + """
    nvml.nvmlInit()
    nvml.nvmlShutdown()
    still = error(nvml.nvmlDeviceGetUUID, handle)
    nvml.nvmlShutdown()
    answer(still=still, ended=error(nvml.nvmlDeviceGetUUID, handle), again=error(nvml.nvmlShutdown))
    """
    )
    assert found == {"still": None, "ended": "NVMLError_Uninitialized", "again": "NVMLError_Uninitialized"}
