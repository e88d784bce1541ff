"""The scrub of one GPU: take all of its memory, look, overwrite, check (scrub.md, Steps 4 to 6).

1. Memory is taken in large mapped pieces, halved whenever the GPU has none so large left, down to its granularity, and
   then in pages of 64 KiB from the ordinary allocator, until there is none. Everything is held until the end.
2. The probe comes before any write. What leaves the GPU is a count of words, of pages, and a digest.
3. The pattern's key is new for each scrub and GPU, and the word index runs over all pieces: no two places hold the
   same, and nothing that an earlier scrub left passes for this one's pattern.
4. Each pass goes over all pieces before the next begins, so that a check reads memory and not a cache.
5. A mismatch does not stop it: the zeros still go over everything. The verdict is Failed all the same.
6. The counters lie in the first 32 bytes of a page that is scrubbed like the others from there on. Those 32 bytes are
   wiped at the end, but cannot be measured; `EXCLUSIONS` names them.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from lethe.crypto.derive import length_prefixed, sha256
from lethe.model import reasons
from lethe.model.errors import GpuError
from lethe.model.ports import DeviceMemory, VideoMemory
from lethe.model.scrub import GpuReport, Residue

PAGE_BYTES: Final = 64 * 1024
WORD_BYTES: Final = 16
COUNTER_BYTES: Final = 2 * WORD_BYTES
EXCLUSIONS: Final = (
    "memory that the driver and its firmware reserve",
    "the scrubber's own context: page tables and code",
    "32 bytes for the scrubber's counters: wiped, not measured",
    "memory rows that were remapped or retired",
    "shared memory of the multiprocessors",
    "registers",
    "L1, L2, constant and instruction caches",
)

_NONE: Final = 2**64 - 1
"""What `lethe_verify` leaves in the place of a first mismatch when there is none."""


@dataclass(frozen=True)
class _Piece:
    memory: DeviceMemory
    first: int
    """Index of its first word, counted over all pieces."""

    @property
    def words(self) -> int:
        return self.memory.length // WORD_BYTES


def pattern_key(nonce: str, gpu_uuid: str) -> int:
    """Return the key of this scrub's pattern on this GPU, 64 bits."""
    return int.from_bytes(sha256(bytes.fromhex(nonce) + gpu_uuid.encode())[:8], "big")


def hold(gpu: VideoMemory) -> list[DeviceMemory]:
    """Take all memory that can be had."""
    pieces = []
    length = gpu.free_bytes() // gpu.granularity * gpu.granularity
    while length > 0:
        piece = gpu.take_mapped(length)
        if piece is None:
            length = length // 2 // gpu.granularity * gpu.granularity
        else:
            pieces.append(piece)
    while (page := gpu.take_classic(PAGE_BYTES)) is not None:
        pieces.append(page)
    return pieces


