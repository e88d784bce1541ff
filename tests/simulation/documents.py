"""Documents of an API server: how they are copied, selected and patched."""

import re
from functools import cache
from typing import Any

import msgspec

from lethe.adapters.kube import Object
from lethe.model.errors import ConflictError, RefusedError


def copy(item: Object) -> Object:
    """Copy a document as the wire would."""
    copied: Object = msgspec.json.decode(msgspec.json.encode(item))
    return copied


def has_labels(item: Object, selector: str) -> bool:
    """Say whether a label selector selects an object."""
    labels = item["metadata"].get("labels") or {}
    return all(_holds(labels, term) for term in _terms(selector))


@cache
def _terms(selector: str) -> list[str]:
    return [term for term in re.split(r",(?![^(]*\))", selector) if term]


def _holds(labels: Object, term: str) -> bool:
    if term.startswith("!"):
        return term[1:] not in labels
    if " in (" in term:
        key, _, values = term.partition(" in (")
        return labels.get(key) in values.rstrip(")").split(",")
    key, _, value = term.partition("=")
    return bool(labels.get(key) == value)


def has_fields(item: Object, selector: str) -> bool:
    """Say whether a field selector selects an object."""
    path, _, value = selector.partition("=")
    found: Any = item
    for part in path.split("."):
        found = (found or {}).get(part)
    return bool(found == value)


def apply(body: Object, operation: Object) -> None:
    """Carry out one operation of a JSON patch."""
    *parents, last = (part.replace("~1", "/") for part in operation["path"].strip("/").split("/"))
    place: Any = body
    for part in parents:
        place = place.get(part)
        if place is None:
            raise RefusedError(f"{operation['path']} is not there")
    if operation["op"] == "test":
        if place.get(last) != operation["value"]:
            raise ConflictError(f"the test of {operation['path']} does not hold")
    else:
        place[last] = operation["value"]


def merge(body: Object, patch: Object) -> None:
    """Carry out a merge patch."""
    for key, value in patch.items():
        if value is None:
            body.pop(key, None)
        elif isinstance(value, dict):
            if not isinstance(body.get(key), dict):
                body[key] = {}
            merge(body[key], value)
        else:
            body[key] = value
