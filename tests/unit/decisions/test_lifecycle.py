"""When the gate of a granted pod is lifted: the fence must let it on its node first, and the ledger name it."""

from typing import Any

import pytest

from lethe.decisions.actions import LiftGate
from lethe.decisions.plan import decide
from lethe.decisions.snapshot import GrantFacts
from lethe.model.names import GATE, JobUid, training_pod
from tests.unit.decisions.worlds import HOLDER, NODE, UID, job, ledger, pod, world

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
