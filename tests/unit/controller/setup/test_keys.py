import base64
import copy
import json
from datetime import UTC, datetime, timedelta

import pytest

from lethe.adapters.kube import CONFIGMAP, SECRET
from lethe.controller.setup.keys import SERVER_NAMES, make_keys
from lethe.crypto.certificates import SERVER_LIFE, Authority
from lethe.crypto.sign import Signer
from lethe.formats.quantity import parse_time
from lethe.formats.receiptkeys import ReceiptKey, parse_receipt_keys
from lethe.model.errors import InputError, RefusedError
from lethe.model.names import (
    CA_SECRET,
    KEYSERVICE_TLS_SECRET,
    RECEIPT_KEY_SECRET,
    SYSTEM_NAMESPACE,
    TRUST_CA,
    TRUST_CONFIGMAP,
    TRUST_RECEIPT_KEYS,
)
from tests.common.fake_kube import FakeKube
from tests.common.scrubs import trusted_keys

NOW = datetime(2030, 1, 1, tzinfo=UTC)


async def run(kube: FakeKube, now: datetime = NOW, version: int = 1) -> list[str]:
    said: list[str] = []
    await make_keys(kube, now, said.append, version)  # type: ignore[arg-type]
    return said


def data(kube: FakeKube, name: str, key: str) -> bytes:
    return base64.b64decode(kube.objects[("secrets", SYSTEM_NAMESPACE, name)]["data"][key])


def trust(kube: FakeKube) -> dict[str, str]:
    found: dict[str, str] = kube.objects[("configmaps", SYSTEM_NAMESPACE, TRUST_CONFIGMAP)]["data"]
    return found


def trusted(kube: FakeKube) -> dict[str, ReceiptKey]:
    return parse_receipt_keys(trust(kube)[TRUST_RECEIPT_KEYS].encode())


def signer(kube: FakeKube) -> Signer:
    return Signer.from_pem(data(kube, RECEIPT_KEY_SECRET, "private.pem"))


async def test_the_first_run_makes_everything() -> None:
    kube = FakeKube()
    await run(kube)
    assert kube.names(SECRET) == sorted([CA_SECRET, KEYSERVICE_TLS_SECRET, RECEIPT_KEY_SECRET])
    authority = Authority(certificate=data(kube, CA_SECRET, "tls.crt"), private_key=data(kube, CA_SECRET, "tls.key"))
    assert authority.why_renew(data(kube, KEYSERVICE_TLS_SECRET, "tls.crt"), SERVER_NAMES, NOW) is None
    assert trust(kube)[TRUST_CA].encode() == authority.certificate


async def test_what_is_published_is_what_the_others_read() -> None:
    kube = FakeKube()
    await run(kube)
    assert trusted(kube) == trusted_keys(signer(kube))


async def test_nothing_secret_is_published() -> None:
    kube = FakeKube()
    await run(kube)
    assert "PRIVATE" not in json.dumps(trust(kube))
    assert set(trust(kube)) == {TRUST_CA, TRUST_RECEIPT_KEYS}


async def test_a_second_run_writes_nothing() -> None:
    kube = FakeKube()
    await run(kube)
    kube.writes.clear()
    await run(kube, NOW + timedelta(days=1))
    assert kube.writes == []


async def test_the_server_certificate_is_renewed_and_nothing_else() -> None:
    kube = FakeKube()
    await run(kube)
    before = data(kube, KEYSERVICE_TLS_SECRET, "tls.crt")
    kube.writes.clear()
    said = await run(kube, NOW + SERVER_LIFE / 2 + timedelta(days=1))
    assert kube.writes == [("replace", "secrets", KEYSERVICE_TLS_SECRET)]
    assert data(kube, KEYSERVICE_TLS_SECRET, "tls.crt") != before
    assert any("renewed" in sentence for sentence in said)


async def test_a_new_receipt_key_is_added_to_the_old_ones() -> None:
    kube = FakeKube()
    await run(kube)
    old = signer(kube)
    del kube.objects[("secrets", SYSTEM_NAMESPACE, RECEIPT_KEY_SECRET)]
    await run(kube)
    new = signer(kube)
    assert [(key.key_id, key.version) for key in trusted(kube).values()] == [(old.key_id, 1), (new.key_id, 2)]
    assert_retired(kube, old)


