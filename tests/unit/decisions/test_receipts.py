"""Every way a report does not clear a node: one change of a report that does, and the reason."""

from typing import Any

import msgspec
import pytest

from lethe.decisions.receipts import Cleared, NotCleared, decide_clearance, is_valid_for, residue_bytes
from lethe.model import reasons
from lethe.model.agentconfig import ScrubConfig
from lethe.model.scrub import PASSES, Residue, ScrubReport
from tests.common.scrubs import (
    HELD,
    TOTAL,
    build_config,
    build_facts,
    build_gpu,
    build_predicate,
    build_report,
    build_summary,
    report_sha256,
)

UUIDS = ["GPU-00000000", "GPU-00000001"]
RESIDUE = Residue(nonzero_bytes=4096, nonzero_pages=1, digest="ab")


def decide(report: ScrubReport, config: ScrubConfig | None = None, **summary: Any) -> Cleared | NotCleared:
    return decide_clearance(report, report_sha256(report), build_summary(report, **summary), config or build_config())


def test_a_sound_report_clears() -> None:
    expected = Cleared(gpus=UUIDS, residue_bytes=0, coverage=HELD / TOTAL, leak=False)
    assert decide(build_report()) == expected
    assert decide(build_report(), build_config(gpus=UUIDS[::-1])) == expected


def with_gpu(**changes: Any) -> ScrubReport:
    """A report whose second GPU is different."""
    return build_report(gpus=[build_gpu(0), build_gpu(1, **changes)])


def without_pass(name: str) -> ScrubReport:
    return with_gpu(durations={step: 0.01 for step in PASSES if step != name})


