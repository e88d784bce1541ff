"""The custody machine, from a fresh seed in every run (`make soak` plays it for long)."""

import random

import pytest

from lethe.decisions.ledger import MOVES
from tests.simulation.soak import play


def test_custody_holds_whatever_happens(capsys: pytest.CaptureFixture[str]) -> None:
    number = random.SystemRandom().randrange(1_000_000)
    with capsys.disabled():
        print(f"\ncustody machine: make soak STEPS=20000 SEED={number} repeats it")

    seen = play(number, 20_000)

    assert seen["steps"] >= 20_000
    missing = [f"{old} → {new}" for old, after in MOVES.items() for new in after - {old} if not seen[f"{old} → {new}"]]
    assert not missing, f"the machine never came to {missing}"
