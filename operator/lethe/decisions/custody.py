"""A GPU node's life: who may use it, and what happens when they leave (custody.md).

    phase        goes to       when
    Unmanaged    Dirty         it is enrolled
    Dirty        Scrubbing     the fence is closed and settled, and the node is empty
                 Unmanaged     it is released, and nobody was on it since it was enrolled
    Scrubbing    Free          the receipt of this epoch exists, and the node is still empty
                 Quarantined   anything else came of the scrub
    Free         Assigned      an admitted job's gated pod waits for it
                 Unmanaged     it is released
                 Dirty         its Node was replaced
    Assigned     Assigned      the same tenant's next job takes it, without a scrub
                 Draining      its pods' end is proved and no job of the tenant may follow; or its Node was replaced
    Draining     Dirty         the fence is closed and settled, every pod's end is proved, and the node is empty
                 Quarantined   no proof in time
    Quarantined  Dirty         its cause is cured
                 Unmanaged     an administrator releases it
    any managed  Dirty         the Node shows a new boot id

1. A decision makes at most one move; the ledger is written by compare-and-swap before anything follows from it.
2. Closed means: no RBAC copy and not on the open list, as read in this cycle; `closed_at` is written only then. Settled
   means: `settle_seconds` later, and a dry-run bind was refused in this cycle.
3. Nothing but a verified receipt of this epoch, node uid, boot id and nonce leads to Free.
4. `epoch` grows at Dirty → Scrubbing and nowhere else.
"""

from typing import Final

import msgspec

from lethe.decisions.actions import Action, WriteNodeStatus
from lethe.decisions.admission import Admission
from lethe.decisions.conditions import find_condition, with_condition
from lethe.decisions.fence import copy_to_fence, is_settled
from lethe.decisions.ledger import NodeCase, left, past_holder, seen, some
from lethe.decisions.proof import is_idle, unproved_pods
from lethe.decisions.scrubbing import decide_scrub
from lethe.decisions.snapshot import NodeFacts, Snapshot
from lethe.formats.quantity import parse_duration, parse_time, seconds_between
from lethe.model import names, reasons
from lethe.model.phases import JobPhase, NodePhase
from lethe.model.resources import Condition, GPUNode, Holder, PastHolder, ScrubState, SecureTrainingJob

_IDLE: Final = "Idle"


class NodeDecision(msgspec.Struct, frozen=True, kw_only=True):
    """What to do about one node."""

    actions: list[Action] = []
    again_in: float | None = None


def decide_node(snapshot: Snapshot, node: GPUNode, admission: Admission) -> NodeDecision:
    """Decide about one node."""
    case = NodeCase(snapshot, node, admission)
    facts = case.facts
    if facts is not None and case.old.phase != NodePhase.UNMANAGED and facts.boot_id != case.old.boot_id:
        _enter_new_boot(case, facts)
    else:
        _PHASES[case.old.phase](case)
    copy_to_fence(case)
    if case.status != case.old:
        case.actions.insert(0, WriteNodeStatus(node=case.name, ledger=node, status=case.status, notes=case.notes))
    return NodeDecision(actions=case.actions, again_in=case.again_in)


# ---- phases


def _enter_new_boot(case: NodeCase, facts: NodeFacts) -> None:
    """A new boot id: whatever ran has ended, and nothing is known about the GPUs' memory."""
    case.move(
        NodePhase.DIRTY,
        reasons.NEW_BOOT,
        f"the node was rebooted (boot {facts.boot_id}): it is scrubbed before anybody uses it",
        **left(case),
        **seen(facts),
    )


def _unmanaged(case: NodeCase) -> None:
    if not case.node.spec.managed:
        case.say(
            reasons.NOT_ENROLLED, f"open to everybody; `lethe node enrol {case.name}` puts it under Lethe's custody"
        )
    elif case.facts is None:
        case.say(reasons.NODE_MISSING, "enrolled, but there is no Node of this name")
    else:
        case.move(
            NodePhase.DIRTY,
            reasons.ENROLLED,
            "the node was enrolled: its fence is closed, and it is scrubbed once it is empty",
            closed_at=None,
            **seen(case.facts),
        )


