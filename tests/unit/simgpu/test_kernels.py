"""The scrub kernels, run by the simulated driver, against a numpy model of what scrub.cu promises."""

from pathlib import Path

import numpy as np
import pytest

from tests.simgpu.fixtures import Machine
from tests.simgpu.gpus import SHARED_BYTES

PAGE_WORDS = 4096
BLOCK_SHARED_BYTES = SHARED_BYTES - 1024
GOLDEN = 0x9E3779B97F4A7C15
KEY = 0x0123456789ABCDEF
FIRST = 1 << 33  # indices beyond 32 bits

RUN = """
    open_gpu()
    words, grid, block = int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    kernels, base, out = Kernels(), allocate(words * WORD), allocate(24)
    data = open(sys.argv[1], "rb").read() if sys.argv[1] else None
    if data:
        write(base, data)
    def counters(*values):
        write_counters(out, *values)
        return out
    shape = dict(grid=grid, block=block)
"""

SHAPES = [(1, 32), (3, 64), (8, 1024)]


def mix(x: np.ndarray) -> np.ndarray:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def step(index: np.ndarray) -> np.ndarray:
    return (index + np.uint64(1)) * np.uint64(GOLDEN)


def pattern(count: int, first: int, key: int) -> np.ndarray:
    """The pattern as 64-bit halves: shape (count, 2)."""
    low = mix(np.uint64(key) + step(np.uint64(first) + np.arange(count, dtype=np.uint64)))
    return np.stack((low, ~(low << np.uint64(32) | low >> np.uint64(32))), axis=1)


