"""How a node gets out of quarantine: its cause is cured, it is released, or a named human overrides it.

1. An override leads to Dirty, never to Free: the node is scrubbed, whatever GPUs it has now, and its receipt accounts
   for everybody since the last one.
2. The API server has checked that `by` is who wrote it. It counts once; taking it away and setting it again counts
   again. An override that finds no quarantine is recorded and has no effect, then or later.
"""

import msgspec

from lethe.decisions.actions import Note
from lethe.decisions.fence import is_settled
from lethe.decisions.ledger import NodeCase, left
from lethe.decisions.proof import unproved_pods
from lethe.model import reasons
from lethe.model.phases import NodePhase
from lethe.model.resources import Override, OverrideRecord


def decide_quarantined(case: NodeCase) -> None:
    """Decide about a quarantined node."""
    if not case.node.spec.managed:
        case.move(
            NodePhase.UNMANAGED,
            reasons.NOT_ENROLLED,
            "an administrator released the quarantined node: open to everybody",
            warning=True,
            gpus=[],
            **left(case),
        )
        return
    cured = {
        reasons.PROOF_TIMED_OUT: not unproved_pods(case.snapshot, case.node),
        reasons.NODE_NOT_EMPTY: case.snapshot.occupants.get(case.name) == (),
    }
    override = _new_override(case)
    if cured.get(case.old.reason, False) and is_settled(case, quiet=True):
        case.move(NodePhase.DIRTY, reasons.PROVED, f"cured: {case.old.reason} no longer holds", **left(case))
    elif override is not None:
        evidence = case.old.quarantine.evidence if case.old.quarantine is not None else []
        case.move(
            NodePhase.DIRTY,
            reasons.OVERRIDDEN,
            f"{override.by} ended the quarantine ({case.old.reason}): {override.reason}; the node is scrubbed before "
            "anybody uses it",
            warning=True,
            gpus=[],
            override=_record(case, override, over=case.old.reason, evidence=evidence),
            **left(case),
        )


def note_override(case: NodeCase) -> None:
    """Record an override that found no quarantine, or that was taken away."""
    override, last = _new_override(case), case.old.override
    if case.status.override != last:
        return
    if override is not None:
        case.set(override=_record(case, override))
        message = f"the override by {override.by} has no effect: the node was not quarantined"
        case.notes.append(Note(reason=reasons.OVERRIDE_WITHOUT_EFFECT, message=message, warning=True))
    elif case.node.spec.override is None and last is not None and not last.withdrawn:
        case.set(override=msgspec.structs.replace(last, withdrawn=True))


def _new_override(case: NodeCase) -> Override | None:
    """Return the override that was not counted yet."""
    wanted, last = case.node.spec.override, case.old.override
    if wanted is None or not wanted.reason.strip() or not wanted.by:
        return None
    if last is not None and not last.withdrawn and (last.reason, last.by) == (wanted.reason, wanted.by):
        return None
    return wanted


def _record(case: NodeCase, override: Override, over: str = "", evidence: list[str] | None = None) -> OverrideRecord:
    return OverrideRecord(reason=override.reason, by=override.by, at=case.now, over=over, evidence=evidence or [])
