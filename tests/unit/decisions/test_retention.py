"""Which receipts retention deletes: a beginning of the chain, never what a release of keys may still demand."""

from datetime import timedelta
from typing import Any

import pytest

from lethe.decisions.actions import DeleteReceipt, WriteNodeStatus
from lethe.decisions.retention import outdated_receipts
from lethe.decisions.snapshot import IssuedReceipt
from lethe.formats.quantity import format_time
from lethe.model.config import OperatorConfig
from lethe.model.phases import NodePhase
from tests.unit.decisions.test_scrubbing import receipt, scrubbed
from tests.unit.decisions.worlds import NODE, NOW, decide

DAYS = 30


def aged(epoch: int, days: float, **changes: Any) -> IssuedReceipt:
    """Return a receipt that was issued so many days ago."""
    issued_at = format_time(NOW - timedelta(days=days))
    name, sha256 = f"gpu-1-{epoch}", f"{epoch:02d}"
    return receipt(**{"name": name, "uid": name, "epoch": epoch, "sha256": sha256, "issued_at": issued_at, **changes})


def outdated(*receipts: IssuedReceipt, newest: int, keep_days: int = DAYS) -> list[int]:
    """Return the epochs that are deleted when a node has got its newest receipt."""
    chosen = next(entry for entry in receipts if entry.epoch == newest)
    return [entry.epoch for entry in outdated_receipts(receipts, chosen, keep_days, NOW)]


@pytest.mark.parametrize(
    ("ages", "deleted"),
    [
        ([90, 80, 70, 0], [1, 2]),
        ([90, 80, 10, 0], [1, 2]),
        ([90, 20, 10, 0], [1]),
        ([29, 20, 10, 0], []),
        ([90, 10, 80, 5, 0], [1]),
        ([90, 80], []),
        ([90], []),
    ],
    ids=[
        "all old: the newest two stay",
        "old ones",
        "one old",
        "none old",
        "an old one after a young one",
        "two",
        "one",
    ],
)
def test_deletes_an_old_beginning(ages: list[float], deleted: list[int]) -> None:
    receipts = [aged(epoch, days) for epoch, days in enumerate(ages, 1)]
    assert outdated(*reversed(receipts), newest=len(ages)) == deleted


def test_deletes_nothing_unless_it_is_asked_for() -> None:
    assert outdated(aged(1, 9000), aged(2, 8000), aged(3, 0), newest=3, keep_days=0) == []


def test_what_does_not_verify_stays() -> None:
    forged = aged(0, 500, name="gpu-1-2", sha256="")
    assert outdated(aged(1, 90), forged, aged(3, 80), aged(4, 0), newest=4) == [1]


def test_a_receipt_of_a_later_epoch_is_not_counted() -> None:
    assert outdated(aged(1, 90), aged(2, 80), aged(9, 0), newest=2) == []


def test_the_ledger_says_so_before_anything_is_deleted() -> None:
    newest = receipt(issued_at=format_time(NOW))
    past = (aged(1, 90, boot_id="boot-0"), aged(2, 80), newest)
    config = OperatorConfig(image="lethe:test", receipt_keep_days=DAYS)
    status, actions = decide(scrubbed(issued=newest, past_receipts={NODE: past}, config=config))
    assert status.phase == NodePhase.FREE
    assert status.pruned_receipt is not None
    assert (status.pruned_receipt.epoch, status.pruned_receipt.sha256) == (1, "01")
    writes = [action for action in actions if isinstance(action, WriteNodeStatus | DeleteReceipt)]
    assert [type(action) for action in writes] == [WriteNodeStatus, DeleteReceipt]
    assert [(action.name, action.uid) for action in writes if isinstance(action, DeleteReceipt)] == [("gpu-1-1",) * 2]
    assert len({action.about for action in writes}) == 1
