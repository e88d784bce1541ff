"""No fault, whenever it strikes, leads to a cleared GPU that should not be, from a fresh seed in every run.

Each example fills the memory of a machine's GPUs with a tenant's data, gives each a fault that strikes at some event of
its scrub, and scrubs. Whatever the operator then calls clear must hold nothing but zeros.
"""

import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from lethe.decisions.receipts import Cleared
from tests.common.scrub_process import EVENTS, Scrub, has_struck
from tests.simgpu.fixtures import Machine
from tests.simgpu.gpus import MULTIPROCESSORS, PAGE_BYTES, SHARED_BYTES

MIB = 16
GPUS = 6
EXAMPLES = 10
RESERVED = 256 << 10
BLOCK_SHARED_BYTES = SHARED_BYTES - 1024  # the driver keeps the rest
SHARES = st.floats(0, 1, exclude_max=True)

LOUD: tuple[dict[str, int | str], ...] = (
    {"lost": 1},
    {"uncorrectable_ecc": 1},
    {"ecc_uncorrected": 2},
    {"remap_pending": 1},
    {"recovery_action": 1},
)
"""Faults that show at the latest when the GPU is read at the end: one that struck must fail the GPU."""


@dataclass(frozen=True)
class Fault:
    values: dict[str, int | str]
    event: str
    share: float
    """Which of the event's occurrences it strikes at, as a share of all."""


def places() -> st.SearchStrategy[int]:
    """Bytes of memory that programs can have, away from where a page may hold counters."""
    pages = st.integers(RESERVED // PAGE_BYTES, (MIB << 20) // PAGE_BYTES - 1)
    return st.builds(lambda page, byte: page * PAGE_BYTES + byte, pages, st.integers(1024, PAGE_BYTES - 1))


def shared_places() -> st.SearchStrategy[int]:
    """Bytes of shared memory that a block can have."""
    numbers, offsets = st.integers(0, MULTIPROCESSORS - 1), st.integers(0, BLOCK_SHARED_BYTES - 1)
    return st.builds(lambda number, offset: number * SHARED_BYTES + offset, numbers, offsets)


def faults_with(
    events: tuple[str, ...], key: str, value: st.SearchStrategy[int], **fixed: int | str
) -> st.SearchStrategy[Fault]:
    return st.builds(
        lambda event, found, share: Fault({key: found, **fixed}, event, share), st.sampled_from(events), value, SHARES
    )


FAULTS = st.one_of(
    st.builds(Fault, st.sampled_from(LOUD), st.sampled_from(EVENTS), SHARES),
    # Damage strikes while there is still a check to come.
    faults_with(("lethe_fill",), "bit_flip_offset", places()),
    faults_with(("lethe_zero",), "bit_flip_offset", places(), bit_flip_after="zero"),
    faults_with(("lethe_fill", "lethe_zero"), "stuck_offset", places(), stuck_value=0x5A),
    faults_with(("lethe_shared",), "shared_stuck_offset", shared_places()),
    faults_with(("lethe_shared",), "missed_multiprocessor", st.integers(0, MULTIPROCESSORS - 1)),
    faults_with(EVENTS, "out_of_memory_after", st.integers(0, MIB << 20)),
    st.just(Fault({}, "context", 0.0)),
)


def plant(machine: Machine, number: int) -> None:
    """Leave something everywhere."""
    folder = machine.gpus[number].folder
    data = os.urandom(1 << 20)
    (folder / "mem").write_bytes(bytes(RESERVED) + (data * MIB)[RESERVED:])
    (folder / "shared").write_bytes((data[:BLOCK_SHARED_BYTES] + bytes(1024)) * MULTIPROCESSORS)


def is_zero(machine: Machine, number: int) -> bool:
    folder = machine.gpus[number].folder
    return not any(any((folder / name).read_bytes()) for name in ("mem", "shared"))


def test_no_fault_clears_a_gpu(make_machine: Callable[..., Machine], tmp_path: Path, events: dict[str, int]) -> None:
    numbers = count()
    seen = {"cleared": 0, "struck": 0}
    chosen = random.SystemRandom().randrange(1_000_000)
    print(f"seed {chosen}")

    @seed(chosen)
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(st.lists(FAULTS, min_size=GPUS, max_size=GPUS))
    def scrub_with(faults: list[Fault]) -> None:
        machine = make_machine(count=GPUS, mib=MIB, node=f"node{next(numbers)}")
        for number, fault in enumerate(faults):
            plant(machine, number)
            # The very last zeroing is the counters', which no check follows.
            after = int(fault.share * (events[fault.event] - (fault.event == "lethe_zero")))
            machine.set_faults(number, **fault.values, strike_at=fault.event, strike_after=after)
        scrub = Scrub(machine, tmp_path, timeout_seconds=120)
        report, clearance = scrub.run()
        for number, (fault, gpu) in enumerate(zip(faults, report.gpus, strict=True)):
            is_loud = fault.values in LOUD and has_struck(machine, number)
            is_cleared = isinstance(scrub.judge(report, gpu), Cleared)
            seen["cleared"] += is_cleared
            seen["struck"] += is_loud
            assert not (is_cleared and is_loud), (fault, gpu)
            assert is_zero(machine, number) or not is_cleared, (fault, gpu)
            assert is_cleared or not isinstance(clearance, Cleared), (fault, gpu)

    scrub_with()
    print(f"{EXAMPLES} scrubs of {GPUS} GPUs: {seen}")
    assert all(seen.values()), "the examples were not worth it"
