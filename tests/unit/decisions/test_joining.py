"""Nodes that join, under an old name, a new one, or without their ledger (custody.md: they are dirty)."""

from typing import Any

import msgspec
import pytest

from lethe.decisions.actions import CreateLedger, MarkNode, SetOpenNodes
from lethe.decisions.enrolment import decide_enrolment, decide_open_nodes
from lethe.decisions.snapshot import Snapshot
from lethe.model.phases import NodePhase
from tests.unit.decisions.worlds import NODE, UID, decide, facts, ledger, pod, world

OLD = "gpu-old"
EMPTY: dict[str, Any] = {
    "since": None,
    "epoch": 0,
    "nodeUid": None,
    "bootId": None,
    "systemUuid": None,
    "gpuCount": 0,
    "lastReceipt": None,
}
NEWCOMER = {"uid": "node-2", "boot_id": "boot-2", "is_marked": False, "has_mark": False}


def joined(*nodes: Any, **changes: Any) -> Snapshot:
    """Return a world in which the machine of the node that is gone comes back as gpu-1."""
    return world(*nodes, **{"nodes": {NODE: facts(**{**NEWCOMER, **changes})}, "open_nodes": frozenset({"cpu-1"})})


def is_open(snapshot: Snapshot) -> bool:
    actions = decide_open_nodes(snapshot)
    listed = actions[0].nodes if actions and isinstance(actions[0], SetOpenNodes) else snapshot.open_nodes or ()
    return NODE in listed


def created(snapshot: Snapshot) -> list[bool]:
    return [action.managed for action in decide_enrolment(snapshot) if isinstance(action, CreateLedger)]


def marks(snapshot: Snapshot) -> list[bool]:
    return [action.managed for action in decide_enrolment(snapshot) if isinstance(action, MarkNode)]


@pytest.mark.parametrize("phase", ["Dirty", "Scrubbing", "Free", "Assigned", "Draining", "Quarantined"])
@pytest.mark.parametrize("is_gpu_node", [True, False], ids=["with GPUs", "GPUs not seen yet"])
def test_a_machine_that_comes_back_under_another_name_is_managed_and_closed(phase: str, is_gpu_node: bool) -> None:
    snapshot = joined(ledger(phase, OLD), is_gpu_node=is_gpu_node)
    assert created(snapshot) == [True]
    assert not is_open(snapshot)


@pytest.mark.parametrize("managed", [True, False])
def test_its_new_ledger_is_dirty_and_accounts_for_its_past(managed: bool) -> None:
    snapshot = joined(ledger("Assigned", OLD), ledger("Unmanaged", spec={"managed": managed}, **EMPTY))
    status, _ = decide(snapshot)

    assert (status.phase, status.reason, status.former_name) == (NodePhase.DIRTY, "NodeRenamed", OLD)
    assert status.previous_holder is not None and status.previous_holder.jobs == ["digits"]
    assert not is_open(snapshot)
    assert marks(snapshot) == [True]


