"""Facts about simulated GPUs through the real pynvml."""

from collections.abc import Callable
from typing import Any

import pynvml
import pytest

from lethe.adapters.nvml import Nvml, needs_recovery
from lethe.model import reasons
from lethe.model.errors import GpuError
from tests.common.scrubs import build_facts
from tests.simgpu.fixtures import Machine

READ = """
    import msgspec
    from lethe.adapters.nvml import Nvml
    from lethe.model.errors import GpuError
    try:
        with Nvml() as nvml:
            answer(count=nvml.gpu_count(), driver=nvml.driver_version(), cuda=nvml.cuda_version(),
                   facts=[msgspec.to_builtins(nvml.read_facts(index)) for index in range(nvml.gpu_count())])
    except GpuError as error:
        answer(reason=error.reason)
"""


def test_reads_every_gpu(make_machine: Callable[..., Machine]) -> None:
    machine = make_machine(count=2)
    found = machine.run(READ)
    assert (found["count"], found["cuda"]) == (2, 12090)
    assert [facts["uuid"] for facts in found["facts"]] == [gpu.uuid for gpu in machine.gpus]
    facts = found["facts"][0]
    assert facts["memoryTotal"] == 16 << 20
    assert facts["memoryReserved"] == 256 << 10
    assert (facts["migEnabled"], facts["eccEnabled"], facts["recoveryAction"]) == (False, True, "None")
    assert facts["confidentialComputing"] is False
    assert facts["serial"] and facts["vbios"] and facts["pciBusId"].startswith("00000000:")


def test_reads_what_is_wrong(machine: Machine) -> None:
    machine.set_faults(mig=1, ecc=0, ecc_uncorrected=4, remapped_uncorrectable=2, remap_pending=1, recovery_action=2)
    facts = machine.run(READ)["facts"][0]
    assert (facts["migEnabled"], facts["eccEnabled"], facts["eccUncorrected"]) == (True, False, 4)
    assert (facts["remappedRows"], facts["remapPending"], facts["recoveryAction"]) == (2, True, "NodeReboot")


@pytest.mark.parametrize(
    ("fault", "reason"), [("lost", reasons.GPU_LOST), ("driver_mismatch", reasons.DRIVER_MISMATCH)]
)
def test_failures_have_reasons(machine: Machine, fault: str, reason: str) -> None:
    machine.set_faults(**{fault: 1})
    assert machine.run(READ) == {"reason": reason}


def test_lists_who_holds_a_gpu(machine: Machine) -> None:
    with machine.start("open_gpu(); answer(ready=True); sys.stdin.readline()") as client:
        client.next_answer()
        listed = machine.run("""
            from lethe.adapters.nvml import Nvml
            with Nvml() as nvml:
                answer(pids=nvml.processes(0), counted=nvml.read_facts(0).processes)
        """)
        assert listed == {"pids": [client.process.pid], "counted": 1}


def fail_with(number: int) -> Callable[..., Any]:
    def read(*arguments: Any) -> Any:
        raise pynvml.NVMLError(number)

    return read


@pytest.mark.parametrize("number", [pynvml.NVML_ERROR_NOT_SUPPORTED, pynvml.NVML_ERROR_NO_PERMISSION])
def test_what_is_not_offered_is_none(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr(pynvml, "nvmlSystemGetDriverVersion", fail_with(number))
    assert Nvml().driver_version() is None


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (pynvml.NVML_ERROR_GPU_IS_LOST, reasons.GPU_LOST),
        (pynvml.NVML_ERROR_RESET_REQUIRED, reasons.RECOVERY_REQUIRED),
        (pynvml.NVML_ERROR_UNKNOWN, reasons.DRIVER_ERROR),
        (pynvml.NVML_ERROR_NOT_SUPPORTED, reasons.DRIVER_ERROR),
    ],
)
def test_what_must_be_known_is_an_error(monkeypatch: pytest.MonkeyPatch, number: int, reason: str) -> None:
    monkeypatch.setattr(pynvml, "nvmlDeviceGetCount", fail_with(number))
    with pytest.raises(GpuError) as raised:
        Nvml().gpu_count()
    assert raised.value.reason == reason


@pytest.mark.parametrize(
    ("changes", "needed"),
    [
        ({}, False),
        ({"recovery_action": None}, False),
        ({"recovery_action": "GpuReset"}, True),
        ({"recovery_action": "17"}, True),
        ({"remap_pending": True}, True),
        ({"remap_pending": False}, False),
    ],
)
def test_recovery_is_demanded(changes: dict[str, Any], needed: bool) -> None:
    assert (needs_recovery(build_facts(**changes)) is not None) is needed
