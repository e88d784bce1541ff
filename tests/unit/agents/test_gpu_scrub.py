"""The order of work on one GPU, on memory that lives in this process; real kernels run in test_scrub.py."""

from collections.abc import Sequence
from itertools import pairwise

import pytest

from lethe.agents.gpu_scrub import PAGE_BYTES, GpuScrub, hold, pattern_key
from lethe.model import reasons
from lethe.model.errors import GpuError
from lethe.model.ports import DeviceMemory
from lethe.model.scrub import PASSES, GpuReport
from tests.common.scrubs import build_facts

MIB = 1 << 20
NONCE = "5a" * 32


class RecordingGpu:
    """Memory that is given out until it is used up, and a list of what was launched."""

    granularity = 2 * MIB

    def __init__(self, free: int, largest: int | None = None, counters: dict[str, Sequence[int]] | None = None) -> None:
        self.free = free
        self.largest = largest or free
        self.found = counters or {}
        self.taken: list[int] = []
        self.launched: list[tuple[str, tuple[int, ...]]] = []

    def free_bytes(self) -> int:
        return self.free

    def take_mapped(self, length: int) -> DeviceMemory | None:
        assert length % self.granularity == 0
        return self._take(length) if length <= self.largest else None

    def take_classic(self, length: int) -> DeviceMemory | None:
        return self._take(length)

    def _take(self, length: int) -> DeviceMemory | None:
        if length > self.free:
            return None
        self.free -= length
        self.taken.append(length)
        return DeviceMemory(sum(self.taken), length)

    def write(self, memory: DeviceMemory, values: Sequence[int]) -> None:
        self.launched.append(("write", tuple(values)))

    def read(self, memory: DeviceMemory, count: int) -> list[int]:
        kernel = self.launched[-1][0]
        return list(self.found.get(kernel, (0, 2**64 - 1, 0)))[:count]

    def launch(self, kernel: str, *arguments: int) -> None:
        self.launched.append((kernel, arguments))

    def synchronize(self) -> None: ...


def start(total: int) -> GpuReport:
    return GpuReport(facts=build_facts(memory_total=total), verdict="Failed", bytes_total=total)


def scrub(gpu: RecordingGpu, total: int, floor: float = 0.9) -> tuple[GpuReport, list[str]]:
    told: list[str] = []
    report = GpuScrub(gpu, start(total), NONCE, floor, lambda step, _: told.append(step)).run()
    return report, told


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
def test_holds_everything_in_ever_smaller_pieces(free: int, largest: int, expected: list[int]) -> None:
    gpu = RecordingGpu(free, largest)
    assert [piece.length for piece in hold(gpu)] == expected


def test_passes_follow_each_other_over_all_pieces() -> None:
    gpu = RecordingGpu(5 * MIB)
    report, told = scrub(gpu, 5 * MIB)
    assert told == ["hold", *PASSES]
    assert list(report.durations) == ["hold", *PASSES]
    kernels = [kernel for kernel, _ in gpu.launched if kernel != "write"]
    pieces = len(gpu.taken)
    expected = [f"lethe_{name}" for name in PASSES for _ in range(pieces)]
    assert kernels == [*expected, "lethe_zero"]


def test_no_word_index_is_used_twice() -> None:
    gpu = RecordingGpu(11 * MIB, largest=4 * MIB)
    scrub(gpu, 11 * MIB)
    for kernel in ("lethe_fill", "lethe_verify", "lethe_verify_zero"):
        ranges = [(arguments[2], arguments[1]) for name, arguments in gpu.launched if name == kernel]
        assert len(ranges) > 2
        assert all(first + words == following for (first, words), (following, _) in pairwise(ranges))


def test_fill_and_verify_share_a_key_of_this_scrub_and_gpu() -> None:
    gpu = RecordingGpu(4 * MIB)
    scrub(gpu, 4 * MIB)
    keys = {arguments[3] for name, arguments in gpu.launched if name in ("lethe_fill", "lethe_verify")}
    assert keys == {pattern_key(NONCE, build_facts().uuid)}
    assert pattern_key(NONCE, "GPU-1") != pattern_key(NONCE, "GPU-2") != pattern_key("00" * 32, "GPU-2")


def test_counts_residue_over_all_pieces() -> None:
    gpu = RecordingGpu(8 * MIB, largest=4 * MIB, counters={"lethe_probe": (5, 2, 99)})
    report, _ = scrub(gpu, 8 * MIB, floor=0.5)
    pieces = len(gpu.taken)
    assert report.residue is not None
    assert (report.residue.nonzero_bytes, report.residue.nonzero_pages) == (5 * 16 * pieces, 2 * pieces)
    assert report.verdict == "Cleared"


def test_a_mismatch_fails_and_the_zeros_still_go_over_everything() -> None:
    gpu = RecordingGpu(4 * MIB, counters={"lethe_verify": (3, 77), "lethe_verify_zero": (1, 12)})
    report, told = scrub(gpu, 4 * MIB)
    assert (report.verdict, report.reason) == ("Failed", reasons.VERIFY_MISMATCH)
    assert (report.mismatches, report.first_mismatch) == (4, 12)
    assert report.bytes_verified == report.bytes_held - 4 * 16
    assert told[-1] == "verify_zero"


def test_coverage_below_the_floor_fails() -> None:
    report, _ = scrub(RecordingGpu(4 * MIB), total=8 * MIB)
    assert (report.verdict, report.reason) == ("Failed", reasons.COVERAGE_TOO_LOW)
    assert report.coverage == (4 * MIB - 32) / (8 * MIB)


def test_the_counters_take_two_words_of_a_page_that_is_scrubbed_too() -> None:
    gpu = RecordingGpu(2 * PAGE_BYTES)
    report, _ = scrub(gpu, 2 * PAGE_BYTES)
    assert report.bytes_held == 2 * PAGE_BYTES - 32
    probed = [arguments[:2] for kernel, arguments in gpu.launched if kernel == "lethe_probe"]
    assert probed == [(PAGE_BYTES + 32, PAGE_BYTES // 16 - 2), (2 * PAGE_BYTES, PAGE_BYTES // 16)]
    assert gpu.launched[-1] == ("lethe_zero", (PAGE_BYTES, 2))


def test_a_gpu_that_is_full_is_an_error() -> None:
    with pytest.raises(GpuError) as raised:
        scrub(RecordingGpu(PAGE_BYTES - 1), 4 * MIB)
    assert raised.value.reason == reasons.OUT_OF_MEMORY
