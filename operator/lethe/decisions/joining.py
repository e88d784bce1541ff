"""Nodes that join: what is known about a machine's past when its Node appears (custody.md, Ledger).

1. A node whose ledger is Unmanaged is open, unless its past says that it was managed: the same machine (system UUID)
   has the ledger of a Node that is gone, or the Node carries our mark and its ledger was deleted.
2. Only newcomers, which are not on the open list, are looked at for a former name: machines may share a UUID where they
   are simulated, and a node that was classified stays so.
3. The ledger under the former name ends as Dirty: the one under the new name accounts for its past.
"""

from collections.abc import Iterator
from typing import Final

from lethe.decisions.conditions import find_condition
from lethe.decisions.ledger import NodeCase, left, past_holder, seen
from lethe.decisions.proof import is_rebooted, is_scrubbed_since
from lethe.decisions.snapshot import NodeFacts, Snapshot
from lethe.model import reasons
from lethe.model.phases import NodePhase
from lethe.model.resources import Condition, GPUNode

_PAST_UNKNOWN: Final = "PastUnknown"


def former_ledger(snapshot: Snapshot, facts: NodeFacts) -> GPUNode | None:
    """Return the ledger under which the machine of a newcomer was managed before, under another name."""
    if not facts.system_uuid or not _is_newcomer(snapshot, facts):
        return None
    return next((node for node in _orphaned(snapshot) if node.status.system_uuid == facts.system_uuid), None)


def is_owed_custody(snapshot: Snapshot, facts: NodeFacts) -> bool:
    """Say whether a node's past demands a scrub, although no ledger under its name says that it is managed."""
    ledger = snapshot.gpu_nodes.get(facts.name)
    if ledger is not None and ledger.status.phase != NodePhase.UNMANAGED:
        return False
    is_new = ledger is None or not ledger.status.since
    return (is_new and facts.has_mark) or former_ledger(snapshot, facts) is not None


def is_unidentified(snapshot: Snapshot, facts: NodeFacts) -> bool:
    """Say whether a newcomer has not said which machine it is, while the Node of a managed one is gone."""
    return not facts.system_uuid and _is_newcomer(snapshot, facts) and next(_orphaned(snapshot), None) is not None


def decide_unmanaged(case: NodeCase) -> None:
    """Decide about a node that is not managed: open it, or take it into custody."""
    facts = case.facts
    former = former_ledger(case.snapshot, facts) if facts is not None else None
    if facts is not None and former is not None:
        name = former.metadata.name
        case.move(
            NodePhase.DIRTY,
            reasons.NODE_RENAMED,
            f"the machine was node {name}, which Lethe managed: it is scrubbed before anybody uses it",
            warning=True,
            former_name=name,
            previous_holder=past_holder(former.status, case.now),
            conditions=_unknown_past(case, f"so was node {name}'s") if is_past_unknown(former) else [],
            **seen(facts),
        )
    elif facts is not None and facts.has_mark and not case.old.since:
        case.move(
            NodePhase.DIRTY,
            reasons.LEDGER_LOST,
            "the node was managed and its GPUNode was deleted: it is scrubbed before anybody uses it",
            warning=True,
            conditions=_unknown_past(case, "its GPUNode was deleted while it was managed"),
            **seen(facts),
        )
    elif not case.node.spec.managed:
        case.say(
            reasons.NOT_ENROLLED, f"open to everybody; `lethe node enrol {case.name}` puts it under Lethe's custody"
        )
    elif facts is None:
        case.say(reasons.NODE_MISSING, "enrolled, but there is no Node of this name")
    else:
        case.move(
            NodePhase.DIRTY,
            reasons.ENROLLED,
            "the node was enrolled: its fence is closed, and it is scrubbed once it is empty",
            **seen(facts),
        )


def decide_renamed(case: NodeCase, successor: GPUNode) -> bool:
    """Decide about the ledger of a machine that has another name now; False leaves it to its phase.

    That is so while its pods may still run, and when it was released after that.
    """
    if not is_rebooted(case.snapshot, case.node) and not is_scrubbed_since(case.snapshot, case.name):
        return False
    if case.old.phase == NodePhase.DIRTY and case.old.reason == reasons.NODE_RENAMED and not case.node.spec.managed:
        return False
    message = (
        f"the machine is node {successor.metadata.name} now, whose ledger accounts for its past; "
        f"`lethe node release {case.name}` closes this one"
    )
    if case.old.phase == NodePhase.DIRTY:
        case.say(reasons.NODE_RENAMED, message)
    else:
        case.move(NodePhase.DIRTY, reasons.NODE_RENAMED, message, **left(case))
    case.set(previous_holder=None, conditions=known_past(case))
    return True


def is_past_unknown(node: GPUNode) -> bool:
    """Say whether nobody knows who was on a node since its last scrub."""
    return find_condition(node.status.conditions, _PAST_UNKNOWN) is not None


def known_past(case: NodeCase) -> list[Condition]:
    """Return the conditions of a node whose past is known, or scrubbed away."""
    return case.without_condition(_PAST_UNKNOWN)


def _unknown_past(case: NodeCase, why: str) -> list[Condition]:
    return case.with_condition(_PAST_UNKNOWN, "True", _PAST_UNKNOWN, f"who was on the node is not known: {why}")


def _is_newcomer(snapshot: Snapshot, facts: NodeFacts) -> bool:
    return facts.name not in (snapshot.open_nodes or ())


def _orphaned(snapshot: Snapshot) -> Iterator[GPUNode]:
    """Yield the managed ledgers of Nodes that are gone, and that no other ledger has taken over."""
    for name, node in snapshot.gpu_nodes.items():
        gone = name not in snapshot.nodes and node.status.phase != NodePhase.UNMANAGED
        if gone and snapshot.successor_of(name) is None:
            yield node
