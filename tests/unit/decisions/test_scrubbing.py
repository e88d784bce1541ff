"""What clears a node after its scrub, and what quarantines it: nothing but a verified receipt leads to Free."""

from datetime import timedelta
from typing import Any

import pytest

from lethe.decisions.actions import IssueReceipt
from lethe.decisions.scrubbing import scrub_config
from lethe.decisions.snapshot import IssuedReceipt, PodFacts, ScrubResult, Snapshot
from lethe.formats.quantity import format_time
from lethe.model.names import scrub_pod as scrub_pod_name
from lethe.model.phases import NodePhase
from tests.common.scrubs import build_posture, build_report, build_summary
from tests.unit.decisions.worlds import (
    ENDED,
    LONG_AGO,
    MINUTES_AGO,
    NODE,
    NOW,
    RECENTLY,
    RUNNING,
    decide,
    facts,
    ledger,
    pod,
    world,
)

NONCE = "5a" * 32
SCRUB = {"podName": "lethe-scrub-gpu-1-3", "podUid": "scrub-1", "nonce": NONCE, "startedAt": RECENTLY}


def scrub_pod(**changes: Any) -> PodFacts:
    given = {"name": SCRUB["podName"], "namespace": "lethe-system", "uid": "scrub-1", "role": "scrub", "job_uid": ""}
    return pod(**{**given, "containers": {"scrub": ENDED["train"]}, **changes})


def receipt(**changes: Any) -> IssuedReceipt:
    given = {"name": "gpu-1-3", "sha256": "77", "nonce": NONCE, "node_uid": "node-1", "boot_id": "boot-1", "epoch": 3}
    return IssuedReceipt(**{**given, **changes})


def scrubbed(report: dict[str, Any] | None = None, issued: IssuedReceipt | None = None, **changes: Any) -> Snapshot:
    """Return a world in which the scrub of gpu-1 has ended, with a report that clears it but for these changes."""
    node = ledger("Scrubbing", scrub=SCRUB, lastReceipt=None)
    blank = world(node)
    told = build_report(scrub_config(blank, NODE, node.status), **(report or {}))
    summary = build_summary(told)
    result = ScrubResult(report=told, report_sha256=summary.report_sha256, summary=summary)
    given = {
        "pods": {"scrub-1": scrub_pod()},
        "scrubs": {"scrub-1": result},
        "receipts": {NODE: issued} if issued is not None else {},
    }
    return world(node, **{**given, **changes})


def test_a_verified_receipt_frees_the_node() -> None:
    status, _ = decide(scrubbed(issued=receipt()))
    assert status.phase == NodePhase.FREE
    assert status.last_receipt is not None and status.last_receipt.sha256 == "77"


def test_the_ledger_says_which_posture_the_scrub_found() -> None:
    found = build_posture(swap="/dev/sda2")
    status, _ = decide(scrubbed({"posture": found}, issued=receipt()))
    assert (status.phase, status.posture) == (NodePhase.FREE, found)


def test_the_receipt_comes_first() -> None:
    status, actions = decide(scrubbed())
    assert status.phase == NodePhase.SCRUBBING
    issued = [action for action in actions if isinstance(action, IssueReceipt)]
    assert [(entry.predicate.nonce, entry.predicate.epoch) for entry in issued] == [(NONCE, 3)]


@pytest.mark.parametrize(
    ("snapshot", "reason"),
    [
        (scrubbed(issued=receipt(nonce="00")), "NonceMismatch"),
        (scrubbed(issued=receipt(node_uid="node-2")), "NonceMismatch"),
        (scrubbed(issued=receipt(boot_id="boot-2")), "NonceMismatch"),
        (scrubbed(issued=receipt(epoch=2)), "NonceMismatch"),
        (scrubbed({"verdict": "Failed", "reason": "GPULost"}, issued=receipt()), "GPULost"),
        (scrubbed({"nonce": "00" * 32}, issued=receipt()), "NonceMismatch"),
        (scrubbed({"boot_id": "boot-2"}, issued=receipt()), "BootMismatch"),
        (scrubbed({"epoch": 2}, issued=receipt()), "EpochMismatch"),
        (scrubbed({"node": "gpu-2"}, issued=receipt()), "NodeMismatch"),
        (scrubbed(issued=receipt(), occupants={NODE: ("acme/late",)}), "NodeNotEmpty"),
        (scrubbed(issued=receipt(), pods={}), "ScrubPodLost"),
        (scrubbed(issued=receipt(), pods={"scrub-2": scrub_pod(uid="scrub-2")}), "ScrubPodLost"),
    ],
    ids=[
        "receipt of another nonce",
        "receipt of another node",
        "receipt of another boot",
        "receipt of another epoch",
        "failed",
        "report of another nonce",
        "report of another boot",
        "report of another epoch",
        "report of another node",
        "a pod came",
        "its pod is gone",
        "another pod of its name",
    ],
)
def test_anything_else_quarantines_with_evidence_and_advice(snapshot: Snapshot, reason: str) -> None:
    status, _ = decide(snapshot)
    assert (status.phase, status.reason) == (NodePhase.QUARANTINED, reason)
    assert status.quarantine is not None and status.quarantine.advice
    assert any("scrub-1" in line and RECENTLY in line for line in status.quarantine.evidence)


