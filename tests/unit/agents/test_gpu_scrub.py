"""The two processes of one GPU's scrub, on GPUs that only record it; real ones run in test_scrub.py."""

from typing import Any

import msgspec
import pytest

from lethe.agents import gpu_scrub
from lethe.agents.gpu_scrub import FirstProcess, SecondProcess
from lethe.agents.passes import COUNTER_BYTES, pattern_key
from lethe.agents.shared_memory import LAUNCHES
from lethe.model import reasons
from lethe.model.errors import GpuError
from lethe.model.scrub import FIRST_STEPS, PASSES, SECOND_STEPS, GpuReport
from tests.common.recording_gpu import CONTEXT, MIB, RecordingGpu
from tests.common.scrubs import build_facts

NONCE = "5a" * 32
TOTAL = 16 * MIB
FREE = TOTAL - CONTEXT


def run_first(gpu: RecordingGpu) -> tuple[GpuReport, list[str]]:
    told: list[str] = []
    start = GpuReport(facts=build_facts(memory_total=TOTAL), verdict="Failed", bytes_total=TOTAL)
    return FirstProcess(gpu, start, NONCE, lambda step, _: told.append(step)).run(), told


def first_report(**leapfrog: Any) -> GpuReport:
    report, _ = run_first(RecordingGpu(FREE))
    assert report.leapfrog is not None
    return msgspec.structs.replace(report, leapfrog=msgspec.structs.replace(report.leapfrog, **leapfrog))


def run_second(gpu: RecordingGpu, first: GpuReport, floor: float = 0.9) -> tuple[GpuReport, list[str]]:
    told: list[str] = []
    # What the first gave up is all that is free until it has ended.
    free, gpu.free = gpu.free, 2 * MIB - CONTEXT
    second = SecondProcess(gpu, first, NONCE, floor, lambda step, _: told.append(step))
    gpu.free += free - (2 * MIB - CONTEXT)
    return second.run(), told


def test_the_first_process_wipes_shared_memory_before_anything_else_runs() -> None:
    gpu = RecordingGpu(FREE)
    report, told = run_first(gpu)
    assert told == [*FIRST_STEPS]
    assert list(report.durations) == [*FIRST_STEPS]
    kernels = gpu.kernels()
    assert kernels[0] == "lethe_shared"
    assert list(dict.fromkeys(kernels[1:])) == [f"lethe_{name}" for name in PASSES]


def test_the_first_process_gives_up_a_verified_piece_and_holds_the_rest() -> None:
    gpu = RecordingGpu(FREE)
    report, _ = run_first(gpu)
    (given_up,) = gpu.returned
    assert given_up.length == gpu.granularity >= 2 * CONTEXT
    for kernel in ("lethe_probe", "lethe_fill", "lethe_verify", "lethe_zero", "lethe_verify_zero"):
        assert given_up.address in {arguments[0] for name, arguments in gpu.launched if name == kernel}
    assert report.leapfrog is not None
    assert report.leapfrog.bytes_given_up == report.leapfrog.bytes_free == given_up.length
    assert report.leapfrog.bytes_left_over == 0
    assert report.bytes_verified == report.bytes_held == FREE - COUNTER_BYTES
    assert (report.verdict, report.reason) == ("Failed", "")


def test_no_memory_for_the_second_context_is_an_error() -> None:
    with pytest.raises(GpuError, match="second process's context") as raised:
        run_first(RecordingGpu(1 * MIB))
    assert raised.value.reason == reasons.OUT_OF_MEMORY


def test_shared_memory_is_launched_again_until_every_multiprocessor_was_seen() -> None:
    gpu = RecordingGpu(FREE, counters={"lethe_shared": (6, 0)}, bitmaps=[0b1, 0b1, 0b101, 1 << 70 | 0b101])
    report, _ = run_first(gpu)
    assert gpu.kernels().count("lethe_shared") == 4
    assert report.shared is not None
    assert (report.shared.seen_count(), report.shared.multiprocessors, report.shared.bytes_each) == (3, 3, 1024)
    assert (report.shared.seen, report.shared.residue_bytes) == (f"{1 << 70 | 0b101:x}", 48)
    assert not report.reason


