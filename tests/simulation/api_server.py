"""An API server in memory, behind the methods of `lethe.adapters.kube.Kube`.

What decisions rest on is there as the real one does it: uids, resourceVersions and conflicts, JSON patches with tests,
status subresources, generations, finalizers, graceful deletion of pods, and the fence's answer to a bind. A contract
suite holds it against a real server (tests/apiserver/test_kube_contract.py).

1. An object that is stored is never changed in place: every write stores a new one. What is read may be kept, and must
   not be changed.
2. Owners' garbage collection, which is a controller's work on a real cluster, happens at once.
3. A bind may be judged by the fence as it was a moment ago (`lag`), as by an API server whose cache is late.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

from lethe.adapters import kube
from lethe.adapters.kube import Kind, Object
from lethe.formats.quantity import format_time
from lethe.model.errors import AlreadyExistsError, ConflictError, RefusedError
from lethe.model.names import GROUP, OPEN_NAMESPACE, OPEN_NODES_ACCOUNT, SYSTEM_NAMESPACE, PodUid, virtual_pod_account
from lethe.specs.fence import parse_names
from tests.simulation.documents import apply, copy, has_fields, has_labels, merge

Place = tuple[str, str]
"""Namespace and name."""
Observer = Callable[[str, Object | None, Object | None], None]
"""Told about every write: plural, the object before and after it."""

_TERMINAL: Final = ("Succeeded", "Failed")
_SYSTEM: Final = ("kube-system", SYSTEM_NAMESPACE)
_FENCE: Final = (kube.ROLE.plural, kube.ROLEBINDING.plural)


class ManualClock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.time = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)

    def now(self) -> datetime:
        return self.time

    def monotonic(self) -> float:
        return self.time.timestamp()

    def move(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)


class SkewedClock:
    """Another machine's clock, which differs from the true one by `offset` seconds."""

    def __init__(self, true: ManualClock) -> None:
        self._true = true
        self.offset = 0.0

    def now(self) -> datetime:
        return self._true.time + timedelta(seconds=self.offset)

    def monotonic(self) -> float:
        return self._true.monotonic()


