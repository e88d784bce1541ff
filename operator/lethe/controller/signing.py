"""The operator's receipt key and the list of trusted ones, as files that Kubernetes swaps under a running process.

1. Both are read anew at each use, so that a rotation needs no restart.
2. A key signs only while it is in the list and has not retired: what nobody could verify is never written. A new key
   whose public half is not here yet is waited for.
"""

from pathlib import Path

from lethe.crypto.sign import Signer
from lethe.formats.receiptkeys import ReceiptKeys, parse_receipt_keys, was_retired
from lethe.model.errors import ConflictError, InputError, SignatureError


class SigningFiles:
    """The key that signs, and the keys that verify."""

    def __init__(self, key: Path, trust: Path) -> None:
        """`key` is the private key as PEM, `trust` the list `receipt-keys.json`."""
        self._key = key
        self._trust = trust

    def check(self) -> None:
        """Raise what is wrong with the files, before anything is done with them."""
        Signer.from_pem(_read(self._key))
        self.trusted()

    def trusted(self) -> ReceiptKeys:
        """Return the keys that receipts may be signed with."""
        return parse_receipt_keys(_read(self._trust))

    def signer(self, issued_at: str) -> Signer:
        """Return who signs a receipt that is issued at this time.

        Raise ConflictError while the key is not published, SignatureError when it has retired.
        """
        signer, keys = Signer.from_pem(_read(self._key)), self.trusted()
        key = keys.get(signer.key_id)
        if key is None:
            raise ConflictError(
                f"receipt key {signer.key_id} is not (yet) in {self._trust}: it signs once its public half is "
                "published; if that takes minutes, run `helm upgrade`"
            )
        if was_retired(key, issued_at):
            raise SignatureError(
                f"receipt key {signer.key_id} retired at {key.retired_at}, and {self._key} still holds it: run "
                "`helm upgrade`, which makes a new one"
            )
        return signer


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}; the chart's hook makes it") from error
