"""Records of the audit, and the chain that they form.

1. One chain for each tenant, and one for what happens before a tenant is known. Sequence numbers start at 1 and have no
   gaps. Each record names the hash of the one before; the first names none.
2. A record's hash covers its exact bytes. The bytes are kept as they were written and never encoded again.
3. An *intent* is durable before anything is unwrapped; *confirmed* or *failed* with the same release id follows. An
   intent without either means that the service or the pod went away in between: treat the key as released.
4. A record never holds a token, a nonce, a key or a share; the token's credential id says which token it was.

`verify_chain` finds edits, gaps, swaps and records of other chains. Truncation shows against the last head that
somebody else has seen: the service logs each one, and `verify_chain` takes one.
"""

from collections.abc import Iterable
from typing import Annotated, Final, Literal

import msgspec

from lethe.crypto.derive import length_prefixed, sha256
from lethe.model.errors import FormatError, IntegrityError
from lethe.model.resources import Resource

SERVICE_CHAIN: Final = "_service"
"""For what cannot be put to a tenant's account. No tenant can have this name."""

Event = Literal[
    "key-created",  # a tenant key pair was made
    "intent",  # a release is about to happen
    "rerun",  # alarm: the same pod asks for the same dataset's keys again
    "confirmed",  # the pod has proved that it opened the shares
    "failed",  # after the intent, the shares could not be opened or sealed
    "refused",  # a check failed; nothing was unwrapped
]

_LABEL: Final = b"lethe/v1 audit"


class AuditEvent(Resource, frozen=True, kw_only=True):
    """What happened. Fields that do not apply stay empty."""

    event: Event
    time: str
    release_id: str = ""
    tenant: str = ""
    namespace: str = ""
    job: str = ""
    job_uid: str = ""
    pod: str = ""
    pod_uid: str = ""
    node: str = ""
    node_uid: str = ""
    boot_id: str = ""
    node_epoch: int = 0
    receipt: str = ""
    dataset: str = ""
    dataset_id: str = ""
    criticality: str = ""
    key: str = ""
    versions: tuple[tuple[int, int], ...] = ()
    """Key epoch of the dataset and version of the tenant's key."""
    images: tuple[str, ...] = ()
    """Image references of the pod's spec, init containers first."""
    keyfetch_image_id: str = ""
    """The digest that the kubelet reports for the container that got the keys."""
    credential_id: str = ""
    transcript: str = ""
    """SHA-512 of the transcript, hex."""
    check: str = ""
    message: str = ""
    count: int = 0
    """Which release to this pod this is; 1 is the first."""


class AuditRecord(Resource, frozen=True, kw_only=True):
    """An event in its place in a chain."""

    chain: str
    sequence: Annotated[int, msgspec.Meta(ge=1)]
    previous: str
    event: AuditEvent


class ChainHead(Resource, frozen=True, kw_only=True):
    """The last record of a chain."""

    sequence: int = 0
    sha256: str = ""


def encode_record(chain: str, head: ChainHead, event: AuditEvent) -> tuple[bytes, ChainHead]:
    """Return the bytes of the record that follows `head`, and the new head."""
    record = AuditRecord(chain=chain, sequence=head.sequence + 1, previous=head.sha256, event=event)
    data = msgspec.json.encode(record)
    return data, ChainHead(sequence=record.sequence, sha256=record_sha256(data))


def parse_record(data: bytes) -> AuditRecord:
    """Read the bytes of a record; raise FormatError."""
    try:
        return msgspec.json.decode(data, type=AuditRecord)
    except msgspec.DecodeError as error:
        raise FormatError(f"this is not an audit record: {error}") from error


def record_sha256(data: bytes) -> str:
    """Return the hash by which the next record names this one, 64 hex digits."""
    return sha256(length_prefixed(_LABEL, data)).hex()


def verify_chain(chain: str, records: Iterable[bytes], seen: ChainHead | None = None) -> ChainHead:
    """Check all records of a chain from the first on, and return its head.

    `seen` is a head that was known earlier: the chain must still contain it. Raise IntegrityError.
    """
    head = ChainHead()
    for data in records:
        record = parse_record(data)
        place = f"record {record.sequence} of the audit chain {chain!r}"
        if record.chain != chain:
            raise IntegrityError(f"{place} was written for chain {record.chain!r}: it was moved")
        if record.sequence != head.sequence + 1:
            raise IntegrityError(
                f"after record {head.sequence} of the audit chain {chain!r} comes {record.sequence}: records are "
                "missing or out of order"
            )
        if record.previous != head.sha256:
            raise IntegrityError(f"{place} does not follow the record before it: one of the two was changed")
        head = ChainHead(sequence=record.sequence, sha256=record_sha256(data))
        if seen is not None and seen.sequence == head.sequence and seen.sha256 != head.sha256:
            raise IntegrityError(f"{place} is not the one that was seen before: the chain was rewritten")
    if seen is not None and head.sequence < seen.sequence:
        raise IntegrityError(
            f"the audit chain {chain!r} ends at record {head.sequence}, but record {seen.sequence} was seen: "
            "it was cut short"
        )
    return head