class GpuScrub:
    """One scrub in progress. `report` says at every moment what has been reached."""

    def __init__(
        self,
        gpu: VideoMemory,
        start: GpuReport,
        nonce: str,
        coverage_floor: float,
        tell: Callable[[str, GpuReport], None],
    ) -> None:
        """Prepare it; `start` holds what is known beforehand, `tell` hears of each step before it begins."""
        self.report = start
        self._gpu = gpu
        self._key = pattern_key(nonce, start.facts.uuid)
        self._coverage_floor = coverage_floor
        self._tell = tell
        self._pieces: list[_Piece] = []
        page = gpu.take_classic(PAGE_BYTES)
        if page is None:
            raise GpuError(reasons.OUT_OF_MEMORY, "not even 64 KiB can be allocated on the GPU: somebody else holds it")
        self._counters = DeviceMemory(page.address, COUNTER_BYTES)
        self._rest = DeviceMemory(page.address + COUNTER_BYTES, PAGE_BYTES - COUNTER_BYTES)

    def run(self) -> GpuReport:
        """Scrub and return the report with its verdict; raise GpuError when the driver fails."""
        self._step("hold", self._hold)
        self._step("probe", self._probe)
        self._step("fill", self._fill)
        self._step("verify", self._verify)
        self._step("zero", self._zero)
        self._step("verify_zero", self._verify_zero)
        self._wipe_counters()
        self._update(bytes_verified=self._held() - self.report.mismatches * WORD_BYTES)
        self._update(coverage=self.report.bytes_verified / self.report.bytes_total)
        self._judge()
        return self.report

    def _step(self, name: str, work: Callable[[], None]) -> None:
        self._tell(name, self.report)
        started = time.monotonic()
        work()
        self._gpu.synchronize()
        self._update(durations={**self.report.durations, name: round(time.monotonic() - started, 6)})

    def _hold(self) -> None:
        first = 0
        for memory in (self._rest, *hold(self._gpu)):
            self._pieces.append(_Piece(memory, first))
            first += memory.length // WORD_BYTES
        self._update(bytes_held=self._held())

    def _probe(self) -> None:
        words = pages = 0
        digests = []
        for piece in self._pieces:
            self._gpu.write(self._counters, (0, 0, 0))
            self._gpu.launch("lethe_probe", piece.memory.address, piece.words, self._counters.address)
            found_words, found_pages, fold = self._gpu.read(self._counters, 3)
            words += found_words
            pages += found_pages
            if found_words:
                digests.append(b"%d %d %016x" % (piece.first, piece.words, fold))
        residue = Residue(
            nonzero_bytes=words * WORD_BYTES, nonzero_pages=pages, digest=sha256(length_prefixed(*digests)).hex()
        )
        self._update(residue=residue, bytes_probed=self._held())

    def _fill(self) -> None:
        for piece in self._pieces:
            self._gpu.launch("lethe_fill", piece.memory.address, piece.words, piece.first, self._key)

    def _verify(self) -> None:
        self._gpu.write(self._counters, (0, _NONE))
        for piece in self._pieces:
            self._gpu.launch(
                "lethe_verify", piece.memory.address, piece.words, piece.first, self._key, self._counters.address
            )
        self._count_mismatches()

    def _zero(self) -> None:
        for piece in self._pieces:
            self._gpu.launch("lethe_zero", piece.memory.address, piece.words)

    def _verify_zero(self) -> None:
        self._gpu.write(self._counters, (0, _NONE))
        for piece in self._pieces:
            self._gpu.launch(
                "lethe_verify_zero", piece.memory.address, piece.words, piece.first, self._counters.address
            )
        self._count_mismatches()

    def _count_mismatches(self) -> None:
        count, first = self._gpu.read(self._counters, 2)
        if count == 0:
            return
        known = self.report.first_mismatch
        self._update(
            mismatches=self.report.mismatches + count, first_mismatch=first if known is None else min(first, known)
        )

    def _wipe_counters(self) -> None:
        self._gpu.launch("lethe_zero", self._counters.address, self._counters.length // WORD_BYTES)
        self._gpu.synchronize()

    def _judge(self) -> None:
        report = self.report
        if report.mismatches:
            self._fail(
                reasons.VERIFY_MISMATCH,
                f"{report.mismatches} words of 16 bytes did not hold what was written, the first at byte "
                f"{(report.first_mismatch or 0) * WORD_BYTES} of the memory held",
            )
        elif report.coverage < self._coverage_floor:
            self._fail(
                reasons.COVERAGE_TOO_LOW,
                f"{report.bytes_verified} of {report.bytes_total} bytes were verified ({report.coverage:.2%}), "
                f"expected at least {self._coverage_floor:.2%}: somebody holds the rest, or the floor is too high for "
                "this model",
            )
        else:
            self._update(verdict="Cleared", reason="", message="")

    def _fail(self, reason: str, message: str) -> None:
        self._update(verdict="Failed", reason=reason, message=message)

    def _held(self) -> int:
        return sum(piece.memory.length for piece in self._pieces)

    def _update(self, **changes: Any) -> None:
        self.report = msgspec.structs.replace(self.report, **changes)
