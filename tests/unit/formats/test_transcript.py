from typing import Any

import msgspec
import pytest

from lethe.crypto.hpke import PrivateKey
from lethe.formats.transcript import Transcript, confirmation, encode_shares, parse_shares
from lethe.model.errors import ProtocolError, UnwrapError

TRANSCRIPT = Transcript(
    releaser="lethe-keyservice",
    namespace="acme",
    job="digits",
    job_uid="job-uid",
    pod_uid="pod-uid",
    node_uid="node-uid",
    node_epoch=3,
    dataset_id="41" * 16,
    key="default",
    versions=((1, 1), (2, 1)),
    nonce="5a" * 32,
    public_key="lethe-pub-1:X25519:...",
)
CHANGES: list[dict[str, Any]] = [
    {"releaser": "agent"},
    {"namespace": "acme2"},
    {"job": "digits2"},
    {"job_uid": "other"},
    {"pod_uid": "other"},
    {"node_uid": "other"},
    {"node_epoch": 4},
    {"dataset_id": "42" * 16},
    {"key": "other"},
    {"versions": ((1, 1),)},
    {"versions": ((1, 1), (2, 2))},
    {"versions": ((1, 1), (3, 1))},
    {"nonce": "5b" * 32},
    {"public_key": "other"},
    {"namespace": "acm", "job": "edigits"},
]


def test_every_field_has_a_row() -> None:
    assert {name for change in CHANGES for name in change} == set(Transcript.__struct_fields__)


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_shares_open_with_the_same_transcript_only(change: dict[str, Any]) -> None:
    private = PrivateKey.generate("X25519")
    sealed = private.public_key().seal(b"shares", TRANSCRIPT.digest())
    assert private.open(sealed, TRANSCRIPT.digest()) == b"shares"
    other = msgspec.structs.replace(TRANSCRIPT, **change)
    with pytest.raises(UnwrapError):
        private.open(sealed, other.digest())
    assert confirmation(b"shares", other.digest()) != confirmation(b"shares", TRANSCRIPT.digest())


def test_shares_come_back() -> None:
    shares = {7: b"b" * 32, 1: b"a" * 32}
    assert parse_shares(encode_shares(shares), (1, 7)) == shares


def test_a_confirmation_depends_on_the_shares() -> None:
    digest = TRANSCRIPT.digest()
    assert confirmation(b"a" * 36, digest) != confirmation(b"b" * 36, digest)


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_share_of_another_size_is_refused(size: int) -> None:
    with pytest.raises(ProtocolError):
        encode_shares({1: bytes(size)})


@pytest.mark.parametrize(
    ("plaintext", "epochs"),
    [
        pytest.param(bytes(35), (0,), id="cut"),
        pytest.param(bytes(37), (0,), id="too long"),
        pytest.param(b"", (1,), id="nothing"),
        pytest.param(encode_shares({1: bytes(32)}), (2,), id="another epoch"),
        pytest.param(encode_shares({1: bytes(32)}), (1, 2), id="one missing"),
        pytest.param(encode_shares({1: bytes(32), 2: bytes(32)}), (1,), id="one more"),
        pytest.param(encode_shares({1: bytes(32)}) * 2, (1,), id="one twice"),
    ],
)
def test_other_shares_than_asked_for_are_refused(plaintext: bytes, epochs: tuple[int, ...]) -> None:
    with pytest.raises(ProtocolError):
        parse_shares(plaintext, epochs)
