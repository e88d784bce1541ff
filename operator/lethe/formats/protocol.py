"""Messages of the release protocol (keys.md, Release protocol): JSON bodies of three POST requests.

1. `/v1/challenge`: token, job and ephemeral public key; the answer is a nonce.
2. `/v1/release`: nonce, token and the stanzas of one dataset's keyring; the answer holds the shares, sealed.
3. `/v1/confirm`: proof that the shares were opened.

Every list and string has a limit, so that a body within the server's size limit cannot grow when it is parsed. Byte
strings are base64. A request never prints its token.
"""

from typing import Annotated, Final, Literal, TypeVar

import msgspec

from lethe.model.errors import ProtocolError
from lethe.model.resources import Resource

PROTOCOL: Final = "lethe.dev/release/v1"
MAX_BODY: Final = 256 * 1024
"""Bytes. A stanza takes about 1.6 KiB, a token about 1.5 KiB."""

CHALLENGE_PATH: Final = "/v1/challenge"
RELEASE_PATH: Final = "/v1/release"
CONFIRM_PATH: Final = "/v1/confirm"

NONCE_BYTES: Final = 32

_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")]
_Uid = Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=r"^[0-9A-Za-z-]+$")]
_PublicKey = Annotated[str, msgspec.Meta(min_length=1, max_length=4096)]
_Token = Annotated[str, msgspec.Meta(min_length=1, max_length=16384)]
_Nonce = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}$")]
_DatasetId = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{32}$")]
_Number = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]
_Sealed = Annotated[bytes, msgspec.Meta(max_length=8192)]


class Message(Resource, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all messages; fields that are not known are refused."""


class Request(Message, frozen=True, kw_only=True):
    """What a pod sends with its token."""

    protocol: Literal["lethe.dev/release/v1"] = PROTOCOL
    namespace: _Name
    job: _Name
    job_uid: _Uid
    public_key: _PublicKey
    """The ephemeral key of this exchange, as `lethe.crypto.hpke.PublicKey.encode` writes it."""
    token: _Token

    def __repr__(self) -> str:
        return f"{type(self).__name__}(namespace={self.namespace!r}, job={self.job!r}, job_uid={self.job_uid!r})"


class ChallengeRequest(Request, frozen=True, kw_only=True):
    """Ask for a nonce."""


class ChallengeReply(Message, frozen=True, kw_only=True):
    nonce: _Nonce
    expires_in: int
    """Seconds."""


class SealedStanza(Message, frozen=True, kw_only=True):
    """One epoch's key of the dataset, sealed to one version of the tenant's key."""

    epoch: _Number
    version: _Number
    sealed: _Sealed


class ReleaseRequest(Request, frozen=True, kw_only=True):
    """Ask for the keys of one dataset."""

    nonce: _Nonce
    dataset: _Name
    dataset_id: _DatasetId
    key: _Name
    """Name of the TenantKey in the pod's namespace that the stanzas are sealed to."""
    stanzas: Annotated[list[SealedStanza], msgspec.Meta(min_length=1, max_length=64)]


class ReleaseReply(Message, frozen=True, kw_only=True):
    release_id: _Uid
    pod_uid: _Uid
    node_uid: _Uid
    node_epoch: _Number
    sealed: Annotated[bytes, msgspec.Meta(max_length=16384)]
    """All shares (`lethe.formats.transcript.encode_shares`), sealed to the ephemeral key."""


class ConfirmRequest(Message, frozen=True, kw_only=True):
    release_id: _Uid
    mac: Annotated[bytes, msgspec.Meta(min_length=64, max_length=64)]


class Refusal(Message, frozen=True, kw_only=True):
    """Body of every answer that is not a success."""

    check: str
    """Name of the first check that failed; of `lethe.decisions.release.CHAIN`, or one that the service names."""
    message: str
    retryable: bool = False


_AnyMessage = TypeVar("_AnyMessage", bound=Message)


def encode_message(message: Message) -> bytes:
    """Return the JSON body."""
    return msgspec.json.encode(message)


def parse_message(body: bytes, kind: type[_AnyMessage]) -> _AnyMessage:
    """Read a JSON body; raise ProtocolError, which names the field and never repeats its value."""
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.DecodeError as error:
        raise ProtocolError(
            f"the body is not a {kind.__name__} of {PROTOCOL}: {error}; "
            "the image of the pod and the key service must be of one version"
        ) from error
