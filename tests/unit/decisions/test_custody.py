"""The table of custody: what a node does next, case by case (custody.md, Ledger)."""

from typing import Any

import msgspec
import pytest

from lethe.decisions.actions import LiftGate, OpenGrant, RemoveGrantRole, WriteNodeStatus
from lethe.decisions.admission import Admission
from lethe.decisions.ledger import MOVES
from lethe.decisions.snapshot import GrantFacts, GrantRoleFacts, IssuedReceipt, Snapshot
from lethe.model.config import OperatorConfig
from lethe.model.names import GATE, JobUid, training_pod
from lethe.model.phases import NodePhase
from lethe.model.resources import Tenant
from tests.unit.decisions.worlds import (
    HOLDER,
    LONG_AGO,
    LOST,
    NODE,
    PAST,
    RECENTLY,
    RUNNING,
    TENANT,
    UID,
    decide,
    facts,
    job,
    ledger,
    pod,
    world,
)

GRANT = GrantFacts(node=NODE, namespace="acme", pod_uids=(UID,))
SCRUB = {"podName": "lethe-scrub-gpu-1-3", "podUid": "scrub-1", "nonce": "ab" * 32, "startedAt": RECENTLY}


def gated(uid: str = "pod-2", **changes: Any) -> Any:
    """Return the gated pod of the job that waits for the node."""
    name = training_pod("name-job-2", JobUid("job-2"), 1, 0)
    return pod(name=name, uid=uid, job_uid="job-2", node="", phase="Pending", containers={}, gates=(GATE,), **changes)


def waiting(**changes: Any) -> dict[str, Any]:
    """Return an admitted job and its gated pod, as parts of a world, beside the holder's pod that has ended."""
    return {"jobs": {("acme", "name-job-2"): job()}, "pods": {"pod-2": gated(), UID: pod()}, **changes}


def tenant(**spec: Any) -> dict[str, Tenant]:
    return {"acme": msgspec.convert({**TENANT, "spec": {**TENANT["spec"], **spec}}, Tenant)}


REBOOTED = {"nodes": {NODE: facts(boot_id="boot-2")}}
REPLACED = {"nodes": {NODE: facts(uid="node-2")}}
GONE: dict[str, Any] = {"nodes": {}}
BLANK = {"nodes": {NODE: facts(boot_id="")}}
RELEASED = {"managed": False}
DRAIN = {"drain": True}