class ApiServer:
    """The store. `client()` gives what the operator uses."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.container_logs: dict[str, bytes] = {}
        self.observers: list[Observer] = []
        self.version = 0
        self._uids = 0
        self._encoded: dict[str, msgspec.Raw] = {}
        self._kinds: dict[str, dict[Place, Object]] = {}
        self._stalled: list[tuple[dict[Place, Object], dict[Place, Object]]] = []
        self._fences: list[tuple[datetime, dict[Place, Object], dict[Place, Object]]] = []
        """Roles and RoleBindings as they were until a moment in the past."""

    def client(self) -> "FakeKube":
        return FakeKube(self)

    # ---- reads

    def find(self, kind: Kind, name: str, namespace: str = "") -> Object | None:
        return self._of(kind.plural).get((namespace, name))

    def get(self, kind: Kind, name: str, namespace: str = "") -> Object:
        found = self.find(kind, name, namespace)
        assert found is not None, f"{kind.plural} {namespace}/{name} is not there"
        return found

    def all(self, kind: Kind, namespace: str = "", labels: str = "", fields: str = "") -> list[Object]:
        items = self._of(kind.plural)
        return [
            item
            for place in sorted(items)
            if namespace in ("", place[0])
            for item in (items[place],)
            if (not labels or has_labels(item, labels)) and (not fields or has_fields(item, fields))
        ]

    # ---- writes

    def create(self, kind: Kind, body: Object) -> Object:
        item = copy(body)
        metadata = item["metadata"]
        place = (metadata.get("namespace", ""), metadata["name"])
        if kind.namespaced and ("", place[0]) not in self._of("namespaces"):
            raise ConflictError(f"namespace {place[0]} not found")
        if place in self._of(kind.plural):
            raise AlreadyExistsError(f"{kind.plural} {place} exists")
        self._uids += 1
        metadata |= {
            "uid": f"{self._uids:08x}-{kind.plural}",
            "creationTimestamp": format_time(self.clock.time),
            "generation": 1,
        }
        item |= {"apiVersion": kind.api_version, "kind": kind.kind}
        if kind.group == GROUP:
            item.pop("status", None)
        if kind == kube.POD:
            item["status"] = {"phase": "Pending"}
        return self._store(kind.plural, place, item)

    def update(self, kind: Kind, body: Object, subresource: str = "") -> Object:
        metadata = body["metadata"]
        place = (metadata.get("namespace", ""), metadata["name"])
        live = self._of(kind.plural).get(place)
        if live is None:
            raise ConflictError(f"{kind.plural} {place} not found")
        known = live["metadata"]
        for name in ("uid", "resourceVersion"):
            if metadata.get(name, known[name]) != known[name]:
                raise ConflictError(f"{kind.plural} {place}: {name} is another one")
        new = copy(body)
        if subresource == "status":
            new = {**live, "metadata": {**known}, "status": new.get("status")}
        elif _has_status(kind):
            new.pop("status", None)
            if "status" in live:
                new["status"] = live["status"]
        kept = ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation")
        new["metadata"] |= {name: known[name] for name in (*kept, "resourceVersion") if name in known}
        if not new["metadata"].get("finalizers"):
            new["metadata"].pop("finalizers", None)
        added = set(new["metadata"].get("finalizers") or []) - set(known.get("finalizers") or [])
        if known.get("deletionTimestamp") and added:
            raise RefusedError(f"{place}: no new finalizers can be added to an object that is being deleted")
        if new == live:
            return live
        if new.get("spec") != live.get("spec"):
            new["metadata"]["generation"] += 1
        stored = self._store(kind.plural, place, new)
        self._collect(kind.plural, place)
        return stored

    def patch(self, kind: Kind, name: str, namespace: str, patch: Any, subresource: str = "") -> Object:
        live = self._of(kind.plural).get((namespace, name))
        if live is None:
            raise ConflictError(f"{kind.plural} {namespace}/{name} not found")
        body = copy(live)
        if isinstance(patch, list):
            for operation in patch:
                apply(body, operation)
        else:
            merge(body, patch)
        return self.update(kind, body, subresource)

    def delete(
        self, kind: Kind, name: str, namespace: str = "", uid: str | None = None, grace: int | None = None
    ) -> None:
        place = (namespace, name)
        live = self._of(kind.plural).get(place)
        if live is None:
            return
        metadata = live["metadata"]
        if uid is not None and uid != metadata["uid"]:
            raise ConflictError(f"{place}: uid is another one")
        graceful = kind == kube.POD and live["spec"].get("nodeName") and live["status"].get("phase") not in _TERMINAL
        own = live["spec"].get("terminationGracePeriodSeconds", 30) if graceful else 0
        seconds = own if grace is None or not graceful else grace
        if "deletionTimestamp" in metadata:
            seconds = min(seconds if grace is not None or not graceful else own, metadata["deletionGracePeriodSeconds"])
        if metadata.get("deletionGracePeriodSeconds") != seconds:
            until = format_time(self.clock.time + timedelta(seconds=seconds))
            ending = {"deletionTimestamp": until, "deletionGracePeriodSeconds": seconds}
            if not metadata.get("finalizers") and seconds == 0:
                self._remove(kind.plural, place)
                return
            self._store(kind.plural, place, {**live, "metadata": {**metadata, **ending}})
        self._collect(kind.plural, place)

    def encode(self, item: Object) -> msgspec.Raw:
        """Return a stored object as it goes over the wire."""
        version = item["metadata"]["resourceVersion"]
        if version not in self._encoded:
            self._encoded[version] = msgspec.Raw(msgspec.json.encode(item))
        return self._encoded[version]

    # ---- the fence

    def bind(self, namespace: str, name: str, uid: str, node: str, lag: float = 0.0) -> None:
        """Bind a pod to a node, or raise what the real server answers."""
        pod = self._of("pods").get((namespace, name))
        if pod is None or pod["metadata"]["uid"] != uid:
            raise ConflictError(f"pod {namespace}/{name} is another one")
        spec = pod["spec"]
        if spec.get("nodeName") or spec.get("schedulingGates") or "deletionTimestamp" in pod["metadata"]:
            raise ConflictError(f"pod {namespace}/{name} cannot be bound")
        allowed = self.may_occupy(namespace, uid, node) or (lag > 0 and self._might_occupy(namespace, uid, node, lag))
        if namespace not in _SYSTEM and not allowed:
            raise RefusedError(f"node {node} is fenced")
        self._store("pods", (namespace, name), {**pod, "spec": {**spec, "nodeName": node}})

    def may_occupy(self, namespace: str, uid: str, node: str) -> bool:
        """Answer as the admission policies would, at whichever of the API servers would let the pod in."""
        fences = [(self._of("roles"), self._of("rolebindings")), *self._stalled]
        return any(_may_occupy(roles, bindings, namespace, uid, node) for roles, bindings in fences)

    def stall(self, *, on: bool) -> None:
        """Let another API server go on with the fence as it is now, however long; or let it catch up."""
        self._stalled = [({**self._of("roles")}, {**self._of("rolebindings")})] if on else []

    def _might_occupy(self, namespace: str, uid: str, node: str, lag: float) -> bool:
        """Answer as an API server whose cache may be this many seconds late."""
        since = self.clock.time - timedelta(seconds=lag)
        return any(
            _may_occupy(roles, bindings, namespace, uid, node)
            for until, roles, bindings in self._fences
            if until >= since
        )

    # ---- inside

    def _of(self, plural: str) -> dict[Place, Object]:
        return self._kinds.setdefault(plural, {})

    def _store(self, plural: str, place: Place, item: Object) -> Object:
        self._keep_fence(plural)
        self.version += 1
        item = {**item, "metadata": {**item["metadata"], "resourceVersion": str(self.version)}}
        before = self._of(plural).get(place)
        if before is not None:
            self._encoded.pop(before["metadata"]["resourceVersion"], None)
        self._of(plural)[place] = item
        for observer in self.observers:
            observer(plural, before, item)
        return item

    def _remove(self, plural: str, place: Place) -> None:
        self._keep_fence(plural)
        self.version += 1
        item = self._of(plural).pop(place)
        for observer in self.observers:
            observer(plural, item, None)
        uid = item["metadata"]["uid"]
        for pod in list(self._of("pods").values()):
            metadata = pod["metadata"]
            if any(owner["uid"] == uid for owner in metadata.get("ownerReferences") or []):
                self.delete(kube.POD, metadata["name"], metadata["namespace"])

    def _collect(self, plural: str, place: Place) -> None:
        """Remove an object that is being deleted and that nothing keeps."""
        item = self._of(plural).get(place)
        if item is None or "deletionTimestamp" not in item["metadata"] or item["metadata"].get("finalizers"):
            return
        if not item["metadata"]["deletionGracePeriodSeconds"]:
            self._remove(plural, place)

    def _keep_fence(self, plural: str) -> None:
        if plural in _FENCE:
            old = self.clock.time - timedelta(seconds=10)
            self._fences = [entry for entry in self._fences if entry[0] >= old]
            self._fences.append((self.clock.time, {**self._of("roles")}, {**self._of("rolebindings")}))


class FakeKube:
    """A connection, with the methods of `lethe.adapters.kube.Kube`."""

    def __init__(self, server: ApiServer) -> None:
        self._server = server

    async def get(self, kind: Kind, name: str, namespace: str = "") -> Object | None:
        return self._server.find(kind, name, namespace)

    async def exists(self, kind: Kind, name: str, namespace: str = "") -> bool:
        return self._server.find(kind, name, namespace) is not None

    async def list(self, kind: Kind, namespace: str = "", labels: str = "", fields: str = "") -> Any:
        return self._server.all(kind, namespace, labels, fields)

    async def list_raw(self, kind: Kind, namespace: str = "", labels: str = "", fields: str = "") -> Any:
        return [self._server.encode(item) for item in self._server.all(kind, namespace, labels, fields)]

    async def create(self, kind: Kind, body: Object) -> Object:
        return self._server.create(kind, body)

    async def replace(self, kind: Kind, body: Object, subresource: str = "") -> Object:
        return self._server.update(kind, body, subresource)

    async def patch(self, kind: Kind, name: str, namespace: str, patch: Any, subresource: str = "") -> Object:
        return self._server.patch(kind, name, namespace, patch, subresource)

    async def delete(
        self,
        kind: Kind,
        name: str,
        namespace: str = "",
        uid: str | None = None,
        resource_version: str | None = None,
        grace_seconds: int | None = None,
    ) -> None:
        self._server.delete(kind, name, namespace, uid, grace_seconds)

    async def logs(self, namespace: str, pod: str, container: str) -> bytes:
        return self._server.container_logs.get(f"{namespace}/{pod}/{container}", b"")

    async def own_name(self) -> str:
        return "somebody"

    async def bind_dry_run(self, namespace: str, pod: str, uid: str, node: str) -> str | None:
        return None if self._server.may_occupy(namespace, uid, node) else f"node {node} is fenced"


def _has_status(kind: Kind) -> bool:
    return kind.group == GROUP or kind in (kube.POD, kube.NODE)


def _may_occupy(roles: dict[Place, Object], bindings: dict[Place, Object], namespace: str, uid: str, node: str) -> bool:
    opened = roles.get((OPEN_NAMESPACE, OPEN_NODES_ACCOUNT))
    if opened is not None and node in parse_names(opened):
        return True
    account = virtual_pod_account(PodUid(uid))
    for (place, _), binding in bindings.items():
        if place != namespace or all(subject["name"] != account for subject in binding["subjects"]):
            continue
        role = roles.get((namespace, binding["roleRef"]["name"]))
        if role is not None and any(node in rule["resourceNames"] for rule in role["rules"]):
            return True
    return False
