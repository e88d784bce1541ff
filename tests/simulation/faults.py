"""What can happen to a request of the operator, and a connection on which it happens.

1. `FaultyKube` stands before a real or a simulated connection. Reads are disturbed like writes; events never are, since
   nothing follows from them.
2. The errors are those that `lethe.adapters.kube` makes of the same answers of a real server.
3. A slow read is one before which the world has moved on: what a cycle reads first is then older than what it reads
   last. That, and not an old answer, is what happens on a real server: lists without a resourceVersion are never stale.
4. A stale answer is an earlier one to the same question. It may be given only where the operator could read from a
   cache (`MAY_BE_STALE`). The rest must be live, or custody breaks: the ledger, pods and the fence's objects, because
   they say who is on a node; Nodes, because an old boot id looks like a new one, and a new boot id is proof; receipts.
5. Events that are dropped or repeated need no fault of their own: a watch only asks for a cycle, so that cycles come
   late, or too often.
"""

from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, TypeVar

from lethe.adapters import kube
from lethe.adapters.kube import Kind, Object
from lethe.model.errors import ConflictError, RefusedError, UnavailableError

_T = TypeVar("_T")

MAY_BE_STALE: Final = frozenset(
    kind.plural
    for kind in (kube.DATASET, kube.TENANT_KEY, kube.TENANT, kube.NAMESPACE, kube.SERVICEACCOUNT, kube.SECRET)
)
_READS: Final = ("get", "exists", "list", "logs", "bind")


class Stopped(BaseException):
    """The operator's process was killed."""


class Fault(StrEnum):
    """What happens to a request."""

    KILLED_BEFORE = "killed before"
    KILLED_AFTER = "killed after"
    CONFLICT = "409"
    GONE = "410"
    TOO_MANY = "429"
    FAILED = "500"
    TIMED_OUT = "time-out"
    LOST_REPLY = "lost reply"
    """The request was done, and the connection broke before the answer came."""
    SLOW = "slow"
    STALE = "stale"


_REFUSALS: Final = {
    Fault.CONFLICT: ConflictError,
    Fault.GONE: RefusedError,
    Fault.TOO_MANY: UnavailableError,
    Fault.FAILED: UnavailableError,
    Fault.TIMED_OUT: UnavailableError,
}


@dataclass(frozen=True)
class Request:
    """One request of the operator."""

    verb: str
    plural: str
    name: str = ""
    namespace: str = ""
    subresource: str = ""
    body: Any = None

    @property
    def is_write(self) -> bool:
        """Say whether it changes anything."""
        return self.verb not in _READS

    @property
    def phase(self) -> str:
        """Return the phase that a status write sets, or nothing."""
        operations = self.body if isinstance(self.body, list) and self.subresource == "status" else []
        return next((str(each["value"].get("phase", "")) for each in operations if each["path"] == "/status"), "")

    def __str__(self) -> str:
        return " ".join(part for part in (self.verb, self.plural, self.name, self.subresource, self.phase) if part)


Choice = Callable[[Request, int, int], Fault | None]
"""Chooses the fault of a request, given its number and the number of writes so far, both counted from 1."""


def never(request: Request, number: int, writes: int) -> Fault | None:
    """Disturb nothing."""
    return None


def at_write(wanted: int, fault: Fault) -> Choice:
    """Disturb one write, counted from 1."""
    return lambda request, number, writes: fault if request.is_write and writes == wanted else None


def at_first(matches: Iterable[Callable[[Request], bool]], fault: Fault) -> Choice:
    """Disturb the first request that matches, for each of some conditions, and no other."""
    left = list(matches)

    def choose(request: Request, number: int, writes: int) -> Fault | None:
        found = next((each for each in left if each(request)), None)
        if found is None:
            return None
        left.remove(found)
        return fault

    return choose


class Faults:
    """Which requests are disturbed, and the record of all writes."""

    def __init__(self, choose: Choice = never) -> None:
        self.choose = choose
        self.requests = 0
        self.writes: list[Request] = []
        self.meanwhile: Callable[[], None] = _nothing
        """How the world moves on while a request is slow."""
        self.happened: list[tuple[Fault, Request]] = []

    def take(self, request: Request) -> Fault | None:
        """Note a request, and say what happens to it."""
        if request.plural == kube.EVENT.plural:
            return None
        self.requests += 1
        if request.is_write:
            self.writes.append(request)
        fault = self.choose(request, self.requests, len(self.writes))
        if fault is not None:
            self.happened.append((fault, request))
        return fault


