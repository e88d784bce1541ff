"""What a scrub reports, and what a receipt says: the types of scrub.md.

Sizes are bytes, durations seconds, times RFC 3339. A value that the driver does not offer is None, never zero.
"""

from typing import Final, Literal

from lethe.model.posture import Posture
from lethe.model.resources import PastHolder, Resource

Verdict = Literal["Cleared", "Failed"]

PASSES: Final = ("probe", "fill", "verify", "zero", "verify_zero")
"""The passes over a GPU's memory, in order; each leaves its time in `GpuReport.durations`."""


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


class GpuReport(Resource, frozen=True, kw_only=True):
    """One GPU's part of a report. When `verdict` is Failed, `reason` says why and the rest is what was reached."""

    facts: GpuFacts
    after: GpuFacts | None = None
    """The same once everything was freed again."""
    verdict: Verdict
    reason: str = ""
    message: str = ""
    bytes_total: int = 0
    bytes_held: int = 0
    bytes_probed: int = 0
    bytes_verified: int = 0
    coverage: float = 0.0
    residue: Residue | None = None
    mismatches: int = 0
    first_mismatch: int | None = None
    killed: list[KilledProcess] = []
    durations: dict[str, float] = {}
    """Seconds of each step: "hold", and the names in PASSES."""


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
