"""How pods of ours get onto exactly one node."""

from typing import Any

from lethe.model.names import TAINT


def required_node(node: str) -> dict[str, Any]:
    """Return the affinity that lets a pod run on this node and no other."""
    term = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}}


def own_toleration() -> dict[str, Any]:
    """Return the toleration of our taint."""
    return {"key": TAINT, "operator": "Exists", "effect": "NoSchedule"}
