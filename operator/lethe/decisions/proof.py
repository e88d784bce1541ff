"""What proves that a pod has ended on its node (custody.md, Ledger, Proof).

1. A new boot id of the node is proof for all pods of the earlier boot, under whatever name the machine comes back. A
   Node without boot id proves nothing.
2. Otherwise the kubelet must have said so: a terminal phase that the pod garbage collector did not set, and every
   container `terminated` with a reason other than ContainerStatusUnknown.
3. A container that is `waiting` may have started since, unless the kubelet itself ended the pod: refused it, or ended
   it while later containers had not begun. The garbage collector marks only some of the pods that it ends; what it
   never writes is what a kubelet says with the end (PodFacts.ended_by_kubelet).
4. A pod that is not bound needs no proof once it is being deleted: the API server binds no such pod.
5. A pod whose object is gone without any of these has no proof: only a new boot helps, or a named human's override.
6. After an override a verified scrub is the end of pods without proof: it held every GPU, and found the node empty
   before and after.
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
    states = [container.state for container in pod.containers.values() if container.reason != _UNKNOWN]
    if len(states) < len(pod.containers) or "running" in states:
        return False
    return pod.ended_by_kubelet or (states != [] and "waiting" not in states)


def is_rebooted(snapshot: Snapshot, node: GPUNode) -> bool:
    """Say whether the machine shows another boot than the ledger's: whatever ran then has ended."""
    successor = snapshot.successor_of(node.metadata.name)
    facts = snapshot.nodes.get(successor.metadata.name if successor is not None else node.metadata.name)
    return facts is not None and facts.has_left_boot(node.status.boot_id)


def is_scrubbed_since(snapshot: Snapshot, name: str) -> bool:
    """Say whether whoever the ledger of a node no longer names as holder was scrubbed away since.

    Free and Assigned are reached through a verified receipt only, and a holder is replaced without one only with proof.
    """
    ledger = snapshot.successor_of(name) or snapshot.gpu_nodes.get(name)
    return ledger is not None and ledger.status.phase in (NodePhase.FREE, NodePhase.ASSIGNED)


def unproved_pods(snapshot: Snapshot, node: GPUNode) -> list[str]:
    """Return the uids of the holder's pods whose end is not proved."""
    holder = node.status.holder
    if holder is None or is_rebooted(snapshot, node):
        return []
    return [uid for uid in holder.pod_uids if uid not in snapshot.pods or not has_kubelet_proof(snapshot.pods[uid])]


def is_idle(snapshot: Snapshot, node: GPUNode) -> bool:
    """Say whether an assigned node's pods have all ended, with proof."""
    return node.status.phase == NodePhase.ASSIGNED and not unproved_pods(snapshot, node)