FAULTS: list[Any] = [
    pytest.param(RecordingGpu(FREE, bitmaps=[0b101]), reasons.MULTIPROCESSORS_MISSED, id="multiprocessor missed"),
    pytest.param(
        RecordingGpu(FREE, counters={"lethe_shared": (0, 1)}), reasons.SHARED_MEMORY_MISMATCH, id="shared memory"
    ),
    pytest.param(RecordingGpu(FREE, counters={"lethe_verify": (1, 7)}), reasons.VERIFY_MISMATCH, id="pattern"),
    pytest.param(RecordingGpu(FREE, counters={"lethe_verify_zero": (1, 7)}), reasons.VERIFY_MISMATCH, id="zeros"),
]


@pytest.mark.parametrize(("gpu", "reason"), FAULTS)
def test_a_first_process_that_fails_gives_up_nothing(gpu: RecordingGpu, reason: str) -> None:
    report, told = run_first(gpu)
    assert (report.verdict, report.reason, report.leapfrog, gpu.returned) == ("Failed", reason, None, [])
    assert told[-1] == "verify_zero"
    assert gpu.kernels().count("lethe_shared") == (LAUNCHES if reason == reasons.MULTIPROCESSORS_MISSED else 1)


def test_the_second_process_does_the_passes_over_what_came_free() -> None:
    gpu = RecordingGpu(FREE)
    report, told = run_second(gpu, first_report())
    assert told == [*SECOND_STEPS]
    assert report.leapfrog is not None and list(report.leapfrog.durations) == [*SECOND_STEPS]
    assert list(dict.fromkeys(gpu.kernels())) == [f"lethe_{name}" for name in PASSES]
    keys = {arguments[3] for name, arguments in gpu.launched if name in ("lethe_fill", "lethe_verify")}
    assert keys == {pattern_key(NONCE, report.facts.uuid, 2)}
    assert report.leapfrog.bytes_verified == FREE - COUNTER_BYTES
    assert report.leapfrog.bytes_context == CONTEXT
    assert report.bytes_covered == TOTAL - COUNTER_BYTES  # each left out the other's context
    assert (report.verdict, report.reason, report.coverage) == ("Cleared", "", report.bytes_covered / TOTAL)


def test_what_the_first_left_over_does_not_count_as_verified_under_the_second_context() -> None:
    report, _ = run_second(RecordingGpu(FREE), first_report(bytes_left_over=100))
    assert report.bytes_covered == TOTAL - COUNTER_BYTES - 100


@pytest.mark.parametrize("kernel", ["lethe_verify", "lethe_verify_zero"])
def test_a_mismatch_of_the_second_process_fails(kernel: str) -> None:
    report, _ = run_second(RecordingGpu(FREE, counters={kernel: (2, 5)}), first_report())
    assert (report.verdict, report.reason, report.mismatches) == ("Failed", reasons.VERIFY_MISMATCH, 0)
    assert report.leapfrog is not None and report.leapfrog.mismatches == 2


def test_a_second_process_that_gets_less_than_came_free_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_scrub, "_FREE_SECONDS", 0.0)
    report, _ = run_second(RecordingGpu(FREE - 2 * MIB - 1), first_report(), floor=0.5)
    assert (report.verdict, report.reason) == ("Failed", reasons.LEAPFROG_FAILED)


def test_coverage_below_the_floor_fails() -> None:
    report, _ = run_second(RecordingGpu(FREE), first_report(), floor=0.9999999)
    assert (report.verdict, report.reason) == ("Failed", reasons.COVERAGE_TOO_LOW)
    assert "expected at least" in report.message


def test_a_second_process_needs_memory_that_was_given_up() -> None:
    first = msgspec.structs.replace(first_report(), leapfrog=None)
    with pytest.raises(GpuError) as raised:
        run_second(RecordingGpu(FREE), first)
    assert raised.value.reason == reasons.LEAPFROG_FAILED
