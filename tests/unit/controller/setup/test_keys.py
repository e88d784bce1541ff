import base64
import json
from datetime import UTC, datetime, timedelta

import pytest

from lethe.adapters.kube import CONFIGMAP, SECRET
from lethe.controller.setup.keys import SERVER_NAMES, make_keys
from lethe.crypto.certificates import SERVER_LIFE, Authority
from lethe.crypto.sign import Signer
from lethe.formats.receipt import parse_receipt_keys
from lethe.model.errors import InputError
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

NOW = datetime(2030, 1, 1, tzinfo=UTC)


async def run(kube: FakeKube, now: datetime = NOW) -> list[str]:
    said: list[str] = []
    await make_keys(kube, now, said.append)  # type: ignore[arg-type]
    return said


def data(kube: FakeKube, name: str, key: str) -> bytes:
    return base64.b64decode(kube.objects[("secrets", SYSTEM_NAMESPACE, name)]["data"][key])


def trust(kube: FakeKube) -> dict[str, str]:
    found: dict[str, str] = kube.objects[("configmaps", SYSTEM_NAMESPACE, TRUST_CONFIGMAP)]["data"]
    return found


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
    signer = Signer.from_pem(data(kube, RECEIPT_KEY_SECRET, "private.pem"))
    assert parse_receipt_keys(trust(kube)[TRUST_RECEIPT_KEYS].encode()) == {signer.key_id: signer.public_key}


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
    old = parse_receipt_keys(trust(kube)[TRUST_RECEIPT_KEYS].encode())
    del kube.objects[("secrets", SYSTEM_NAMESPACE, RECEIPT_KEY_SECRET)]
    await run(kube)
    entries = json.loads(trust(kube)[TRUST_RECEIPT_KEYS])
    assert [entry["version"] for entry in entries] == [1, 2]
    assert parse_receipt_keys(trust(kube)[TRUST_RECEIPT_KEYS].encode()).items() > old.items()


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
