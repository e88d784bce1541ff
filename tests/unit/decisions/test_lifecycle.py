"""When the gate of a granted pod is lifted, which steps of a running one are told, and how a lost one ends."""

from datetime import timedelta
from typing import Any

import pytest
from msgspec import structs

from lethe.decisions.actions import LiftGate, WriteJobStatus
from lethe.decisions.conditions import find_condition
from lethe.decisions.plan import decide
from lethe.decisions.snapshot import ContainerFacts, GrantFacts
from lethe.formats.quantity import format_time
from lethe.model.names import CONTAINER_KEYFETCH, CONTAINER_OUTPUTS, GATE, JOB_FINALIZER, JobUid, training_pod
from lethe.model.phases import JobPhase
from lethe.model.resources import JobStatus, Outputs, Storage
from tests.unit.decisions.worlds import HOLDER, LONG_AGO, NODE, NOW, UID, facts, job, ledger, pod, world

JOB = "job-1"
NAME = training_pod(f"name-{JOB}", JobUid(JOB), 1, 0)
RECORD = {"name": NAME, "uid": UID, "node": NODE, "bootId": "boot-1", "epoch": 3}
GRANT = GrantFacts(node=NODE, namespace="acme", pod_uids=(UID,))


def lifted(phase: str = "Assigned", *grants: GrantFacts, **status: Any) -> list[str]:
    """Return the nodes for which gates are lifted when a granted pod still waits behind its gate."""
    gated = pod(name=NAME, node="", phase="Pending", gates=(GATE,), containers={})
    admitted = job(uid=JOB, pods=[RECORD])
    key = (admitted.metadata.namespace, admitted.metadata.name)
    snapshot = world(ledger(phase, **status), jobs={key: admitted}, pods={UID: gated}, grants=grants)
    return [action.node for action in decide(snapshot).actions if isinstance(action, LiftGate)]


def test_the_gate_is_lifted_once_the_fence_lets_the_pod_in() -> None:
    assert lifted("Assigned", GRANT) == [NODE]


@pytest.mark.parametrize(
    "grants",
    [
        (),
        (GrantFacts(node=NODE, namespace="acme", pod_uids=("another",)),),
        (GrantFacts(node="other", namespace="acme", pod_uids=(UID,)),),
        (GrantFacts(node=NODE, namespace="globex", pod_uids=(UID,)),),
    ],
    ids=["no grant", "for another pod", "for another node", "in another namespace"],
)
def test_not_before(grants: tuple[GrantFacts, ...]) -> None:
    assert lifted("Assigned", *grants) == []


@pytest.mark.parametrize(
    ("phase", "status"),
    [("Free", {}), ("Draining", {}), ("Assigned", {"holder": {**HOLDER, "podUids": ["another"]}})],
    ids=["Free", "Draining", "held by another pod"],
)
def test_not_when_the_ledger_does_not_name_the_pod(phase: str, status: dict[str, Any]) -> None:
    assert lifted(phase, GRANT, **status) == []


FETCHES = {CONTAINER_KEYFETCH: ("running", 0), "train": ("waiting", 0)}
SEALS = {CONTAINER_KEYFETCH: ("terminated", 90), "train": ("terminated", 0), CONTAINER_OUTPUTS: ("running", 60)}


def told(states: dict[str, tuple[Any, int]], age: float, *, phase: str) -> tuple[list[str], float | None]:
    """Return the reasons that are written for a pod in such states, so many seconds old, and when it is looked at."""
    containers = {
        name: ContainerFacts(
            state=state, since="" if state == "waiting" else format_time(NOW - timedelta(seconds=age + before))
        )
        for name, (state, before) in states.items()
    }
    running = pod(name=NAME, phase="Running", containers=containers, main=("train",))
    admitted = job(phase, uid=JOB, pods=[RECORD])
    key = (admitted.metadata.namespace, admitted.metadata.name)
    holder = {**HOLDER, "podUids": [UID]}
    plan = decide(world(ledger("Assigned", holder=holder), jobs={key: admitted}, pods={UID: running}, grants=(GRANT,)))
    return [action.status.reason for action in plan.actions if isinstance(action, WriteJobStatus)], plan.again_in


@pytest.mark.parametrize(
    ("states", "phase", "reason"),
    [(FETCHES, "Admitted", "FetchingKeys"), (SEALS, "Running", "SealingOutputs")],
    ids=["keys", "outputs"],
)
def test_a_step_is_told_once_it_has_lasted(states: dict[str, tuple[Any, int]], phase: str, reason: str) -> None:
    assert told(states, 1, phase=phase) == ([], 2.0)
    assert told(states, 4, phase=phase)[0] == [reason]


def test_a_deleted_job_names_every_node_that_it_still_holds() -> None:
    """That of an earlier attempt too: its pod's end may be the one that nobody can prove."""
    deleted = job(uid=JOB, pods=[RECORD])
    metadata = structs.replace(deleted.metadata, deletion_timestamp="2030-01-02T03:04:05Z", finalizers=[JOB_FINALIZER])
    deleted = structs.replace(deleted, metadata=metadata)
    earlier = ledger("Quarantined", name="gpu-0", holder={**HOLDER, "jobUid": JOB, "podUids": ["gone"]})
    now = ledger("Draining", holder={**HOLDER, "jobUid": JOB, "podUids": [UID]})
    key = (metadata.namespace, metadata.name)
    plan = decide(world(earlier, now, jobs={key: deleted}))
    [written] = [action for action in plan.actions if isinstance(action, WriteJobStatus)]
    assert written.status.message == f"is being deleted, once the end of its pods on node gpu-0, {NODE} is proved"


def ended(started_at: str | None = LONG_AGO, **changes: Any) -> JobStatus:
    """Return the status of a job with outputs that ran, after a decision about it; its pod is gone unless given."""
    ran = job("Running", uid=JOB, pods=[RECORD], startedAt=started_at)
    outputs = Outputs(storage=Storage(url="s3://acme/models"), recipients=[])
    ran = structs.replace(ran, spec=structs.replace(ran.spec, outputs=outputs))
    key = (ran.metadata.namespace, ran.metadata.name)
    plan = decide(world(ledger("Assigned"), jobs={key: ran}, **changes))
    [written] = [action.status for action in plan.actions if isinstance(action, WriteJobStatus)]
    return written


def test_a_training_that_was_lost_points_to_what_was_sealed_while_it_ran() -> None:
    status = ended()
    assert (status.phase, status.reason) == (JobPhase.FAILED, "PodLost")
    sealed = find_condition(status.conditions, "OutputsSealed")
    assert sealed is not None and (sealed.status, sealed.reason) == ("False", "OutputsLost")
    assert f"the pod was lost; `lethe dataset ls --job acme/name-{JOB}` shows" in sealed.message


def test_one_that_never_began_points_to_nothing() -> None:
    assert find_condition(ended(started_at=None).conditions, "OutputsSealed") is None


@pytest.mark.parametrize(("boot", "message"), [("boot-2", f"{NODE} was rebooted"), ("boot-1", "no healthy devices")])
def test_a_pod_that_a_rebooted_node_refuses_was_lost_to_the_reboot(boot: str, message: str) -> None:
    refused = pod(
        name=NAME, phase="Failed", reason="UnexpectedAdmissionError", message="no healthy devices", containers={},
        ended_by_kubelet=True,
    )  # fmt: skip
    status = ended(pods={UID: refused}, nodes={NODE: facts(boot_id=boot)})
    assert (status.phase, status.reason) == (JobPhase.FAILED, "PodLost")
    assert message in status.message
