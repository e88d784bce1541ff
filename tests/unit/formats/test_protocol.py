import json
from typing import Any

import pytest

from lethe.formats.protocol import ReleaseRequest, SealedStanza, encode_message, parse_message
from lethe.model.errors import ProtocolError

REQUEST = ReleaseRequest(
    namespace="acme",
    job="digits",
    job_uid="job-uid",
    public_key="lethe-pub-1:X25519:...",
    token="eyJhbGciOi.secret.token",
    nonce="5a" * 32,
    dataset="digits",
    dataset_id="41" * 16,
    key="default",
    stanzas=[SealedStanza(epoch=1, version=1, sealed=b"sealed")],
)


def test_a_message_comes_back() -> None:
    assert parse_message(encode_message(REQUEST), ReleaseRequest) == REQUEST


def test_a_token_is_never_printed() -> None:
    assert "secret" not in f"{REQUEST!r} {REQUEST}"
    assert "digits" in repr(REQUEST)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"protocol": "lethe.dev/release/v2"}, id="version"),
        pytest.param({"namespace": "../kube-system"}, id="path in a name"),
        pytest.param({"namespace": ""}, id="empty name"),
        pytest.param({"job": "a" * 254}, id="long name"),
        pytest.param({"jobUid": "a/b"}, id="uid"),
        pytest.param({"nonce": "5A" * 32}, id="nonce in capitals"),
        pytest.param({"nonce": "5a" * 31}, id="short nonce"),
        pytest.param({"datasetId": "41"}, id="dataset id"),
        pytest.param({"token": "t" * 20000}, id="long token"),
        pytest.param({"stanzas": []}, id="no stanza"),
        pytest.param({"stanzas": [{"epoch": 1, "version": 1, "sealed": ""}] * 65}, id="many stanzas"),
        pytest.param({"stanzas": [{"epoch": -1, "version": 1, "sealed": ""}]}, id="negative epoch"),
        pytest.param({"stanzas": [{"epoch": 2**32, "version": 1, "sealed": ""}]}, id="large epoch"),
        pytest.param({"stanzas": [{"epoch": 1, "version": 1, "sealed": "%"}]}, id="no base64"),
        pytest.param({"tenant": "globex"}, id="unknown field"),
    ],
)
def test_a_wrong_field_is_refused(change: dict[str, Any]) -> None:
    body = json.dumps({**json.loads(encode_message(REQUEST)), **change}).encode()
    with pytest.raises(ProtocolError) as error:
        parse_message(body, ReleaseRequest)
    assert "secret" not in str(error.value)
