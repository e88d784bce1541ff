"""A job's life, from `kubectl apply` to the end of its last pod.

    phase       goes to     when
    Queued      Admitted    it is accepted and admission gives it a node
                Suspended   spec.suspend
    Admitted    Running     the training container started: the keys were released
                Queued      its node was lost before it was granted
                Suspended   spec.suspend, and its pods' end is proved
                Succeeded, Failed
    Running     Succeeded   every container ended with 0, and the outputs, if any, are sealed
                Failed      anything else
                Suspended   as above
    Suspended   Queued      spec.suspend is taken back

1. A finalizer stands on the job before anything is done for it, and stays until no node is in its hands.
2. The pod of an attempt is created gated. Its gate is lifted only when the ledger names its uid as the holder and the
   RBAC copy says so too.
3. The end is written into the job before the pod's object may vanish, and is never derived from the pod again.
4. Short steps on the usual way are not written: a write carries a decision, or something that people wait for.
5. A pod whose job does not want it any more is deleted; its object stays until its end is proved.
"""

from typing import Any, Final

import msgspec

from lethe.decisions.actions import (
    Action,
    CreateTrainingPod,
    DeletePod,
    GuardJob,
    LiftGate,
    Note,
    ReleaseJob,
    WriteJobStatus,
)
from lethe.decisions.admission import Admission
from lethe.decisions.conditions import find_condition, with_condition
from lethe.decisions.ledger import some
from lethe.decisions.outcome import Outcome, Progress, has_trained, read_outcome, read_progress, until_slow
from lethe.decisions.proof import has_kubelet_proof
from lethe.decisions.snapshot import PodFacts, Snapshot
from lethe.decisions.validation import Accepted
from lethe.formats.quantity import format_time, seconds_between
from lethe.model import names, reasons
from lethe.model.errors import ResourceError
from lethe.model.phases import JobPhase, NodePhase
from lethe.model.resources import GPUNode, JobPod, SecureTrainingJob

_MOVES: Final = {
    JobPhase.QUEUED: {JobPhase.ADMITTED, JobPhase.SUSPENDED},
    JobPhase.ADMITTED: {
        JobPhase.RUNNING,
        JobPhase.QUEUED,
        JobPhase.SUSPENDED,
        JobPhase.SUCCEEDED,
        JobPhase.FAILED,
    },
    JobPhase.RUNNING: {JobPhase.SUCCEEDED, JobPhase.FAILED, JobPhase.SUSPENDED},
    JobPhase.SUSPENDED: {JobPhase.QUEUED},
    JobPhase.SUCCEEDED: set(),
    JobPhase.FAILED: set(),
}


_GRACE_BEFORE_TRAINING: Final = 10
"""Seconds for a pod that has nothing to upload: its own grace is the time that an upload may take."""


class JobDecision(msgspec.Struct, frozen=True, kw_only=True):
    """What to do about one job."""

    actions: list[Action] = []
    again_in: float | None = None


class _Case:
    """One job in one cycle, and what was decided about it so far."""

    def __init__(self, snapshot: Snapshot, job: SecureTrainingJob) -> None:
        self.snapshot = snapshot
        self.job = job
        self.old = job.status
        self.status = msgspec.structs.replace(job.status, observed_generation=job.metadata.generation)
        self.now = format_time(snapshot.now)
        self.pods = snapshot.pods_of(job)
        self.notes: list[Note] = []
        self.actions: list[Action] = []
        self.again_in: float | None = None

    def set(self, **changes: Any) -> None:
        """Change fields of the status."""
        self.status = msgspec.structs.replace(self.status, **changes)

    def say(self, reason: str, message: str) -> None:
        """Say why the job stays where it is."""
        self.set(reason=reason, message=message)

    def condition(self, kind: str, status: bool, reason: str, message: str) -> None:
        """Set a condition."""
        self.set(
            conditions=with_condition(
                self.status.conditions,
                kind,
                "True" if status else "False",
                reason=reason,
                message=message,
                now=self.snapshot.now,
                generation=self.job.metadata.generation,
            )
        )

    def move(self, phase: JobPhase, reason: str, message: str, *, warning: bool = False, **changes: Any) -> None:
        """Move to a phase of the table above."""
        assert phase in _MOVES[self.old.phase], f"{self.old.phase} does not go to {phase}"
        self.set(phase=phase, reason=reason, message=message, **changes)
        self.notes.append(Note(reason=reason, message=message, warning=warning))

    def delete_pods(self, keep: str = "") -> None:
        """Delete the job's pods that have not ended, but for one."""
        self.actions += [
            DeletePod(
                name=pod.name,
                namespace=pod.namespace,
                uid=pod.uid,
                resource_version=pod.resource_version,
                grace_seconds=None if has_trained(pod) else _GRACE_BEFORE_TRAINING,
            )
            for pod in self.pods
            if pod.uid != keep and not pod.deleting and not pod.has_ended
        ]

    @property
    def has_left(self) -> bool:
        """Say whether no node and no living or unrecorded pod is in the job's hands."""
        return not self.snapshot.nodes_held_by(self.job) and not any(pod.is_guarded for pod in self.pods)


