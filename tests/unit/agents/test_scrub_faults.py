"""No fault, at whatever step of the algorithm, clears a GPU: the scrub's own process on the simulated driver.

A fault strikes at one event of its GPU: the launch of a kernel, an allocation, a context. The GPUs of one machine are
scrubbed side by side, so that one scrub tries many.
"""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from lethe.agents.eviction import read_process
from lethe.decisions.receipts import Clearance, Cleared, NotCleared
from lethe.model import reasons
from lethe.model.scrub import GpuReport
from tests.cluster.waiting import until
from tests.common.scrub_process import Scrub, has_struck, read_until
from tests.simgpu.fixtures import Machine
from tests.simgpu.gpus import SHARED_BYTES

MIB = 16
OFFSET = 8 << 20


def first(events: dict[str, int], event: str) -> dict[str, int | str]:
    """Strike in the first process of a GPU."""
    return {"strike_at": event, "strike_after": 1 if event == "allocation" else 0}


def second(events: dict[str, int], event: str) -> dict[str, int | str]:
    """Strike in the second: at the last event of this kind, but for the wiping of the counters."""
    return {"strike_at": event, "strike_after": events[event] - (2 if event == "lethe_zero" else 1)}


Strike = Callable[[dict[str, int], str], dict[str, int | str]]

STEPS: dict[str, tuple[Strike, str]] = {
    "open": (first, "context"),
    "hold": (first, "allocation"),
    "shared": (first, "lethe_shared"),
    "probe": (first, "lethe_probe"),
    "fill": (first, "lethe_fill"),
    "verify": (first, "lethe_verify"),
    "zero": (first, "lethe_zero"),
    "verify_zero": (first, "lethe_verify_zero"),
    "second process, open": (second, "context"),
    "second process, hold": (second, "allocation"),
    "second process, probe": (second, "lethe_probe"),
    "second process, fill": (second, "lethe_fill"),
    "second process, verify": (second, "lethe_verify"),
    "second process, zero": (second, "lethe_zero"),
    "second process, verify_zero": (second, "lethe_verify_zero"),
}
TAKING = {"open", "hold", "second process, open", "second process, hold"}
"""Steps that launch no kernel."""


def scrub_with_faults_at(
    machine: Machine, folder: Path, events: dict[str, int], steps: list[str], seconds: int = 300, **faults: int
) -> tuple[list[GpuReport], Clearance]:
    """Let the same fault strike at another step of each GPU; return what became of each."""
    for number, name in enumerate(steps):
        strike, event = STEPS[name]
        machine.set_faults(number, **faults, **strike(events, event))
    report, clearance = Scrub(machine, folder, timeout_seconds=seconds).run()
    return report.gpus, clearance


def test_a_gpu_that_is_lost_in_any_step_fails(
    make_machine: Callable[..., Machine], tmp_path: Path, events: dict[str, int]
) -> None:
    machine = make_machine(count=len(STEPS), mib=MIB)
    gpus, clearance = scrub_with_faults_at(machine, tmp_path, events, [*STEPS], lost=1)
    assert [(gpu.verdict, gpu.reason) for gpu in gpus] == [("Failed", reasons.GPU_LOST)] * len(gpus)
    assert isinstance(clearance, NotCleared) and clearance.reason == reasons.GPU_LOST


def test_an_uncorrectable_error_in_any_step_fails(
    make_machine: Callable[..., Machine], tmp_path: Path, events: dict[str, int]
) -> None:
    steps = [step for step in STEPS if step not in TAKING]
    machine = make_machine(count=len(steps), mib=MIB)
    gpus, clearance = scrub_with_faults_at(machine, tmp_path, events, steps, uncorrectable_ecc=1)
    assert [(gpu.verdict, gpu.reason) for gpu in gpus] == [("Failed", reasons.ECC_UNCORRECTABLE)] * len(gpus)
    assert [gpu.message.split(": ")[0] for gpu in gpus] == [f"step {step}" for step in steps]
    assert isinstance(clearance, NotCleared) and clearance.reason == reasons.ECC_UNCORRECTABLE


