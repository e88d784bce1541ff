"""What a cluster that others made needs before the suite can run on it: node roles, a place for Lethe's own pods.

1. GPU nodes are those that carry the label; where none does, all workers but what is needed for Lethe's own pods.
2. Lethe's own pods need one node without GPUs that takes ordinary pods: where there is none, the control plane's
   taint is taken away.
3. All changes are written down in the state folder, and undone by `restore`.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .errors import ClusterError
from .kubectl import Kubectl
from .provider import GPU_LABEL, ClusterNode

CONTROL_PLANE = "node-role.kubernetes.io/control-plane"


def plan(nodes: Sequence[dict[str, Any]]) -> tuple[list[str], list[str]]:
    """Return the nodes to label as GPU nodes and the nodes to free of the control plane's taint."""
    workers = [node for node in nodes if CONTROL_PLANE not in _labels(node)]
    labelled = [node for node in nodes if _labels(node).get(GPU_LABEL) == "true"]
    chosen = labelled or (workers[1:] if len(workers) > 2 else workers)
    if len(chosen) < 2:
        raise ClusterError(
            f"The suite needs two nodes for GPUs and one without; found {len(nodes)} nodes, {len(workers)} of them "
            f"workers. Add nodes, or label two as {GPU_LABEL}=true."
        )
    others = [node for node in nodes if node not in chosen]
    if not others:
        raise ClusterError(f"All nodes carry {GPU_LABEL}=true; the suite needs one without GPUs for Lethe's own pods.")
    open_nodes = [node for node in others if not any(_blocks(taint) for taint in node["spec"].get("taints", []))]
    to_free = [] if open_nodes else [_name(others[0])]
    return [_name(node) for node in chosen if node not in labelled], to_free


def prepare(kubectl: Kubectl, record: Path) -> None:
    """Label and free nodes as planned, and write down what was changed."""
    to_label, to_free = plan(kubectl.read("get", "nodes")["items"])
    before = json.loads(record.read_text()) if record.exists() else {"labelled": [], "freed": []}
    changed = {"labelled": before["labelled"] + to_label, "freed": before["freed"] + to_free}
    record.parent.mkdir(parents=True, exist_ok=True)
    record.write_text(json.dumps(changed))
    for node in to_label:
        kubectl("label", "node", node, f"{GPU_LABEL}=true", "--overwrite")
    for node in to_free:
        kubectl("taint", "node", node, f"{CONTROL_PLANE}:NoSchedule-")


def restore(kubectl: Kubectl, record: Path) -> None:
    """Undo what `prepare` changed."""
    if not record.exists():
        return
    changed = json.loads(record.read_text())
    for node in changed["labelled"]:
        kubectl("label", "node", node, f"{GPU_LABEL}-")
    for node in changed["freed"]:
        kubectl("taint", "node", node, f"{CONTROL_PLANE}=:NoSchedule", "--overwrite")
    record.unlink()


def cluster_nodes(kubectl: Kubectl) -> list[ClusterNode]:
    """Return the nodes as the suite sees them, the one for Lethe's own pods first."""
    found = []
    for node in kubectl.read("get", "nodes")["items"]:
        address = next(it["address"] for it in node["status"]["addresses"] if it["type"] == "InternalIP")
        blocked = any(_blocks(taint) for taint in node["spec"].get("taints", []))
        found.append(
            (blocked, ClusterNode(name=_name(node), address=address, gpu=_labels(node).get(GPU_LABEL) == "true"))
        )
    return [node for _, node in sorted(found, key=lambda each: (each[1].gpu, each[0], each[1].name))]


def _labels(node: dict[str, Any]) -> dict[str, str]:
    labels: dict[str, str] = node["metadata"].get("labels", {})
    return labels


def _name(node: dict[str, Any]) -> str:
    name: str = node["metadata"]["name"]
    return name


def _blocks(taint: dict[str, Any]) -> bool:
    return taint["effect"] in ("NoSchedule", "NoExecute")
