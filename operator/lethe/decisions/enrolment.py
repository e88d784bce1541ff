"""Which nodes are GPU nodes, which of them are fenced, and what their Node objects show of it.

1. Every GPU node has a GPUNode, made when it is first seen, which outlives the Node.
2. A node is on the open list if it is no GPU node, or if its ledger says Unmanaged and nobody has enrolled it; and if
   its past does not say otherwise (`joining`). A node that is not listed is fenced: what is not known is closed.
3. Managed nodes carry our taint and label, so that schedulers do not try. The fence is the authority, not they.
"""

from lethe.decisions.actions import Action, CreateLedger, EnrolNode, MarkNode, SetOpenNodes
from lethe.decisions.joining import is_owed_custody, is_unidentified
from lethe.decisions.snapshot import NodeFacts, Snapshot
from lethe.model.names import TAINT
from lethe.model.phases import NodePhase
from lethe.model.resources import GPUNode


def decide_enrolment(snapshot: Snapshot) -> list[Action]:
    """Make ledgers, enrol where that is automatic, and mark Nodes."""
    automatic = snapshot.config.enrolment == "automatic"
    actions: list[Action] = []
    for name, facts in snapshot.nodes.items():
        ledger = snapshot.gpu_nodes.get(name)
        if name in snapshot.unreadable_gpu_nodes:
            continue
        if ledger is None:
            owed = is_owed_custody(snapshot, facts)
            if facts.is_gpu_node or owed:
                actions.append(CreateLedger(node=name, managed=automatic or owed))
            continue
        if automatic and not ledger.spec.managed and ledger.status.since == "" and facts.is_gpu_node:
            actions.append(EnrolNode(node=name, ledger=ledger))
        managed = not _is_given_up(ledger) or is_owed_custody(snapshot, facts)
        if facts.is_marked != managed:
            actions.append(_mark(facts, managed))
    return actions


def decide_open_nodes(snapshot: Snapshot) -> list[Action]:
    """Keep the open list."""
    nodes = frozenset(name for name, facts in snapshot.nodes.items() if _is_open(snapshot, facts))
    if nodes == snapshot.open_nodes:
        return []
    return [SetOpenNodes(nodes=sorted(nodes), version=snapshot.open_nodes_version)]


def is_unclassified(snapshot: Snapshot, name: str) -> bool:
    """Say whether a node is closed although no ledger that can be read says why: nobody may run there."""
    if name in (snapshot.open_nodes or ()):
        return False
    ledger = snapshot.gpu_nodes.get(name)
    return ledger is None or _is_given_up(ledger)


def _is_open(snapshot: Snapshot, facts: NodeFacts) -> bool:
    if facts.name in snapshot.unreadable_gpu_nodes:
        return False
    if is_owed_custody(snapshot, facts) or is_unidentified(snapshot, facts):
        return False
    ledger = snapshot.gpu_nodes.get(facts.name)
    if ledger is not None:
        return _is_given_up(ledger)
    if not facts.is_gpu_node:
        return True
    return snapshot.config.enrolment == "manual" and facts.name in (snapshot.open_nodes or ())


def _is_given_up(ledger: GPUNode) -> bool:
    return ledger.status.phase == NodePhase.UNMANAGED and not ledger.spec.managed


def _mark(facts: NodeFacts, managed: bool) -> MarkNode:
    taints = [taint for taint in facts.taints if taint.get("key") != TAINT]
    if managed:
        taints.append({"key": TAINT, "value": "managed", "effect": "NoSchedule"})
    return MarkNode(
        node=facts.name, uid=facts.uid, resource_version=facts.resource_version, taints=taints, managed=managed
    )
