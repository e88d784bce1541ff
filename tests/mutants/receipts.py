"""Mutants of the life of receipts: each deletes evidence that is needed, or believes a key that has retired."""

from tests.mutants.mutant import Mutant

_KEYS = "formats/receiptkeys.py"
_RECEIPT = "formats/receipt.py"
_RETENTION = "decisions/retention.py"
_SCRUBBING = "decisions/scrubbing.py"

MUTANTS = [
    Mutant("delete a receipt that a release demands", _RETENTION, "before[:-1]", "before"),
    Mutant("delete receipts out of the middle", _RETENTION, "list(takewhile(", "list(filter("),
    Mutant(
        "delete the receipts that do not verify", _RETENTION, "if receipt.sha256 and receipt.epoch", "if receipt.epoch"
    ),
    Mutant("delete without a word in the ledger", _SCRUBBING, "    case.set(pruned_receipt=_reference(last))\n", ""),
    Mutant("take every lost beginning for retention", _RECEIPT, "return pruned is not None and (", "return True or ("),
    Mutant("believe a retired key", _KEYS, "return issued > parse_time(key.retired_at)", "return False"),
]