@pytest.mark.parametrize(
    ("snapshot", "phase", "reason"),
    [
        # a new boot id, in every managed phase
        (world(ledger("Dirty"), **REBOOTED), "Dirty", "NewBoot"),
        (world(ledger("Scrubbing", scrub=SCRUB), **REBOOTED), "Dirty", "NewBoot"),
        (world(ledger("Free"), **REBOOTED), "Dirty", "NewBoot"),
        (world(ledger("Assigned"), **REBOOTED), "Dirty", "NewBoot"),
        (world(ledger("Draining"), **REBOOTED), "Dirty", "NewBoot"),
        (world(ledger("Quarantined"), **REBOOTED), "Dirty", "NewBoot"),
        (world(ledger("Unmanaged", spec=RELEASED), **REBOOTED), "Unmanaged", "NotEnrolled"),
        # no boot id is no new boot
        (world(ledger("Dirty"), **BLANK), "Dirty", "NodeNotReady"),
        (world(ledger("Free"), **BLANK, **waiting()), "Free", ""),
        (world(ledger("Draining", since=RECENTLY), **BLANK), "Draining", "AwaitingProof"),
        (world(ledger("Quarantined", reason="ProofTimedOut", holder=HOLDER), **BLANK), "Quarantined", "ProofTimedOut"),
        (world(ledger("Quarantined", reason="ProofTimedOut", holder=HOLDER), pods={UID: pod()}), "Dirty", "Proved"),
        # the Node was deleted and made anew
        (world(ledger("Dirty"), **REPLACED), "Dirty", ""),
        (world(ledger("Scrubbing", scrub=SCRUB), **REPLACED), "Dirty", "NodeReplaced"),
        (world(ledger("Free"), **REPLACED), "Dirty", "NodeReplaced"),
        (world(ledger("Free"), **REPLACED, **waiting()), "Dirty", "NodeReplaced"),
        (world(ledger("Assigned"), **REPLACED, pods={UID: pod(phase="Running")}), "Draining", "NodeReplaced"),
        (world(ledger("Draining", since=RECENTLY), **REPLACED), "Draining", "AwaitingProof"),
        # the Node is gone
        (world(ledger("Dirty"), **GONE), "Dirty", "NodeMissing"),
        (world(ledger("Free"), **GONE, **waiting()), "Free", ""),
        (world(ledger("Assigned"), **GONE), "Draining", "Settling"),
        (world(ledger("Scrubbing", scrub={**SCRUB, "startedAt": LONG_AGO}), **GONE), "Quarantined", "ScrubPodLost"),
        # its GPUs changed
        (world(ledger("Dirty"), nodes={NODE: facts(gpu_capacity=4)}), "Dirty", ""),
        (world(ledger("Dirty", gpuCount=0), nodes={NODE: facts(gpu_capacity=0)}), "Dirty", "GPUSetMismatch"),
        (world(ledger("Free"), nodes={NODE: facts(gpu_capacity=4)}, **waiting()), "Dirty", "GPUsChanged"),
        (world(ledger("Free"), nodes={NODE: facts(gpu_capacity=0)}, **waiting()), "Free", "GPUsChanged"),
        (world(ledger("Free", reason="GPUsChanged")), "Free", "ScrubVerified"),
        (
            world(ledger("Assigned"), nodes={NODE: facts(gpu_capacity=4)}, **waiting()),
            "Draining",
            "Settling",
        ),
        # enrolment and release
        (world(ledger("Unmanaged")), "Dirty", "Enrolled"),
        (world(ledger("Unmanaged"), **GONE), "Unmanaged", "NodeMissing"),
        (world(ledger("Dirty", spec=RELEASED)), "Unmanaged", "NotEnrolled"),
        (world(ledger("Dirty", spec=RELEASED, previousHolder=PAST)), "Scrubbing", "ScrubStarted"),
        (world(ledger("Free", spec=RELEASED), **waiting()), "Unmanaged", "NotEnrolled"),
        (world(ledger("Assigned", spec=RELEASED), pods={UID: pod(phase="Running")}), "Assigned", "Granted"),
        (world(ledger("Assigned", spec=RELEASED), **waiting()), "Draining", "Settling"),
        (world(ledger("Draining", spec=RELEASED), pods={UID: pod()}), "Dirty", "Proved"),
        (world(ledger("Quarantined", spec=RELEASED)), "Unmanaged", "NotEnrolled"),
        # the scrub starts in order: closed, settled, refused, empty, ready, with GPUs
        (world(ledger("Dirty")), "Scrubbing", "ScrubStarted"),
        (world(ledger("Dirty"), grants=(GRANT,), closed_for={}), "Dirty", "Settling"),
        (world(ledger("Dirty"), open_nodes=frozenset({NODE}), closed_for={}), "Dirty", "Settling"),
        (world(ledger("Dirty"), closed_for={NODE: 1.9}), "Dirty", "Settling"),
        (world(ledger("Dirty"), closed_nodes=frozenset()), "Dirty", "Settling"),
        (world(ledger("Dirty"), occupants={NODE: ("default/old",)}), "Dirty", "NodeNotEmpty"),
        (world(ledger("Dirty"), occupants={}), "Dirty", ""),
        (world(ledger("Dirty"), nodes={NODE: facts(is_ready=False)}), "Dirty", "NodeNotReady"),
        # grants
        (world(ledger("Free"), **waiting()), "Assigned", "Granted"),
        (world(ledger("Free"), **waiting(), occupants={NODE: ("default/stranger",)}), "Dirty", "NodeNotEmpty"),
        (world(ledger("Free"), **waiting(), occupants={}), "Free", ""),
        (world(ledger("Free", spec=DRAIN), **waiting()), "Free", "Drained"),
        (world(ledger("Free", reason="Drained")), "Free", "ScrubVerified"),
        (world(ledger("Free"), **waiting(nodes={NODE: facts(is_ready=False)})), "Free", ""),
        (world(ledger("Free"), **waiting(jobs={("acme", "name-job-2"): job("Queued")})), "Free", ""),
        (world(ledger("Free"), **waiting(pods={"pod-2": gated(finalizers=())})), "Free", ""),
        (world(ledger("Free"), **waiting(pods={"pod-2": gated(deletion_timestamp=LONG_AGO)})), "Free", ""),
        # the same tenant's next job
        (world(ledger("Assigned"), **waiting()), "Assigned", "Granted"),
        (world(ledger("Assigned", spec=DRAIN), **waiting()), "Draining", "Settling"),
        (world(ledger("Assigned", spec=DRAIN), pods={UID: pod(phase="Running")}), "Assigned", "Drained"),
        (world(ledger("Assigned"), **waiting(), tenants=tenant(isolation="job")), "Draining", "Settling"),
        (world(ledger("Assigned"), **waiting(tenants={})), "Draining", "TenantGone"),
        (
            world(ledger("Assigned"), **waiting(pods={"pod-2": gated(), UID: pod(containers=LOST)})),
            "Draining",
            "Settling",
        ),
        (
            world(ledger("Assigned"), **waiting(jobs={("acme", "name-job-2"): job(tenant="globex")})),
            "Assigned",
            "",
        ),
        (world(ledger("Assigned"), pods={UID: pod()}, tenants=tenant(idleRetention="10m")), "Assigned", ""),
        (
            world(ledger("Assigned", spec=DRAIN), pods={UID: pod()}, tenants=tenant(idleRetention="10m")),
            "Draining",
            "Settling",
        ),
        (world(ledger("Assigned"), pods={UID: pod(phase="Running", containers=RUNNING)}), "Assigned", "Granted"),
        # proof
        (world(ledger("Draining"), pods={UID: pod()}), "Dirty", "Proved"),
        (
            world(ledger("Draining", since=RECENTLY), pods={UID: pod()}, grants=(GRANT,), closed_for={}),
            "Draining",
            "Settling",
        ),
        (world(ledger("Draining", since=RECENTLY), pods={}), "Draining", "AwaitingProof"),
        (world(ledger("Draining", since=RECENTLY), pods={UID: pod(containers=LOST)}), "Draining", "AwaitingProof"),
        (world(ledger("Draining", since=RECENTLY), pods={UID: pod(collected=True)}), "Draining", "AwaitingProof"),
        (
            world(ledger("Draining", since=RECENTLY), pods={UID: pod()}, occupants={NODE: ("acme/late",)}),
            "Draining",
            "NodeNotEmpty",
        ),
        (world(ledger("Draining"), pods={}), "Quarantined", "ProofTimedOut"),
        (world(ledger("Draining"), pods={UID: pod()}, occupants={NODE: ("acme/x",)}), "Quarantined", "ProofTimedOut"),
        # quarantine is left by a cure
        (world(ledger("Quarantined", reason="ProofTimedOut", holder=HOLDER)), "Quarantined", "ProofTimedOut"),
        (world(ledger("Quarantined", reason="NodeNotEmpty")), "Dirty", "Proved"),
        (
            world(ledger("Quarantined", reason="NodeNotEmpty"), occupants={NODE: ("acme/x",)}),
            "Quarantined",
            "NodeNotEmpty",
        ),
        (world(ledger("Quarantined", reason="GPULost")), "Quarantined", "GPULost"),
    ],
)
def test_what_a_node_does_next(snapshot: Snapshot, phase: str, reason: str) -> None:
    status, _ = decide(snapshot)

    assert (status.phase, status.reason) == (phase, reason)
    assert status.phase != NodePhase.FREE or snapshot.gpu_nodes[NODE].status.phase == NodePhase.FREE


