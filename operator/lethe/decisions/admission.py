"""Which waiting job gets which node: one numbered cycle over all waiting jobs and all nodes.

1. Jobs in order of priority, then age, then name.
2. A job of a tenant that has used up its quota waits, and lets others pass.
3. A node that the same tenant holds, whose pods' end is proved, is taken again without a scrub, unless isolation is
   `job` or a dataset demands a fresh scrub. Otherwise the smallest free node that is large enough. A drained node is
   nobody's, and so is one whose GPUs are not those that were scrubbed. A node whose posture, as its last scrub found
   it, is not what the datasets' criticality demands is not for this job.
4. A node that an admitted job is about to take is nobody else's.
5. A job that finds no node waits, and those behind it may still find one.
6. Who waits is told why, in one sentence, without the names of other tenants. Far behind in the queue it is a sentence
   that stays, or every step of the queue would rewrite every job.
"""

from collections.abc import Mapping
from functools import cached_property
from itertools import islice

import msgspec

from lethe.decisions.posture import REREAD, Judgement, find_unmet, sentence
from lethe.decisions.proof import is_idle
from lethe.decisions.snapshot import Key, NodeFacts, Snapshot
from lethe.decisions.validation import Accepted
from lethe.model import reasons
from lethe.model.phases import JobPhase, NodePhase
from lethe.model.resources import GPUNode, SecureTrainingJob, Tenant

_NAMED_NODES = 5
_TOLD_JOBS = 20
_STATES = {
    NodePhase.UNMANAGED: "is not enrolled",
    NodePhase.DIRTY: "waits to be scrubbed",
    NodePhase.SCRUBBING: "is being scrubbed",
    NodePhase.DRAINING: "is being given back",
    NodePhase.QUARANTINED: "is quarantined",
}


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """Why a job gets no node now."""

    reason: str
    message: str


