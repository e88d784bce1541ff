"""`lethe-setup teardown`: before the release is deleted.

1. Refuse while a job runs, or a node is held or waits for its scrub after a tenant. Forced, by an annotation of the
   namespace lethe-system: suspend the jobs, wait for the scrubs, go on after the time given, and name what stays
   unclean. (Not by a value of the chart: Helm does not upgrade a release whose removal was refused.)
2. Policies come out first: a cluster is never left in which pods cannot be bound.
3. Then the operator is stopped, so that nothing is put back.
4. Then what only the operator could undo: taint and label of nodes, finalizers, grants, labels of namespaces.
5. The annotation goes, so that the next installation is not removed by force.
6. The ledger stays, but says Unmanaged: nobody watches the nodes from now on, so a later installation must scrub them
   again. Who was there last stays in it.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, Final, ParamSpec, TypeVar

from lethe.adapters.kube import DEPLOYMENT, GPU_NODE, JOB_CR, NAMESPACE, NODE, POD, ROLE, ROLEBINDING, Kube
from lethe.controller.setup.policies import OURS, PREFIX, TRANSIENT, remove_policies
from lethe.model.errors import InputError, UnavailableError
from lethe.model.names import (
    JOB_FINALIZER,
    LABEL_ROLE,
    LABEL_TENANT,
    NODE_LABEL,
    OPEN_NAMESPACE,
    OPEN_NODES_ACCOUNT,
    OPERATOR_ACCOUNT,
    POD_FINALIZER,
    SYSTEM_NAMESPACE,
    TAINT,
)
from lethe.model.phases import JobPhase, NodePhase
from lethe.model.reasons import GPU_SET_MISMATCH, NODE_MISSING, NODE_NOT_EMPTY, NODE_NOT_READY, NOT_ENROLLED

Say = Callable[[str], None]
Object = dict[str, Any]
P = ParamSpec("P")
T = TypeVar("T")

HELD: Final = (NodePhase.ASSIGNED, NodePhase.DRAINING, NodePhase.SCRUBBING)
CLEAN: Final = (NodePhase.FREE, NodePhase.UNMANAGED)

FORCE_ANNOTATION: Final = "lethe.dev/uninstall"
FORCE: Final = "force"

_STUCK: Final = (NODE_NOT_EMPTY, NODE_MISSING, NODE_NOT_READY, GPU_SET_MISMATCH)
"""Why a Dirty node may wait for ever."""
_POLL_SECONDS: Final = 1.0
_NOTICE_SECONDS: Final = 20.0
"""How long an API server may take to notice that a policy is gone."""


async def tear_down(kube: Kube, timeout_seconds: float, say: Say) -> None:
    """Undo what only the operator could undo; raise InputError when somebody still holds a node."""
    force = await _is_forced(kube)
    busy = await _busy(kube)
    if busy and not force:
        raise InputError(
            f"Lethe is in use: {'; '.join(busy)}. Nothing was changed. Let the jobs end or delete them, wait until the "
            f"nodes are Free, and uninstall again. To uninstall all the same, `kubectl annotate namespace "
            f"{SYSTEM_NAMESPACE} {FORCE_ANNOTATION}={FORCE}` first: it suspends the jobs and scrubs what it can. To "
            "keep Lethe, `helm rollback` to the last revision that `helm history` shows: Helm takes a release for "
            "half removed now, and would not upgrade it"
        )
    if force:
        await _suspend_and_wait(kube, timeout_seconds, say)
    removed = await remove_policies(kube)
    say(f"removed {len(removed)} admission policies")
    await _stop_operator(kube, timeout_seconds, say)
    for step in (_free_nodes, _free_pods, _free_jobs, _remove_grants, _free_namespaces, _forget_force):
        await step(kube)
    unclean = await _close_ledger(kube)
    for name, phase in unclean:
        say(f"NOT CLEAN: node {name} was {phase}; what its last tenant left in video memory may still be there")
    say("nodes, pods, jobs and namespaces are as they would be without Lethe")


async def _is_forced(kube: Kube) -> bool:
    return any(
        (item["metadata"].get("annotations") or {}).get(FORCE_ANNOTATION) == FORCE
        for item in await kube.list(NAMESPACE, fields=f"metadata.name={SYSTEM_NAMESPACE}")
    )


async def _busy(kube: Kube) -> list[str]:
    nodes = [
        f"node {node['metadata']['name']} is {phase}"
        for node in await kube.list(GPU_NODE)
        if (phase := _phase(node)) in HELD or _awaits_scrub(node)
    ]
    running = (JobPhase.ADMITTED, JobPhase.RUNNING)
    jobs = [
        f"job {job['metadata']['namespace']}/{job['metadata']['name']} is {phase}"
        for job in await kube.list(JOB_CR)
        if (phase := _phase(job)) in running
    ]
    return nodes + jobs


def _awaits_scrub(node: Object) -> bool:
    """Say whether a tenant has left a node that is scrubbed next, unless something keeps it from that."""
    status = node.get("status", {})
    return _phase(node) == NodePhase.DIRTY and bool(status.get("previousHolder")) and status.get("reason") not in _STUCK


async def _suspend_and_wait(kube: Kube, timeout_seconds: float, say: Say) -> None:
    for job in await kube.list(JOB_CR):
        if not JobPhase(_phase(job) or JobPhase.QUEUED).is_terminal:
            metadata = job["metadata"]
            await kube.patch(JOB_CR, metadata["name"], metadata["namespace"], {"spec": {"suspend": True}})
    say("suspended the jobs that had not ended; waiting until their nodes are scrubbed")
    deadline = time.monotonic() + timeout_seconds
    while busy := await _busy(kube):
        if time.monotonic() > deadline:
            say(f"going on after {timeout_seconds:.0f} s, although {'; '.join(busy)}")
            return
        await asyncio.sleep(_POLL_SECONDS)


async def _stop_operator(kube: Kube, timeout_seconds: float, say: Say) -> None:
    if await kube.get(DEPLOYMENT, OPERATOR_ACCOUNT, SYSTEM_NAMESPACE) is None:
        return
    await _insist(kube.patch, DEPLOYMENT, OPERATOR_ACCOUNT, SYSTEM_NAMESPACE, {"spec": {"replicas": 0}})
    deadline = time.monotonic() + timeout_seconds
    selector = f"{OURS},app.kubernetes.io/component=operator"
    while await kube.list(POD, SYSTEM_NAMESPACE, labels=selector):
        if time.monotonic() > deadline:
            raise UnavailableError(
                f"the operator's pod has not ended in {timeout_seconds:.0f} s. Its node may be down: delete the pod, "
                "then uninstall again. The admission policies are gone already"
            )
        await asyncio.sleep(_POLL_SECONDS)
    say("stopped the operator")


async def _free_nodes(kube: Kube) -> None:
    for node in await kube.list(NODE, labels=NODE_LABEL):
        await _insist(_free_node, kube, node["metadata"]["name"])


async def _free_node(kube: Kube, name: str) -> None:
    node = next((item for item in await kube.list(NODE, fields=f"metadata.name={name}")), None)
    if node is not None:
        await kube.patch(NODE, name, "", free_node_patch(node))


def free_node_patch(node: Object) -> Object:
    """Return the merge patch that takes our label and taint off a node, if nothing else has changed meanwhile."""
    others = [taint for taint in node.get("spec", {}).get("taints") or [] if taint["key"] != TAINT]
    return {
        "metadata": {"resourceVersion": node["metadata"]["resourceVersion"], "labels": {NODE_LABEL: None}},
        "spec": {"taints": others},
    }


async def _free_pods(kube: Kube) -> None:
    for pod in await kube.list(POD, labels=LABEL_ROLE):
        metadata = pod["metadata"]
        patch = without_finalizer(pod, POD_FINALIZER)
        if patch is not None:
            await _insist(kube.patch, POD, metadata["name"], metadata["namespace"], patch)


async def _free_jobs(kube: Kube) -> None:
    for job in await kube.list(JOB_CR):
        metadata = job["metadata"]
        patch = without_finalizer(job, JOB_FINALIZER)
        if patch is not None:
            await _insist(kube.patch, JOB_CR, metadata["name"], metadata["namespace"], patch)


def without_finalizer(item: Object, finalizer: str) -> Object | None:
    """Return the merge patch that takes a finalizer off an object of this uid, or None when it is not there."""
    metadata = item["metadata"]
    finalizers = metadata.get("finalizers") or []
    if finalizer not in finalizers:
        return None
    return {"metadata": {"uid": metadata["uid"], "finalizers": [other for other in finalizers if other != finalizer]}}


async def _remove_grants(kube: Kube) -> None:
    tenants = {item["metadata"]["name"] for item in await kube.list(NAMESPACE, labels=LABEL_TENANT)}
    for kind in (ROLEBINDING, ROLE):
        for item in await kube.list(kind):
            name, namespace = item["metadata"]["name"], item["metadata"]["namespace"]
            granted = namespace in tenants and name.startswith(PREFIX)
            if granted or (namespace == OPEN_NAMESPACE and name == OPEN_NODES_ACCOUNT):
                await _insist(kube.delete, kind, name, namespace)


async def _free_namespaces(kube: Kube) -> None:
    for item in await kube.list(NAMESPACE, labels=LABEL_TENANT):
        unlabelled = {"metadata": {"labels": {LABEL_TENANT: None}}}
        await _insist(kube.patch, NAMESPACE, item["metadata"]["name"], "", unlabelled)


async def _forget_force(kube: Kube) -> None:
    if await _is_forced(kube):
        kept = {"metadata": {"annotations": {FORCE_ANNOTATION: None}}}
        await _insist(kube.patch, NAMESPACE, SYSTEM_NAMESPACE, "", kept)


async def _close_ledger(kube: Kube) -> list[tuple[str, str]]:
    """Make every node Unmanaged in the ledger and return those that were not clean, with the phase they were in."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    unclean = []
    for node in await kube.list(GPU_NODE):
        name, phase = node["metadata"]["name"], _phase(node) or NodePhase.UNMANAGED
        if phase not in CLEAN:
            unclean.append((name, phase))
        await _insist(kube.patch, GPU_NODE, name, "", {"spec": {"managed": False}})
        if phase != NodePhase.UNMANAGED:
            patch = {"status": closed_status(node.get("status", {}), now)}
            await _insist(kube.patch, GPU_NODE, name, "", patch, "status")
    return unclean


def closed_status(status: Object, now: str) -> Object:
    """Return the merge patch for the status of a node that nobody watches from now on."""
    closed: Object = {
        "phase": NodePhase.UNMANAGED,
        "reason": NOT_ENROLLED,
        "message": "Lethe was uninstalled; the node is open to all pods",
        "since": now,
        "holder": None,
        "scrub": None,
    }
    holder = status.get("holder")
    if holder:
        closed["previousHolder"] = {
            "tenant": holder["tenant"],
            "namespace": holder["namespace"],
            "jobs": [holder["job"]],
            "jobUids": [holder["jobUid"]],
            "since": holder["since"],
            "until": now,
        }
    return closed


def _phase(item: Object) -> str:
    return str(item.get("status", {}).get("phase", ""))


async def _insist(write: Callable[P, Awaitable[T]], *arguments: P.args, **options: P.kwargs) -> T:
    """Repeat a write until the API server has noticed that the policies are gone."""
    deadline = time.monotonic() + _NOTICE_SECONDS
    while True:
        try:
            return await write(*arguments, **options)
        except TRANSIENT:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(_POLL_SECONDS)
