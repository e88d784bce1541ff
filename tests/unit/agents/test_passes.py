"""What one process does to a GPU's memory, in which order, on a GPU that only records it."""

from itertools import pairwise

import pytest

from lethe.agents.passes import COUNTER_BYTES, PAGE_BYTES, Passes, pattern_key, take_all
from lethe.model import reasons
from lethe.model.errors import GpuError
from lethe.model.scrub import PASSES
from tests.common.recording_gpu import MIB, RecordingGpu

KEY = 0x0123456789ABCDEF


def run_passes(gpu: RecordingGpu) -> tuple[Passes, list[str]]:
    told: list[str] = []
    passes = Passes(gpu, KEY, lambda step, _: told.append(step))
    passes.step("hold", passes.hold)
    passes.run()
    return passes, told


@pytest.mark.parametrize(
    ("free", "largest", "expected"),
    [
        pytest.param(64 * MIB, 64 * MIB, [64 * MIB], id="one piece"),
        pytest.param(7 * MIB, 7 * MIB, [6 * MIB, *[PAGE_BYTES] * 16], id="tail below the granularity"),
        pytest.param(20 * MIB, 6 * MIB, [4 * MIB] * 5, id="fragmented: halved until a piece fits"),
        pytest.param(3 * PAGE_BYTES + 1, MIB, [PAGE_BYTES] * 3, id="less than a granule"),
        pytest.param(0, 0, [], id="nothing"),
    ],
)
def test_takes_everything_in_ever_smaller_pieces(free: int, largest: int, expected: list[int]) -> None:
    gpu = RecordingGpu(free, largest)
    assert [piece.length for piece in take_all(gpu)] == expected


def test_takes_what_comes_free_meanwhile() -> None:
    gpu = RecordingGpu(4 * MIB)
    called: list[int] = []

    def free_bytes() -> int:
        called.append(gpu.free)
        if len(called) == 2:
            gpu.free += 4 * MIB
        return gpu.free

    gpu.free_bytes = free_bytes  # type: ignore[method-assign]
    assert [piece.length for piece in take_all(gpu)] == [4 * MIB, 4 * MIB]


def test_passes_follow_each_other_over_all_pieces() -> None:
    gpu = RecordingGpu(5 * MIB)
    passes, told = run_passes(gpu)
    assert told == ["hold", *PASSES]
    assert list(passes.done.durations) == ["hold", *PASSES]
    expected = [f"lethe_{name}" for name in PASSES for _ in gpu.taken]
    assert gpu.kernels() == [*expected, "lethe_zero"]


def test_no_word_index_is_used_twice() -> None:
    gpu = RecordingGpu(11 * MIB, largest=4 * MIB)
    run_passes(gpu)
    for kernel in ("lethe_fill", "lethe_verify", "lethe_verify_zero"):
        ranges = [(arguments[2], arguments[1]) for name, arguments in gpu.launched if name == kernel]
        assert len(ranges) > 2
        assert all(first + words == following for (first, words), (following, _) in pairwise(ranges))


def test_fill_and_verify_share_a_key() -> None:
    gpu = RecordingGpu(4 * MIB)
    run_passes(gpu)
    assert {arguments[3] for name, arguments in gpu.launched if name in ("lethe_fill", "lethe_verify")} == {KEY}


def test_each_scrub_gpu_and_process_has_a_key_of_its_own() -> None:
    keys = {
        pattern_key(nonce, gpu, process)
        for nonce in ("5a" * 32, "00" * 32)
        for gpu in ("GPU-1", "GPU-2")
        for process in (1, 2)
    }
    assert len(keys) == 8


def test_counts_residue_over_all_pieces() -> None:
    gpu = RecordingGpu(8 * MIB, largest=4 * MIB, counters={"lethe_probe": (5, 2, 99)})
    passes, _ = run_passes(gpu)
    pieces = len(gpu.taken)
    assert passes.done.residue is not None
    assert passes.done.residue.nonzero_bytes == 5 * 16 * pieces
    assert passes.done.residue.nonzero_pages == 2 * pieces
    assert passes.done.bytes_probed == passes.done.bytes_held


def test_a_mismatch_does_not_stop_the_zeros() -> None:
    gpu = RecordingGpu(4 * MIB, counters={"lethe_verify": (3, 77), "lethe_verify_zero": (1, 12)})
    passes, told = run_passes(gpu)
    assert (passes.done.mismatches, passes.done.first_mismatch) == (4, 12)
    assert passes.done.bytes_verified == passes.done.bytes_held - 4 * 16
    assert told[-1] == "verify_zero"


def test_the_counters_lie_in_a_page_that_is_scrubbed_too() -> None:
    gpu = RecordingGpu(2 * PAGE_BYTES)
    passes, _ = run_passes(gpu)
    assert passes.done.bytes_held == 2 * PAGE_BYTES - COUNTER_BYTES
    probed = [arguments[:2] for kernel, arguments in gpu.launched if kernel == "lethe_probe"]
    assert probed == [
        (PAGE_BYTES + COUNTER_BYTES, (PAGE_BYTES - COUNTER_BYTES) // 16),
        (2 * PAGE_BYTES, PAGE_BYTES // 16),
    ]
    assert gpu.launched[-1] == ("lethe_zero", (PAGE_BYTES, COUNTER_BYTES // 16))


def test_a_gpu_that_is_full_is_an_error() -> None:
    with pytest.raises(GpuError) as raised:
        run_passes(RecordingGpu(PAGE_BYTES - 1))
    assert raised.value.reason == reasons.OUT_OF_MEMORY
