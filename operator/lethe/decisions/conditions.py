"""Conditions: how they change."""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from lethe.formats.quantity import format_time
from lethe.model.resources import Condition


def with_condition(
    conditions: Sequence[Condition],
    kind: str,
    status: Literal["True", "False", "Unknown"],
    *,
    reason: str,
    message: str,
    now: datetime,
    generation: int,
) -> list[Condition]:
    """Return the conditions with this one set; its transition time moves only when its status does."""
    before = next((condition for condition in conditions if condition.type == kind), None)
    moved = before is None or before.status != status
    new = Condition(
        type=kind,
        status=status,
        reason=reason,
        message=message,
        last_transition_time=format_time(now) if moved or before is None else before.last_transition_time,
        observed_generation=generation,
    )
    if before is None:
        return [*conditions, new]
    return [new if condition.type == kind else condition for condition in conditions]


def without_condition(conditions: Sequence[Condition], kind: str) -> list[Condition]:
    """Return the conditions but for this one."""
    return [condition for condition in conditions if condition.type != kind]


def find_condition(conditions: Sequence[Condition], kind: str) -> Condition | None:
    """Return a condition by its type."""
    return next((condition for condition in conditions if condition.type == kind), None)
