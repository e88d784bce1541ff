"""Which receipts of a node are old enough to be deleted.

1. Asked when a node has just been scrubbed, by its new receipt. Nothing else deletes receipts.
2. The new receipt stays, and the one that it follows: a release of keys demands both.
3. Deleted is only a beginning of the chain: the oldest that is left names the SHA-256 of what was before it, and the
   ledger records that before anything is deleted.
4. What does not verify stays: it shows that somebody has written what only the operator may write.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from itertools import takewhile

from lethe.decisions.snapshot import IssuedReceipt
from lethe.formats.quantity import seconds_between


def outdated_receipts(
    receipts: Iterable[IssuedReceipt], newest: IssuedReceipt, keep_days: int, now: datetime
) -> list[IssuedReceipt]:
    """Return which of a node's receipts to delete, the oldest first; `keep_days` 0 keeps all."""
    if keep_days == 0:
        return []
    limit = timedelta(days=keep_days).total_seconds()
    before = sorted(
        (receipt for receipt in receipts if receipt.sha256 and receipt.epoch < newest.epoch),
        key=lambda receipt: receipt.epoch,
    )
    return list(takewhile(lambda receipt: seconds_between(receipt.issued_at, now) > limit, before[:-1]))
