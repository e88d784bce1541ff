from pathlib import Path

import msgspec
import pytest

from lethe.crypto.sign import Signer
from lethe.keyservice.watched import Watched, watch_certificate, watch_receipt_keys
from lethe.model.errors import InputError, LetheError
from lethe.model.names import TRUST_RECEIPT_KEYS
from tests.common.certificates import Authority
from tests.common.keyservice import write_trust
from tests.common.release import RECEIPT_KEYS


def read(contents: tuple[bytes, ...]) -> bytes:
    if contents[0] == b"bad":
        raise InputError("bad")
    return contents[0]


def test_new_contents_are_read(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"one")
    watched = Watched((file,), read)
    file.write_bytes(b"two")
    assert watched.value == b"one"
    assert watched.refresh() == b"two"
    assert watched.value == b"two"


@pytest.mark.parametrize("contents", [b"bad", None], ids=["unusable", "missing"])
def test_what_worked_stays_in_force(tmp_path: Path, contents: bytes | None) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"one")
    watched = Watched((file,), read)
    if contents is None:
        file.unlink()
    else:
        file.write_bytes(contents)
    assert watched.refresh() == b"one"
    file.write_bytes(b"two")
    assert watched.refresh() == b"two"


@pytest.mark.parametrize("contents", [b"bad", None], ids=["unusable", "missing"])
def test_a_bad_start_is_refused(tmp_path: Path, contents: bytes | None) -> None:
    file = tmp_path / "file"
    if contents is not None:
        file.write_bytes(contents)
    with pytest.raises(InputError):
        Watched((file,), read)


def test_receipt_keys_are_checked_against_their_ids(tmp_path: Path) -> None:
    write_trust(tmp_path)
    watched = watch_receipt_keys(tmp_path)
    assert watched.value == RECEIPT_KEYS
    file = tmp_path / TRUST_RECEIPT_KEYS
    entry = msgspec.json.decode(file.read_bytes())[0]
    file.write_bytes(msgspec.json.encode([{**entry, "keyId": Signer.generate().key_id}]))
    assert watched.refresh() == RECEIPT_KEYS
    with pytest.raises(LetheError):
        watch_receipt_keys(tmp_path)


def test_a_certificate_without_its_key_is_refused(tmp_path: Path) -> None:
    authority = Authority()
    authority.write_server(tmp_path)
    key = (tmp_path / "tls.key").read_bytes()
    authority.write_server(tmp_path)
    (tmp_path / "tls.key").write_bytes(key)
    with pytest.raises(InputError, match="no certificate and its key"):
        watch_certificate(tmp_path)
