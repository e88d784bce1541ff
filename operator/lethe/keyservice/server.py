"""One key service: its parts put together, its sockets, and its loops.

`Keyservice` is what `lethe.keyservice_main` runs, and what tests run against another API server.
"""

import asyncio
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import structlog
from aiohttp import web

from lethe.adapters.keyvault_file import FileVault
from lethe.adapters.kube import Kube
from lethe.keyservice.app import build_app, build_health_app
from lethe.keyservice.challenges import Challenges
from lethe.keyservice.gather import Gatherer
from lethe.keyservice.rates import RateLimit
from lethe.keyservice.releases import Releases
from lethe.keyservice.store import Store, StoreThread
from lethe.keyservice.tenantkeys import TenantKeyPublisher, TenantKeys
from lethe.keyservice.watched import RELOAD_SECONDS, watch_certificate, watch_receipt_keys
from lethe.model.config import KeyserviceConfig
from lethe.model.ports import KeyVault

DATABASE: Final = "keyservice.sqlite"
VAULT_FOLDER: Final = "vault"

_log = structlog.get_logger()


class Keyservice:
    """Listens while its context is open."""

    def __init__(
        self,
        config: KeyserviceConfig,
        kube: Kube,
        now: Callable[[], datetime],
        clock: Callable[[], float],
        host: str | None = None,
    ) -> None:
        folder = Path(config.data_folder)
        self._config = config
        self._host = host
        self._store = StoreThread(Store(folder / DATABASE))
        self._vault = _open_vault(folder, self._store)
        self._certificate = watch_certificate(Path(config.tls_folder))
        self._receipt_keys = watch_receipt_keys(Path(config.trust_folder))
        keys = TenantKeys(self._store, self._vault)
        self.publisher = TenantKeyPublisher(kube, keys, now)
        self.releases = Releases(
            challenges=Challenges(kube, self._store, config.nonce_seconds, now),
            gatherer=Gatherer(kube, self._store, config.criticalities),
            store=self._store,
            keys=keys,
            receipt_keys=self._receipt_keys.refresh,
            pod_limit=RateLimit("pod", per_second=4, burst=40, clock=clock),
            tenant_limit=RateLimit("tenant", per_second=50, burst=200, clock=clock),
            now=now,
        )
        # Every pod has an address of its own; the limit is for who has no token at all.
        self._address_limit = RateLimit("address", per_second=20, burst=100, clock=clock)
        self._runners: list[web.AppRunner] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        app = web.AppRunner(build_app(self.releases, self._address_limit), access_log=None)
        health = web.AppRunner(build_health_app(self.check), access_log=None)
        self._runners = [app, health]
        for runner in self._runners:
            await runner.setup()
        context = self._certificate.value
        await web.TCPSite(app, self._host, self._config.listen_port, ssl_context=context).start()
        await web.TCPSite(health, self._host, self._config.health_port).start()
        self._tasks = [
            asyncio.create_task(self.publisher.run(), name="publish tenant keys"),
            asyncio.create_task(self._reload(), name="reload certificate"),
        ]
        _log.info("key service listens", addresses=[str(address) for address in app.addresses], vault=self._vault.kind)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for runner in self._runners:
            await runner.cleanup()
        await asyncio.to_thread(self._store.close)

    @property
    def port(self) -> int:
        """Return the port that pods talk to; another one than configured when that is 0."""
        return int(self._runners[0].addresses[0][1])

    @property
    def health_port(self) -> int:
        """Return the port that kubelets probe."""
        return int(self._runners[1].addresses[0][1])

    async def wait(self) -> None:
        """Wait for one of the loops to end, and raise its error: a service that is half dead helps nobody."""
        done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()

    async def check(self) -> None:
        """Raise UnavailableError when the store or the vault is away; the audit is in the store."""
        await self._store.run(self._store.store.check)
        await asyncio.to_thread(self._vault.check)

    async def refresh(self) -> None:
        """Read certificate and trusted keys again where they changed."""
        await asyncio.to_thread(self._certificate.refresh)

    async def _reload(self) -> None:
        while True:
            await asyncio.sleep(RELOAD_SECONDS)
            await self.refresh()


def _open_vault(folder: Path, store: StoreThread) -> KeyVault:
    vault = FileVault(folder / VAULT_FOLDER, may_create=not store.store.has_keys())
    if vault.is_for_development:
        _log.warning(
            "THE KEY VAULT IS A FILE, FOR DEVELOPMENT ONLY: whoever can read the key service's volume can read the "
            "keys of every tenant",
            vault=vault.kind,
        )
    return vault