def test_an_unread_node_is_not_taken_for_an_empty_one() -> None:
    assert decide(scrubbed(issued=receipt(), occupants={}))[0].phase == NodePhase.SCRUBBING


def test_a_scrub_that_does_not_end_is_given_up() -> None:
    for started, phase in ((RECENTLY, NodePhase.SCRUBBING), (LONG_AGO, NodePhase.QUARANTINED)):
        node = ledger("Scrubbing", scrub={**SCRUB, "startedAt": started})
        running = scrub_pod(phase="Running", containers={"scrub": RUNNING["train"]})
        assert decide(world(node, pods={"scrub-1": running}))[0].phase == phase


def test_an_unhealthy_gpu_that_keeps_the_scrub_away_quarantines_long_before_the_scrubs_time_is_up() -> None:
    node = ledger("Scrubbing", scrub={**SCRUB, "startedAt": MINUTES_AGO})
    waiting = scrub_pod(phase="Pending", node="", containers={}, unschedulable="Insufficient nvidia.com/gpu")
    for allocatable, phase in ((2, NodePhase.SCRUBBING), (1, NodePhase.QUARANTINED)):
        nodes = {NODE: facts(gpu_allocatable=allocatable)}
        status, _ = decide(world(node, nodes=nodes, pods={"scrub-1": waiting}))
        assert status.phase == phase
    assert status.reason == "GPULost"
    assert status.quarantine is not None and "1 of 2 GPUs" in status.quarantine.evidence[0]
    just_begun = world(ledger("Scrubbing", scrub=SCRUB), nodes=nodes, pods={"scrub-1": waiting})
    assert decide(just_begun)[0].phase == NodePhase.SCRUBBING


REFUSED = scrub_pod(phase="Failed", containers={}, reason="UnexpectedAdmissionError", message="no GPU is free")


def begun(seconds: float) -> dict[str, str]:
    """Return the scrub, as begun so long ago."""
    return {**SCRUB, "startedAt": format_time(NOW - timedelta(seconds=seconds))}


@pytest.mark.parametrize(("refusals", "pause"), [(0, 5), (1, 10), (2, 20)])
def test_another_pod_follows_one_that_the_kubelet_refused(refusals: int, pause: float) -> None:
    for age, follows in ((pause - 1, False), (pause, True)):
        node = ledger("Scrubbing", scrub={**begun(age), "refusals": refusals})
        status, _ = decide(world(node, pods={"scrub-1": REFUSED}))
        assert status.phase == NodePhase.SCRUBBING and status.scrub is not None
        named = (status.scrub.pod_name, status.scrub.pod_uid, status.scrub.refusals)
        same = ("lethe-scrub-gpu-1-3", "scrub-1", refusals)
        assert named == ((f"lethe-scrub-gpu-1-3r{refusals + 1}", "", refusals + 1) if follows else same)
        assert follows or "no GPU is free" in (status.message or "")
    assert status.scrub.nonce == NONCE


@pytest.mark.parametrize(("allocatable", "reason"), [(2, "ScrubPodRefused"), (1, "GPULost")])
def test_a_kubelet_that_goes_on_refusing_takes_its_node_out_of_use(allocatable: int, reason: str) -> None:
    node = ledger("Scrubbing", scrub={**SCRUB, "startedAt": MINUTES_AGO})
    status, _ = decide(world(node, nodes={NODE: facts(gpu_allocatable=allocatable)}, pods={"scrub-1": REFUSED}))
    assert (status.phase, status.reason) == (NodePhase.QUARANTINED, reason)


def test_a_pod_that_ran_was_not_refused() -> None:
    node, ran = ledger("Scrubbing", scrub=SCRUB), scrub_pod(phase="Failed", reason="UnexpectedAdmissionError")
    nothing = ScrubResult(report=None, summary=None, error="no log")
    status, _ = decide(world(node, pods={"scrub-1": ran}, scrubs={"scrub-1": nothing}))
    assert (status.phase, status.reason) == (NodePhase.QUARANTINED, "ReportMissing")


def test_scrub_pods_of_different_nodes_have_different_names_and_short_ones() -> None:
    pool = "gke-training-pool-a100-europe-west4-b-5f1c9d2e"
    nodes = [f"{pool}-abcd", f"{pool}-abce", "a.b", "a-b", "gpu-1", "gpu-1-3", "x" * 253]
    pods = [scrub_pod_name(node, epoch, again) for node in nodes for epoch in (1, 3, 10**8) for again in (0, 1, 3)]
    assert len(set(pods)) == len(pods)
    assert all(len(pod) <= 63 and "." not in pod for pod in pods), max(pods, key=len)
