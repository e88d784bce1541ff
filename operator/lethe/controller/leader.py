"""Which of the operator's replicas acts: the one that holds the Lease `lethe-operator`.

1. The holder renews the Lease many times in its duration. It counts its time from before it sent the renewal, on the
   monotonic clock, and writes nothing once two thirds of the duration are over: `require` is asked before every write.
2. Another takes the Lease over when it has seen no change of it for the whole duration, on its own monotonic clock:
   what machines think the time is does not matter.
3. Every write of the Lease is a compare-and-swap. An answer that did not come counts as a failure.
4. A holder that stops gives the Lease back, and the next one need not wait.
5. A replica that has lost the Lease never goes on: its process ends and begins anew as one that waits.

What an old holder has sent and the API server has not carried out yet may land later. Compare-and-swap makes such
writes do nothing (docs/decisions/0014).
"""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from time import monotonic
from typing import Final

import structlog

from lethe.adapters import kube
from lethe.adapters.kube import Kube, Object
from lethe.model import names
from lethe.model.errors import AlreadyExistsError, ConflictError, LeadershipError, LetheError

_RENEWALS: Final = 8
"""How often the Lease is renewed in its duration."""
_USABLE: Final = 2 / 3
"""The part of the duration in which its holder may write."""

_log = structlog.get_logger()


class Leadership:
    """One replica's view of the Lease."""

    def __init__(self, api: Kube, identity: str, duration: float, time: Callable[[], float] = monotonic) -> None:
        """`duration` in seconds; `time` is a clock that never goes back."""
        self._api = api
        self._identity = identity
        self._duration = duration
        self._time = time
        self._until = float("-inf")
        self._seen = ("", time())
        """Version of another's Lease, and when it was first seen."""
        self.last_contact = time()
        """When the API server last answered about the Lease."""
        self.since = float("-inf")
        """When this replica got the Lease."""

    @property
    def is_held(self) -> bool:
        """Say whether this replica may write now."""
        return self._time() < self._until

    def require(self) -> None:
        """Raise LeadershipError unless this replica may write now."""
        if not self.is_held:
            raise LeadershipError("this replica does not hold the Lease (any more): it writes nothing")

    async def acquire(self) -> None:
        """Wait until the Lease is ours."""
        _log.info("waits for the Lease", identity=self._identity)
        while True:
            if await self._attempt():
                break
            await asyncio.sleep(self._duration / _RENEWALS)
        _log.info("holds the Lease", identity=self._identity)

    async def keep(self) -> None:
        """Renew the Lease; raise LeadershipError when it is lost."""
        while True:
            await asyncio.sleep(self._duration / _RENEWALS)
            await self._attempt()
            self.require()

    async def release(self) -> None:
        """Write nothing from now on, and let another replica begin at once."""
        held, self._until = self.is_held, float("-inf")
        if not held:
            return
        try:
            lease = await self._api.get(kube.LEASE, names.OPERATOR_LEASE, names.SYSTEM_NAMESPACE)
            if lease is not None and (lease.get("spec") or {}).get("holderIdentity") == self._identity:
                await self._api.replace(kube.LEASE, {**lease, "spec": {**lease["spec"], "holderIdentity": ""}})
        except LetheError as error:
            _log.warning("the Lease is not given back; it runs out by itself", error=str(error))

    async def _attempt(self) -> bool:
        """Try to take or renew the Lease once; say whether it is ours."""
        sent = self._time()
        try:
            async with asyncio.timeout(self._duration / 4):
                ours = await self._take()
        except TimeoutError:
            return False
        except ConflictError:
            ours = False
        except LetheError as error:
            _log.warning("the Lease cannot be read or written", error=str(error))
            return False
        self.last_contact = self._time()
        if ours:
            self.since = self.since if self.is_held else sent
            self._until = sent + self._duration * _USABLE
        return ours

    async def _take(self) -> bool:
        lease = await self._api.get(kube.LEASE, names.OPERATOR_LEASE, names.SYSTEM_NAMESPACE)
        if lease is None:
            try:
                await self._api.create(kube.LEASE, self._written(None))
            except AlreadyExistsError:
                return False
            return True
        holder = (lease.get("spec") or {}).get("holderIdentity") or ""
        if holder not in ("", self._identity) and not self._is_abandoned(lease):
            return False
        await self._api.replace(kube.LEASE, self._written(lease))
        return True

    def _is_abandoned(self, lease: Object) -> bool:
        version = lease["metadata"]["resourceVersion"]
        if version != self._seen[0]:
            self._seen = (version, self._time())
        return self._time() - self._seen[1] >= self._duration

    def _written(self, lease: Object | None) -> Object:
        before = (lease or {}).get("spec") or {}
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        renewed = before.get("holderIdentity") == self._identity
        return {
            "metadata": lease["metadata"]
            if lease is not None
            else {"name": names.OPERATOR_LEASE, "namespace": names.SYSTEM_NAMESPACE},
            "spec": {
                "holderIdentity": self._identity,
                "leaseDurationSeconds": int(self._duration),
                "acquireTime": before.get("acquireTime", now) if renewed else now,
                "renewTime": now,
                "leaseTransitions": before.get("leaseTransitions", 0) + (0 if renewed else 1),
            },
        }
