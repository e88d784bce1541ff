"""What one process does to the memory of a GPU: take all of it, look, overwrite, check.

1. Memory is taken in large mapped pieces, halved whenever the GPU has none so large left, down to its granularity, and
   then in pages of 64 KiB from the ordinary allocator, until there is none. Everything is held until the end.
2. The probe comes before any write. What leaves the GPU is a count of words, of pages, and a digest.
3. The pattern's key is new for each process of each scrub, and the word index runs over all pieces: no two places hold
   the same, and nothing that an earlier one left passes for this one's pattern.
4. Each pass goes over all pieces before the next begins, so that a check reads memory and not a cache.
5. A mismatch does not stop it: the zeros still go over everything. The verdict is Failed all the same.
6. The counters lie in the first bytes of a page that is scrubbed like the others from there on. They are wiped at the
   end, and this process cannot measure them.
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
from lethe.model.scrub import PASSES, MemoryPasses, Residue

PAGE_BYTES: Final = 64 * 1024
WORD_BYTES: Final = 16
COUNTER_BYTES: Final = 128

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


def pattern_key(nonce: str, gpu_uuid: str, process: int) -> int:
    """Return the key of the pattern that the scrub's first or second process writes on this GPU, 64 bits."""
    return int.from_bytes(sha256(bytes.fromhex(nonce) + b"%d" % process + gpu_uuid.encode())[:8], "big")


def take_all(gpu: VideoMemory) -> list[DeviceMemory]:
    """Take all memory that can be had."""
    pieces = []
    # Again after the last: a driver that clears what was freed may call it free only then.
    while taken := _take_mapped(gpu):
        pieces += taken
    while (page := gpu.take_classic(PAGE_BYTES)) is not None:
        pieces.append(page)
    return pieces


def _take_mapped(gpu: VideoMemory) -> list[DeviceMemory]:
    pieces = []
    length = gpu.free_bytes() // gpu.granularity * gpu.granularity
    while length > 0:
        piece = gpu.take_mapped(length)
        if piece is None:
            length = length // 2 // gpu.granularity * gpu.granularity
        else:
            pieces.append(piece)
    return pieces


class Passes:
    """The passes in progress. `done` says at every moment what has been reached."""

    def __init__(self, gpu: VideoMemory, key: int, tell: Callable[[str, MemoryPasses], None]) -> None:
        """Take the page with the counters; `tell` hears of each step before it begins."""
        self.done = MemoryPasses()
        self._gpu = gpu
        self._key = key
        self._tell = tell
        self._pieces: list[_Piece] = []
        page = gpu.take_classic(PAGE_BYTES)
        if page is None:
            raise GpuError(reasons.OUT_OF_MEMORY, "not even 64 KiB can be allocated on the GPU: somebody else holds it")
        self.counters = DeviceMemory(page.address, COUNTER_BYTES)
        self._rest = DeviceMemory(page.address + COUNTER_BYTES, PAGE_BYTES - COUNTER_BYTES)

    def step(self, name: str, work: Callable[[], None]) -> None:
        """Do one step and note how long it took."""
        self._tell(name, self.done)
        started = time.monotonic()
        work()
        self._gpu.synchronize()
        self._update(durations={**self.done.durations, name: round(time.monotonic() - started, 6)})

    def hold(self, *pieces: DeviceMemory) -> None:
        """Hold these pieces and all memory that can be had besides."""
        first = 0
        for memory in (self._rest, *pieces, *take_all(self._gpu)):
            self._pieces.append(_Piece(memory, first))
            first += memory.length // WORD_BYTES
        self._update(bytes_held=self._held())

    def probe(self) -> None:
        """Look, and write nothing but the counters."""
        self.step("probe", self._probe)

    def run(self) -> None:
        """Do the passes over what is held, and wipe the counters."""
        work = (self._probe, self._fill, self._verify, self._zero, self._verify_zero)
        for name, do in zip(PASSES, work, strict=True):
            self.step(name, do)
        self._gpu.launch("lethe_zero", self.counters.address, self.counters.length // WORD_BYTES)
        self._gpu.synchronize()
        self._update(bytes_verified=self._held() - self.done.mismatches * WORD_BYTES)

    def _probe(self) -> None:
        words = pages = 0
        digests = []
        for piece in self._pieces:
            self._gpu.write(self.counters, (0, 0, 0))
            self._gpu.launch("lethe_probe", piece.memory.address, piece.words, self.counters.address)
            found_words, found_pages, fold = self._gpu.read(self.counters, 3)
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
        self._gpu.write(self.counters, (0, _NONE))
        for piece in self._pieces:
            self._gpu.launch(
                "lethe_verify", piece.memory.address, piece.words, piece.first, self._key, self.counters.address
            )
        self._count_mismatches()

    def _zero(self) -> None:
        for piece in self._pieces:
            self._gpu.launch("lethe_zero", piece.memory.address, piece.words)

    def _verify_zero(self) -> None:
        self._gpu.write(self.counters, (0, _NONE))
        for piece in self._pieces:
            self._gpu.launch("lethe_verify_zero", piece.memory.address, piece.words, piece.first, self.counters.address)
        self._count_mismatches()

    def _count_mismatches(self) -> None:
        count, first = self._gpu.read(self.counters, 2)
        if count == 0:
            return
        known = self.done.first_mismatch
        self._update(
            mismatches=self.done.mismatches + count, first_mismatch=first if known is None else min(first, known)
        )

    def _held(self) -> int:
        return sum(piece.memory.length for piece in self._pieces)

    def _update(self, **changes: Any) -> None:
        self.done = msgspec.structs.replace(self.done, **changes)


def describe_mismatches(done: MemoryPasses) -> str:
    """Say what the passes found wrong."""
    return (
        f"{done.mismatches} words of 16 bytes did not hold what was written, the first at byte "
        f"{(done.first_mismatch or 0) * WORD_BYTES} of the memory held"
    )
