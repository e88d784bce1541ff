"""What proves that a pod has ended on its node (custody.md, Ledger, Proof).

1. A new boot id of the node is proof for all pods of the earlier boot.
2. Otherwise the kubelet must have said so: a terminal phase that the pod garbage collector did not set, and every
   container that started `terminated` with a reason other than ContainerStatusUnknown.
3. A kubelet that refused the pod before any container started has proved it too.
4. A pod that is not bound needs no proof once it is being deleted: the API server binds no such pod.
5. A pod whose object is gone without any of these has no proof: only a new boot helps.
"""

from lethe.decisions.snapshot import PodFacts, Snapshot
from lethe.model.phases import NodePhase
from lethe.model.resources import GPUNode

_UNKNOWN = "ContainerStatusUnknown"


def has_kubelet_proof(pod: PodFacts) -> bool:
    """Say whether a pod's own object proves that it has ended, or that it never ran."""
    if not pod.node:
        return pod.has_ended or pod.deleting
    if not pod.has_ended or pod.collected:
        return False
    return all(
        container.state == "waiting" or (container.state == "terminated" and container.reason != _UNKNOWN)
        for container in pod.containers.values()
    )


def is_rebooted(snapshot: Snapshot, node: GPUNode) -> bool:
    """Say whether the Node object shows another boot than the ledger's: whatever ran then has ended."""
    facts = snapshot.nodes.get(node.metadata.name)
    return facts is not None and facts.boot_id != node.status.boot_id


def unproved_pods(snapshot: Snapshot, node: GPUNode) -> list[str]:
    """Return the uids of the holder's pods whose end is not proved."""
    holder = node.status.holder
    if holder is None or is_rebooted(snapshot, node):
        return []
    return [uid for uid in holder.pod_uids if uid not in snapshot.pods or not has_kubelet_proof(snapshot.pods[uid])]


def is_idle(snapshot: Snapshot, node: GPUNode) -> bool:
    """Say whether an assigned node's pods have all ended, with proof."""
    return node.status.phase == NodePhase.ASSIGNED and not unproved_pods(snapshot, node)
