"""The head of a dataset that still grows: which index is its newest.

1. Outputs are sealed while their job runs: each snapshot has an index of its own, and the head, an object of the fixed
   name `head`, names the newest. Nobody outside the pod knows that index; once the job has ended, its status pins one.
2. It is a stream object: records of 4 KiB, object id zero, under the DEK of the newest epoch. So it is of whoever seals
   the dataset, and cannot be made, changed or taken from another dataset without the DEK.
3. Storage can still give an older head, with the objects of that time: only a pin shows that. Who has one does not read
   the head.
"""

from collections.abc import Mapping
from typing import Final

from lethe.crypto.aead import TAG_BYTES
from lethe.formats.header import HEADER_BYTES, ID_BYTES, MIN_RECORD_BITS, Kind
from lethe.formats.stream import open_whole, seal_whole
from lethe.model.errors import IntegrityError
from lethe.model.resources import IndexPin

HEAD_NAME: Final = "head"
HEAD_ID: Final = bytes(ID_BYTES)
_PIN_BYTES: Final = ID_BYTES + 32
HEAD_BYTES: Final = HEADER_BYTES + _PIN_BYTES + TAG_BYTES


def seal_head(pin: IndexPin, dek: bytes, *, epoch: int, dataset_id: bytes, salt: bytes) -> bytes:
    """Return the whole object."""
    return seal_whole(
        bytes.fromhex(pin.object) + bytes.fromhex(pin.sha256),
        dek,
        kind=Kind.STREAM,
        record_bits=MIN_RECORD_BITS,
        epoch=epoch,
        dataset_id=dataset_id,
        object_id=HEAD_ID,
        salt=salt,
    )


def open_head(data: bytes, dataset_id: str, deks: Mapping[int, bytes]) -> IndexPin:
    """Return the pin of the newest index.

    Raise an error of the CryptoError family when it is not what the sealer wrote, UnwrapError when its epoch's key is
    not at hand.
    """
    plain = open_whole(data, deks, what="head", kind=Kind.STREAM, dataset_id=dataset_id, object_id=HEAD_ID)
    if len(plain) != _PIN_BYTES:
        raise IntegrityError(f"the head has {len(plain)} bytes of content, expected {_PIN_BYTES}")
    return IndexPin(object=plain[:ID_BYTES].hex(), sha256=plain[ID_BYTES:].hex())
