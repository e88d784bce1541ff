"""How quarantine ends, and that an override is no way around the scrub."""

from typing import Any

import msgspec
import pytest

from lethe.decisions.actions import WriteNodeStatus
from lethe.model.phases import NodePhase
from lethe.model.resources import NodeStatus
from tests.unit.decisions.worlds import HOLDER, LONG_AGO, NODE, decide, facts, ledger, world

WORDS = {"reason": "the GPU was replaced", "by": "jo"}
WHY = {"reason": "GPULost", "since": LONG_AGO, "evidence": ["a GPU fell off the bus"], "advice": "look"}
SPENT = {**WORDS, "at": LONG_AGO, "over": "GPULost"}


def quarantined(**changes: Any) -> Any:
    given = {"spec": {"override": WORDS}, "reason": "GPULost", "quarantine": WHY, "gpus": ["GPU-1"], **changes}
    return ledger("Quarantined", **given)


def after(node: Any) -> NodeStatus:
    return decide(world(node))[0]


def test_an_override_leads_to_a_scrub_and_is_recorded() -> None:
    status, actions = decide(world(quarantined(holder=HOLDER)))

    assert (status.phase, status.reason) == (NodePhase.DIRTY, "Overridden")
    assert status.quarantine is None and status.gpus == []
    assert status.override is not None
    assert (status.override.reason, status.override.by, status.override.over) == (
        "the GPU was replaced",
        "jo",
        "GPULost",
    )
    assert status.override.evidence == ["a GPU fell off the bus"]
    assert status.previous_holder is not None and status.previous_holder.jobs == ["digits"]
    written = next(action for action in actions if isinstance(action, WriteNodeStatus))
    assert [(note.reason, note.warning) for note in written.notes] == [("Overridden", True)]
    assert "jo ended the quarantine (GPULost): the GPU was replaced" in written.notes[0].message


@pytest.mark.parametrize(
    ("last", "spec", "applies"),
    [
        (SPENT, WORDS, False),
        ({**SPENT, "withdrawn": True}, WORDS, True),
        (SPENT, {**WORDS, "reason": "again"}, True),
        (SPENT, {**WORDS, "by": "ada"}, True),
        ({**SPENT, "over": ""}, WORDS, False),
        (None, {"reason": " ", "by": "jo"}, False),
        (None, {"reason": "x", "by": ""}, False),
        (None, None, False),
    ],
    ids=["counted", "set again", "other words", "somebody else", "set too early", "no words", "nobody", "none"],
)
def test_an_override_counts_once(last: Any, spec: Any, applies: bool) -> None:
    node = quarantined(spec={"override": spec} if spec is not None else {}, override=last)
    assert (after(node).phase == NodePhase.DIRTY) is applies


def test_taking_an_override_away_is_noted() -> None:
    status = after(quarantined(spec={}, override=SPENT))
    assert status.phase == NodePhase.QUARANTINED
    assert status.override is not None and status.override.withdrawn


@pytest.mark.parametrize("phase", ["Unmanaged", "Dirty", "Scrubbing", "Free", "Assigned", "Draining"])
def test_an_override_that_finds_no_quarantine_has_no_effect_then_or_later(phase: str) -> None:
    status = after(ledger(phase, spec={"override": WORDS}))
    plain = after(ledger(phase))
    assert status.phase == plain.phase
    assert status.override is not None and status.override.over == ""

    later = ledger(
        "Quarantined", reason="GPULost", spec={"override": WORDS}, override=msgspec.to_builtins(status.override)
    )
    assert after(later).phase == NodePhase.QUARANTINED


def test_a_reboot_goes_before_an_override() -> None:
    status, _ = decide(world(quarantined(), nodes={NODE: facts(boot_id="boot-2")}))
    assert status.reason == "NewBoot"
    assert status.override is not None and status.override.over == ""
