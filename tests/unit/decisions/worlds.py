"""Small worlds around one GPU node, for tables of decisions about it."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from lethe.decisions.actions import Action, WriteNodeStatus
from lethe.decisions.admission import Admission
from lethe.decisions.custody import decide_node
from lethe.decisions.snapshot import ContainerFacts, NodeFacts, PodFacts, Snapshot
from lethe.formats.quantity import format_time
from lethe.model.config import OperatorConfig
from lethe.model.names import POD_FINALIZER
from lethe.model.resources import GPUNode, NodeStatus, SecureTrainingJob, Tenant

NOW = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
LONG_AGO = format_time(NOW - timedelta(hours=1))
MINUTES_AGO = format_time(NOW - timedelta(minutes=3))
RECENTLY = format_time(NOW - timedelta(seconds=1))
NODE = "gpu-1"
UID = "pod-1"
TENANT = {"metadata": {"name": "acme"}, "spec": {"namespaces": ["acme"]}}
HOLDER = {
    "tenant": "acme",
    "namespace": "acme",
    "job": "digits",
    "jobUid": "job-1",
    "podUids": [UID],
    "since": LONG_AGO,
}
PAST = {
    "tenant": "acme",
    "namespace": "acme",
    "jobs": ["digits"],
    "jobUids": ["job-1"],
    "since": LONG_AGO,
    "until": LONG_AGO,
}
RECEIPT = {"name": "gpu-1-3", "sha256": "00", "epoch": 3, "bootId": "boot-1"}
ENDED = {"train": ContainerFacts(state="terminated", reason="Completed")}
RUNNING = {"train": ContainerFacts(state="running")}
LOST = {"train": ContainerFacts(state="terminated", reason="ContainerStatusUnknown", exit_code=137)}


def ledger(phase: str, name: str = NODE, spec: dict[str, Any] | None = None, **status: Any) -> GPUNode:
    """Return a GPUNode of boot-1 and epoch 3; None as a value leaves a field out."""
    given = {
        "phase": phase,
        "since": LONG_AGO,
        "epoch": 3,
        "nodeUid": "node-1",
        "bootId": "boot-1",
        "systemUuid": "machine-1",
        "gpuCount": 2,
        "lastReceipt": RECEIPT,
        **({"holder": HOLDER} if phase in ("Assigned", "Draining") else {}),
        **status,
    }
    return msgspec.convert(
        {
            "metadata": {"name": name, "uid": f"ledger-{name}", "resourceVersion": "1"},
            "spec": {"managed": True, **(spec or {})},
            "status": {key: value for key, value in given.items() if value is not None},
        },
        GPUNode,
    )


def facts(name: str = NODE, **changes: Any) -> NodeFacts:
    """Return the Node that the ledger above was written for."""
    given = {
        "name": name,
        "uid": "node-1",
        "boot_id": "boot-1",
        "system_uuid": "machine-1",
        "gpu_capacity": 2,
        "gpu_allocatable": changes.get("gpu_capacity", 2),
        "is_gpu_node": True,
        "is_marked": True,
        "has_mark": True,
        **changes,
    }
    return NodeFacts(**given)


def pod(**changes: Any) -> PodFacts:
    """Return the holder's pod, which has ended."""
    given = {
        "name": "lethe-digits-1-0",
        "namespace": "acme",
        "uid": UID,
        "resource_version": "1",
        "role": "train",
        "job_uid": "job-1",
        "node": NODE,
        "phase": "Succeeded",
        "containers": ENDED,
        "finalizers": (POD_FINALIZER,),
        **changes,
    }
    return PodFacts(**given)


def job(phase: str = "Admitted", uid: str = "job-2", **status: Any) -> SecureTrainingJob:
    """Return a job of the tenant that was admitted to the node."""
    return msgspec.convert(
        {
            "metadata": {"name": f"name-{uid}", "namespace": "acme", "uid": uid},
            "spec": {"template": {"spec": {}}},
            "status": {"phase": phase, "tenant": "acme", "node": NODE, "attempt": 1, **status},
        },
        SecureTrainingJob,
    )


def world(*nodes: GPUNode, **changes: Any) -> Snapshot:
    """Return a world with these ledgers: their Node is there, empty, closed, and refuses a trial bind."""
    given: dict[str, Any] = {
        "now": NOW,
        "config": OperatorConfig(image="lethe:test"),
        "gpu_nodes": {node.metadata.name: node for node in nodes},
        "nodes": {NODE: facts()},
        "occupants": {NODE: ()},
        "closed_for": {NODE: 100.0},
        "closed_nodes": frozenset({NODE}),
        "open_nodes": frozenset(),
        "tenants": {"acme": msgspec.convert(TENANT, Tenant)},
        "new_nonces": {node.metadata.name: "ab" * 32 for node in nodes},
        **changes,
    }
    return Snapshot(**given)


def decide(snapshot: Snapshot, name: str = NODE, admission: Admission | None = None) -> tuple[NodeStatus, list[Action]]:
    """Decide about one node; return its status after that, and all that is to be done."""
    node = snapshot.gpu_nodes[name]
    decision = decide_node(snapshot, node, admission or Admission(nodes={}, waiting={}))
    written = [action.status for action in decision.actions if isinstance(action, WriteNodeStatus)]
    return (written[0] if written else node.status), decision.actions
