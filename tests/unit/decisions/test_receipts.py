"""Every way a report does not clear a node: one change of a report that does, and the reason."""

from typing import Any

import msgspec
import pytest

from lethe.decisions.receipts import Cleared, NotCleared, covered_bytes, decide_clearance, is_valid_for, residue_bytes
from lethe.model import reasons
from lethe.model.agentconfig import ScrubConfig
from lethe.model.scrub import FIRST_STEPS, SECOND_STEPS, Residue, ScrubReport
from tests.common.scrubs import (
    CONTEXT,
    COVERED,
    GIVEN_UP,
    HELD,
    LEFT_OVER,
    TOTAL,
    build_config,
    build_facts,
    build_gpu,
    build_leapfrog,
    build_predicate,
    build_report,
    build_summary,
    report_sha256,
)

UUIDS = ["GPU-00000000", "GPU-00000001"]
RESIDUE = Residue(nonzero_bytes=4096, nonzero_pages=1, digest="ab")
SHARED = build_gpu().shared


def decide(report: ScrubReport, config: ScrubConfig | None = None, **summary: Any) -> Cleared | NotCleared:
    return decide_clearance(report, report_sha256(report), build_summary(report, **summary), config or build_config())


def test_a_sound_report_clears() -> None:
    expected = Cleared(gpus=UUIDS, residue_bytes=0, coverage=COVERED / TOTAL, leak=False)
    assert decide(build_report()) == expected
    assert decide(build_report(), build_config(gpus=UUIDS[::-1])) == expected


def with_gpu(**changes: Any) -> ScrubReport:
    """A report whose second GPU is different."""
    return build_report(gpus=[build_gpu(0), build_gpu(1, **changes)])


def without(name: str) -> ScrubReport:
    return with_gpu(durations={step: 0.01 for step in FIRST_STEPS if step != name})


def with_shared(**changes: Any) -> ScrubReport:
    return with_gpu(shared=msgspec.structs.replace(SHARED, **changes))


def with_leapfrog(**changes: Any) -> ScrubReport:
    return with_gpu(leapfrog=build_leapfrog(**changes))


def second_without(name: str) -> ScrubReport:
    return with_leapfrog(durations={step: 0.01 for step in SECOND_STEPS if step != name})


def over(length: int) -> dict[str, int]:
    return {"bytes_held": length, "bytes_probed": length, "bytes_verified": length}


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
    *(pytest.param(without(name), {}, reasons.SCRUB_INCOMPLETE, id=f"no {name}") for name in FIRST_STEPS),
    pytest.param(with_gpu(shared=None), {}, reasons.SCRUB_INCOMPLETE, id="no shared memory"),
    pytest.param(with_shared(bytes_each=0), {}, reasons.SCRUB_INCOMPLETE, id="nothing of shared memory"),
    pytest.param(with_shared(seen="b"), {}, reasons.MULTIPROCESSORS_MISSED, id="a multiprocessor missed"),
    pytest.param(with_shared(seen="1f"), {}, reasons.MULTIPROCESSORS_MISSED, id="a multiprocessor too many"),
    pytest.param(with_shared(multiprocessors=0, seen="0"), {}, reasons.MULTIPROCESSORS_MISSED, id="no multiprocessor"),
    pytest.param(with_shared(mismatches=1), {}, reasons.SHARED_MEMORY_MISMATCH, id="mismatch in shared memory"),
    pytest.param(with_gpu(leapfrog=None), {}, reasons.SCRUB_INCOMPLETE, id="no leapfrog"),
    pytest.param(with_leapfrog(bytes_context=None), {}, reasons.SCRUB_INCOMPLETE, id="leapfrog only begun"),
    *(
        pytest.param(second_without(name), {}, reasons.SCRUB_INCOMPLETE, id=f"no second {name}")
        for name in SECOND_STEPS
    ),
    pytest.param(with_leapfrog(residue=None), {}, reasons.SCRUB_INCOMPLETE, id="second did not measure residue"),
    pytest.param(with_leapfrog(bytes_probed=HELD - 1), {}, reasons.SCRUB_INCOMPLETE, id="second did not probe all"),
    pytest.param(with_leapfrog(bytes_verified=HELD - 1), {}, reasons.SCRUB_INCOMPLETE, id="second did not verify all"),
    pytest.param(with_leapfrog(mismatches=1, first_mismatch=0), {}, reasons.VERIFY_MISMATCH, id="second's mismatch"),
    pytest.param(with_leapfrog(first_mismatch=0), {}, reasons.VERIFY_MISMATCH, id="second's first mismatch"),
    pytest.param(
        with_leapfrog(**over(HELD - GIVEN_UP - 1)), {}, reasons.LEAPFROG_FAILED, id="second held less than came free"
    ),
    pytest.param(
        with_leapfrog(bytes_given_up=HELD), {}, reasons.LEAPFROG_FAILED, id="nothing held while the context opened"
    ),
    pytest.param(
        with_gpu(bytes_covered=COVERED + 1), {}, reasons.SCRUB_INCOMPLETE, id="covers more than its processes verified"
    ),
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
        with_gpu(
            **over(TOTAL // 2),
            leapfrog=build_leapfrog(**over(TOTAL // 2)),
            bytes_covered=TOTAL // 2 + CONTEXT - LEFT_OVER,
            coverage=1.0,
        ),
        {},
        reasons.COVERAGE_TOO_LOW,
        id="half covered, whatever it claims",
    ),
    pytest.param(with_gpu(bytes_total=HELD), {}, reasons.COVERAGE_TOO_LOW, id="total below NVML's"),
    pytest.param(
        with_gpu(**over(TOTAL + 1), leapfrog=build_leapfrog(**over(TOTAL)), bytes_covered=TOTAL + CONTEXT - LEFT_OVER),
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
    assert isinstance(decide(build_report(), build_config(coverage_floor=COVERED / TOTAL)), Cleared)


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


def test_what_the_second_process_finds_is_a_leak_and_not_a_tenants_residue() -> None:
    report = msgspec.structs.replace(with_leapfrog(residue=RESIDUE), driver_scrubs_on_free=True)
    decision = decide(report)
    assert isinstance(decision, Cleared)
    assert (decision.leak, decision.residue_bytes) == (True, 0)


def test_residue_is_summed_over_gpus_and_their_shared_memory() -> None:
    shared = msgspec.structs.replace(SHARED, residue_bytes=24)
    report = build_report(
        gpus=[build_gpu(0, residue=RESIDUE), build_gpu(1, residue=None), build_gpu(2, residue=RESIDUE, shared=shared)]
    )
    assert residue_bytes(report) == 2 * RESIDUE.nonzero_bytes + 24


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({}, HELD + CONTEXT - LEFT_OVER, id="the context lies in what the first verified"),
        pytest.param({"bytes_left_over": CONTEXT + 1}, HELD, id="or in what nobody did"),
        pytest.param({"bytes_context": GIVEN_UP * 2}, HELD + GIVEN_UP, id="never more than was given up"),
        pytest.param({"bytes_context": None, "bytes_verified": 0}, HELD, id="the second has not begun"),
        pytest.param({"bytes_verified": GIVEN_UP}, HELD, id="all that the second verified, the first had, too"),
    ],
)
def test_what_both_processes_verified_is_covered_once(changes: dict[str, Any], expected: int) -> None:
    assert covered_bytes(build_gpu(leapfrog=build_leapfrog(**changes))) == expected


def test_without_a_second_process_the_first_covers_what_it_verified() -> None:
    assert covered_bytes(build_gpu(leapfrog=None)) == HELD


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
