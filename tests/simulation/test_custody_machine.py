"""The custody machine, from a fresh seed in every run (`make soak` plays it for long)."""

import random

import pytest

from tests.simulation.soak import play

USUAL = ("Scrubbing → Free", "Scrubbing → Quarantined", "Free → Assigned", "Assigned → Draining", "Draining → Dirty")


def test_custody_holds_whatever_happens(capsys: pytest.CaptureFixture[str]) -> None:
    number = random.SystemRandom().randrange(1_000_000)
    with capsys.disabled():
        print(f"\ncustody machine: make soak STEPS=20000 SEED={number} repeats it")

    seen = play(number, 20_000)

    assert seen["steps"] >= 20_000
    missing = [move for move in USUAL if not seen[move]]
    assert not missing, f"the machine never came to {missing}"
