"""Pods of ours that nobody wants any more, and objects of pods whose end is recorded.

1. A training pod that is bound to a node that does not name it as its holder is deleted.
2. A pod's finalizer goes when its end is proved, no ledger names it, and its job needs nothing more from it. What an
   override left without proof goes after the verified scrub that followed; what a node took along that an administrator
   released from quarantine goes at once, for nobody has custody of it any more. A training pod is then labelled as
   released, which keeps it out of all later Snapshots: its object is its job's.
3. Pods whose ledger may be one that cannot be read are left alone.
4. The scrub pod of an earlier epoch is deleted; the last one stays for whoever wants to read its log.
"""

from lethe.decisions.actions import Action, DeletePod, ReleasePod
from lethe.decisions.lifecycle import needs_outcome
from lethe.decisions.proof import has_kubelet_proof, is_scrubbed_since
from lethe.decisions.snapshot import PodFacts, Snapshot
from lethe.model.names import POD_FINALIZER, ROLE_SCRUB
from lethe.model.phases import NodePhase
from lethe.model.resources import GPUNode


def decide_orphans(snapshot: Snapshot) -> list[Action]:
    """Decide about every pod of ours."""
    holders = {
        uid: node
        for node in snapshot.gpu_nodes.values()
        if node.status.holder is not None
        for uid in node.status.holder.pod_uids
    }
    scrubs = [(node.status.phase, node.status.scrub) for node in snapshot.gpu_nodes.values()]
    current = {scrub.pod_name for phase, scrub in scrubs if scrub is not None and phase == NodePhase.SCRUBBING}
    latest = {scrub.pod_uid for _, scrub in scrubs if scrub is not None}
    actions: list[Action] = []
    for pod in snapshot.pods.values():
        if pod.role == ROLE_SCRUB:
            if pod.name not in current:
                actions += _old_scrub_pod(pod, is_latest=pod.uid in latest)
        elif not _may_be_unreadable(snapshot, pod):
            actions += _training_pod(snapshot, pod, holders.get(pod.uid))
    return actions


def _training_pod(snapshot: Snapshot, pod: PodFacts, holder: GPUNode | None) -> list[Action]:
    job = snapshot.job_by_uid(pod.job_uid)
    actions: list[Action] = []
    wanted = job is not None or (holder is None and not pod.node)
    misplaced = bool(pod.node) and (holder is None or holder.status.phase != NodePhase.ASSIGNED)
    if (misplaced or not wanted) and not pod.has_ended and not pod.deleting:
        actions.append(_delete(pod))
    awaited = job is not None and needs_outcome(job, pod)
    if pod.is_guarded and holder is None and not awaited and _is_over(snapshot, pod):
        actions.append(_release(pod))
    return actions


def _may_be_unreadable(snapshot: Snapshot, pod: PodFacts) -> bool:
    """Say whether the ledger that names a pod may be one that does not parse."""
    unreadable = snapshot.unreadable_gpu_nodes
    return pod.node in unreadable if pod.node else bool(unreadable)


def _is_over(snapshot: Snapshot, pod: PodFacts) -> bool:
    """Say whether nothing can run any more of a pod that no ledger names, in a place that is in custody."""
    if has_kubelet_proof(pod):
        return True
    ledger = snapshot.gpu_nodes.get(pod.node)
    if ledger is not None and ledger.status.phase == NodePhase.UNMANAGED:
        return pod.has_ended
    job = snapshot.job_by_uid(pod.job_uid)
    facts = snapshot.nodes.get(pod.node)
    known = next((entry for entry in job.status.pods if entry.uid == pod.uid), None) if job is not None else None
    if known is not None and facts is not None and facts.has_left_boot(known.boot_id):
        return True
    return bool(pod.node) and is_scrubbed_since(snapshot, pod.node)


def _old_scrub_pod(pod: PodFacts, *, is_latest: bool) -> list[Action]:
    """Decide about a scrub pod of which no ledger waits for the report."""
    actions: list[Action] = []
    if not pod.deleting and (not pod.has_ended or not is_latest):
        actions.append(_delete(pod))
    if pod.is_guarded and (pod.has_ended or pod.deleting):
        actions.append(_release(pod))
    return actions


def _delete(pod: PodFacts) -> DeletePod:
    return DeletePod(name=pod.name, namespace=pod.namespace, uid=pod.uid, resource_version=pod.resource_version)


def _release(pod: PodFacts) -> ReleasePod:
    return ReleasePod(
        name=pod.name,
        namespace=pod.namespace,
        uid=pod.uid,
        resource_version=pod.resource_version,
        finalizers=[finalizer for finalizer in pod.finalizers if finalizer != POD_FINALIZER],
        forget=pod.role != ROLE_SCRUB,
    )
