"""What a scrub reports, and what a receipt says: the types of scrub.md.

Sizes are bytes, durations seconds, times RFC 3339. A value that the driver does not offer is None, never zero.
"""

from typing import Annotated, Final, Literal

import msgspec

from lethe.model.posture import Posture
from lethe.model.resources import PastHolder, Resource

Verdict = Literal["Cleared", "Failed"]

PASSES: Final = ("probe", "fill", "verify", "zero", "verify_zero")
"""The passes of one process over the memory that it holds, in order."""

FIRST_STEPS: Final = ("hold", "shared", *PASSES)
"""The steps of a GPU's first process, in order; each leaves its time in `durations`."""

SECOND_STEPS: Final = ("hold", *PASSES)
"""Those of the second, after the leapfrog."""


class KilledProcess(Resource, frozen=True, kw_only=True):
    pid: int
    name: str
    pod_uid: str = ""


class GpuFacts(Resource, frozen=True, kw_only=True):
    """What NVML says about a GPU."""

    uuid: str
    name: str
    serial: str | None = None
    pci_bus_id: str | None = None
    vbios: str | None = None
    mig_enabled: bool | None = None
    ecc_enabled: bool | None = None
    ecc_uncorrected: int | None = None
    compute_mode: str | None = None
    persistence: bool | None = None
    confidential_computing: bool | None = None
    recovery_action: str | None = None
    memory_total: int
    memory_reserved: int | None = None
    memory_used: int
    memory_free: int
    bar1_used: int | None = None
    remapped_rows: int | None = None
    remap_pending: bool | None = None
    """A row waits for a reset to be replaced."""
    processes: int = 0


class Residue(Resource, frozen=True, kw_only=True):
    """What the probe found before anything was overwritten. Raw contents never leave the GPU."""

    nonzero_bytes: int
    """16 bytes for each 16-byte word that is not zero."""
    nonzero_pages: int
    """Pages of 64 KiB that hold a word that is not zero."""
    digest: str
    """Fold of contents and addresses, hex; equal digests mean equal residue in equal places."""


class MemoryPasses(Resource, frozen=True, kw_only=True):
    """What one process did to the memory that it held."""

    bytes_held: int = 0
    bytes_probed: int = 0
    bytes_verified: int = 0
    residue: Residue | None = None
    mismatches: int = 0
    first_mismatch: int | None = None
    durations: dict[str, float] = {}
    """Seconds of each step."""


class SharedMemory(Resource, frozen=True, kw_only=True):
    """What was done to the shared memory of the multiprocessors."""

    multiprocessors: int
    """As many as the driver says that there are."""
    seen: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{1,256}$")]
    """Hex; bit n is set when the multiprocessor that calls itself n (`%smid`) was probed, wiped and verified."""
    bytes_each: int
    """What one block can take, and was covered, of each."""
    residue_bytes: int = 0
    """8 bytes for each 8-byte word that was not zero."""
    mismatches: int = 0

    def seen_count(self) -> int:
        """Return how many multiprocessors were done."""
        return int(self.seen, 16).bit_count()


class Leapfrog(MemoryPasses, frozen=True, kw_only=True):
    """What a second process did, which opened its context in memory that the first had verified and given up.

    Its residue is what lay there when the first had ended: where the first one's context had been, that context's own
    leavings too, unless the driver clears.
    """

    bytes_given_up: int
    """What the first process freed for the second one's context, verified."""
    bytes_left_over: int
    """What the first process could not allocate; the context may lie there in part."""
    bytes_free: int
    """What the driver called free just before the second process opened its context."""
    bytes_context: int | None = None
    """What the second one's context took."""


class GpuReport(MemoryPasses, frozen=True, kw_only=True):
    """One GPU's part of a report, with what its first process did to memory.

    When `verdict` is Failed, `reason` says why and the rest is what was reached.
    """

    facts: GpuFacts
    after: GpuFacts | None = None
    """The same once everything was freed again."""
    verdict: Verdict
    reason: str = ""
    message: str = ""
    bytes_total: int = 0
    shared: SharedMemory | None = None
    leapfrog: Leapfrog | None = None
    bytes_covered: int = 0
    """What the first process or the second verified; what both did counts once."""
    coverage: float = 0.0
    killed: list[KilledProcess] = []


class ScrubReport(Resource, frozen=True, kw_only=True):
    """The one JSON document in a scrub pod's log."""

    schema: Literal["lethe.dev/scrub-report/v1"] = "lethe.dev/scrub-report/v1"
    node: str
    node_uid: str
    boot_id: str
    """As the scrub pod reads it on the node."""
    epoch: int
    nonce: str
    started_at: str
    finished_at: str
    driver: str | None = None
    cuda: int | None = None
    driver_scrubs_on_free: bool | None = None
    posture: Posture | None = None
    """Absent where the scrub failed before the GPUs were read, and in reports of versions that did not look."""
    lethe_version: str
    ptx_sha256: str
    gpus: list[GpuReport]
    exclusions: list[str]
    verdict: Verdict
    reason: str = ""
    message: str = ""


class ScrubSummary(Resource, frozen=True, kw_only=True):
    """The scrub container's termination message: at most 4,096 bytes, so the report itself goes to the log."""

    verdict: Verdict
    nonce: str
    report_sha256: str
    reason: str = ""
    message: str = ""


class ReceiptPredicate(Resource, frozen=True, kw_only=True):
    """The in-toto predicate `https://lethe.dev/scrub-receipt/v1`: the report, and what the operator adds."""

    node: str
    node_uid: str
    boot_id: str
    epoch: int
    nonce: str
    holder: PastHolder | None
    """Whose memory was scrubbed; absent for a node without a known past."""
    image: str
    """Image reference of the scrub container, with the digest that the kubelet reports."""
    report: ScrubReport
    report_sha256: str
    verdict: Verdict
    grade: Literal["Clear"] = "Clear"
    """NIST SP 800-88."""
    previous: str = ""
    """SHA-256 of the previous receipt's envelope of this node; empty for the first."""
    issued_at: str