def decide_job(
    snapshot: Snapshot, job: SecureTrainingJob, accepted: Accepted | ResourceError, admission: Admission
) -> JobDecision:
    """Decide about one job."""
    case = _Case(snapshot, job)
    if job.metadata.deletion_timestamp is not None:
        _delete(case)
    elif job.status.phase.is_terminal:
        _finish(case)
    elif job.spec.suspend or job.status.phase == JobPhase.SUSPENDED:
        _suspend(case)
    elif job.status.phase == JobPhase.QUEUED:
        _queue(case, accepted, admission)
    else:
        _attend(case)
    if case.status != case.old:
        case.actions.insert(0, WriteJobStatus(job=job, status=case.status, notes=case.notes))
    return JobDecision(actions=case.actions, again_in=case.again_in)


def is_guarded(job: SecureTrainingJob) -> bool:
    """Say whether our finalizer stands on a job."""
    return names.JOB_FINALIZER in job.metadata.finalizers


def needs_outcome(job: SecureTrainingJob, pod: PodFacts) -> bool:
    """Say whether a pod's object must stay because its job's end has not been written yet."""
    return (
        job.metadata.deletion_timestamp is None
        and not job.spec.suspend
        and job.status.phase in (JobPhase.ADMITTED, JobPhase.RUNNING)
        and any(known.uid == pod.uid for known in job.status.pods)
    )


# ---- phases


def _delete(case: _Case) -> None:
    if not is_guarded(case.job):
        return
    case.delete_pods()
    if case.has_left:
        case.actions.append(ReleaseJob(job=case.job))
    else:
        case.say(case.old.reason, f"is being deleted, once {_hands(case)}")


def _finish(case: _Case) -> None:
    case.delete_pods()
    if is_guarded(case.job) and case.has_left:
        case.actions.append(ReleaseJob(job=case.job))


def _suspend(case: _Case) -> None:
    if case.old.phase == JobPhase.SUSPENDED:
        if not case.job.spec.suspend:
            case.move(JobPhase.QUEUED, reasons.WAITING_FOR_NODE, "resumed: waits for a GPU node")
        return
    case.delete_pods()
    if case.old.phase != JobPhase.QUEUED and not case.has_left:
        case.say(reasons.SUSPENDED, f"is being suspended, once {_hands(case)}")
        return
    case.condition(reasons.CONDITION_ADMITTED, False, reasons.SUSPENDED, "spec.suspend is true")
    case.move(
        JobPhase.SUSPENDED,
        reasons.SUSPENDED,
        "suspended by spec.suspend; set it to false to let it run",
        node="",
        pods=[],
        admitted_at=None,
        started_at=None,
    )


def _queue(case: _Case, accepted: Accepted | ResourceError, admission: Admission) -> None:
    before = find_condition(case.old.conditions, reasons.CONDITION_ACCEPTED)
    if isinstance(accepted, ResourceError):
        case.condition(reasons.CONDITION_ACCEPTED, False, accepted.reason, str(accepted))
        case.say(accepted.reason, str(accepted))
        if before is None or before.reason != accepted.reason or before.message != str(accepted):
            case.notes.append(Note(reason=accepted.reason, message=str(accepted), warning=True))
        return
    if not is_guarded(case.job):
        case.actions.append(GuardJob(job=case.job))
        case.status = case.old
        return
    case.delete_pods()
    tenant = accepted.tenant.metadata.name
    case.set(tenant=tenant)
    case.condition(reasons.CONDITION_ACCEPTED, True, reasons.ACCEPTED, f"belongs to tenant {tenant}")
    key = (case.job.metadata.namespace, case.job.metadata.name)
    node = admission.nodes.get(key)
    if node is not None:
        message = f"gets node {node}"
        case.condition(reasons.CONDITION_ADMITTED, True, reasons.ADMITTED, message)
        case.move(
            JobPhase.ADMITTED,
            reasons.ADMITTED,
            message,
            node=node,
            attempt=case.old.attempt + 1,
            admitted_at=case.now,
        )
    elif key in admission.waiting:
        waiting = admission.waiting[key]
        case.condition(reasons.CONDITION_ADMITTED, False, waiting.reason, waiting.message)
        case.say(waiting.reason, waiting.message)
        if case.old.reason != waiting.reason:
            case.notes.append(Note(reason=waiting.reason, message=waiting.message))


