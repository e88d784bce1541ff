"""A move in the custody of a GPU node: what the phases of `custody` and `scrubbing` have in common.

1. `MOVES` holds every transition that exists; a decision that makes another is a defect and stops the cycle.
2. One NodeCase is one node in one cycle. Phases change its `status`; what they wrote is compared with the ledger as it
   was read.
"""

from collections.abc import Sequence
from typing import Any, Final, Literal

import msgspec

from lethe.decisions.actions import Action, Note
from lethe.decisions.admission import Admission
from lethe.decisions.conditions import with_condition, without_condition
from lethe.decisions.snapshot import NodeFacts, Snapshot
from lethe.formats.quantity import format_time
from lethe.model.phases import NodePhase
from lethe.model.resources import Condition, GPUNode, NodeStatus, PastHolder, Quarantine

MOVES: Final = {
    NodePhase.UNMANAGED: {NodePhase.DIRTY},
    NodePhase.DIRTY: {NodePhase.SCRUBBING, NodePhase.UNMANAGED, NodePhase.DIRTY},
    NodePhase.SCRUBBING: {NodePhase.FREE, NodePhase.QUARANTINED, NodePhase.DIRTY},
    NodePhase.FREE: {NodePhase.ASSIGNED, NodePhase.UNMANAGED, NodePhase.DIRTY},
    NodePhase.ASSIGNED: {NodePhase.ASSIGNED, NodePhase.DRAINING, NodePhase.DIRTY},
    NodePhase.DRAINING: {NodePhase.DIRTY, NodePhase.QUARANTINED},
    NodePhase.QUARANTINED: {NodePhase.DIRTY, NodePhase.UNMANAGED},
}


class NodeCase:
    """One node in one cycle, and what was decided about it so far."""

    def __init__(self, snapshot: Snapshot, node: GPUNode, admission: Admission) -> None:
        self.snapshot = snapshot
        self.node = node
        self.name = node.metadata.name
        self.old = node.status
        self.status = msgspec.structs.replace(node.status, observed_generation=node.metadata.generation)
        self.admission = admission
        self.facts = snapshot.nodes.get(self.name)
        self.now = format_time(snapshot.now)
        self.notes: list[Note] = []
        self.actions: list[Action] = []
        self.again_in: float | None = None

    def set(self, **changes: Any) -> None:
        """Change fields of the status."""
        self.status = msgspec.structs.replace(self.status, **changes)

    def say(self, reason: str, message: str) -> None:
        """Say why the node stays where it is."""
        self.set(reason=reason, message=message)

    def move(self, phase: NodePhase, reason: str, message: str, *, warning: bool = False, **changes: Any) -> None:
        """Move to a phase of the table above."""
        assert phase in MOVES[self.old.phase], f"{self.old.phase} does not go to {phase}"
        self.set(
            **{"phase": phase, "reason": reason, "message": message, "since": self.now, "quarantine": None, **changes}
        )
        self.notes.append(Note(reason=reason, message=message, warning=warning))

    def quarantine(self, reason: str, message: str, evidence: Sequence[str], advice: str) -> None:
        """Take the node out of use: something could not be shown to be right."""
        self.move(
            NodePhase.QUARANTINED,
            reason,
            f"{message}; to do: {advice}",
            warning=True,
            quarantine=Quarantine(reason=reason, since=self.now, evidence=[*evidence], advice=advice),
        )

    def with_condition(self, kind: str, status: Literal["True", "False"], reason: str, message: str) -> list[Condition]:
        """Return the node's conditions with this one set."""
        return with_condition(
            self.status.conditions,
            kind,
            status,
            reason=reason,
            message=message,
            now=self.snapshot.now,
            generation=self.node.metadata.generation,
        )

    def without_condition(self, kind: str) -> list[Condition]:
        """Return the node's conditions but for this one."""
        return without_condition(self.status.conditions, kind)

    def wake(self, seconds: float) -> None:
        """Decide again after this time, even if nothing happens."""
        self.again_in = seconds if self.again_in is None else min(self.again_in, seconds)


def seen(facts: NodeFacts) -> dict[str, Any]:
    """Return the fields that follow from the Node object."""
    return {
        "node_uid": facts.uid,
        "boot_id": facts.boot_id,
        "system_uuid": facts.system_uuid,
        "gpu_count": facts.gpu_capacity,
    }


def left(case: NodeCase) -> dict[str, Any]:
    """Return the fields of a node that nobody holds any more."""
    return {
        "holder": None,
        "previous_holder": past_holder(case.old, case.now),
        "scrub": None,
    }


def past_holder(status: NodeStatus, now: str) -> PastHolder | None:
    """Return what the next receipt accounts for: everybody since the last scrub."""
    holder, past = status.holder, status.previous_holder
    if status.phase in (NodePhase.FREE, NodePhase.UNMANAGED):
        return None
    if holder is None:
        return past
    return PastHolder(
        tenant=holder.tenant,
        namespace=holder.namespace,
        jobs=[*(past.jobs if past is not None else []), holder.job],
        job_uids=[*(past.job_uids if past is not None else []), holder.job_uid],
        since=past.since if past is not None else holder.since,
        until=now,
    )


def some(items: Sequence[str]) -> str:
    """Return the first few, for a sentence."""
    return ", ".join(items[:5]) + (f" and {len(items) - 5} more" if len(items) > 5 else "")
