"""Tenant keys: makes them, keeps them wrapped, publishes their public halves, opens what was sealed to them.

1. A key belongs to (tenant, namespace, name): when a namespace goes to another tenant, its TenantKey gets another key
   pair, and what was sealed before does not open for the new tenant.
2. A key that is in the store is published again, never replaced, whatever happened to its TenantKey object.
3. The status is written only when it differs, with the object's uid and resourceVersion.
4. A private key is in memory for one release only. Its wrapped form is bound to tenant, namespace, name and version.
"""

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final, get_args

import msgspec
import structlog

from lethe.adapters.kube import TENANT, TENANT_KEY, Kube
from lethe.crypto.derive import length_prefixed
from lethe.crypto.hpke import PrivateKey, SuiteName
from lethe.formats.audit import AuditEvent
from lethe.formats.binding import Binding
from lethe.formats.quantity import format_time
from lethe.keyservice.gather import parse_object
from lethe.keyservice.store import StoreThread
from lethe.keyservice.tables import StoredKey
from lethe.model import reasons
from lethe.model.errors import ConflictError, CryptoError, LetheError
from lethe.model.ports import KeyVault
from lethe.model.resources import Condition, Tenant, TenantKey, TenantKeyStatus

_LABEL: Final = b"lethe/v1 tenant key"
POLL_SECONDS: Final = 3.0

_log = structlog.get_logger()


class TenantKeys:
    """The key pairs of all tenants."""

    def __init__(self, store: StoreThread, vault: KeyVault) -> None:
        self._store = store
        self._vault = vault

    async def ensure(self, tenant: str, namespace: str, name: str, suite: SuiteName, now: datetime) -> StoredKey:
        """Return the newest version of a key; make the first one where there is none."""
        versions = await self._store.run(self._store.store.keys, tenant, namespace, name)
        if versions:
            return versions[-1]
        private = PrivateKey.generate(suite)
        context = _context(tenant, namespace, name, 1)
        key = StoredKey(
            tenant=tenant,
            namespace=namespace,
            name=name,
            version=1,
            suite=suite,
            public_key=private.public_key().encode(),
            wrapped=await asyncio.to_thread(self._vault.wrap, tenant, private.raw, context),
        )
        event = AuditEvent(
            event="key-created",
            time=format_time(now),
            tenant=tenant,
            namespace=namespace,
            key=name,
            message=f"version 1, suite {suite}",
        )
        return await self._store.run(self._store.store.add_key, key, event)

    async def open(self, sealed: Mapping[int, bytes], bindings: Mapping[int, Binding]) -> dict[int, bytes]:
        """Return the shares of one key, by epoch of the dataset; raise UnwrapError when one does not open."""
        shares: dict[int, bytes] = {}
        private: dict[int, PrivateKey] = {}
        for epoch, binding in bindings.items():
            if binding.version not in private:
                private[binding.version] = await self._private(binding)
            shares[epoch] = private[binding.version].open(sealed[epoch], binding.info())
        return shares

    async def _private(self, binding: Binding) -> PrivateKey:
        keys = await self._store.run(self._store.store.keys, binding.tenant, binding.namespace, binding.key)
        for key in keys:
            if key.version == binding.version:
                context = _context(key.tenant, key.namespace, key.name, key.version)
                raw = await asyncio.to_thread(self._vault.unwrap, key.tenant, key.wrapped, context)
                return PrivateKey(_suite(key), raw)
        raise CryptoError(f"there is no version {binding.version} of {binding.namespace}/{binding.key} in the store")


