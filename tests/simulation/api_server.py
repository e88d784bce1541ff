"""An API server in memory, behind the methods of `lethe.adapters.kube.Kube`.

What decisions rest on is there as the real one does it: uids, resourceVersions and conflicts, JSON patches with tests,
status subresources, finalizers, graceful deletion of pods, owner garbage collection, and the fence's answer to a bind.

`Interruptions` stops whoever writes at a chosen write, before it or after it landed.
"""

import json
import marshal
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from lethe.adapters import kube
from lethe.adapters.kube import Kind, Object
from lethe.formats.quantity import format_time
from lethe.model.errors import AlreadyExistsError, ConflictError, RefusedError, UnavailableError
from lethe.model.names import GROUP, OPEN_NAMESPACE, OPEN_NODES_ACCOUNT, PodUid, virtual_pod_account
from lethe.specs.fence import parse_open_nodes


class Stopped(BaseException):
    """The writer was killed."""


class ManualClock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.time = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)

    def now(self) -> datetime:
        return self.time

    def move(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)


@dataclass
class Interruptions:
    """What happens to one write of the operator, counted from 1."""

    at: int = 0
    how: str = "never"
    """`killed before`, `killed after`, `conflict`, or `lost reply`."""
    writes: int = 0
    log: list[str] = field(default_factory=list)

    def around(self, what: str, write: Callable[[], Object]) -> Object:
        self.writes += 1
        self.log.append(what)
        if self.writes != self.at:
            return write()
        if self.how == "killed before":
            raise Stopped(what)
        if self.how == "conflict":
            raise ConflictError(f"{what}: somebody else was faster")
        answer = write()
        if self.how == "killed after":
            raise Stopped(what)
        if self.how == "lost reply":
            raise UnavailableError(f"{what}: the connection broke")
        return answer


