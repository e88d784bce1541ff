"""`receipt-keys.json` of ConfigMap lethe-trust: whose signatures stand for a receipt, and until when.

1. Of the keys in the list one signs, the others have retired. A retired key stays in the list, so that what it signed
   before goes on verifying; a receipt that says that it was issued after its key's retirement does not verify.
2. Whoever has stolen a key can write any date into a receipt: a stolen key is taken out of the list altogether.
3. An entry is believed only under the id that follows from its public key, and no id stands twice in a list.
"""

import base64
from collections.abc import Mapping, Sequence

import msgspec

from lethe.crypto.sign import decode_public_key, key_id
from lethe.formats.quantity import parse_time
from lethe.model.errors import CryptoError, InputError, ReceiptError
from lethe.model.resources import Resource


class ReceiptKey(Resource, frozen=True, kw_only=True):
    """One entry of the list."""

    key_id: str
    version: int
    public_key: str
    """Base64 of the raw Ed25519 key."""
    retired_at: str = ""
    """The last moment at which a receipt may have been issued with it; empty while it signs."""


ReceiptKeys = Mapping[str, ReceiptKey]
"""By key id."""


def build_receipt_key(public_key: bytes, version: int) -> ReceiptKey:
    """Return the entry of a raw public key that signs from now on."""
    text = base64.b64encode(public_key).decode()
    return ReceiptKey(key_id=key_id(public_key), version=version, public_key=text)


def encode_receipt_keys(keys: Sequence[ReceiptKey]) -> str:
    """Return the list as JSON."""
    return msgspec.json.encode(keys).decode()


def parse_receipt_keys(data: bytes) -> dict[str, ReceiptKey]:
    """Read the list, in its order.

    Raise ReceiptError when it does not parse, CryptoError when an entry is no key or not the one it is called.
    """
    try:
        entries = msgspec.json.decode(data, type=list[ReceiptKey])
    except (msgspec.DecodeError, UnicodeError) as error:
        raise ReceiptError(
            f"the list of receipt keys does not parse ({error}): expected a JSON list of keyId, version, publicKey "
            "and, of retired keys, retiredAt"
        ) from error
    keys: dict[str, ReceiptKey] = {}
    for entry in entries:
        found = key_id(decode_public_key(entry.public_key))
        if found != entry.key_id:
            raise CryptoError(
                f"receipt key {entry.key_id} is listed with the public key of {found}, expected its own: fetch the "
                "list again"
            )
        if entry.key_id in keys:
            raise ReceiptError(f"receipt key {entry.key_id} is listed twice, expected once: fetch the list again")
        if entry.retired_at:
            _parse_retirement(entry)
        keys[entry.key_id] = entry
    return keys


def was_retired(key: ReceiptKey, issued_at: str) -> bool:
    """Say whether a key had retired when a receipt was issued; raise ReceiptError for a time that does not parse."""
    if not key.retired_at:
        return False
    try:
        issued = parse_time(issued_at)
    except InputError as error:
        raise ReceiptError(f"the receipt's issuedAt is {issued_at!r}, expected an RFC 3339 time") from error
    return issued > parse_time(key.retired_at)


def _parse_retirement(entry: ReceiptKey) -> None:
    try:
        parse_time(entry.retired_at)
    except InputError as error:
        raise ReceiptError(
            f"receipt key {entry.key_id} is listed with retiredAt {entry.retired_at!r}, expected an RFC 3339 time"
        ) from error