def _attend(case: _Case) -> None:
    """Look after the pod of an admitted or running job."""
    status = case.old
    name = names.training_pod(case.job.metadata.name, names.JobUid(case.job.metadata.uid), status.attempt, 0)
    pod = next((pod for pod in case.pods if pod.name == name), None)
    case.delete_pods(keep=pod.uid if pod is not None else "")
    known = next((entry for entry in status.pods if entry.name == name), None)
    node = case.snapshot.gpu_nodes.get(status.node)
    if known is not None:
        _follow(case, known, pod, node)
    elif pod is not None and node is not None and _holds(node, pod):
        case.set(
            pods=[
                *status.pods,
                JobPod(
                    name=pod.name,
                    uid=pod.uid,
                    node=status.node,
                    boot_id=node.status.boot_id,
                    epoch=node.status.epoch,
                ),
            ]
        )
        case.say(reasons.STARTING, f"node {status.node} is granted")
        case.notes.append(Note(reason=reasons.GRANTED, message=f"node {status.node} is held for pod {pod.name}"))
    elif node is None or not _is_obtainable(case, node) or (pod is not None and (pod.deleting or not pod.is_gated)):
        case.delete_pods()
        case.condition(reasons.CONDITION_ADMITTED, False, reasons.WAITING_FOR_NODE, f"lost node {status.node}")
        case.move(
            JobPhase.QUEUED,
            reasons.WAITING_FOR_NODE,
            f"node {status.node} or its pod was lost before it started: waits for another",
            node="",
            admitted_at=None,
            warning=True,
        )
    elif pod is None:
        case.actions.append(
            CreateTrainingPod(job=case.job, tenant=status.tenant, attempt=status.attempt, node=status.node)
        )


def _follow(case: _Case, known: JobPod, pod: PodFacts | None, node: GPUNode | None) -> None:
    """Follow a pod that was granted its node, until it has ended."""
    if pod is None or pod.uid != known.uid:
        _fail(case, reasons.POD_LOST, f"pod {known.name} is gone, and nothing tells how it ended")
        return
    facts = case.snapshot.nodes.get(known.node)
    is_rebooted = facts is not None and facts.has_left_boot(known.boot_id)
    if pod.has_ended and has_kubelet_proof(pod):
        outcome = read_outcome(case.job, pod)
        # After a reboot the kubelet refuses what was on its node, and says nothing of the cause.
        if outcome.reason != reasons.POD_LOST or not is_rebooted:
            _end(case, outcome)
            return
    if pod.deleting and not pod.node:
        _fail(case, reasons.POD_LOST, f"pod {pod.name} was deleted before it was bound to node {known.node}")
        return
    if is_rebooted:
        _fail(case, reasons.POD_LOST, f"node {known.node} was rebooted while pod {pod.name} was on it")
        return
    if pod.has_ended:
        _fail(case, reasons.POD_LOST, f"node {known.node} was lost with pod {pod.name}: {pod.message or pod.reason}")
        return
    if _is_overdue(case):
        limit = case.job.spec.active_deadline_seconds
        _fail(case, reasons.DEADLINE_EXCEEDED, f"has not ended within {limit} s of its admission")
        case.delete_pods()
        return
    if pod.is_gated and not pod.deleting:
        _lift(case, pod, node)
        return
    _report(case, pod, read_progress(pod, case.snapshot.keyfetch_words.get(pod.uid, "")))


def _lift(case: _Case, pod: PodFacts, node: GPUNode | None) -> None:
    granted = any(
        grant.namespace == pod.namespace and pod.uid in grant.pod_uids
        for grant in case.snapshot.grants_of(case.old.node)
    )
    if node is None or not _holds(node, pod):
        _fail(case, reasons.POD_LOST, f"node {case.old.node} was taken away before pod {pod.name} started")
        case.delete_pods()
    elif granted:
        case.actions.append(
            LiftGate(
                name=pod.name,
                namespace=pod.namespace,
                uid=pod.uid,
                resource_version=pod.resource_version,
                node=case.old.node,
            )
        )


