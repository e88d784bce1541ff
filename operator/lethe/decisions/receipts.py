"""Does this report clear the node, and does this receipt stand for it now?

The operator asks the first question of a scrub that has ended, the key service the second before each release.

1. `_CHECKS` is the specification: in order, with what each refuses. The first that fails names the reason.
2. Who the report is from comes before what it says: a stranger's report is not believed even when it admits failure.
3. The scrubber's own verdict is never enough. Every number that it rests on is compared here again.
4. Residue clears too, since it was overwritten and verified; residue under a driver that says that it clears freed
   memory itself is a leak, and flagged.
"""

from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from lethe.model import reasons
from lethe.model.agentconfig import ScrubConfig
from lethe.model.scrub import (
    FIRST_STEPS,
    SECOND_STEPS,
    GpuReport,
    MemoryPasses,
    ReceiptPredicate,
    ScrubReport,
    ScrubSummary,
)


class Cleared(msgspec.Struct, frozen=True, kw_only=True):
    """The node may become Free once a receipt says so."""

    gpus: list[str]
    """UUIDs, in the report's order."""
    residue_bytes: int
    coverage: float
    """The smallest of any GPU."""
    leak: bool
    """Residue was found although the driver says that it clears freed memory."""


class NotCleared(msgspec.Struct, frozen=True, kw_only=True):
    """The node is quarantined."""

    reason: str
    message: str


Clearance = Cleared | NotCleared


@dataclass(frozen=True)
class _Case:
    """Everything that one decision looks at."""

    report: ScrubReport
    report_sha256: str
    summary: ScrubSummary
    expected: ScrubConfig


_Finding = tuple[str, str] | None
"""Reason and message, or None when there is nothing to object."""


def decide_clearance(
    report: ScrubReport | None, report_sha256: str, summary: ScrubSummary | None, expected: ScrubConfig
) -> Clearance:
    """Decide whether a scrub clears its node.

    `report` and `report_sha256` come from the pod's log, `summary` from its termination message, None where there was
    none; `expected` is what the operator gave the scrub pod.
    """
    if report is None or summary is None:
        missing = "report in its log" if report is None else "summary in its termination message"
        said = f"; it said: {summary.message}" if summary is not None and summary.message else ""
        return NotCleared(
            reason=reasons.REPORT_MISSING,
            message=f"the scrub of node {expected.node}, epoch {expected.epoch}, left no {missing}{said}",
        )
    case = _Case(report, report_sha256, summary, expected)
    for check in _CHECKS:
        finding = check(case)
        if finding is not None:
            return NotCleared(reason=finding[0], message=finding[1])
    return Cleared(
        gpus=[gpu.facts.uuid for gpu in report.gpus],
        residue_bytes=residue_bytes(report),
        coverage=lowest_coverage(report),
        leak=is_leak(report),
    )


def residue_bytes(report: ScrubReport) -> int:
    """Return what the first processes' probes found on all GPUs, in video memory and in shared memory.

    What a second process found is not in it: where the first one's context was, that context's own leavings lie.
    """
    video = sum(gpu.residue.nonzero_bytes for gpu in report.gpus if gpu.residue is not None)
    return video + sum(gpu.shared.residue_bytes for gpu in report.gpus if gpu.shared is not None)


def covered_bytes(gpu: GpuReport) -> int:
    """Return how many bytes the first process or the second verified, at least; what both did counts once.

    The second could have all that the first had verified but for where its own context lies. That context came to lie
    in what the first gave up, verified, or in what it had left over, which nobody verified.
    """
    second = gpu.leapfrog
    if second is None or second.bytes_context is None:
        return gpu.bytes_verified
    only_first = min(max(0, second.bytes_context - second.bytes_left_over), second.bytes_given_up)
    return max(gpu.bytes_verified, second.bytes_verified + only_first)


def _has_freed_residue(gpu: GpuReport) -> bool:
    """Say whether something was left in video memory that a tenant or the first process had freed."""
    found = [done.residue for done in (gpu, gpu.leapfrog) if done is not None and done.residue is not None]
    return any(residue.nonzero_bytes > 0 for residue in found)


def lowest_coverage(report: ScrubReport) -> float:
    """Return the smallest verified share of any GPU's memory; for a report that clears its node."""
    return min(_coverage(gpu) for gpu in report.gpus)


def is_leak(report: ScrubReport) -> bool:
    """Say whether freed video memory held something although the driver says that it clears it."""
    return report.driver_scrubs_on_free is True and any(_has_freed_residue(gpu) for gpu in report.gpus)


