"""Receipts verified as somebody else would: with libraries that are not ours, from what the cluster publishes.

Nothing of Lethe is imported here.
"""

import base64
import json
from typing import Any

from securesystemslib.dsse import Envelope
from securesystemslib.signer import SSlibKey
from sigstore.dsse import Statement


def stock_statement(envelope: dict[str, Any], receipt_keys: str) -> dict[str, Any]:
    """Verify an envelope against the list of receipt keys, and its statement; return the statement.

    Raise `securesystemslib.exceptions.VerificationError` for the one, `sigstore.errors.Error` for the other.
    """
    keys = [
        SSlibKey(entry["keyId"], "ed25519", "ed25519", {"public": base64.b64decode(entry["publicKey"]).hex()})
        for entry in json.loads(receipt_keys)
    ]
    stock = Envelope.from_dict(json.loads(json.dumps(envelope)))
    stock.verify(keys, 1)
    Statement(stock.payload)
    statement: dict[str, Any] = json.loads(stock.payload)
    return statement
