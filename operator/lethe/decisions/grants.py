"""Who gets a node next, and how long a tenant keeps it (custody.md, Ledger).

1. A node is granted to an admitted job once its gated pod exists, and only as it was scrubbed: same Node object, boot
   and GPUs, neither drained nor released.
2. Without a scrub it is granted to the tenant that holds it only, once the end of every pod is proved, and only under
   isolation per tenant. A waiting job that demands a fresh scrub ends what the tenant keeps idle.
"""

from typing import Final

from lethe.decisions.conditions import find_condition
from lethe.decisions.fence import was_unfenced
from lethe.decisions.ledger import NodeCase
from lethe.decisions.proof import is_idle
from lethe.formats.quantity import parse_duration, parse_time, seconds_between
from lethe.model import names, reasons
from lethe.model.phases import NodePhase
from lethe.model.resources import Condition, Holder, PastHolder, SecureTrainingJob, Tenant

_IDLE: Final = "Idle"


def grant(case: NodeCase, holder: Holder, previous: PastHolder | None) -> None:
    """Give the node to a holder."""
    case.move(
        NodePhase.ASSIGNED,
        reasons.GRANTED,
        describe_holder(holder),
        holder=holder,
        previous_holder=previous,
        conditions=not_idle(case),
    )


def describe_holder(holder: Holder) -> str:
    """Return who holds the node, for its message."""
    return f"held by job {holder.namespace}/{holder.job} of tenant {holder.tenant}"


def next_holder(case: NodeCase) -> Holder | None:
    """Return the holder that an admitted job's gated pod makes, if there is one."""
    facts, spec = case.facts, case.node.spec
    if facts is None or not facts.is_as_scrubbed(case.old) or not facts.is_ready or spec.drain or not spec.managed:
        return None
    for job in case.snapshot.admitted_to(case.name):
        if not _wants(job):
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


def following_holder(case: NodeCase, tenant: Tenant) -> Holder | None:
    """Return the same tenant's next holder, who needs no scrub."""
    following = next_holder(case)
    return following if following is not None and following.tenant == tenant.metadata.name else None


def may_keep(case: NodeCase, tenant: Tenant) -> bool:
    """Say whether a tenant whose pods have ended may use the node again without a scrub."""
    facts, spec = case.facts, case.node.spec
    return (
        tenant.spec.isolation == "tenant"
        and spec.managed
        and not spec.drain
        and facts is not None
        and facts.is_as_scrubbed(case.old)
        and is_idle(case.snapshot, case.node)
        and not was_unfenced(case)
    )


def is_kept(case: NodeCase, tenant: Tenant) -> bool:
    """Say whether the tenant keeps its idle node for now: for a job that is to take it, or as long as it may."""
    return _is_promised(case) or _is_retained(case, tenant)


def are_pods_over(case: NodeCase) -> bool:
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


def not_idle(case: NodeCase) -> list[Condition]:
    """Return the conditions of a node that is not kept idle."""
    return case.without_condition(_IDLE)


def _wants(job: SecureTrainingJob) -> bool:
    return not job.spec.suspend and job.metadata.deletion_timestamp is None


def _is_promised(case: NodeCase) -> bool:
    """Say whether a job was admitted to this node, in this cycle or before, and has not taken it yet."""
    holder = case.old.holder
    return case.admission.takes(case.name) or any(
        _wants(job) and (holder is None or job.metadata.uid != holder.job_uid)
        for job in case.snapshot.admitted_to(case.name)
    )


def _is_retained(case: NodeCase, tenant: Tenant) -> bool:
    retention = parse_duration(tenant.spec.idle_retention)
    if retention == 0 or tenant.metadata.name in case.admission.want_scrub:
        return False
    case.set(conditions=case.with_condition(_IDLE, "True", _IDLE, f"kept for the tenant's next job for {retention} s"))
    idle = find_condition(case.status.conditions, _IDLE)
    age = seconds_between(idle.last_transition_time, case.snapshot.now) if idle is not None else 0.0
    if age >= retention:
        return False
    case.wake(retention - age + 1)
    return True