class Admission(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """The outcome of one cycle."""

    nodes: dict[Key, str]
    """The node that a job gets."""
    waiting: dict[Key, Waiting]
    want_scrub: frozenset[str] = frozenset()
    """Tenants of which a job waits that may run on freshly scrubbed GPUs only."""

    def takes(self, node: str) -> bool:
        """Say whether some job gets this node in this cycle."""
        return node in self._taken

    @cached_property
    def _taken(self) -> frozenset[str]:
        return frozenset(self.nodes.values())


class _Fleet:
    """The nodes under custody, sorted and sieved once for all who wait: most nodes are busy, and most jobs wait."""

    def __init__(self, snapshot: Snapshot, taken: set[str]) -> None:
        self.taken = taken
        self._managed = {name: node for name, node in sorted(snapshot.gpu_nodes.items()) if node.spec.managed}
        self._large: dict[int, list[GPUNode]] = {}
        self._unmet: dict[tuple[str, frozenset[str]], list[Judgement]] = {}
        self.idle = [
            (node, facts)
            for name, node in self._managed.items()
            if name not in taken
            and (facts := snapshot.nodes.get(name)) is not None
            and _is_sound(node, facts)
            and (node.status.phase == NodePhase.FREE or is_idle(snapshot, node))
        ]

    def take(self, name: str) -> None:
        """Keep a node from all who come later."""
        self.taken.add(name)
        self.idle = [(node, facts) for node, facts in self.idle if node.metadata.name != name]

    def large(self, gpus: int) -> list[GPUNode]:
        """Return the nodes with at least this many GPUs, or all if there is none."""
        if gpus not in self._large:
            nodes = list(self._managed.values())
            self._large[gpus] = [node for node in nodes if node.status.gpu_count >= gpus] or nodes
        return self._large[gpus]

    def unmet(self, node: GPUNode, demanded: frozenset[str]) -> list[Judgement]:
        """Return the posture checks of these that a node does not pass."""
        key = (node.metadata.name, demanded)
        if key not in self._unmet:
            self._unmet[key] = find_unmet(node.status.posture, demanded)
        return self._unmet[key]


def decide_admission(snapshot: Snapshot, accepted: Mapping[Key, Accepted]) -> Admission:
    """Decide for every accepted job that waits."""
    queue = sorted(
        (job for key, job in snapshot.jobs.items() if key in accepted and is_waiting(job)),
        key=lambda job: (
            -job.spec.priority,
            job.metadata.creation_timestamp,
            job.metadata.namespace,
            job.metadata.name,
        ),
    )
    fleet = _Fleet(snapshot, reserved_nodes(snapshot))
    used = _gpus_in_use(snapshot)
    nodes: dict[Key, str] = {}
    waiting: dict[Key, Waiting] = {}
    want_scrub: set[str] = set()
    for job in queue:
        key = (job.metadata.namespace, job.metadata.name)
        tenant = accepted[key].tenant
        wanted = job.spec.gpus_per_replica
        in_use = used.get(tenant.metadata.name, 0)
        quota = tenant.spec.gpus.quota
        if quota is not None and in_use + wanted > quota:
            waiting[key] = Waiting(
                reason=reasons.QUOTA_EXCEEDED,
                message=f"{wanted} GPUs are wanted, the tenant uses {in_use} of its quota of {quota}",
            )
            continue
        node = _choose(snapshot, job, accepted[key], fleet)
        if node is None:
            waiting[key] = _explain(snapshot, job, accepted[key], fleet)
            if accepted[key].needs_fresh_scrub(snapshot):
                want_scrub.add(tenant.metadata.name)
            continue
        nodes[key] = node
        fleet.take(node)
        used[tenant.metadata.name] = in_use + wanted
    return Admission(
        nodes=nodes,
        waiting={
            key: msgspec.structs.replace(entry, message=_place(entry, place))
            for place, (key, entry) in enumerate(waiting.items(), start=1)
        },
        want_scrub=frozenset(want_scrub),
    )


def _place(entry: Waiting, place: int) -> str:
    """Return what a job is told: the next ones all, those behind nothing that changes with each step of the queue."""
    if place > _TOLD_JOBS:
        return f"waits behind {_TOLD_JOBS} jobs or more"
    return f"{entry.message}; position {place}"


def is_waiting(job: SecureTrainingJob) -> bool:
    """Say whether a job stands in the queue."""
    return job.status.phase == JobPhase.QUEUED and not job.spec.suspend and job.metadata.deletion_timestamp is None


def reserved_nodes(snapshot: Snapshot) -> set[str]:
    """Return the nodes of jobs that were admitted and have not ended: nobody else may take them."""
    return {
        job.status.node
        for job in snapshot.jobs.values()
        if job.status.phase in (JobPhase.ADMITTED, JobPhase.RUNNING)
        and job.status.node
        and not _has_just_ended(snapshot, job)
    }


def _has_just_ended(snapshot: Snapshot, job: SecureTrainingJob) -> bool:
    """Say whether a job's pod has ended with proof, and only its status does not say so yet."""
    node = snapshot.gpu_nodes.get(job.status.node)
    holder = node.status.holder if node is not None else None
    if node is None or holder is None or holder.job_uid != job.metadata.uid:
        return False
    return is_idle(snapshot, node)


def _gpus_in_use(snapshot: Snapshot) -> dict[str, int]:
    used: dict[str, int] = {}
    for job in snapshot.jobs.values():
        if job.status.phase in (JobPhase.ADMITTED, JobPhase.RUNNING):
            used[job.status.tenant] = used.get(job.status.tenant, 0) + job.spec.gpus_per_replica
    return used


def _choose(snapshot: Snapshot, job: SecureTrainingJob, accepted: Accepted, fleet: _Fleet) -> str | None:
    demanded = accepted.demanded_posture(snapshot)
    candidates = [
        (node.status.phase == NodePhase.FREE, node.status.gpu_count, node.metadata.name)
        for node in _offers(snapshot, job, accepted, fleet)
        if not fleet.unmet(node, demanded)
    ]
    return min(candidates)[2] if candidates else None


def _offers(snapshot: Snapshot, job: SecureTrainingJob, accepted: Accepted, fleet: _Fleet) -> list[GPUNode]:
    """Return the idle nodes that a job could have, whatever their posture."""
    return [
        node
        for node, facts in fleet.idle
        if _fits(job, node, facts) and (node.status.phase == NodePhase.FREE or _is_reusable(snapshot, node, accepted))
    ]


def _is_sound(node: GPUNode, facts: NodeFacts) -> bool:
    """Say whether a node may be given to anybody."""
    return (
        node.metadata.deletion_timestamp is None
        and not node.spec.drain
        and facts.is_ready
        and not facts.is_cordoned
        and facts.is_as_scrubbed(node.status)
        and facts.gpu_allocatable >= node.status.gpu_count
    )


def _fits(job: SecureTrainingJob, node: GPUNode, facts: NodeFacts) -> bool:
    selector = (job.spec.template.get("spec") or {}).get("nodeSelector") or {}
    return node.status.gpu_count >= job.spec.gpus_per_replica and all(
        facts.labels.get(key) == value for key, value in selector.items()
    )


def _is_reusable(snapshot: Snapshot, node: GPUNode, accepted: Accepted) -> bool:
    """Say whether an idle node of the same tenant may go on without a scrub."""
    holder = node.status.holder
    return (
        holder is not None
        and holder.tenant == accepted.tenant.metadata.name
        and accepted.tenant.spec.isolation == "tenant"
        and not accepted.needs_fresh_scrub(snapshot)
    )


def _explain(snapshot: Snapshot, job: SecureTrainingJob, accepted: Accepted, fleet: _Fleet) -> Waiting:
    nodes = fleet.large(job.spec.gpus_per_replica)
    if not nodes:
        return Waiting(
            reason=reasons.NO_GPU_NODE,
            message="no GPU node is under Lethe's custody; the provider enrols one with `lethe node enrol NODE`",
        )
    # What is offered and was not chosen has another posture than is demanded. It comes first: no end of a job helps.
    demanded = accepted.demanded_posture(snapshot)
    offers = _offers(snapshot, job, accepted, fleet)
    barred = {node.metadata.name for node in offers}
    others = (node for node in nodes if node.metadata.name not in barred)
    alike: dict[str, list[str]] = {}
    for node in offers[:_NAMED_NODES]:
        alike.setdefault(sentence(fleet.unmet(node, demanded)), []).append(node.metadata.name)
    parts = [
        f"{' and '.join(names)} {'does' if len(names) == 1 else 'do'} not pass {unmet}"
        for unmet, names in alike.items()
    ]
    parts += [
        f"{node.metadata.name} {_state(snapshot, node, accepted.tenant, fleet.taken)}"
        for node in islice(others, max(0, _NAMED_NODES - len(offers)))
    ]
    if len(nodes) > _NAMED_NODES:
        parts.append(f"and {len(nodes) - _NAMED_NODES} more")
    return Waiting(
        reason=reasons.POSTURE_UNMET if barred else reasons.WAITING_FOR_NODE,
        message=f"waits for a GPU node: {', '.join(parts)}{f'; {REREAD}' if barred else ''}",
    )


def _state(snapshot: Snapshot, node: GPUNode, tenant: Tenant, taken: set[str]) -> str:
    name = node.metadata.name
    facts = snapshot.nodes.get(name)
    holder = node.status.holder
    if node.spec.drain:
        return "is drained"
    if facts is None:
        return "is not in the cluster"
    if not facts.is_ready:
        return "is not ready"
    if node.status.phase in _STATES:
        return _STATES[node.status.phase]
    if holder is not None and holder.tenant != tenant.metadata.name:
        return "is held by another tenant"
    if holder is not None:
        return f"is held by job {holder.namespace}/{holder.job}"
    if facts.is_cordoned:
        return "is cordoned"
    if facts.gpu_capacity != node.status.gpu_count:
        return "offers other GPUs than were scrubbed"
    if facts.gpu_allocatable < node.status.gpu_count:
        return "has a GPU that its device plugin calls unhealthy"
    if name in taken:
        return "goes to another job"
    return "does not fit the job's nodeSelector"