def test_the_moves_are_those_of_the_table() -> None:
    assert {(source.value, goal.value) for source, goals in MOVES.items() for goal in goals} == {
        ("Unmanaged", "Dirty"),
        ("Dirty", "Dirty"),
        ("Dirty", "Scrubbing"),
        ("Dirty", "Unmanaged"),
        ("Scrubbing", "Dirty"),
        ("Scrubbing", "Free"),
        ("Scrubbing", "Quarantined"),
        ("Free", "Assigned"),
        ("Free", "Dirty"),
        ("Free", "Unmanaged"),
        ("Assigned", "Assigned"),
        ("Assigned", "Dirty"),
        ("Assigned", "Draining"),
        ("Draining", "Dirty"),
        ("Draining", "Quarantined"),
        ("Quarantined", "Dirty"),
        ("Quarantined", "Unmanaged"),
    }


def test_the_epoch_grows_when_a_scrub_starts_and_a_new_ledger_goes_on_after_the_old_ones_receipts() -> None:
    assert decide(world(ledger("Dirty")))[0].epoch == 4
    earlier = IssuedReceipt(name="gpu-1-7", sha256="77", nonce="", node_uid="", boot_id="boot-0", epoch=7)
    status, _ = decide(world(ledger("Dirty", epoch=0, lastReceipt=None), earlier_receipts={NODE: earlier}))
    assert status.epoch == 8
    assert status.last_receipt is not None and (status.last_receipt.sha256, status.last_receipt.epoch) == ("77", 7)
    assert status.scrub is not None and status.scrub.pod_name == "lethe-scrub-gpu-1-8"