def test_a_gpu_that_hangs_in_any_step_is_given_up_at_the_deadline(
    make_machine: Callable[..., Machine], tmp_path: Path, events: dict[str, int]
) -> None:
    machine = make_machine(count=len(STEPS), mib=MIB)
    gpus, clearance = scrub_with_faults_at(machine, tmp_path, events, [*STEPS], seconds=15, hang=2)
    assert [(gpu.verdict, gpu.reason) for gpu in gpus] == [("Failed", reasons.GPU_HANG)] * len(gpus)
    assert isinstance(clearance, NotCleared) and clearance.reason == reasons.GPU_HANG
    for gpu in gpus:
        assert gpu.after is not None and gpu.after.memory_used == 0


FAULTS: dict[str, tuple[dict[str, int | str], str]] = {
    "bit flips after the pattern": ({"bit_flip_offset": OFFSET}, reasons.VERIFY_MISMATCH),
    "or after zeros": ({"bit_flip_offset": OFFSET, "bit_flip_after": "zero"}, reasons.VERIFY_MISMATCH),
    "stuck cell": ({"stuck_offset": OFFSET, "stuck_value": 7}, reasons.VERIFY_MISMATCH),
    "stuck cell of shared memory": ({"shared_stuck_offset": 2 * SHARED_BYTES + 9}, reasons.SHARED_MEMORY_MISMATCH),
    "a multiprocessor gets no block": ({"missed_multiprocessor": 2}, reasons.MULTIPROCESSORS_MISSED),
    "not all memory to be had": ({"out_of_memory_after": 10 << 20}, reasons.COVERAGE_TOO_LOW),
    "none for the second context": ({"out_of_memory_after": 1 << 20}, reasons.OUT_OF_MEMORY),
    "only a context fits": ({"out_of_memory_after": 512 << 10}, reasons.OUT_OF_MEMORY),
    "not even a context": ({"out_of_memory_after": 1}, reasons.OUT_OF_MEMORY),
    "lost": ({"lost": 1}, reasons.GPU_LOST),
    "MIG": ({"mig": 1}, reasons.MIG_ENABLED),
    "one process at a time": ({"compute_mode": 3}, reasons.COMPUTE_MODE_EXCLUSIVE),
    "remapped row waits for a reset": ({"remap_pending": 1}, reasons.RECOVERY_REQUIRED),
    "driver wants a reboot": ({"recovery_action": 2}, reasons.RECOVERY_REQUIRED),
}
CURED = ("stuck cell", "a multiprocessor gets no block", "lost", "remapped row waits for a reset")


def test_each_fault_fails_its_gpu_with_its_own_reason(make_machine: Callable[..., Machine], tmp_path: Path) -> None:
    machine = make_machine(count=len(FAULTS) + 1, mib=MIB)
    for number, (faults, _) in enumerate(FAULTS.values()):
        machine.set_faults(number, **faults)
    scrub = Scrub(machine, tmp_path)
    report, clearance = scrub.run()
    expected = {name: ("Failed", reason) for name, (_, reason) in FAULTS.items()} | {"none": ("Cleared", "")}
    assert {name: (gpu.verdict, gpu.reason) for name, gpu in zip(expected, report.gpus, strict=True)} == expected
    assert report.reason == report.gpus[0].reason and report.message
    assert isinstance(clearance, NotCleared) and clearance.reason == report.reason
    assert [isinstance(scrub.judge(report, gpu), Cleared) for gpu in report.gpus] == [False] * len(FAULTS) + [True]


def test_a_cured_gpu_is_cleared_by_the_next_scrub(make_machine: Callable[..., Machine], tmp_path: Path) -> None:
    machine = make_machine(count=len(CURED), mib=MIB)
    for number, name in enumerate(CURED):
        machine.set_faults(number, **FAULTS[name][0])
    scrub = Scrub(machine, tmp_path)
    assert [gpu.verdict for gpu in scrub.run()[0].gpus] == ["Failed"] * len(CURED)
    for number in range(len(CURED)):
        machine.set_faults(number)
    assert isinstance(scrub.run()[1], Cleared)