def probe(words: np.ndarray) -> list[int]:
    """Words that are not zero, pages that hold one, digest."""
    dirty = np.flatnonzero(words.any(axis=1)).astype(np.uint64)
    low, high = words[dirty.astype(np.int64)].T
    digest = np.bitwise_xor.reduce(mix(low ^ mix(high + step(dirty))), initial=np.uint64(0))
    return [len(dirty), len(np.unique(dirty // np.uint64(PAGE_WORDS))), int(digest)]


@pytest.mark.parametrize(("grid", "block"), SHAPES)
def test_fill_writes_the_pattern(machine: Machine, tmp_path: Path, grid: int, block: int) -> None:
    words = 3 * PAGE_WORDS + 17
    machine.run(
        RUN
        + """
    kernels.run("lethe_fill", base, words, int(sys.argv[5]), int(sys.argv[6]), **shape)
    open(sys.argv[7], "wb").write(read(base, words * WORD))
    answer()
    """,
        "", words, grid, block, FIRST, KEY, tmp_path / "filled",
    )  # fmt: skip
    filled = np.fromfile(tmp_path / "filled", dtype=np.uint64).reshape(-1, 2)
    assert np.array_equal(filled, pattern(words, FIRST, KEY))


def test_the_pattern_never_repeats_and_has_as_many_ones_as_zeros() -> None:
    words = pattern(1 << 16, FIRST, KEY)
    assert len(np.unique(words[:, 0])) == len(words)
    assert set(np.bitwise_count(words).sum(axis=1)) == {64}


@pytest.mark.parametrize(("grid", "block"), SHAPES)
def test_verify_counts_mismatches_and_names_the_first(machine: Machine, tmp_path: Path, grid: int, block: int) -> None:
    words, wrong = 2 * PAGE_WORDS + 5, [3, 4096, 8196]
    data = pattern(words, FIRST, KEY)
    data[wrong, 1] ^= np.uint64(1 << 63)
    data.tofile(tmp_path / "data")
    program = (
        RUN
        + """
    first, key = int(sys.argv[5]), int(sys.argv[6])
    kernels.run("lethe_verify", base, words, first, key, counters(0, ALL_ONES), **shape)
    damaged = read_counters(out, 2)
    kernels.run("lethe_verify", base, 3, first, key, counters(0, ALL_ONES), **shape)
    intact = read_counters(out, 2)
    kernels.run("lethe_verify", base, 3, first, key + 1, counters(0, ALL_ONES), **shape)
    other_key = read_counters(out, 2)
    kernels.run("lethe_verify", base, 3, first + 1, key, counters(0, ALL_ONES), **shape)
    answer(damaged=damaged, intact=intact, other_key=other_key, other_place=read_counters(out, 2))
    """
    )
    found = machine.run(program, tmp_path / "data", words, grid, block, FIRST, KEY)
    assert found == {
        "damaged": [3, FIRST + 3],
        "intact": [0, 2**64 - 1],
        "other_key": [3, FIRST],
        "other_place": [3, FIRST + 1],
    }


@pytest.mark.parametrize(("grid", "block"), SHAPES)
def test_probe_counts_words_and_pages_and_digests_them(machine: Machine, tmp_path: Path, grid: int, block: int) -> None:
    words = 5 * PAGE_WORDS + 100
    data = np.zeros((words, 2), dtype=np.uint64)
    data[[0, 1, PAGE_WORDS - 1], 0] = (1, 1 << 63, 77)  # page 0
    data[3 * PAGE_WORDS, 1] = 1 << 40  # page 3
    data[words - 1] = (5, 6)  # the last, part of a page
    data.tofile(tmp_path / "data")
    program = (
        RUN
        + """
    kernels.run("lethe_probe", base, words, counters(10, 20, 0), **shape)
    answer(found=read_counters(out, 3))
    """
    )
    residue, pages, digest = probe(data)
    assert (residue, pages) == (5, 3)
    assert machine.run(program, tmp_path / "data", words, grid, block)["found"] == [10 + residue, 20 + pages, digest]


def test_the_digest_tells_places_apart() -> None:
    here, there = np.zeros((8, 2), dtype=np.uint64), np.zeros((8, 2), dtype=np.uint64)
    here[1] = there[2] = (1, 2)
    assert probe(here)[:2] == probe(there)[:2]
    assert probe(here)[2] != probe(there)[2]


@pytest.mark.parametrize(("grid", "block"), SHAPES)
def test_zero_and_its_verification(machine: Machine, tmp_path: Path, grid: int, block: int) -> None:
    words = PAGE_WORDS + 9
    pattern(words, 0, KEY).tofile(tmp_path / "data")
    program = (
        RUN
        + """
    kernels.run("lethe_zero", base, words - 2, **shape)
    kernels.run("lethe_verify_zero", base, words, 1000, counters(0, ALL_ONES), **shape)
    rest = read_counters(out, 2)
    kernels.run("lethe_zero", base, words, **shape)
    kernels.run("lethe_verify_zero", base, words, 1000, counters(0, ALL_ONES), **shape)
    kernels.run("lethe_probe", base, words, counters(0, ALL_ONES, 0), **shape)
    answer(rest=rest, zero=read(base, words * WORD).count(0) == words * WORD, probed=read_counters(out, 3))
    """
    )
    found = machine.run(program, tmp_path / "data", words, grid, block)
    assert found == {"rest": [2, 1000 + words - 2], "zero": True, "probed": [0, 2**64 - 1, 0]}


def test_a_kernel_beyond_its_memory_breaks_the_context(machine: Machine) -> None:
    found = machine.run("""
        open_gpu()
        kernels, base = Kernels(), allocate(1 << 16)
        launch = error_of(kernels.launch("lethe_zero", base, (1 << 16) // WORD + 1))
        answer(launch=launch, later=error_of(driver.cuCtxSynchronize()), read=error_of(driver.cuMemAlloc(1)))
    """)
    assert set(found.values()) == {"CUDA_ERROR_ILLEGAL_ADDRESS"}


def test_only_kernels_that_the_ptx_names_are_found(machine: Machine) -> None:
    found = machine.run("""
        open_gpu()
        ptx = b".version 8.0\\n.target sm_75\\n.visible .entry lethe_zero(){ret;}\\n.visible .entry other(){ret;}\\0"
        module = check(driver.cuModuleLoadData(ptx))
        find = lambda name: error_of(driver.cuModuleGetFunction(module, name))
        answer(named=find(b"lethe_zero"), absent=find(b"lethe_fill"), part=find(b"lethe_z"), foreign=find(b"other"),
               text=error_of(driver.cuModuleLoadData(b"no PTX\\0")))
    """)
    assert found == {
        "named": "CUDA_SUCCESS",
        "absent": "CUDA_ERROR_NOT_FOUND",
        "part": "CUDA_ERROR_NOT_FOUND",
        "foreign": "CUDA_ERROR_NOT_SUPPORTED",
        "text": "CUDA_ERROR_INVALID_PTX",
    }


SHARED = """
    open_gpu()
    kernels, out = Kernels(), allocate(1 << 16)
    words = int(sys.argv[1])
    def shared(grid, key=5):
        write_counters(out, 0, 0, 0, 0)
        kernels.run("lethe_shared", words, key, 128, out, grid=grid, block=1024, shared=words * 8)
        return read_counters(out, 4)
"""


def test_shared_memory_is_probed_and_wiped_on_each_multiprocessor(machine: Machine) -> None:
    file = machine.gpus[0].folder / "shared"
    memory = bytearray(file.stat().st_size)
    memory[0:16] = b"x" * 16
    memory[2 * SHARED_BYTES + 8 * 100] = 1
    memory[2 * SHARED_BYTES + BLOCK_SHARED_BYTES] = 1  # beyond what a block can have
    file.write_bytes(memory)
    found = machine.run(SHARED + "    answer(two=shared(2), all=shared(4), again=shared(4))", BLOCK_SHARED_BYTES // 8)
    assert found == {"two": [2, 0, 0b11, 0], "all": [1, 0, 0b1111, 0], "again": [0, 0, 0b1111, 0]}
    assert [i for i, byte in enumerate(file.read_bytes()) if byte] == [2 * SHARED_BYTES + BLOCK_SHARED_BYTES]


def test_a_stuck_cell_of_shared_memory_is_a_mismatch(machine: Machine) -> None:
    machine.set_faults(shared_stuck_offset=SHARED_BYTES + 8 * 77 + 3, shared_stuck_value=0x40)
    found = machine.run(SHARED + "    answer(one=shared(1), two=shared(2))", 100)
    assert found["one"] == [0, 0, 0b1, 0]
    assert found["two"] == [0, 2, 0b11, 0]


def test_more_shared_memory_than_usual_must_be_asked_for(machine: Machine) -> None:
    found = machine.run(
        """
        open_gpu()
        kernels, out = Kernels(), allocate(1 << 16)
        write_counters(out, 0, 0, 0, 0)
        def launch(bytes_, ask, words=1):
            asked = error_of(kernels.allow_shared("lethe_shared", ask))
            return [asked, error_of(kernels.launch("lethe_shared", words, 5, 128, out, shared=bytes_))]
        answer(usual=launch(48 << 10, 48 << 10), unasked=launch((48 << 10) + 1, 48 << 10),
               all=launch(227 << 10, 227 << 10), beyond=launch(8, 228 << 10), beside=launch(8, 8, words=2))
        """
    )
    fine, refused = "CUDA_SUCCESS", "CUDA_ERROR_INVALID_VALUE"
    assert found == {
        "usual": [fine, fine],
        "unasked": [fine, refused],
        "all": [fine, fine],
        "beyond": [refused, fine],
        "beside": [fine, "CUDA_ERROR_ILLEGAL_ADDRESS"],
    }
