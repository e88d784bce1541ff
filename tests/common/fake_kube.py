"""A small API server in memory, behind the methods of Kube that the hooks use."""

import copy
from collections.abc import Callable
from typing import Any

from lethe.adapters.kube import Kind
from lethe.model.errors import AlreadyExistsError, ConflictError, RefusedError

Object = dict[str, Any]
Key = tuple[str, str, str]


class FakeKube:
    """Objects by plural, namespace and name. `refuse` says why a write is refused, or None."""

    def __init__(self, *items: tuple[Kind, Object]) -> None:
        self.objects: dict[Key, Object] = {}
        self.writes: list[tuple[str, str, str]] = []
        self.refuse: Callable[[str, Kind, str], str | None] = lambda verb, kind, name: None
        self.reviews: list[Object] = []
        self.allows: Callable[[Object], bool] = lambda spec: False
        self._version = 0
        for kind, item in items:
            self.put(kind, item)

    def put(self, kind: Kind, item: Object) -> None:
        """Store an object as if somebody had written it."""
        self._store(kind, item)

    def names(self, kind: Kind) -> list[str]:
        """Return the names of the stored objects of a kind."""
        return sorted(name for plural, _, name in self.objects if plural == kind.plural)

    async def get(self, kind: Kind, name: str, namespace: str = "") -> Object | None:
        return copy.deepcopy(self.objects.get((kind.plural, namespace, name)))

    async def list(self, kind: Kind, namespace: str = "", labels: str = "", fields: str = "") -> list[Object]:
        wanted = fields.removeprefix("metadata.name=")
        return [
            copy.deepcopy(item)
            for (plural, home, name), item in sorted(self.objects.items())
            if plural == kind.plural
            and namespace in ("", home)
            and wanted in ("", name)
            and _selected(labels, item["metadata"].get("labels") or {})
        ]

    async def create(self, kind: Kind, body: Object) -> Object:
        if kind.plural == "subjectaccessreviews":
            self.reviews.append(body["spec"])
            return {**body, "status": {"allowed": self.allows(body["spec"]), "reason": "a role"}}
        self._check("create", kind, body["metadata"]["name"])
        key = _key(kind, body)
        if key in self.objects:
            raise AlreadyExistsError(f"{key} exists")
        return self._store(kind, body)

    async def replace(self, kind: Kind, body: Object, subresource: str = "") -> Object:
        self._check("replace", kind, body["metadata"]["name"])
        found = self.objects[_key(kind, body)]
        if body["metadata"]["resourceVersion"] != found["metadata"]["resourceVersion"]:
            raise ConflictError("it has changed")
        return self._store(kind, body)

    async def patch(self, kind: Kind, name: str, namespace: str, patch: Object, subresource: str = "") -> Object:
        self._check(f"patch {subresource}".strip(), kind, name)
        found = self.objects[(kind.plural, namespace, name)]
        for field in ("uid", "resourceVersion"):
            if patch.get("metadata", {}).get(field, found["metadata"].get(field)) != found["metadata"].get(field):
                raise ConflictError(f"another {field}")
        return self._store(kind, _merged(found, patch))

    async def delete(self, kind: Kind, name: str, namespace: str = "", **_: Any) -> None:
        self._check("delete", kind, name)
        self.objects.pop((kind.plural, namespace, name), None)

    def _check(self, verb: str, kind: Kind, name: str) -> None:
        why = self.refuse(verb, kind, name)
        if why is not None:
            raise RefusedError(why)
        self.writes.append((verb, kind.plural, name))

    def _store(self, kind: Kind, item: Object) -> Object:
        self._version += 1
        stored = copy.deepcopy(item)
        stored["metadata"] = {
            "uid": f"uid-{self._version}",
            **stored["metadata"],
            "resourceVersion": str(self._version),
        }
        self.objects[_key(kind, stored)] = stored
        return copy.deepcopy(stored)


def _key(kind: Kind, item: Object) -> Key:
    return kind.plural, item["metadata"].get("namespace", ""), item["metadata"]["name"]


def _selected(selector: str, labels: dict[str, str]) -> bool:
    for term in filter(None, selector.split(",")):
        key, _, value = term.partition("=")
        if key not in labels or (value and labels[key] != value):
            return False
    return True


def _merged(target: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = _merged(merged.get(key), value)
    return merged