def is_valid_for(predicate: ReceiptPredicate, node_uid: str, boot_id: str, epoch: int) -> bool:
    """Say whether a verified receipt clears this node, in this boot, for this epoch."""
    return (
        predicate.verdict == "Cleared"
        and predicate.node_uid == node_uid
        and predicate.boot_id == boot_id
        and predicate.epoch == epoch
    )


def _check_hash(case: _Case) -> _Finding:
    if case.summary.report_sha256 == case.report_sha256:
        return None
    return reasons.REPORT_HASH_MISMATCH, (
        f"the report in the log has SHA-256 {case.report_sha256}, the scrub's termination message says "
        f"{case.summary.report_sha256}: the log was changed or cut"
    )


def _check_nonce(case: _Case) -> _Finding:
    for where, nonce in (("summary", case.summary.nonce), ("report", case.report.nonce)):
        if nonce != case.expected.nonce:
            return reasons.NONCE_MISMATCH, f"the {where} repeats another nonce than this scrub was given: a replay"
    return None


def _check_node(case: _Case) -> _Finding:
    found, expected = (case.report.node, case.report.node_uid), (case.expected.node, case.expected.node_uid)
    if found == expected:
        return None
    return reasons.NODE_MISMATCH, f"the report is of node {' '.join(found)}, expected {' '.join(expected)}"


def _check_epoch(case: _Case) -> _Finding:
    if case.report.epoch == case.expected.epoch:
        return None
    return reasons.EPOCH_MISMATCH, f"the report is of epoch {case.report.epoch}, expected {case.expected.epoch}"


def _check_boot(case: _Case) -> _Finding:
    if case.report.boot_id == case.expected.boot_id:
        return None
    return reasons.BOOT_MISMATCH, (
        f"the scrub ran in boot {case.report.boot_id}, expected {case.expected.boot_id}: the node was rebooted"
    )


def _check_verdict(case: _Case) -> _Finding:
    for document in (case.report, case.summary):
        if document.verdict != "Cleared":
            return document.reason or reasons.SCRUB_FAILED, document.message or "the scrub reports failure"
    return None


def _check_gpus(case: _Case) -> _Finding:
    found = sorted(gpu.facts.uuid for gpu in case.report.gpus)
    expected = case.expected
    if len(set(found)) != expected.gpu_count or len(found) != expected.gpu_count:
        return reasons.GPU_SET_MISMATCH, (
            f"the report covers {len(found)} GPUs ({', '.join(found) or 'none'}), the node's capacity is "
            f"{expected.gpu_count}"
        )
    if not found:
        return reasons.GPU_SET_MISMATCH, "the node has no GPU: there is nothing that a scrub could clear"
    if expected.gpus and found != sorted(expected.gpus):
        return reasons.GPU_SET_MISMATCH, (
            f"the node has the GPUs {', '.join(found)}, its last scrub saw {', '.join(sorted(expected.gpus))}: "
            "confirm the change"
        )
    return None


def _check_each_gpu(case: _Case) -> _Finding:
    for gpu in case.report.gpus:
        for check in _GPU_CHECKS:
            finding = check(gpu, case.expected)
            if finding is not None:
                return finding[0], f"GPU {gpu.facts.uuid}: {finding[1]}"
    return None


def _check_exclusions(case: _Case) -> _Finding:
    if case.report.exclusions:
        return None
    return reasons.SCRUB_INCOMPLETE, "the report names no exclusions, and no scrub reaches everything"


def _check_gpu_verdict(gpu: GpuReport, expected: ScrubConfig) -> _Finding:
    if gpu.verdict == "Cleared":
        return None
    return gpu.reason or reasons.SCRUB_FAILED, gpu.message or "its scrub failed"


def _check_mig(gpu: GpuReport, expected: ScrubConfig) -> _Finding:
    if not any(facts.mig_enabled for facts in (gpu.facts, gpu.after) if facts is not None):
        return None
    return reasons.MIG_ENABLED, "MIG is enabled, and one slice's scrub says nothing about the others"


def _check_passes(gpu: GpuReport, expected: ScrubConfig) -> _Finding:
    finding = _missing_from(gpu, FIRST_STEPS, "first")
    if finding is None and gpu.after is None:
        return reasons.SCRUB_INCOMPLETE, "the report lacks the state afterwards"
    return finding


def _check_mismatches(gpu: GpuReport, expected: ScrubConfig) -> _Finding:
    return _mismatches_of(gpu, "first")


