"""Objects of a cluster, read with kubectl: look one up, wait for what must become true of it."""

from collections.abc import Callable
from typing import Any

from tests.cluster.errors import ClusterError
from tests.cluster.kubectl import Kubectl
from tests.cluster.waiting import until

Object = dict[str, Any]


def find(kubectl: Kubectl, kind: str, name: str, namespace: str = "") -> Object | None:
    """Return an object, or None when there is none."""
    try:
        return kubectl.read("get", kind, name, *_in(namespace))
    except ClusterError as error:
        if "(NotFound)" in str(error):
            return None
        raise


def find_all(kubectl: Kubectl, kind: str, namespace: str = "", labels: str = "") -> list[Object]:
    """Return all objects of a kind, in one namespace or in all."""
    where = _in(namespace) or ["--all-namespaces"]
    return kubectl.read("get", kind, *where, *([f"--selector={labels}"] if labels else []))["items"]


def remove(kubectl: Kubectl, kind: str, name: str, namespace: str = "", *, seconds: int = 120) -> None:
    """Delete an object and wait until it is gone; a missing one is no error."""
    kubectl("delete", kind, name, "--ignore-not-found", f"--timeout={seconds}s", *_in(namespace))


def logs(kubectl: Kubectl, pod: str, namespace: str, container: str = "") -> str:
    """Return a container's log."""
    return kubectl("logs", pod, *_in(namespace), *([f"--container={container}"] if container else []))


def wait_until(
    kubectl: Kubectl,
    kind: str,
    name: str,
    holds: Callable[[Object], bool],
    namespace: str = "",
    *,
    what: str,
    seconds: float,
    on_change: Callable[[Object], None] = lambda _: None,
) -> Object:
    """Read an object until a condition holds, telling each change on the way, and return it.

    `what` completes the sentence "waited in vain for ..."; the object's status as last seen stands behind it.
    """
    seen: list[Object] = [{}]

    def look() -> bool:
        found = find(kubectl, kind, name, namespace)
        if found is None:
            return False
        if found["metadata"]["resourceVersion"] != seen[0].get("metadata", {}).get("resourceVersion"):
            seen[0] = found
            on_change(found)
        return holds(found)

    try:
        until(look, what=what, seconds=seconds)
    except ClusterError as error:
        raise ClusterError(f"{error} {kind} {name} was last seen as {seen[0].get('status', 'absent')}.") from error
    return seen[0]


def wait_for_running(kubectl: Kubectl, pod: str, namespace: str, *, what: str, seconds: float = 60) -> Object:
    """Wait until a pod runs, and return it."""
    return wait_until(
        kubectl, "pod", pod, lambda found: phase(found) == "Running", namespace, what=what, seconds=seconds
    )


def condition(found: Object, kind: str) -> Object:
    """Return the condition of this type, or an empty one."""
    return next((c for c in found.get("status", {}).get("conditions", []) if c["type"] == kind), {})


def phase(found: Object) -> str:
    """Return an object's phase, empty when it has none yet."""
    return found.get("status", {}).get("phase", "")


def message(found: Object) -> str:
    """Return the sentence that an object's status says."""
    return found.get("status", {}).get("message", "")


def _in(namespace: str) -> list[str]:
    return [f"--namespace={namespace}"] if namespace else []
