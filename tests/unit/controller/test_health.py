"""When a replica is restarted, and what it says."""

from types import SimpleNamespace
from typing import Any

import pytest

from lethe.controller.health import find_illness
from lethe.model.config import OperatorConfig

NOW = 10_000.0
LIMIT = 180


def illness(
    *, held: bool = True, since: float = 0, contact: float = 0, success: float = 0, blind: tuple[str, ...] = ()
) -> str | None:
    """Ages are in seconds before now."""
    cycle: Any = SimpleNamespace(last_success=NOW - success)
    leadership: Any = SimpleNamespace(is_held=held, since=NOW - since, last_contact=NOW - contact)
    probe: Any = SimpleNamespace(blind=lambda: list(blind))
    return find_illness(cycle, leadership, probe, OperatorConfig(image="x"), NOW)


@pytest.mark.parametrize(
    "state",
    [
        {"success": LIMIT - 1, "since": 5000},
        {"success": 5000, "since": LIMIT - 1},
        {"held": False, "contact": LIMIT - 1, "success": 5000, "blind": ("Pod",)},
    ],
    ids=["cycles succeed", "has only just got the Lease", "waits for the Lease"],
)
def test_healthy(state: dict[str, Any]) -> None:
    assert illness(**state) is None


@pytest.mark.parametrize(
    ("state", "says"),
    [
        ({"success": LIMIT + 1, "since": 5000}, "last cycle that succeeded"),
        ({"blind": ("Pod", "Node")}, "Pod, Node"),
        ({"held": False, "contact": LIMIT + 1}, "about the Lease"),
    ],
    ids=["no cycle succeeds", "a blind watch", "no API server"],
)
def test_ill(state: dict[str, Any], says: str) -> None:
    assert says in str(illness(**state))