def _nothing() -> None:
    """Let nothing happen."""


class FaultyKube:
    """A connection, with the methods of `lethe.adapters.kube.Kube`, on which faults happen."""

    def __init__(self, inner: Any, faults: Faults) -> None:
        self._inner = inner
        self.faults = faults
        self._answers: dict[tuple[str, ...], deque[Any]] = {}

    async def get(self, kind: Kind, name: str, namespace: str = "") -> Object | None:
        request = Request("get", kind.plural, name, namespace)
        return await self._read(request, lambda: self._inner.get(kind, name, namespace))

    async def exists(self, kind: Kind, name: str, namespace: str = "") -> bool:
        request = Request("exists", kind.plural, name, namespace)
        return await self._read(request, lambda: self._inner.exists(kind, name, namespace))

    async def list(self, kind: Kind, namespace: str = "", labels: str = "", fields: str = "") -> list[Object]:
        request = Request("list", kind.plural, labels + fields, namespace)
        return await self._read(request, lambda: self._inner.list(kind, namespace, labels, fields))

    async def list_raw(self, kind: Kind, namespace: str = "", labels: str = "", fields: str = "") -> Any:
        request = Request("list", kind.plural, labels + fields, namespace)
        return await self._read(request, lambda: self._inner.list_raw(kind, namespace, labels, fields))

    async def logs(self, namespace: str, pod: str, container: str) -> bytes:
        request = Request("logs", kube.POD.plural, pod, namespace)
        return await self._send(request, lambda: self._inner.logs(namespace, pod, container))

    async def bind_dry_run(self, namespace: str, pod: str, uid: str, node: str) -> str | None:
        request = Request("bind", kube.POD.plural, pod, namespace)
        return await self._send(request, lambda: self._inner.bind_dry_run(namespace, pod, uid, node))

    async def create(self, kind: Kind, body: Object) -> Object:
        metadata = body["metadata"]
        request = Request("create", kind.plural, metadata["name"], metadata.get("namespace", ""), body=body)
        return await self._send(request, lambda: self._inner.create(kind, body))

    async def replace(self, kind: Kind, body: Object, subresource: str = "") -> Object:
        metadata = body["metadata"]
        request = Request(
            "replace", kind.plural, metadata["name"], metadata.get("namespace", ""), subresource, body=body
        )
        return await self._send(request, lambda: self._inner.replace(kind, body, subresource))

    async def patch(self, kind: Kind, name: str, namespace: str, patch: Any, subresource: str = "") -> Object:
        request = Request("patch", kind.plural, name, namespace, subresource, body=patch)
        return await self._send(request, lambda: self._inner.patch(kind, name, namespace, patch, subresource))

    async def delete(
        self,
        kind: Kind,
        name: str,
        namespace: str = "",
        uid: str | None = None,
        resource_version: str | None = None,
        grace_seconds: int | None = None,
    ) -> None:
        request = Request("delete", kind.plural, name, namespace)
        await self._send(
            request, lambda: self._inner.delete(kind, name, namespace, uid, resource_version, grace_seconds)
        )

    async def _send(self, request: Request, call: Callable[[], Awaitable[_T]]) -> _T:
        return await self._under(self.faults.take(request), request, call)

    async def _read(self, request: Request, call: Callable[[], Awaitable[_T]]) -> _T:
        """Read, from an earlier answer if that is the fault and may be."""
        fault = self.faults.take(request)
        if request.plural not in MAY_BE_STALE:
            return await self._under(fault, request, call)
        earlier = self._answers.setdefault((request.plural, request.name, request.namespace), deque(maxlen=4))
        if fault is Fault.STALE and earlier:
            old: _T = earlier[0]
            return old
        answer = await self._under(fault, request, call)
        if not earlier or earlier[-1] != answer:
            earlier.append(answer)
        return answer

    async def _under(self, fault: Fault | None, request: Request, call: Callable[[], Awaitable[_T]]) -> _T:
        if fault is None or fault is Fault.STALE:
            return await call()
        if fault is Fault.KILLED_BEFORE:
            raise Stopped(str(request))
        if fault in _REFUSALS:
            raise _REFUSALS[fault](f"{request}: {fault}")
        if fault is Fault.SLOW:
            self.faults.meanwhile()
        answer = await call()
        if fault is Fault.KILLED_AFTER:
            raise Stopped(str(request))
        if fault is Fault.LOST_REPLY:
            raise UnavailableError(f"{request}: the connection broke")
        return answer
