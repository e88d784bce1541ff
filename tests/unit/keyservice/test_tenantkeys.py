import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lethe.adapters.keyvault_file import FileVault
from lethe.crypto.hpke import parse_public
from lethe.formats.audit import parse_record
from lethe.keyservice.store import Store, StoreThread
from lethe.keyservice.tenantkeys import TenantKeyPublisher, TenantKeys
from tests.common.keyservice import Clock
from tests.common.release import FakeKube, build_tenant, build_tenant_key


@pytest.fixture
def publisher(store: Store, kube: FakeKube, tmp_path: Path) -> Iterator[TenantKeyPublisher]:
    thread = StoreThread(store)
    keys = TenantKeys(thread, FileVault(tmp_path / "vault", may_create=True))
    yield TenantKeyPublisher(kube, keys, Clock())  # type: ignore[arg-type]
    thread.close()


def status(kube: FakeKube) -> dict[str, Any]:
    assert kube.cluster.tenant_key is not None
    return kube.cluster.tenant_key["status"]


def ready(kube: FakeKube) -> tuple[str, str]:
    (condition,) = status(kube)["conditions"]
    return condition["status"], condition["reason"]


@pytest.mark.parametrize("suite", ["MLKEM768-X25519", "X25519"])
async def test_a_key_is_made_and_published(publisher: TenantKeyPublisher, kube: FakeKube, suite: str) -> None:
    kube.cluster.tenant_key["spec"]["suite"] = suite  # type: ignore[index]
    await publisher.publish_all()
    assert ready(kube) == ("True", "KeyPublished")
    assert (status(kube)["version"], status(kube)["suite"], status(kube)["observedGeneration"]) == (1, suite, 1)
    assert parse_public(status(kube)["publicKey"]).suite == suite


async def test_nothing_is_written_at_rest(publisher: TenantKeyPublisher, kube: FakeKube) -> None:
    for _ in range(3):
        await publisher.publish_all()
    assert len(kube.patches) == 1


async def test_a_deleted_key_comes_back_as_the_same(
    publisher: TenantKeyPublisher, kube: FakeKube, store: Store
) -> None:
    await publisher.publish_all()
    before = status(kube)["publicKey"]
    kube.cluster.tenant_key = None
    await publisher.publish_all()
    kube.cluster.tenant_key = build_tenant_key()
    await publisher.publish_all()
    assert status(kube)["publicKey"] == before
    assert [parse_record(data).event.event for data in store.audit_records("acme")] == ["key-created"]


async def test_a_foreign_public_key_is_corrected(publisher: TenantKeyPublisher, kube: FakeKube) -> None:
    await publisher.publish_all()
    before = status(kube)["publicKey"]
    status(kube)["publicKey"] = "lethe-pub-1:X25519:" + base64.b64encode(bytes(32)).decode()
    await publisher.publish_all()
    assert status(kube)["publicKey"] == before


async def test_another_suite_later_changes_nothing(publisher: TenantKeyPublisher, kube: FakeKube) -> None:
    await publisher.publish_all()
    before = status(kube)["publicKey"]
    kube.cluster.tenant_key["spec"]["suite"] = "X25519"  # type: ignore[index]
    await publisher.publish_all()
    assert status(kube)["publicKey"] == before
    assert "keeps the suite" in status(kube)["conditions"][0]["message"]


@pytest.mark.parametrize(
    ("tenants", "reason"),
    [
        pytest.param([], "NamespaceWithoutTenant", id="none"),
        pytest.param([build_tenant("globex", "globex")], "NamespaceWithoutTenant", id="another's"),
        pytest.param([build_tenant(), build_tenant("globex", "acme")], "NamespaceClaimedTwice", id="two"),
    ],
)
async def test_a_namespace_without_one_tenant_gets_no_key(
    publisher: TenantKeyPublisher, kube: FakeKube, store: Store, tenants: list[dict[str, Any]], reason: str
) -> None:
    kube.cluster.tenants = tenants
    await publisher.publish_all()
    assert ready(kube) == ("False", reason)
    assert "publicKey" not in status(kube)
    assert not store.has_keys()


async def test_a_key_of_a_namespace_that_lost_its_tenant_is_taken_back(
    publisher: TenantKeyPublisher, kube: FakeKube
) -> None:
    await publisher.publish_all()
    before = status(kube)["publicKey"]
    kube.cluster.tenants = []
    await publisher.publish_all()
    assert "publicKey" not in status(kube)
    kube.cluster.tenants = [build_tenant("globex", "acme")]
    await publisher.publish_all()
    assert status(kube)["publicKey"] != before


async def test_an_object_being_deleted_is_left_alone(publisher: TenantKeyPublisher, kube: FakeKube) -> None:
    kube.cluster.tenant_key["metadata"]["deletionTimestamp"] = "2030-01-01T00:00:00Z"  # type: ignore[index]
    await publisher.publish_all()
    assert kube.patches == []


async def test_an_object_of_a_newer_version_does_not_stop_the_others(
    publisher: TenantKeyPublisher, kube: FakeKube
) -> None:
    newer = build_tenant_key()
    newer["metadata"]["name"] = "newer"
    newer["spec"]["suite"] = "suite of tomorrow"
    kube.more_keys = [newer]
    await publisher.publish_all()
    assert "status" not in newer
    assert ready(kube) == ("True", "KeyPublished")
