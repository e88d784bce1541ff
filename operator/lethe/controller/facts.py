"""Objects of the API server, as the facts that decisions use. Everything here is pure."""

from typing import Any

from lethe.adapters.kube import Object
from lethe.decisions.snapshot import ContainerFacts, GrantFacts, GrantRoleFacts, NamespaceFacts, NodeFacts, PodFacts
from lethe.formats.podhash import pod_hash
from lethe.formats.quantity import parse_quantity
from lethe.model.names import (
    GPU_RESOURCE,
    LABEL_JOB_UID,
    LABEL_NODE,
    LABEL_ROLE,
    LABEL_TENANT,
    NODE_LABEL,
    NODE_LABEL_VALUE,
    TAINT,
)
from lethe.specs.fence import is_grant_role, parse_pod_uids
from lethe.specs.training import ANNOTATION_CRITICALITY

_GARBAGE_COLLECTED = "DeletionByPodGC"
_NODE_LOST = "NodeLost"
_ENDED = ("PodFailed", "PodCompleted")


def parse_pod(pod: Object) -> PodFacts:
    """Return the facts of a pod of ours."""
    metadata, spec, status = pod["metadata"], pod.get("spec") or {}, pod.get("status") or {}
    labels = metadata.get("labels") or {}
    conditions = {condition["type"]: condition for condition in status.get("conditions") or []}
    disruption = conditions.get("DisruptionTarget", {})
    scheduled = conditions.get("PodScheduled", {})
    criticality = (metadata.get("annotations") or {}).get(ANNOTATION_CRITICALITY)
    return PodFacts(
        name=metadata["name"],
        namespace=metadata["namespace"],
        uid=metadata["uid"],
        resource_version=metadata.get("resourceVersion", ""),
        role=labels.get(LABEL_ROLE, ""),
        job_uid=labels.get(LABEL_JOB_UID, ""),
        node=spec.get("nodeName") or "",
        phase=status.get("phase") or "Pending",
        reason=status.get("reason") or "",
        message=status.get("message") or "",
        deletion_timestamp=metadata.get("deletionTimestamp"),
        gates=tuple(gate["name"] for gate in spec.get("schedulingGates") or []),
        finalizers=tuple(metadata.get("finalizers") or []),
        collected=disruption.get("status") == "True" and disruption.get("reason") == _GARBAGE_COLLECTED,
        ended_by_kubelet=_is_ended_by_kubelet(metadata, status, conditions.get("Ready", {})),
        unschedulable=_unschedulable(scheduled),
        containers=_containers(status),
        main=tuple(container["name"] for container in spec.get("containers") or []),
        hash=pod_hash(pod) if spec.get("schedulingGates") else "",
        criticality=criticality if criticality in ("standard", "sensitive") else "critical",
    )


def parse_node(node: Object, label: str) -> NodeFacts:
    """Return the facts of a Node; `label` is the `key=value` of GPU nodes."""
    metadata, spec, status = node["metadata"], node.get("spec") or {}, node.get("status") or {}
    labels = metadata.get("labels") or {}
    info = status.get("nodeInfo") or {}
    taints = spec.get("taints") or []
    capacity = parse_quantity(str((status.get("capacity") or {}).get(GPU_RESOURCE, "0")))
    allocatable = parse_quantity(str((status.get("allocatable") or {}).get(GPU_RESOURCE, capacity)))
    key, _, value = label.partition("=")
    ready = any(
        condition["type"] == "Ready" and condition["status"] == "True" for condition in status.get("conditions") or []
    )
    return NodeFacts(
        name=metadata["name"],
        uid=metadata["uid"],
        resource_version=metadata.get("resourceVersion", ""),
        boot_id=info.get("bootID", ""),
        system_uuid=info.get("systemUUID", ""),
        labels=labels,
        gpu_capacity=capacity,
        gpu_allocatable=allocatable,
        is_gpu_node=capacity > 0 or labels.get(key) == value,
        is_ready=ready,
        is_cordoned=bool(spec.get("unschedulable")),
        is_marked=labels.get(NODE_LABEL) == NODE_LABEL_VALUE and any(taint.get("key") == TAINT for taint in taints),
        has_mark=NODE_LABEL in labels or any(taint.get("key") == TAINT for taint in taints),
        taints=tuple(taints),
    )