def second_half(events: dict[str, int], event: str) -> dict[str, int | str]:
    """Strike in the second process, at its second event of this kind: each process has half of them, about."""
    return {"strike_at": event, "strike_after": (events[event] + 1) // 2 + 1}


LATE: dict[str, tuple[Strike, str, dict[str, int | str], str]] = {
    "bit flips after the second pattern": (
        second_half,
        "lethe_fill",
        {"bit_flip_offset": OFFSET},
        reasons.VERIFY_MISMATCH,
    ),
    "or after the second zeros": (
        *(second_half, "lethe_zero"),
        *({"bit_flip_offset": OFFSET, "bit_flip_after": "zero"}, reasons.VERIFY_MISMATCH),
    ),
    "no memory for the second process": (second, "context", {"out_of_memory_after": 1}, reasons.OUT_OF_MEMORY),
    "little memory for it": (second_half, "allocation", {"out_of_memory_after": 4 << 20}, reasons.LEAPFROG_FAILED),
    "error counted at the end": (first, "lethe_verify", {"ecc_uncorrected": 3}, reasons.ECC_UNCORRECTABLE),
    "row to be remapped at the end": (first, "lethe_verify", {"remap_pending": 1}, reasons.RECOVERY_REQUIRED),
}


def test_a_fault_that_comes_late_has_its_reason_too(
    make_machine: Callable[..., Machine], tmp_path: Path, events: dict[str, int]
) -> None:
    machine = make_machine(count=len(LATE), mib=MIB)
    for number, (strike, event, faults, _) in enumerate(LATE.values()):
        machine.set_faults(number, **faults, **strike(events, event))
    report, clearance = Scrub(machine, tmp_path).run()
    expected = {name: ("Failed", reason) for name, (*_, reason) in LATE.items()}
    assert {name: (gpu.verdict, gpu.reason) for name, gpu in zip(LATE, report.gpus, strict=True)} == expected
    assert isinstance(clearance, NotCleared)


@pytest.mark.parametrize(("strike", "event"), [(first, "context"), (first, "lethe_shared")])
def test_a_driver_of_another_version_meanwhile_fails_the_second_process(
    machine: Machine, tmp_path: Path, events: dict[str, int], strike: Strike, event: str
) -> None:
    machine.set_faults(0, driver_mismatch=1, **strike(events, event))
    report, clearance = Scrub(machine, tmp_path).run()
    assert (report.gpus[0].verdict, report.gpus[0].reason) == ("Failed", reasons.DRIVER_MISMATCH)
    assert isinstance(clearance, NotCleared) and clearance.reason == reasons.DRIVER_MISMATCH


def test_a_driver_that_does_not_match_fails_without_gpus(machine: Machine, tmp_path: Path) -> None:
    machine.set_faults(0, driver_mismatch=1)
    report, clearance = Scrub(machine, tmp_path).run()
    assert (report.reason, report.gpus) == (reasons.DRIVER_MISMATCH, [])
    assert isinstance(clearance, NotCleared) and clearance.reason == reasons.DRIVER_MISMATCH


def worker_on(machine: Machine, number: int) -> int:
    """Return the process that has held a GPU for longest, as NVML names it."""
    found = machine.run(f"""
        from lethe.adapters.nvml import Nvml
        with Nvml() as nvml:
            answer(pids=nvml.processes({number}))
    """)
    return int(min(found["pids"]))


@pytest.mark.parametrize(
    ("step", "ends"),
    [("probe", False), ("second process, open", True), ("second process, probe", False)],
)
def test_a_worker_that_dies_fails_its_gpu(
    machine: Machine, tmp_path: Path, events: dict[str, int], step: str, ends: bool
) -> None:
    """`ends`: the first process is killed while the second opens its context, which may then lie anywhere."""
    strike, event = STEPS[step]
    machine.set_faults(0, hang=2, **strike(events, event))
    scrub = Scrub(machine, tmp_path)
    with scrub.start() as process:
        read_until(process, f"{machine.gpus[0].uuid}: {step}")
        until(lambda: has_struck(machine, 0), what="the fault's event", seconds=60)
        worker = worker_on(machine, 0)
        os.kill(worker, signal.SIGKILL)
        until(lambda: read_process(Path("/proc"), worker) is None, what="the worker's death", seconds=60)
        machine.set_faults(0)
        report, _ = scrub.finish(process)
    expected = reasons.LEAPFROG_FAILED if ends else reasons.DRIVER_ERROR
    assert (report.gpus[0].verdict, report.reason) == ("Failed", expected)
    assert ends or "exit code -9" in report.message
