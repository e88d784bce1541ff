"""How long the operator decides in one cycle of a busy cluster, and how that grows.

Every node is held by a running job, and four times as many jobs wait: the case in which most is looked up. The world is
read once from the simulated cluster and copied; only `decide` is timed, in time of the processor. Twice the world in
much more than twice the time would show a loop within a loop.
"""

import asyncio
from pathlib import Path
from time import process_time

import msgspec

from lethe.decisions.actions import WriteJobStatus, WriteNodeStatus
from lethe.decisions.plan import decide
from lethe.decisions.snapshot import GrantFacts, NodeFacts, PodFacts, Snapshot
from lethe.model import names
from lethe.model.resources import GPUNode, SecureTrainingJob
from tests.performance.report import Part, Row, quantile, quieten, spread
from tests.simulation.cluster import Behaviour, Cluster

NODES = 1_000
WAITING_FOR_EACH = 4
TIMES = 7
_replace = msgspec.structs.replace


async def _observe() -> Snapshot:
    """Return a cluster with one node, a job that runs on it, and one that waits."""
    cluster = Cluster()
    cluster.behaviour = Behaviour(endless=True)
    cluster.add_node("gpu")
    cluster.add_tenant("acme")
    cluster.add_job("acme", "running")
    await cluster.settle()
    cluster.add_job("acme", "waiting")
    await cluster.settle()
    assert cluster.job("acme", "waiting")["status"]["phase"] == "Queued"
    return await cluster.observe()


def measure(folder: Path, part: Part) -> None:
    """Decide about half the world and about all of it, in turn."""
    quieten()
    seen = asyncio.run(_observe())
    worlds = {nodes: _told(_copied(seen, nodes)) for nodes in (NODES // 2, NODES)}
    times: dict[int, list[float]] = {nodes: [] for nodes in worlds}
    for _ in range(TIMES):
        for nodes, world in worlds.items():
            # A cycle's Snapshot is a new one: what it looks up it has not looked up before.
            fresh = _replace(world)
            began = process_time()
            decide(fresh)
            times[nodes].append((process_time() - began) * 1000)
    half, whole = times[NODES // 2], times[NODES]
    part.rows.append(
        Row(
            measure=f"one decision, {NODES:,} nodes held, {NODES * WAITING_FOR_EACH:,} jobs wait",
            value=quantile(whole, 0.5),
            unit="ms",
            n=TIMES,
            spread=spread(whole, "ms"),
            beside=quantile(half, 0.5),
        )
    )
    part.notes.append("Time of the processor. Beside: half as many of each, in turn; linear is 2x.")


def _copied(seen: Snapshot, nodes: int) -> Snapshot:
    """Return the same world with so many nodes and running jobs, and the jobs that wait."""
    (node,), (facts,), (grant,) = seen.gpu_nodes.values(), seen.nodes.values(), seen.grants
    running, waiting = (seen.jobs["acme", name] for name in ("running", "waiting"))
    pod = seen.pods_of(running)[0]
    copies = [_Copy(number, node, facts, grant, running, pod) for number in range(nodes)]
    queue = [_renamed(waiting, f"waiting-{number}") for number in range(nodes * WAITING_FOR_EACH)]
    return _replace(
        seen,
        gpu_nodes={copy.node.metadata.name: copy.node for copy in copies},
        nodes={copy.facts.name: copy.facts for copy in copies},
        grants=tuple(copy.grant for copy in copies),
        pods={copy.pod.uid: copy.pod for copy in copies},
        jobs={(job.metadata.namespace, job.metadata.name): job for job in (*(copy.job for copy in copies), *queue)},
        missing_secrets=frozenset(),
    )


def _told(world: Snapshot) -> Snapshot:
    """Return the world after what is said of the new names was written."""
    jobs, nodes = dict(world.jobs), dict(world.gpu_nodes)
    for action in decide(world).actions:
        if isinstance(action, WriteJobStatus):
            metadata = action.job.metadata
            jobs[metadata.namespace, metadata.name] = _replace(action.job, status=action.status)
        elif isinstance(action, WriteNodeStatus):
            nodes[action.node] = _replace(action.ledger, status=action.status)
    told = _replace(world, jobs=jobs, gpu_nodes=nodes)
    assert not decide(told).actions, "the copied world is not at rest"
    return told


def _renamed(job: SecureTrainingJob, name: str) -> SecureTrainingJob:
    return _replace(job, metadata=_replace(job.metadata, name=name, uid=f"uid-{name}"))


class _Copy:
    """A node with its running job, under other names."""

    def __init__(
        self,
        number: int,
        node: GPUNode,
        facts: NodeFacts,
        grant: GrantFacts,
        job: SecureTrainingJob,
        pod: PodFacts,
    ) -> None:
        name, uid, holder = f"gpu-{number}", f"pod-{number}", node.status.holder
        assert holder is not None
        renamed = _renamed(job, f"running-{number}")
        metadata = renamed.metadata
        pod_name = names.training_pod(metadata.name, names.JobUid(metadata.uid), job.status.attempt, 0)
        entry = _replace(job.status.pods[0], uid=uid, node=name, name=pod_name)
        self.job = _replace(renamed, status=_replace(job.status, node=name, pods=[entry]))
        self.pod = _replace(pod, uid=uid, name=pod_name, node=name, job_uid=metadata.uid)
        self.facts = _replace(facts, name=name, system_uuid=name)
        self.grant = _replace(grant, node=name, pod_uids=(uid,))
        mine = _replace(holder, job=metadata.name, job_uid=metadata.uid, pod_uids=[uid])
        self.node = _replace(
            node,
            metadata=_replace(node.metadata, name=name),
            status=_replace(node.status, holder=mine, system_uuid=name),
        )