def _dirty(case: NodeCase) -> None:
    facts = case.facts
    if not case.node.spec.managed and case.old.previous_holder is None:
        case.move(NodePhase.UNMANAGED, reasons.NOT_ENROLLED, "the node was released before anybody used it", scrub=None)
    elif facts is None:
        case.say(reasons.NODE_MISSING, "there is no Node of this name: it is scrubbed when it comes back")
    elif facts.uid != case.old.node_uid or facts.gpu_capacity != case.old.gpu_count:
        case.set(**seen(facts))
    elif not is_settled(case):
        return
    elif occupants := case.snapshot.occupants.get(case.name):
        case.say(reasons.NODE_NOT_EMPTY, f"waits until these pods have left: {some(occupants)}")
    elif case.name not in case.snapshot.occupants:
        return
    elif not facts.is_ready:
        case.say(reasons.NODE_NOT_READY, "the kubelet does not report Ready: the scrub waits for it")
    elif facts.gpu_capacity == 0:
        case.say(
            reasons.GPU_SET_MISMATCH,
            f"the node offers no {names.GPU_RESOURCE}: is its device plugin running? The scrub waits for it",
        )
    else:
        epoch = case.old.epoch + 1
        case.move(
            NodePhase.SCRUBBING,
            reasons.SCRUB_STARTED,
            f"the scrub of epoch {epoch} takes {facts.gpu_capacity} GPUs",
            epoch=epoch,
            scrub=ScrubState(
                pod_name=names.scrub_pod(case.name, epoch),
                nonce=case.snapshot.new_nonces[case.name],
                started_at=case.now,
            ),
        )


def _free(case: NodeCase) -> None:
    facts = case.facts
    if not case.node.spec.managed:
        case.move(NodePhase.UNMANAGED, reasons.NOT_ENROLLED, "the node was released: open to everybody", **left(case))
    elif facts is not None and facts.uid != case.old.node_uid:
        case.move(
            NodePhase.DIRTY, reasons.NODE_REPLACED, "the Node was deleted and made anew", **left(case), **seen(facts)
        )
    elif holder := _next_holder(case):
        _grant(case, holder, previous=None)


def _assigned(case: NodeCase) -> None:
    facts, holder = case.facts, case.old.holder
    if facts is not None and facts.uid != case.old.node_uid:
        case.move(NodePhase.DRAINING, reasons.NODE_REPLACED, "the Node was deleted and made anew", closed_at=None)
        return
    if not _are_pods_over(case):
        return
    tenant = case.snapshot.tenants.get(holder.tenant) if holder is not None else None
    keeps = tenant is not None and case.node.spec.managed and is_idle(case.snapshot, case.node)
    if tenant is not None and keeps and tenant.spec.isolation == "tenant":
        following = _next_holder(case)
        if following is not None and following.tenant == tenant.metadata.name:
            _grant(case, following, previous=past_holder(case))
            return
        if _is_promised(case) or _is_retained(case, parse_duration(tenant.spec.idle_retention)):
            return
    case.move(
        NodePhase.DRAINING,
        reasons.SETTLING if tenant is not None else reasons.TENANT_GONE,
        "the last pod has ended or is lost: the fence closes",
        closed_at=None,
        conditions=_not_idle(case),
    )


def _draining(case: NodeCase) -> None:
    limit = case.snapshot.config.proof_timeout_seconds
    age = seconds_between(case.old.since, case.snapshot.now) if case.old.since else 0.0
    missing = unproved_pods(case.snapshot, case.node)
    if not is_settled(case):
        waits = case.status.message
    elif missing:
        case.say(reasons.AWAITING_PROOF, f"the kubelet has not reported the end of pods {some(missing)}")
        waits = case.status.message
    elif occupants := case.snapshot.occupants.get(case.name, ("unknown",)):
        case.say(reasons.NODE_NOT_EMPTY, f"waits until these pods have left: {some(occupants)}")
        waits = case.status.message
    else:
        case.move(NodePhase.DIRTY, reasons.PROVED, "every pod's end is proved, and the node is empty", **left(case))
        return
    if age > limit:
        case.quarantine(reasons.PROOF_TIMED_OUT, f"{waits}, for more than {limit} s; a reboot of the node is proof")
        return
    case.wake(limit - age + 1)