class ApiServer:
    """The store. `client()` gives what the operator uses."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.objects: dict[tuple[str, str, str], Object] = {}
        self.container_logs: dict[str, bytes] = {}
        self.watchers: list[Callable[[], None]] = []
        self._version = 0
        self._uids = 0

    def client(self, interruptions: Interruptions | None = None) -> "FakeKube":
        return FakeKube(self, interruptions or Interruptions())

    # ---- reads

    def find(self, kind: Kind, name: str, namespace: str = "") -> Object | None:
        found = self.objects.get((kind.plural, namespace, name))
        return _copy(found) if found is not None else None

    def get(self, kind: Kind, name: str, namespace: str = "") -> Object:
        found = self.find(kind, name, namespace)
        assert found is not None, f"{kind.plural} {namespace}/{name} is not there"
        return found

    def all(self, kind: Kind, namespace: str = "", labels: str = "", fields: str = "") -> list[Object]:
        return [
            _copy(item)
            for (plural, place, _), item in sorted(self.objects.items())
            if plural == kind.plural
            and namespace in ("", place)
            and _has_labels(item, labels)
            and _has_fields(item, fields)
        ]

    # ---- writes

    def create(self, kind: Kind, body: Object) -> Object:
        item = json.loads(json.dumps(body))
        metadata = item["metadata"]
        key = (kind.plural, metadata.get("namespace", ""), metadata["name"])
        if key in self.objects:
            raise AlreadyExistsError(f"{key} exists")
        if kind.namespaced and ("namespaces", "", key[1]) not in self.objects:
            raise ConflictError(f"namespace {key[1]} not found")
        self._uids += 1
        metadata |= {
            "uid": f"{self._uids:08x}-{kind.plural}",
            "creationTimestamp": format_time(self.clock.now()),
            "generation": 1,
        }
        item |= {"apiVersion": kind.api_version, "kind": kind.kind}
        if kind.group == GROUP:
            item.pop("status", None)
        if kind == kube.POD:
            item.setdefault("status", {"phase": "Pending"})
        return self._store(key, item)

    def update(self, kind: Kind, body: Object, subresource: str = "") -> Object:
        metadata = body["metadata"]
        key = (kind.plural, metadata.get("namespace", ""), metadata["name"])
        live = self.objects.get(key)
        if live is None:
            raise ConflictError(f"{key} not found")
        for name in ("uid", "resourceVersion"):
            if metadata.get(name, live["metadata"][name]) != live["metadata"][name]:
                raise ConflictError(f"{key}: {name} is another one")
        new = json.loads(json.dumps(body))
        if kind.group == GROUP:
            if subresource == "status":
                new = {**_copy(live), "status": new.get("status")}
            elif "status" in live:
                new["status"] = _copy(live["status"])
        for name in ("uid", "creationTimestamp", "deletionTimestamp", "generation"):
            if name in live["metadata"]:
                new["metadata"][name] = live["metadata"][name]
        added = set(new["metadata"].get("finalizers") or []) - set(live["metadata"].get("finalizers") or [])
        if live["metadata"].get("deletionTimestamp") and added:
            raise RefusedError(f"{key}: no new finalizers can be added to an object that is being deleted")
        if new == live:
            return _copy(live)
        if new.get("spec") != live.get("spec"):
            new["metadata"]["generation"] += 1
        stored = self._store(key, new)
        self._collect(key)
        return stored

    def patch(self, kind: Kind, name: str, namespace: str, patch: Any, subresource: str = "") -> Object:
        live = self.objects.get((kind.plural, namespace, name))
        if live is None:
            raise ConflictError(f"{kind.plural} {namespace}/{name} not found")
        body = _copy(live)
        if isinstance(patch, list):
            for operation in patch:
                _apply(body, operation)
        else:
            _merge(body, patch)
        return self.update(kind, body, subresource)

    def delete(
        self, kind: Kind, name: str, namespace: str = "", uid: str | None = None, grace: int | None = None
    ) -> None:
        key = (kind.plural, namespace, name)
        live = self.objects.get(key)
        if live is None:
            return
        if uid is not None and uid != live["metadata"]["uid"]:
            raise ConflictError(f"{key}: uid is another one")
        graceful = kind == kube.POD and live["spec"].get("nodeName") and _phase(live) not in ("Succeeded", "Failed")
        if "deletionTimestamp" not in live["metadata"]:
            own = live["spec"].get("terminationGracePeriodSeconds", 30) if graceful else 0
            grace = own if grace is None or not graceful else grace
            live["metadata"]["deletionTimestamp"] = format_time(self.clock.now() + timedelta(seconds=grace))
            live["metadata"]["deletionGracePeriodSeconds"] = grace
            self._store(key, live)
        if not graceful:
            self._collect(key)

    def finish_deletion(self, namespace: str, name: str) -> None:
        """What a kubelet does last: say that a pod may go."""
        key = ("pods", namespace, name)
        if key in self.objects and "deletionTimestamp" in self.objects[key]["metadata"]:
            self.objects[key]["metadata"]["deletionGracePeriodSeconds"] = 0
            self._collect(key)

    # ---- the fence

    def may_occupy(self, namespace: str, uid: str, node: str) -> bool:
        """Answer as the admission policies would."""
        opened = self.find(kube.ROLE, OPEN_NODES_ACCOUNT, OPEN_NAMESPACE)
        if opened is not None and node in parse_open_nodes(opened):
            return True
        for binding in self.all(kube.ROLEBINDING, namespace):
            role = self.find(kube.ROLE, binding["roleRef"]["name"], namespace)
            subjects = [subject["name"] for subject in binding["subjects"]]
            rules = role["rules"] if role is not None else []
            if virtual_pod_account(PodUid(uid)) in subjects and any(node in rule["resourceNames"] for rule in rules):
                return True
        return False

    # ---- inside

    def _store(self, key: tuple[str, str, str], item: Object) -> Object:
        self._version += 1
        item["metadata"]["resourceVersion"] = str(self._version)
        self.objects[key] = item
        for watcher in self.watchers:
            watcher()
        return _copy(item)

    def _collect(self, key: tuple[str, str, str]) -> None:
        """Remove an object that is being deleted and that nothing keeps, and delete what it owns."""
        item = self.objects.get(key)
        if item is None or "deletionTimestamp" not in item["metadata"] or item["metadata"].get("finalizers"):
            return
        if key[0] == "pods" and item["metadata"].get("deletionGracePeriodSeconds"):
            return
        del self.objects[key]
        for plural, namespace, name in list(self.objects):
            owned = self.objects.get((plural, namespace, name))
            owners = (owned or {}).get("metadata", {}).get("ownerReferences") or []
            if any(owner["uid"] == item["metadata"]["uid"] for owner in owners):
                self.delete(kube.POD, name, namespace)


class FakeKube:
    """A connection, with the methods of `lethe.adapters.kube.Kube`."""

    def __init__(self, server: ApiServer, interruptions: Interruptions) -> None:
        self._server = server
        self._interruptions = interruptions

    async def get(self, kind: Kind, name: str, namespace: str = "") -> Object | None:
        return self._server.find(kind, name, namespace)

    async def exists(self, kind: Kind, name: str, namespace: str = "") -> bool:
        return self._server.find(kind, name, namespace) is not None

    async def list(self, kind: Kind, namespace: str = "", labels: str = "", fields: str = "") -> Any:
        return self._server.all(kind, namespace, labels, fields)

    async def list_raw(self, kind: Kind, namespace: str = "", labels: str = "", fields: str = "") -> Any:
        return [msgspec.Raw(msgspec.json.encode(item)) for item in self._server.all(kind, namespace, labels, fields)]

    async def create(self, kind: Kind, body: Object) -> Object:
        if kind == kube.EVENT:
            return self._server.create(kind, body)
        return self._write(f"create {kind.plural} {body['metadata']['name']}", lambda: self._server.create(kind, body))

    async def replace(self, kind: Kind, body: Object, subresource: str = "") -> Object:
        return self._write(
            f"replace {kind.plural} {body['metadata']['name']}",
            lambda: self._server.update(kind, body, subresource),
        )

    async def patch(self, kind: Kind, name: str, namespace: str, patch: Any, subresource: str = "") -> Object:
        return self._write(
            f"patch {kind.plural} {name} {subresource}",
            lambda: self._server.patch(kind, name, namespace, patch, subresource),
        )

    async def delete(
        self,
        kind: Kind,
        name: str,
        namespace: str = "",
        uid: str | None = None,
        resource_version: str | None = None,
        grace_seconds: int | None = None,
    ) -> None:
        def write() -> Object:
            self._server.delete(kind, name, namespace, uid, grace_seconds)
            return {}

        self._write(f"delete {kind.plural} {name}", write)

    async def logs(self, namespace: str, pod: str, container: str) -> bytes:
        return self._server.container_logs.get(f"{namespace}/{pod}/{container}", b"")

    async def own_name(self) -> str:
        return "somebody"

    async def bind_dry_run(self, namespace: str, pod: str, uid: str, node: str) -> str | None:
        return None if self._server.may_occupy(namespace, uid, node) else f"node {node} is fenced"

    def _write(self, what: str, write: Callable[[], Object]) -> Object:
        return self._interruptions.around(what.rstrip(), write)


def _copy(item: Object) -> Object:
    """Copy a JSON document, fast."""
    copied: Object = marshal.loads(marshal.dumps(item))
    return copied


def _phase(pod: Object) -> str:
    return str(pod["status"].get("phase"))


def _has_labels(item: Object, selector: str) -> bool:
    labels = item["metadata"].get("labels") or {}
    return all(_holds(labels, term) for term in re.split(r",(?![^(]*\))", selector) if term)


def _holds(labels: Object, term: str) -> bool:
    if term.startswith("!"):
        return term[1:] not in labels
    if " in (" in term:
        key, _, values = term.partition(" in (")
        return labels.get(key) in values.rstrip(")").split(",")
    key, _, value = term.partition("=")
    return bool(labels.get(key) == value)


def _has_fields(item: Object, selector: str) -> bool:
    if not selector:
        return True
    path, _, value = selector.partition("=")
    found: Any = item
    for part in path.split("."):
        found = (found or {}).get(part)
    return bool(found == value)


def _apply(body: Object, operation: Object) -> None:
    *parents, last = (part.replace("~1", "/") for part in operation["path"].strip("/").split("/"))
    place: Any = body
    for part in parents:
        place = place[part]
    if operation["op"] == "test":
        if place.get(last) != operation["value"]:
            raise ConflictError(f"the test of {operation['path']} does not hold")
    elif operation["op"] == "replace" and last not in place:
        raise RefusedError(f"{operation['path']} is not there")
    else:
        place[last] = _copy(operation["value"])


def _merge(body: Object, patch: Object) -> None:
    for key, value in patch.items():
        if value is None:
            body.pop(key, None)
        elif isinstance(value, dict):
            _merge(body.setdefault(key, {}), value)
        else:
            body[key] = _copy(value)