def _check_shared(gpu: GpuReport, expected: ScrubConfig) -> _Finding:
    shared = gpu.shared
    if shared is None or shared.bytes_each <= 0:
        return reasons.SCRUB_INCOMPLETE, "the report lacks the shared memory of the multiprocessors"
    if shared.mismatches:
        return reasons.SHARED_MEMORY_MISMATCH, f"{shared.mismatches} words of it did not hold what was written"
    if not 0 < shared.multiprocessors == shared.seen_count():
        return reasons.MULTIPROCESSORS_MISSED, (
            f"the shared memory of {shared.seen_count()} multiprocessors was wiped, but the GPU has "
            f"{shared.multiprocessors}"
        )
    return None


def _check_leapfrog(gpu: GpuReport, expected: ScrubConfig) -> _Finding:
    second = gpu.leapfrog
    if second is None or second.bytes_context is None:
        return reasons.SCRUB_INCOMPLETE, "the report lacks the second process, which covers the first one's context"
    finding = _missing_from(second, SECOND_STEPS, "second") or _mismatches_of(second, "second")
    if finding is not None:
        return finding
    returned = gpu.bytes_held - second.bytes_given_up
    if not 0 < returned <= second.bytes_held:
        return reasons.LEAPFROG_FAILED, (
            f"the second process held {second.bytes_held} bytes, expected at least the {returned} that came free"
        )
    return None


def _check_coverage(gpu: GpuReport, expected: ScrubConfig) -> _Finding:
    if gpu.bytes_covered != covered_bytes(gpu):
        return reasons.SCRUB_INCOMPLETE, (
            f"the report says that {gpu.bytes_covered} bytes are covered, its processes verified {covered_bytes(gpu)}"
        )
    if not gpu.bytes_covered <= gpu.bytes_total == gpu.facts.memory_total:
        return reasons.COVERAGE_TOO_LOW, (
            f"{gpu.bytes_covered} bytes verified of {gpu.bytes_total}, but NVML says {gpu.facts.memory_total} in all"
        )
    if _coverage(gpu) < expected.coverage_floor:
        return reasons.COVERAGE_TOO_LOW, (
            f"{_coverage(gpu):.2%} of its memory was verified, expected at least {expected.coverage_floor:.2%}"
        )
    return None


def _check_processes(gpu: GpuReport, expected: ScrubConfig) -> _Finding:
    if gpu.after is None or gpu.after.processes == 0:
        return None
    return reasons.LEFTOVER_PROCESS, f"{gpu.after.processes} processes held it when the scrub ended"


def _missing_from(done: MemoryPasses, steps: tuple[str, ...], process: str) -> _Finding:
    """Say what one process's part of a report lacks."""
    missing = [name for name in steps if name not in done.durations]
    if missing or done.residue is None:
        return reasons.SCRUB_INCOMPLETE, f"the {process} process lacks {', '.join(missing) or 'residue'}"
    if not 0 < done.bytes_held == done.bytes_probed == done.bytes_verified:
        return reasons.SCRUB_INCOMPLETE, (
            f"of {done.bytes_held} bytes that the {process} process held, {done.bytes_probed} were probed and "
            f"{done.bytes_verified} verified"
        )
    return None


def _mismatches_of(done: MemoryPasses, process: str) -> _Finding:
    if done.mismatches == 0 and done.first_mismatch is None:
        return None
    return reasons.VERIFY_MISMATCH, f"{done.mismatches} words did not hold what the {process} process wrote"


def _coverage(gpu: GpuReport) -> float:
    return gpu.bytes_covered / gpu.bytes_total


_CHECKS: tuple[Callable[[_Case], _Finding], ...] = (
    _check_hash,  # the log is the one that the container vouched for
    _check_nonce,  # it answers this scrub, not an older one
    _check_node,  # of this node, not of another one, nor of a namesake
    _check_epoch,
    _check_boot,  # memory of this boot: a reboot in between makes the node dirty again
    _check_verdict,  # the scrubber itself is content
    _check_gpus,  # every GPU that the node has, and the same ones as last time
    _check_each_gpu,
    _check_exclusions,  # it says what it did not reach
)

_GPU_CHECKS: tuple[Callable[[GpuReport, ScrubConfig], _Finding], ...] = (
    _check_gpu_verdict,
    _check_mig,
    _check_passes,  # all steps of the first process, over all that it held, and a last look
    _check_mismatches,
    _check_shared,  # every multiprocessor that there is
    _check_leapfrog,  # all steps of the second, over all that came free
    _check_coverage,  # by NVML's total, not by what the allocator offered
    _check_processes,
)