def _quarantined(case: NodeCase) -> None:
    if not case.node.spec.managed:
        case.move(
            NodePhase.UNMANAGED,
            reasons.NOT_ENROLLED,
            "an administrator released the quarantined node: open to everybody",
            warning=True,
            gpus=[],
            **left(case),
        )
        return
    cured = {
        reasons.PROOF_TIMED_OUT: not unproved_pods(case.snapshot, case.node),
        reasons.NODE_NOT_EMPTY: case.snapshot.occupants.get(case.name) == (),
    }
    if cured.get(case.old.reason, False) and is_settled(case, quiet=True):
        case.move(NodePhase.DIRTY, reasons.PROVED, f"cured: {case.old.reason} no longer holds", **left(case))


_PHASES: Final = {
    NodePhase.UNMANAGED: _unmanaged,
    NodePhase.DIRTY: _dirty,
    NodePhase.SCRUBBING: decide_scrub,
    NodePhase.FREE: _free,
    NodePhase.ASSIGNED: _assigned,
    NodePhase.DRAINING: _draining,
    NodePhase.QUARANTINED: _quarantined,
}


# ---- grants


def _grant(case: NodeCase, holder: Holder, previous: PastHolder | None) -> None:
    case.move(
        NodePhase.ASSIGNED,
        reasons.GRANTED,
        f"held by job {holder.namespace}/{holder.job} of tenant {holder.tenant}",
        holder=holder,
        previous_holder=previous,
        conditions=_not_idle(case),
    )


def _next_holder(case: NodeCase) -> Holder | None:
    """Return the holder that an admitted job's gated pod makes, if there is one."""
    facts = case.facts
    if facts is None or facts.boot_id != case.old.boot_id or facts.uid != case.old.node_uid or not facts.is_ready:
        return None
    for job in case.snapshot.jobs.values():
        if not _wants(job, case.name):
            continue
        name = names.training_pod(job.metadata.name, names.JobUid(job.metadata.uid), job.status.attempt, 0)
        for pod in case.snapshot.pods_of(job):
            if pod.name == name and pod.is_gated and pod.is_guarded and not pod.deleting and not pod.node:
                return Holder(
                    tenant=job.status.tenant,
                    namespace=job.metadata.namespace,
                    job=job.metadata.name,
                    job_uid=job.metadata.uid,
                    pod_uids=[pod.uid],
                    pod_hashes={pod.uid: pod.hash},
                    since=case.now,
                )
    return None


def _wants(job: SecureTrainingJob, node: str) -> bool:
    return (
        job.status.phase == JobPhase.ADMITTED
        and job.status.node == node
        and not job.spec.suspend
        and job.metadata.deletion_timestamp is None
    )


def _is_promised(case: NodeCase) -> bool:
    """Say whether a job was admitted to this node, in this cycle or before, and has not taken it yet."""
    holder = case.old.holder
    return case.admission.takes(case.name) or any(
        _wants(job, case.name) and (holder is None or job.metadata.uid != holder.job_uid)
        for job in case.snapshot.jobs.values()
    )


# ---- idleness


def _are_pods_over(case: NodeCase) -> bool:
    """Say whether every pod of the holder has ended, is gone, or is overdue: proved or not."""
    holder = case.old.holder
    if holder is None:
        return True
    pods = [case.snapshot.pods.get(uid) for uid in holder.pod_uids]
    return all(
        pod is None
        or pod.has_ended
        or (
            pod.deletion_timestamp is not None
            and (not pod.node or parse_time(pod.deletion_timestamp) < case.snapshot.now)
        )
        for pod in pods
    )


def _is_retained(case: NodeCase, retention: int) -> bool:
    """Say whether the tenant keeps its idle node for now."""
    if retention == 0:
        return False
    case.set(
        conditions=with_condition(
            case.old.conditions,
            _IDLE,
            "True",
            reason=_IDLE,
            message=f"kept for the tenant's next job for {retention} s",
            now=case.snapshot.now,
            generation=case.node.metadata.generation,
        )
    )
    idle = find_condition(case.status.conditions, _IDLE)
    age = seconds_between(idle.last_transition_time, case.snapshot.now) if idle is not None else 0.0
    if age >= retention:
        return False
    case.wake(retention - age + 1)
    return True


def _not_idle(case: NodeCase) -> list[Condition]:
    return [condition for condition in case.old.conditions if condition.type != _IDLE]
