"""The scrub of one GPU by two processes, one after the other (scrub.md, steps 4 to 8).

A process cannot hold the memory that its own context takes. So a second one leapfrogs over the first:

1. The first holds everything else, wipes shared memory, does the passes, and stays. Shared memory comes before the
   other kernels: they read through the cache that it shares its cells with, and would write over what is to be found.
2. It gives up one piece, which it has verified, twice as large as what its own context takes. Nothing else is free, so
   the second process's context comes to lie there.
3. The first ends. The second does the passes over all that is free now: what the first held, and where its context was.
4. The second must get at least what the first had verified and not given up, or somebody else was faster.
5. What either verified is covered, once. Left is the second one's context, in memory that was zero before it.
"""

import time
from collections.abc import Callable
from typing import Any, Final

import msgspec

from lethe.agents.passes import COUNTER_BYTES, Passes, describe_mismatches, pattern_key
from lethe.agents.shared_memory import LAUNCHES, scrub_shared_memory
from lethe.decisions.receipts import covered_bytes
from lethe.model import reasons
from lethe.model.errors import GpuError
from lethe.model.ports import DeviceMemory, VideoMemory
from lethe.model.scrub import GpuReport, Leapfrog, MemoryPasses

EXCLUSIONS: Final = (
    "memory that the driver and its firmware reserve",
    "the context of the scrub's second process, page tables and code: it lies in memory that the first process had "
    "verified to be zero, and what it writes there is left to the driver",
    f"{COUNTER_BYTES} bytes for the second process's counters, in memory that the first had verified: wiped, and not "
    "measured again",
    "memory rows that were remapped or retired",
    "registers",
    "L1, L2, constant and instruction caches, and shared memory that the driver keeps from programs",
)

_FREE_SECONDS: Final = 10.0
"""How long the driver may take to free what a process held that has ended."""
_PAUSE_SECONDS: Final = 0.01

Tell = Callable[[str, GpuReport], None]
"""Hears of each step before it begins, and what has been reached."""