REFUSED: list[Any] = [
    pytest.param(build_report(nonce="77" * 32), {}, reasons.NONCE_MISMATCH, id="nonce of another scrub"),
    pytest.param(build_report(), {"nonce": "77" * 32}, reasons.NONCE_MISMATCH, id="summary with another nonce"),
    pytest.param(build_report(), {"report_sha256": "00" * 32}, reasons.REPORT_HASH_MISMATCH, id="report changed"),
    pytest.param(build_report(node="gpu-2"), {}, reasons.NODE_MISMATCH, id="another node"),
    pytest.param(build_report(node_uid="other"), {}, reasons.NODE_MISMATCH, id="a namesake of the node"),
    pytest.param(build_report(epoch=2), {}, reasons.EPOCH_MISMATCH, id="older epoch"),
    pytest.param(build_report(epoch=4), {}, reasons.EPOCH_MISMATCH, id="later epoch"),
    pytest.param(build_report(boot_id="boot-2"), {}, reasons.BOOT_MISMATCH, id="another boot"),
    pytest.param(build_report(boot_id=""), {}, reasons.BOOT_MISMATCH, id="no boot"),
    pytest.param(build_report(verdict="Failed", reason="GPULost"), {}, reasons.GPU_LOST, id="failed, with its reason"),
    pytest.param(build_report(verdict="Failed"), {}, reasons.SCRUB_FAILED, id="failed without a reason"),
    pytest.param(build_report(), {"verdict": "Failed"}, reasons.SCRUB_FAILED, id="only the summary failed"),
    pytest.param(build_report(gpus=[]), {}, reasons.GPU_SET_MISMATCH, id="no GPU"),
    pytest.param(build_report(gpus=[build_gpu(0)]), {}, reasons.GPU_SET_MISMATCH, id="one GPU too few"),
    pytest.param(
        build_report(gpus=[build_gpu(n) for n in range(3)]), {}, reasons.GPU_SET_MISMATCH, id="one GPU too many"
    ),
    pytest.param(build_report(gpus=[build_gpu(0)] * 2), {}, reasons.GPU_SET_MISMATCH, id="one GPU twice"),
    pytest.param(with_gpu(verdict="Failed", reason="GPUHang"), {}, reasons.GPU_HANG, id="one GPU failed"),
    pytest.param(with_gpu(verdict="Failed"), {}, reasons.SCRUB_FAILED, id="one GPU failed without a reason"),
    pytest.param(with_gpu(facts=build_facts(1, mig_enabled=True)), {}, reasons.MIG_ENABLED, id="MIG before"),
    pytest.param(with_gpu(after=build_facts(1, mig_enabled=True)), {}, reasons.MIG_ENABLED, id="MIG after"),
    *(pytest.param(without_pass(name), {}, reasons.SCRUB_INCOMPLETE, id=f"no {name}") for name in PASSES),
    pytest.param(with_gpu(residue=None), {}, reasons.SCRUB_INCOMPLETE, id="no residue measured"),
    pytest.param(with_gpu(after=None), {}, reasons.SCRUB_INCOMPLETE, id="not looked at afterwards"),
    pytest.param(with_gpu(bytes_probed=HELD - 1), {}, reasons.SCRUB_INCOMPLETE, id="not all probed"),
    pytest.param(with_gpu(bytes_verified=HELD - 1), {}, reasons.SCRUB_INCOMPLETE, id="not all verified"),
    pytest.param(
        with_gpu(bytes_held=0, bytes_probed=0, bytes_verified=0), {}, reasons.SCRUB_INCOMPLETE, id="nothing held"
    ),
    pytest.param(with_gpu(mismatches=1, first_mismatch=0), {}, reasons.VERIFY_MISMATCH, id="mismatch"),
    pytest.param(with_gpu(first_mismatch=0), {}, reasons.VERIFY_MISMATCH, id="first mismatch without a count"),
    pytest.param(
        with_gpu(bytes_held=TOTAL // 2, bytes_probed=TOTAL // 2, bytes_verified=TOTAL // 2, coverage=1.0),
        {},
        reasons.COVERAGE_TOO_LOW,
        id="half covered, whatever it claims",
    ),
    pytest.param(with_gpu(bytes_total=HELD), {}, reasons.COVERAGE_TOO_LOW, id="total below NVML's"),
    pytest.param(
        with_gpu(bytes_held=TOTAL + 1, bytes_probed=TOTAL + 1, bytes_verified=TOTAL + 1),
        {},
        reasons.COVERAGE_TOO_LOW,
        id="more verified than there is",
    ),
    pytest.param(with_gpu(after=build_facts(1, processes=1)), {}, reasons.LEFTOVER_PROCESS, id="held at the end"),
    pytest.param(build_report(exclusions=[]), {}, reasons.SCRUB_INCOMPLETE, id="claims to have reached everything"),
]


@pytest.mark.parametrize(("report", "summary", "reason"), REFUSED)
def test_does_not_clear(report: ScrubReport, summary: dict[str, Any], reason: str) -> None:
    decision = decide(report, **summary)
    assert isinstance(decision, NotCleared)
    assert decision.reason == reason
    assert decision.message


def test_other_gpus_than_last_time_do_not_clear() -> None:
    decision = decide(build_report(), build_config(gpus=["GPU-00000000", "GPU-00000007"]))
    assert isinstance(decision, NotCleared) and decision.reason == reasons.GPU_SET_MISMATCH


def test_a_node_without_gpus_does_not_clear() -> None:
    decision = decide(build_report(gpus=[]), build_config(gpu_count=0))
    assert isinstance(decision, NotCleared) and decision.reason == reasons.GPU_SET_MISMATCH


def test_the_floor_is_the_operators() -> None:
    decision = decide(build_report(), build_config(coverage_floor=0.99))
    assert isinstance(decision, NotCleared) and decision.reason == reasons.COVERAGE_TOO_LOW
    assert isinstance(decide(build_report(), build_config(coverage_floor=HELD / TOTAL)), Cleared)


def test_a_missing_report_or_summary_does_not_clear() -> None:
    report = build_report()
    summary = build_summary(report, verdict="Failed", message="no driver")
    without_report = decide_clearance(None, "", summary, build_config())
    without_summary = decide_clearance(report, report_sha256(report), None, build_config())
    for decision in (without_report, without_summary):
        assert isinstance(decision, NotCleared) and decision.reason == reasons.REPORT_MISSING
    assert "no driver" in without_report.message


@pytest.mark.parametrize(
    ("residue", "claim", "leak"),
    [
        pytest.param(RESIDUE, True, True, id="driver says it clears, and did not"),
        pytest.param(RESIDUE, False, False, id="driver says it does not clear"),
        pytest.param(RESIDUE, None, False, id="driver says nothing"),
        pytest.param(build_gpu().residue, True, False, id="driver clears"),
    ],
)
def test_a_leak_is_flagged_and_clears(residue: Residue, claim: bool | None, leak: bool) -> None:
    report = msgspec.structs.replace(with_gpu(residue=residue), driver_scrubs_on_free=claim)
    decision = decide(report)
    assert isinstance(decision, Cleared)
    assert (decision.leak, decision.residue_bytes) == (leak, residue.nonzero_bytes)


def test_residue_is_summed_over_gpus() -> None:
    report = build_report(
        gpus=[build_gpu(0, residue=RESIDUE), build_gpu(1, residue=None), build_gpu(2, residue=RESIDUE)]
    )
    assert residue_bytes(report) == 2 * RESIDUE.nonzero_bytes


@pytest.mark.parametrize(
    ("changes", "valid"),
    [
        ({}, True),
        ({"node_uid": "other"}, False),
        ({"boot_id": "boot-2"}, False),
        ({"epoch": 2}, False),
        ({"verdict": "Failed"}, False),
    ],
)
def test_a_receipt_is_valid_for_one_node_boot_and_epoch(changes: dict[str, Any], valid: bool) -> None:
    assert is_valid_for(build_predicate(**changes), "node-uid", "boot-1", 3) is valid
