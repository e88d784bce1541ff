"""A key service on the loopback interface, over real TLS, in front of a cluster of objects."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from lethe.adapters.keyservice import KeyserviceClient
from lethe.crypto.hpke import PrivateKey, parse_public
from lethe.formats.binding import Binding
from lethe.formats.keyring import KEYRING_NAME, build_keyring
from lethe.formats.receiptkeys import encode_receipt_keys
from lethe.keyservice.server import DATABASE, Keyservice
from lethe.keyservice.store import Store
from lethe.model.config import KeyserviceConfig
from lethe.model.names import TRUST_RECEIPT_KEYS
from tests.common.certificates import Authority
from tests.common.release import CRITICALITIES, DATASET_ID, KEY, NAMESPACE, RECEIPT_KEYS, TENANT_NAME, FakeKube


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = datetime(2030, 1, 2, 4, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def seconds(self) -> float:
        return self.now.timestamp()

    def move(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@dataclass
class Running:
    """A key service that listens, and what its clients need."""

    service: Keyservice
    kube: FakeKube
    clock: Clock
    authority: Authority
    folder: Path

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.service.port}"

    def client(self, authority: Authority | None = None) -> KeyserviceClient:
        return KeyserviceClient(self.url, (authority or self.authority).pem, timeout=10)

    def audit(self, chain: str = TENANT_NAME) -> list[bytes]:
        """Return the records of a chain as another process reads them."""
        store = Store(self.folder / "data" / DATABASE)
        try:
            return store.audit_records(chain)
        finally:
            store.close()


@asynccontextmanager
async def run_keyservice(folder: Path, kube: FakeKube, authority: Authority) -> AsyncIterator[Running]:
    """Start a key service in `folder`, with TenantKeys published once."""
    authority.write_server(folder / "tls")
    write_trust(folder / "trust")
    clock = Clock()
    config = KeyserviceConfig(
        listen_port=0,
        health_port=0,
        tls_folder=str(folder / "tls"),
        trust_folder=str(folder / "trust"),
        data_folder=str(folder / "data"),
        criticalities=CRITICALITIES,
    )
    async with Keyservice(config, kube, now=clock, clock=clock.seconds, host="127.0.0.1") as service:  # type: ignore[arg-type]
        await service.publisher.publish_all()
        yield Running(service, kube, clock, authority, folder)


def write_trust(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / TRUST_RECEIPT_KEYS).write_text(encode_receipt_keys([*RECEIPT_KEYS.values()]))


def build_binding(**changes: object) -> Binding:
    binding = Binding(
        dataset_id=DATASET_ID,
        epoch=1,
        tenant=TENANT_NAME,
        namespace=NAMESPACE,
        key=KEY,
        version=1,
        criticality="sensitive",
    )
    return msgspec.structs.replace(binding, **changes)


def write_keyring(folder: Path, kube: FakeKube, dek: bytes, *bindings: Binding) -> None:
    """Write a dataset's keyring, sealed to the published TenantKey and to an offline key."""
    assert kube.cluster.tenant_key is not None
    published = parse_public(kube.cluster.tenant_key["status"]["publicKey"])
    offline = msgspec.structs.replace(bindings[0], key="", version=0)
    recipients = [(offline, PrivateKey.generate().public_key()), *((binding, published) for binding in bindings)]
    folder.mkdir(parents=True, exist_ok=True)
    deks = {binding.epoch: dek for binding in bindings}
    (folder / KEYRING_NAME).write_bytes(build_keyring(bindings[0].dataset_id, deks, recipients))