class TenantKeyPublisher:
    """Keeps the status of every TenantKey what it must be."""

    def __init__(self, kube: Kube, keys: TenantKeys, now: Callable[[], datetime]) -> None:
        self._kube = kube
        self._keys = keys
        self._now = now

    async def run(self) -> None:
        """Publish again and again, until cancelled; an API server or store that is away only delays."""
        while True:
            try:
                await self.publish_all()
            except LetheError as error:
                _log.warning("tenant keys cannot be published now", error=str(error))
            await asyncio.sleep(POLL_SECONDS)

    async def publish_all(self) -> None:
        """Make the keys that are missing and correct the statuses that differ."""
        objects, tenants = await asyncio.gather(self._kube.list(TENANT_KEY), self._kube.list(TENANT))
        claims = [parse_object(item, Tenant) for item in tenants]
        for item in objects:
            try:
                key = parse_object(item, TenantKey)
                if key.metadata.deletion_timestamp is None:
                    await self._publish(key, claims)
            except LetheError as error:  # one key's trouble is not the others'
                metadata = item["metadata"]
                _log.error(
                    "tenant key not published",
                    namespace=metadata["namespace"],
                    name=metadata["name"],
                    error=str(error),
                )

    async def _publish(self, key: TenantKey, tenants: list[Tenant]) -> None:
        status = await self._status(key, tenants)
        if status == key.status:
            return
        metadata = {"uid": key.metadata.uid, "resourceVersion": key.metadata.resource_version}
        # A merge patch keeps what it does not name, so the defaults that msgspec leaves out are named.
        body = {"publicKey": None, "suite": None, "version": None, **msgspec.to_builtins(status)}
        try:
            await self._kube.patch(
                TENANT_KEY,
                key.metadata.name,
                key.metadata.namespace,
                {"metadata": metadata, "status": body},
                subresource="status",
            )
        except ConflictError:
            return  # somebody else wrote it; the next round reads it again
        _log.info(
            "tenant key published",
            namespace=key.metadata.namespace,
            name=key.metadata.name,
            version=status.version,
            reason=status.conditions[0].reason,
        )

    async def _status(self, key: TenantKey, tenants: list[Tenant]) -> TenantKeyStatus:
        namespace, name = key.metadata.namespace, key.metadata.name
        owners = [tenant.metadata.name for tenant in tenants if namespace in tenant.spec.namespaces]
        if not owners:
            message = f"no Tenant lists namespace {namespace}: ask the provider to add it to the tenant's namespaces"
            return self._not_ready(key, reasons.NAMESPACE_WITHOUT_TENANT, message)
        if len(owners) > 1:
            message = f"namespace {namespace} is listed by the Tenants {', '.join(sorted(owners))}, expected one"
            return self._not_ready(key, reasons.NAMESPACE_CLAIMED_TWICE, message)
        stored = await self._keys.ensure(owners[0], namespace, name, key.spec.suite, self._now())
        message = f"version {stored.version}, suite {stored.suite}: seal datasets with --recipient {namespace}/{name}"
        if stored.suite != key.spec.suite:
            message += f"; a key keeps the suite it was made with: for {key.spec.suite} make another TenantKey"
        return TenantKeyStatus(
            public_key=stored.public_key,
            suite=stored.suite,
            version=stored.version,
            observed_generation=key.metadata.generation,
            conditions=[self._condition(key, "True", reasons.KEY_PUBLISHED, message)],
        )

    def _not_ready(self, key: TenantKey, reason: str, message: str) -> TenantKeyStatus:
        return TenantKeyStatus(
            observed_generation=key.metadata.generation, conditions=[self._condition(key, "False", reason, message)]
        )

    def _condition(self, key: TenantKey, status: str, reason: str, message: str) -> Condition:
        earlier = next((item for item in key.status.conditions if item.type == reasons.CONDITION_READY), None)
        kept = earlier is not None and earlier.status == status
        return msgspec.convert(
            {
                "type": reasons.CONDITION_READY,
                "status": status,
                "reason": reason,
                "message": message,
                "lastTransitionTime": earlier.last_transition_time if earlier and kept else format_time(self._now()),
                "observedGeneration": key.metadata.generation,
            },
            Condition,
        )


def _context(tenant: str, namespace: str, name: str, version: int) -> bytes:
    return length_prefixed(_LABEL, tenant.encode(), namespace.encode(), name.encode(), version.to_bytes(4, "big"))


def _suite(key: StoredKey) -> SuiteName:
    for suite in get_args(SuiteName):
        if suite == key.suite:
            found: SuiteName = suite
            return found
    raise CryptoError(f"stored key {key!r} has suite {key.suite}, expected one of {', '.join(get_args(SuiteName))}")