@pytest.mark.parametrize(
    ("snapshot", "opened"),
    [
        (joined(), False),
        (joined(is_gpu_node=False), True),
        (joined(ledger("Unmanaged", OLD), is_gpu_node=False), True),
        (joined(ledger("Assigned", OLD, systemUuid="machine-9"), is_gpu_node=False), True),
        (joined(ledger("Assigned", OLD), is_gpu_node=False, system_uuid=""), False),
        (joined(ledger("Unmanaged", OLD), is_gpu_node=False, system_uuid=""), True),
        (
            msgspec.structs.replace(
                joined(ledger("Assigned", OLD), is_gpu_node=False), open_nodes=frozenset({NODE, "cpu-1"})
            ),
            True,
        ),
        (
            world(
                ledger("Assigned", OLD),
                nodes={NODE: facts(**NEWCOMER, is_gpu_node=False), OLD: facts(OLD)},
                open_nodes=frozenset({"cpu-1"}),
            ),
            True,
        ),
        (joined(ledger("Unmanaged", spec={"managed": False}, **EMPTY)), True),
        (joined(ledger("Unmanaged", spec={"managed": False}, **EMPTY), has_mark=True), False),
        (joined(is_gpu_node=False, has_mark=True), False),
        (joined(ledger("Unmanaged", spec={"managed": False}), has_mark=True), True),
        (joined(ledger("Unmanaged")), False),
        (joined(ledger("Free", spec={"managed": False})), False),
        (
            world(
                unreadable_gpu_nodes=frozenset({NODE}),
                nodes={NODE: facts(is_marked=False, has_mark=False)},
                open_nodes=frozenset({NODE}),
            ),
            False,
        ),
    ],
    ids=[
        "GPUs nobody has classified",
        "a CPU node",
        "another machine's ledger was Unmanaged",
        "another machine",
        "it does not say which machine it is",
        "it does not say, and nobody is missed",
        "classified before",
        "the other Node is still there",
        "a new ledger, no mark",
        "a new ledger, but the node was managed",
        "no ledger, but the node was managed",
        "given up, the mark is about to go",
        "enrolled",
        "released, not given up yet",
        "its ledger does not parse",
    ],
)
def test_who_is_on_the_open_list(snapshot: Snapshot, opened: bool) -> None:
    assert is_open(snapshot) is opened


@pytest.mark.parametrize(
    ("phase", "spec", "marked"),
    [
        ("Unmanaged", {"managed": False}, False),
        ("Unmanaged", {}, True),
        *((phase, {"managed": False}, True) for phase in ("Dirty", "Scrubbing", "Free", "Assigned", "Quarantined")),
    ],
)
def test_mark_and_open_list_are_in_step(phase: str, spec: dict[str, bool], marked: bool) -> None:
    snapshot = world(ledger(phase, spec=spec), nodes={NODE: facts(is_marked=not marked)})
    assert marks(snapshot) == [marked]
    assert is_open(snapshot) is not marked


def test_a_node_whose_ledger_was_deleted_comes_back_managed_and_dirty() -> None:
    assert created(joined(has_mark=True)) == [True]
    node = ledger("Unmanaged", spec={"managed": False}, **EMPTY)
    snapshot = joined(node, has_mark=True, is_marked=True)
    status, _ = decide(snapshot)
    assert (status.phase, status.reason) == (NodePhase.DIRTY, "LedgerLost")
    assert marks(snapshot) == []

    # Released at once, it is scrubbed all the same: nobody knows who was on it.
    lost = msgspec.structs.replace(node, status=status)
    after, _ = decide(joined(lost, has_mark=True, is_marked=True))
    assert after.phase == NodePhase.SCRUBBING


@pytest.mark.parametrize("phase", ["Scrubbing", "Free", "Assigned", "Draining", "Quarantined", "Dirty"])
def test_the_ledger_under_the_former_name_ends_once_its_pods_have(phase: str) -> None:
    old = ledger(phase, OLD)
    for boot, successor, reason in (("boot-2", "Dirty", "NodeRenamed"), ("boot-1", "Free", "NodeRenamed")):
        new = ledger(successor, formerName=OLD, bootId=boot, nodeUid="node-2")
        status, _ = decide(joined(old, new, boot_id=boot), OLD)
        assert (status.phase, status.reason) == (NodePhase.DIRTY, reason)
        assert status.holder is None and status.previous_holder is None
    running = ledger("Dirty", formerName=OLD, nodeUid="node-2")
    status, _ = decide(joined(old, running, boot_id="boot-1"), OLD)
    assert status.reason != "NodeRenamed"


def test_a_machine_that_was_taken_over_is_not_taken_over_again() -> None:
    new = ledger("Unmanaged", spec={"managed": False}, formerName=OLD)
    assert is_open(joined(ledger("Dirty", OLD), new))


def test_pods_of_a_node_with_the_same_boot_have_no_proof() -> None:
    old = ledger("Draining", OLD)
    new = ledger("Dirty", formerName=OLD, nodeUid="node-2")
    snapshot = msgspec.structs.replace(joined(old, new, boot_id="boot-1"), pods={UID: pod(node=OLD, phase="Running")})
    assert decide(snapshot, OLD)[0].phase != NodePhase.DIRTY