class FirstProcess:
    """Scrubs all but its own context, and gives up a piece for the second process's."""

    def __init__(self, gpu: VideoMemory, start: GpuReport, nonce: str, tell: Tell) -> None:
        """Prepare it; `start` holds what is known beforehand."""
        self.report = start
        self._gpu = gpu
        self._tell = tell
        self._key = pattern_key(nonce, start.facts.uuid, 1)
        self._context_bytes = gpu.used_bytes()
        self._passes = Passes(gpu, self._key, self._tell_done)
        self._spare: DeviceMemory | None = None

    def run(self) -> GpuReport:
        """Return the report, with a reason when the GPU has failed; raise GpuError when the driver fails."""
        self._passes.step("hold", self._hold)
        self._passes.step("shared", self._wipe_shared_memory)
        self._passes.run()
        self._update(**msgspec.structs.asdict(self._passes.done))
        self._judge()
        if not self.report.reason:
            self._give_up()
        return self.report

    def _hold(self) -> None:
        granules = -(-2 * self._context_bytes // self._gpu.granularity)
        length = granules * self._gpu.granularity
        self._spare = self._gpu.take_mapped(length)
        if self._spare is None:
            raise GpuError(
                reasons.OUT_OF_MEMORY,
                f"{length} bytes for the second process's context cannot be allocated: somebody else holds the GPU",
            )
        self._passes.hold(self._spare)

    def _wipe_shared_memory(self) -> None:
        self._update(shared=scrub_shared_memory(self._gpu, self._passes.counters, self._key))

    def _judge(self) -> None:
        shared = self.report.shared
        if self.report.mismatches:
            self._fail(reasons.VERIFY_MISMATCH, describe_mismatches(self.report))
        elif shared is not None and shared.mismatches:
            message = f"{shared.mismatches} words of shared memory did not hold what was written"
            self._fail(reasons.SHARED_MEMORY_MISMATCH, message)
        elif shared is not None and shared.seen_count() != shared.multiprocessors:
            self._fail(
                reasons.MULTIPROCESSORS_MISSED,
                f"{LAUNCHES} launches reached {shared.seen_count()} of {shared.multiprocessors} multiprocessors",
            )

    def _give_up(self) -> None:
        assert self._spare is not None
        left_over = self._gpu.free_bytes()
        self._gpu.give_back(self._spare)
        leapfrog = Leapfrog(
            bytes_given_up=self._spare.length, bytes_left_over=left_over, bytes_free=self._gpu.free_bytes()
        )
        self._update(leapfrog=leapfrog)

    def _tell_done(self, step: str, done: MemoryPasses) -> None:
        self._update(**msgspec.structs.asdict(done))
        self._tell(step, self.report)

    def _fail(self, reason: str, message: str) -> None:
        self._update(verdict="Failed", reason=reason, message=message)

    def _update(self, **changes: Any) -> None:
        self.report = msgspec.structs.replace(self.report, **changes)


def probe_gpu(gpu: VideoMemory, start: GpuReport, nonce: str, tell: Tell) -> GpuReport:
    """Take all memory and look, without scrubbing: the report clears nothing."""

    def tell_done(step: str, done: MemoryPasses) -> None:
        tell(step, msgspec.structs.replace(start, **msgspec.structs.asdict(done)))

    passes = Passes(gpu, pattern_key(nonce, start.facts.uuid, 1), tell_done)
    passes.step("hold", passes.hold)
    passes.probe()
    return msgspec.structs.replace(
        start,
        **msgspec.structs.asdict(passes.done),
        verdict="Failed",
        reason=reasons.PROBED_ONLY,
        message="it was looked at, and not scrubbed",
    )


class SecondProcess:
    """Scrubs what the first process held, and where its context was."""

    def __init__(self, gpu: VideoMemory, first: GpuReport, nonce: str, coverage_floor: float, tell: Tell) -> None:
        """Prepare it while the first process still holds its memory; `first` is what that reported."""
        if first.leapfrog is None:
            raise GpuError(reasons.LEAPFROG_FAILED, "the first process gave up no memory for the second one's context")
        self._gpu = gpu
        self._tell = tell
        self._coverage_floor = coverage_floor
        context_bytes = max(0, first.leapfrog.bytes_free - gpu.free_bytes())
        self._leapfrog = msgspec.structs.replace(first.leapfrog, bytes_context=context_bytes)
        self.report = msgspec.structs.replace(first, leapfrog=self._leapfrog)
        self._returned = first.bytes_held - first.leapfrog.bytes_given_up
        self._passes = Passes(gpu, pattern_key(nonce, first.facts.uuid, 2), self._tell_done)

    def run(self) -> GpuReport:
        """Go on when the first process has ended; return the report with its verdict, or raise GpuError."""
        self._passes.step("hold", self._hold)
        self._passes.run()
        self._note(self._passes.done)
        self._judge()
        return self.report

    def _hold(self) -> None:
        deadline = time.monotonic() + _FREE_SECONDS
        while self._gpu.free_bytes() < self._returned and time.monotonic() < deadline:
            time.sleep(_PAUSE_SECONDS)
        self._passes.hold()

    def _judge(self) -> None:
        report, leapfrog = self.report, self._leapfrog
        if leapfrog.mismatches:
            self._fail(reasons.VERIFY_MISMATCH, f"the second process: {describe_mismatches(leapfrog)}")
        elif leapfrog.bytes_held < self._returned:
            self._fail(
                reasons.LEAPFROG_FAILED,
                f"the second process got {leapfrog.bytes_held} bytes, but the first had {self._returned} that came "
                "free: somebody else took the rest in between",
            )
        elif report.coverage < self._coverage_floor:
            self._fail(
                reasons.COVERAGE_TOO_LOW,
                f"{report.bytes_covered} of {report.bytes_total} bytes were verified ({report.coverage:.2%}), "
                f"expected at least {self._coverage_floor:.2%}: somebody holds the rest, or the floor is too high for "
                "this model",
            )
        else:
            self._update(verdict="Cleared", reason="", message="")

    def _note(self, done: MemoryPasses) -> None:
        self._leapfrog = msgspec.structs.replace(self._leapfrog, **msgspec.structs.asdict(done))
        self._update(leapfrog=self._leapfrog)
        covered = covered_bytes(self.report)
        self._update(bytes_covered=covered, coverage=covered / self.report.bytes_total)

    def _tell_done(self, step: str, done: MemoryPasses) -> None:
        self._note(done)
        self._tell(step, self.report)

    def _fail(self, reason: str, message: str) -> None:
        self._update(verdict="Failed", reason=reason, message=message)

    def _update(self, **changes: Any) -> None:
        self.report = msgspec.structs.replace(self.report, **changes)
