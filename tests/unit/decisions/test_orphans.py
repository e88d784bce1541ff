"""When the object of a pod may go, and which pods nobody wants."""

from typing import Any

import pytest

from lethe.decisions.actions import DeletePod, ReleasePod
from lethe.decisions.orphans import decide_orphans
from lethe.decisions.snapshot import Snapshot
from tests.unit.decisions.worlds import LOST, NODE, RUNNING, UID, facts, job, ledger, pod, world

KNOWN = {"name": "lethe-digits-1-0", "uid": UID, "node": NODE, "bootId": "boot-1", "epoch": 3}
FAILED = job("Failed", uid="job-1", pods=[KNOWN])
UNPROVED = pod(phase="Failed", collected=True, containers=LOST)


def scene(node: Any, one: Any, **changes: Any) -> Snapshot:
    nodes = (node,) if node is not None else ()
    return world(*nodes, **{"pods": {UID: one}, "jobs": {("acme", "digits"): FAILED}, **changes})


@pytest.mark.parametrize(
    ("snapshot", "released"),
    [
        (scene(ledger("Dirty"), pod()), True),
        (scene(ledger("Draining"), pod()), False),
        (scene(ledger("Dirty"), UNPROVED), False),
        (scene(ledger("Dirty"), pod(phase="Failed", containers=LOST)), False),
        (scene(ledger("Scrubbing", epoch=4), UNPROVED), False),
        (scene(ledger("Quarantined", epoch=4), UNPROVED), False),
        (scene(ledger("Free", epoch=4), UNPROVED), True),
        (scene(ledger("Assigned", epoch=4, holder=None), UNPROVED), True),
        (scene(ledger("Assigned"), UNPROVED), False),
        (scene(None, UNPROVED), False),
        (scene(ledger("Unmanaged"), UNPROVED), True),
        (scene(ledger("Unmanaged"), pod(phase="Running", containers=RUNNING)), False),
        (scene(ledger("Dirty"), UNPROVED, nodes={NODE: facts(boot_id="boot-2")}), True),
        (scene(ledger("Dirty"), UNPROVED, nodes={NODE: facts(boot_id="")}), False),
        (scene(ledger("Free", epoch=4), UNPROVED, jobs={}), True),
        (scene(ledger("Dirty"), UNPROVED, jobs={}), False),
        (scene(ledger("Dirty"), pod(), jobs={("acme", "digits"): job("Running", uid="job-1", pods=[KNOWN])}), False),
        (scene(None, pod(), unreadable_gpu_nodes=frozenset({NODE})), False),
        (scene(ledger("Dirty"), pod(node="", phase="Pending", containers={}, deletion_timestamp="x")), True),
    ],
    ids=[
        "proved",
        "proved, the ledger still names it",
        "the garbage collector's word",
        "the kubelet does not know",
        "a scrub runs",
        "a scrub failed",
        "scrubbed since",
        "scrubbed since, and held by others",
        "the holder",
        "no ledger",
        "the node was given up",
        "the node was given up, and nobody says that it has ended",
        "rebooted",
        "no boot id",
        "its job is gone, scrubbed since",
        "its job is gone",
        "its job's end is not written yet",
        "its ledger does not parse",
        "never bound",
    ],
)
def test_when_an_object_may_go(snapshot: Snapshot, released: bool) -> None:
    assert any(isinstance(action, ReleasePod) for action in decide_orphans(snapshot)) is released


@pytest.mark.parametrize(
    ("snapshot", "deleted"),
    [
        (scene(ledger("Assigned"), pod(phase="Running", containers=RUNNING)), False),
        (scene(ledger("Draining"), pod(phase="Running", containers=RUNNING)), True),
        (scene(ledger("Free"), pod(phase="Running", containers=RUNNING)), True),
        (scene(None, pod(phase="Running", containers=RUNNING), unreadable_gpu_nodes=frozenset({NODE})), False),
    ],
    ids=["the holder", "its node is being taken back", "nobody's", "its ledger does not parse"],
)
def test_who_is_deleted(snapshot: Snapshot, deleted: bool) -> None:
    assert any(isinstance(action, DeletePod) for action in decide_orphans(snapshot)) is deleted
