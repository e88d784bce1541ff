"""The scheduler of a simulated cluster: binds pods that are ready to be bound, where the fence lets it."""

from lethe.adapters import kube
from lethe.adapters.kube import Object
from lethe.model import names
from lethe.model.errors import ConflictError, RefusedError
from tests.simulation.backend import Backend
from tests.simulation.hosts import gpus_of

_TERMINAL = ("Succeeded", "Failed")


def schedule(api: Backend, lag: float = 0.0) -> bool:
    """Bind what can be bound, at API servers whose caches are up to `lag` seconds late; say whether anything was."""
    moved = False
    for pod in api.all(kube.POD):
        metadata, spec = pod["metadata"], pod["spec"]
        if spec.get("nodeName") or spec.get("schedulingGates") or "deletionTimestamp" in metadata:
            continue
        node = _only_node(spec)
        if node is None or pod["status"].get("phase") in _TERMINAL or not _has_room(api, node, spec):
            continue
        try:
            api.bind(metadata["namespace"], metadata["name"], metadata["uid"], node, lag)
        except (ConflictError, RefusedError):
            continue
        moved = True
    return moved


def _has_room(api: Backend, node: str, spec: Object) -> bool:
    found = api.find(kube.NODE, node)
    if found is None:
        return False
    pods = api.all(kube.POD, fields=f"spec.nodeName={node}")
    used = sum(gpus_of(pod["spec"]) for pod in pods if pod["status"].get("phase") not in _TERMINAL)
    offered = (found.get("status") or {}).get("allocatable") or {}
    return used + gpus_of(spec) <= int(offered.get(names.GPU_RESOURCE, 0))


def _only_node(spec: Object) -> str | None:
    affinity = (spec.get("affinity") or {}).get("nodeAffinity")
    if not affinity:
        return None
    terms = affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    return str(terms[0]["matchFields"][0]["values"][0])