def parse_namespace(namespace: Object, *, has_job_account: bool) -> NamespaceFacts:
    """Return the facts of a namespace."""
    metadata = namespace["metadata"]
    return NamespaceFacts(
        name=metadata["name"],
        resource_version=metadata.get("resourceVersion", ""),
        tenant_label=(metadata.get("labels") or {}).get(LABEL_TENANT, ""),
        has_job_account=has_job_account,
        is_terminating=metadata.get("deletionTimestamp") is not None,
    )


def parse_grant(binding: Object) -> GrantFacts:
    """Return the facts of a RoleBinding that is a grant."""
    metadata = binding["metadata"]
    return GrantFacts(
        node=metadata["labels"][LABEL_NODE], namespace=metadata["namespace"], pod_uids=parse_pod_uids(binding)
    )


def parse_grant_role(role: Object) -> GrantRoleFacts:
    """Return the facts of a Role that grants bind."""
    metadata = role["metadata"]
    return GrantRoleFacts(
        node=metadata["labels"][LABEL_NODE], namespace=metadata["namespace"], is_right=is_grant_role(role)
    )


def is_occupant(pod: Object, system_namespaces: tuple[str, ...]) -> bool:
    """Say whether a pod on a node keeps it from being empty."""
    phase = (pod.get("status") or {}).get("phase")
    return pod["metadata"]["namespace"] not in system_namespaces and phase not in ("Succeeded", "Failed")


def _is_ended_by_kubelet(metadata: dict[str, Any], status: dict[str, Any], ready: dict[str, Any]) -> bool:
    """Say whether a kubelet ended a pod: it says so in the condition Ready, or why it refused or evicted the pod.

    Of a pod that ends before its first container begins it says neither, but its phase is then the kubelet's word. The
    node controller writes a reason too, NodeLost, and leaves the phase to others.
    """
    if status.get("phase") not in ("Succeeded", "Failed"):
        return False
    told = ready.get("reason") in _ENDED or status.get("reason") not in (None, "", _NODE_LOST)
    return told or any(_wrote_phase(entry) for entry in metadata.get("managedFields") or [])


def _wrote_phase(entry: dict[str, Any]) -> bool:
    """Say whether a kubelet is who changed a pod's phase last; the API server keeps book of that."""
    fields = (entry.get("fieldsV1") or {}).get("f:status") or {}
    return (entry.get("manager"), entry.get("subresource")) == ("kubelet", "status") and "f:phase" in fields


def _unschedulable(scheduled: dict[str, Any]) -> str:
    if scheduled.get("status") != "False" or scheduled.get("reason") == "SchedulingGated":
        return ""
    return str(scheduled.get("message") or "")


def _containers(status: dict[str, Any]) -> dict[str, ContainerFacts]:
    entries = [
        *(status.get("initContainerStatuses") or []),
        *(status.get("containerStatuses") or []),
        *(status.get("ephemeralContainerStatuses") or []),
    ]
    return {entry["name"]: _container(entry) for entry in entries}


def _container(entry: dict[str, Any]) -> ContainerFacts:
    state = entry.get("state") or {}
    if terminated := state.get("terminated"):
        return ContainerFacts(
            state="terminated",
            reason=terminated.get("reason") or "",
            message=terminated.get("message") or "",
            exit_code=terminated.get("exitCode", 0),
            since=terminated.get("finishedAt") or "",
            image_id=entry.get("imageID") or "",
        )
    if running := state.get("running"):
        return ContainerFacts(
            state="running", since=running.get("startedAt") or "", image_id=entry.get("imageID") or ""
        )
    waiting = state.get("waiting") or {}
    return ContainerFacts(
        state="waiting", reason=waiting.get("reason") or "", message=_shortened(waiting.get("message") or "")
    )


def _shortened(message: str) -> str:
    """Cut what repeats with changing details, so that a status is not rewritten for it."""
    return message.split("\n", 1)[0][:300]