def assert_retired(kube: FakeKube, old: Signer) -> None:
    """Check that all but the key that signs have retired, this one soon after the rotation."""
    keys = trusted(kube)
    assert [key.key_id for key in keys.values() if not key.retired_at] == [signer(kube).key_id]
    assert NOW < parse_time(keys[old.key_id].retired_at) <= NOW + timedelta(hours=1)


async def test_a_higher_version_rotates_the_receipt_key_once() -> None:
    kube = FakeKube()
    await run(kube)
    old = signer(kube)
    await run(kube, version=4)
    new = signer(kube)
    assert new.key_id != old.key_id
    assert [(key.key_id, key.version) for key in trusted(kube).values()] == [(old.key_id, 1), (new.key_id, 4)]
    assert_retired(kube, old)
    before = trusted(kube)
    kube.writes.clear()
    await run(kube, NOW + timedelta(days=1), version=4)
    await run(kube, NOW + timedelta(days=2), version=2)
    assert (kube.writes, trusted(kube)) == ([], before)


async def test_a_rotation_that_was_stopped_halfway_is_completed() -> None:
    kube = FakeKube()
    await run(kube)
    old = signer(kube)
    kube.refuse = lambda verb, kind, name: "stopped" if name == TRUST_CONFIGMAP else None
    with pytest.raises(RefusedError):
        await run(kube, version=2)
    new = signer(kube)
    assert new.key_id not in trusted(kube)
    kube.refuse = lambda verb, kind, name: None
    await run(kube, version=2)
    assert signer(kube).key_id == new.key_id
    assert [key.version for key in trusted(kube).values()] == [1, 2]
    assert_retired(kube, old)


async def test_a_retired_key_that_comes_back_from_a_backup_is_replaced() -> None:
    kube = FakeKube()
    await run(kube)
    backup = copy.deepcopy(kube.objects[("secrets", SYSTEM_NAMESPACE, RECEIPT_KEY_SECRET)])
    old = signer(kube)
    await run(kube, version=2)
    kube.objects[("secrets", SYSTEM_NAMESPACE, RECEIPT_KEY_SECRET)] = backup
    await run(kube, version=2)
    assert signer(kube).key_id != old.key_id
    assert_retired(kube, old)


async def test_a_new_authority_takes_its_server_along() -> None:
    kube = FakeKube()
    await run(kube)
    del kube.objects[("secrets", SYSTEM_NAMESPACE, CA_SECRET)]
    await run(kube)
    authority = Authority(certificate=data(kube, CA_SECRET, "tls.crt"), private_key=data(kube, CA_SECRET, "tls.key"))
    assert authority.why_renew(data(kube, KEYSERVICE_TLS_SECRET, "tls.crt"), SERVER_NAMES, NOW) is None
    assert trust(kube)[TRUST_CA].encode() == authority.certificate


async def test_an_authority_near_its_end_is_announced() -> None:
    kube = FakeKube()
    await run(kube)
    said = await run(kube, NOW + timedelta(days=3400))
    assert any("WARNING" in sentence and CA_SECRET in sentence for sentence in said)


@pytest.mark.parametrize(
    ("secret", "key"), [(CA_SECRET, "tls.crt"), (RECEIPT_KEY_SECRET, "private.pem")], ids=["authority", "receipt key"]
)
@pytest.mark.parametrize("content", ["bm9uc2Vuc2U=", "not base64!", None], ids=["nonsense", "no base64", "missing"])
async def test_what_does_not_parse_is_never_replaced(secret: str, key: str, content: str | None) -> None:
    kube = FakeKube()
    await run(kube)
    stored = kube.objects[("secrets", SYSTEM_NAMESPACE, secret)]["data"]
    stored.pop(key)
    if content is not None:
        stored[key] = content
    with pytest.raises(InputError, match=secret):
        await run(kube)
    assert stored.get(key) == content


async def test_a_broken_list_of_keys_is_never_replaced() -> None:
    kube = FakeKube(
        (
            CONFIGMAP,
            {"metadata": {"name": TRUST_CONFIGMAP, "namespace": SYSTEM_NAMESPACE}, "data": {TRUST_RECEIPT_KEYS: "x"}},
        )
    )
    with pytest.raises(InputError, match=TRUST_RECEIPT_KEYS):
        await run(kube)
    assert trust(kube)[TRUST_RECEIPT_KEYS] == "x"