def test_the_holder_is_in_the_ledger_before_anything_is_opened() -> None:
    status, actions = decide(world(ledger("Free"), **waiting()))
    assert status.holder is not None and status.holder.pod_uids == ["pod-2"]
    assert [type(action) for action in actions] == [WriteNodeStatus]
    assert not any(isinstance(action, OpenGrant | LiftGate) for action in actions)


def test_idle_retention_ends_in_time() -> None:
    idle = {"type": "Idle", "status": "True", "reason": "Idle", "lastTransitionTime": LONG_AGO}
    kept = world(ledger("Assigned", conditions=[idle]), pods={UID: pod()}, tenants=tenant(idleRetention="10m"))
    assert decide(kept)[0].phase == NodePhase.DRAINING
    longer = msgspec.structs.replace(kept, tenants=tenant(idleRetention="2h"))
    assert decide(longer)[0].phase == NodePhase.ASSIGNED


def test_a_job_that_demands_a_fresh_scrub_ends_what_its_tenant_keeps_idle() -> None:
    kept = world(ledger("Assigned"), pods={UID: pod()}, tenants=tenant(idleRetention="10m"))
    demand = Admission(nodes={}, waiting={}, want_scrub=frozenset({"acme"}))
    assert decide(kept)[0].phase == NodePhase.ASSIGNED
    assert decide(kept, admission=demand)[0].phase == NodePhase.DRAINING


def test_everybody_since_the_last_scrub_is_accounted_for() -> None:
    node = ledger("Assigned", previousHolder={**PAST, "jobs": ["first"], "jobUids": ["job-0"]})
    status, _ = decide(world(node, **REBOOTED))
    assert status.previous_holder is not None
    assert status.previous_holder.jobs == ["first", "digits"]
    status, _ = decide(world(ledger("Free", previousHolder=PAST), **REBOOTED))
    assert status.previous_holder is None


def test_quarantine_tells_what_was_seen_and_what_to_do() -> None:
    gone = world(ledger("Draining"), nodes={}, pods={UID: pod(phase="Failed", collected=True, containers=LOST)})
    status, _ = decide(gone)
    assert status.quarantine is not None
    evidence = " | ".join(status.quarantine.evidence)
    for words in (UID, LONG_AGO, "garbage collector", "ContainerStatusUnknown", "there is no Node gpu-1"):
        assert words in evidence
    assert "reboot the node" in status.quarantine.advice and status.quarantine.advice in status.message
    status, _ = decide(world(ledger("Draining"), pods={}))
    assert status.quarantine is not None and "its object is gone" in " ".join(status.quarantine.evidence)


def test_roles_stay_for_the_next_grant_and_go_when_the_node_is_released() -> None:
    role = GrantRoleFacts(node=NODE, namespace="acme", is_right=True)
    for is_right in (True, False):
        known = msgspec.structs.replace(role, is_right=is_right)
        _, actions = decide(world(ledger("Assigned"), pods={UID: pod(phase="Running")}, grant_roles=(known,)))
        opened = [action for action in actions if isinstance(action, OpenGrant)]
        assert [action.has_role for action in opened] == [is_right]
    for phase, spec, grants, removed in (
        ("Free", {}, (), False),
        ("Unmanaged", RELEASED, (), True),
        ("Unmanaged", RELEASED, (GRANT,), False),
    ):
        _, actions = decide(world(ledger(phase, spec=spec), grant_roles=(role,), grants=grants))
        assert any(isinstance(action, RemoveGrantRole) for action in actions) is removed


def test_in_audit_mode_a_trial_bind_need_not_be_refused() -> None:
    config = OperatorConfig(image="lethe:test", fence="audit")
    assert decide(world(ledger("Dirty"), closed_nodes=frozenset(), config=config))[0].phase == NodePhase.SCRUBBING