def _report(case: _Case, pod: PodFacts, progress: Progress) -> None:
    if progress.is_usual and not (progress.is_training and case.old.phase == JobPhase.ADMITTED):
        if (wait := until_slow(progress.since, case.snapshot.now)) is None:
            return
        if wait > 0:
            case.again_in = wait
            return
    if progress.keys_released:
        case.condition(reasons.CONDITION_KEYS_RELEASED, True, reasons.KEYS_RELEASED, "the pod has its keys")
    if progress.is_training and case.old.phase == JobPhase.ADMITTED:
        case.move(JobPhase.RUNNING, progress.reason, progress.message, started_at=case.now)
        return
    if case.old.reason != progress.reason and progress.reason != reasons.STARTING:
        case.notes.append(Note(reason=progress.reason, message=progress.message))
    case.say(progress.reason, progress.message)


# ---- ends


def _end(case: _Case, outcome: Outcome) -> None:
    if outcome.keys_released and case.job.spec.datasets:
        case.condition(reasons.CONDITION_KEYS_RELEASED, True, reasons.KEYS_RELEASED, "the pod has its keys")
    if outcome.keys_refused:
        case.condition(reasons.CONDITION_KEYS_RELEASED, False, outcome.reason, outcome.message)
    if case.job.spec.outputs is not None and outcome.outputs_reason:
        case.condition(
            reasons.CONDITION_OUTPUTS_SEALED,
            outcome.outputs is not None,
            outcome.outputs_reason,
            outcome.outputs_message,
        )
    if outcome.keys_released and case.old.started_at is None:
        case.set(started_at=case.now)
    case.set(outputs=outcome.outputs)
    if not outcome.succeeded:
        _fail(case, outcome.reason, outcome.message)
        return
    case.condition(reasons.CONDITION_COMPLETE, True, outcome.reason, outcome.message)
    case.move(JobPhase.SUCCEEDED, outcome.reason, outcome.message, finished_at=case.now)


def _fail(case: _Case, reason: str, message: str) -> None:
    _point_to_snapshots(case)
    case.condition(reasons.CONDITION_FAILED, True, reason, message)
    case.move(JobPhase.FAILED, reason, message, warning=True, finished_at=case.now)


def _point_to_snapshots(case: _Case) -> None:
    """Say what may be left of a training whose outputs nobody could seal at the end."""
    if case.job.spec.outputs is None or case.status.outputs is not None or case.status.started_at is None:
        return
    job = case.job.metadata
    said = find_condition(case.status.conditions, reasons.CONDITION_OUTPUTS_SEALED)
    lost = said.message if said is not None and said.reason == reasons.OUTPUTS_LOST else "the pod was lost"
    message = f"{lost}; `lethe dataset ls --job {job.namespace}/{job.name}` shows what was sealed while it ran"
    case.condition(reasons.CONDITION_OUTPUTS_SEALED, False, reasons.OUTPUTS_LOST, message)


def _is_overdue(case: _Case) -> bool:
    limit = case.job.spec.active_deadline_seconds
    if limit is None or case.old.admitted_at is None:
        return False
    left = limit - seconds_between(case.old.admitted_at, case.snapshot.now)
    case.again_in = max(left, 0.0) + 1
    return left <= 0


# ---- nodes


def _holds(node: GPUNode, pod: PodFacts) -> bool:
    holder = node.status.holder
    return node.status.phase == NodePhase.ASSIGNED and holder is not None and pod.uid in holder.pod_uids


def _is_obtainable(case: _Case, node: GPUNode) -> bool:
    """Say whether the ledger may still grant the node to this job."""
    facts = case.snapshot.nodes.get(node.metadata.name)
    if facts is None or not facts.is_as_scrubbed(node.status) or not node.spec.managed or node.spec.drain:
        return False
    holder = node.status.holder
    return node.status.phase == NodePhase.FREE or (
        node.status.phase == NodePhase.ASSIGNED and holder is not None and holder.tenant == case.old.tenant
    )


def _hands(case: _Case) -> str:
    held = sorted(node.metadata.name for node in case.snapshot.nodes_held_by(case.job))
    return f"the end of its pods on node {some(held)} is proved" if held else "its pods have ended"
