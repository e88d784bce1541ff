"""A cluster in which much has happened: finished jobs with their pods, nodes, receipts, and one job that runs.

1. A finished job and its pod are what the operator itself leaves behind: one job is run to its end in the simulated
   cluster, and copied. What a kubelet reports is added to the pods, and what it reports about itself to the nodes.
2. Ledger, fence and objects agree, so that an operator that is started finds nothing to write.
"""

import asyncio
import copy
from collections.abc import Awaitable, Iterable
from dataclasses import dataclass
from typing import Any

from lethe.adapters import kube as kinds
from lethe.adapters.kube import Kind, Kube, Object
from lethe.model import names
from lethe.specs.fence import build_grant_binding, build_grant_role, build_open_binding, build_open_role
from tests.simulation.cluster import Cluster

TENANTS = 20
_AT_ONCE = 24
_STARTED, _FINISHED = "2026-01-01T00:00:00Z", "2026-01-01T00:10:00Z"
_IMAGES_OF_A_NODE = 40


@dataclass(frozen=True)
class Size:
    """How much there is of everything."""

    jobs: int
    nodes: int
    receipts: int


@dataclass(frozen=True)
class Ended:
    """A job that has ended, its pod, its dataset, and the receipt of the scrub after it."""

    job: Object
    pod: Object
    dataset: Object
    receipt: Object
    ledger: Object
    node: Object


async def fill(api: Kube, size: Size) -> None:
    """Write it all to an API server that knows Lethe's kinds."""
    ended = await _run_one_job()
    tenants = [f"tenant-{number}" for number in range(min(TENANTS, size.jobs))]
    for name in tenants:
        await api.create(kinds.NAMESPACE, {"metadata": {"name": name, "labels": {names.LABEL_TENANT: name}}})
        await _tenant(api, name, ended)
    gpu_nodes = [_gpu_node(number) for number in range(size.nodes)]
    await _all(_node(api, name, ended) for name in gpu_nodes)
    await _all(_receipt(api, number, gpu_nodes, ended) for number in range(size.receipts))
    await api.create(kinds.ROLE, build_open_role([]))
    await api.create(kinds.ROLEBINDING, build_open_binding())
    await _all(_ended_job(api, f"job-{number}", tenants[number % len(tenants)], ended) for number in range(size.jobs))
    await _running_job(api, tenants[0], gpu_nodes[0], ended)


async def add_nodes(api: Kube, numbers: range) -> None:
    """Add nodes that are Free."""
    ended = await _run_one_job()
    await _all(_node(api, _gpu_node(number), ended) for number in numbers)


def _gpu_node(number: int) -> str:
    return f"gpu-{number}"


async def _run_one_job() -> Ended:
    cluster = Cluster()
    cluster.add_node("gpu-1")
    cluster.add_tenant("acme")
    cluster.add_job("acme")
    await cluster.settle()
    server = cluster.server
    pods = server.all(kinds.POD, "acme")
    return Ended(
        job=server.get(kinds.JOB_CR, "digits", "acme"),
        pod=pods[0],
        dataset=server.get(kinds.DATASET, "digits", "acme"),
        receipt=server.all(kinds.RECEIPT)[-1],
        ledger=server.get(kinds.GPU_NODE, "gpu-1"),
        node=server.get(kinds.NODE, "gpu-1"),
    )


async def _all(work: Iterable[Awaitable[None]]) -> None:
    room = asyncio.Semaphore(_AT_ONCE)

    async def one(item: Awaitable[None]) -> None:
        async with room:
            await item

    await asyncio.gather(*(one(item) for item in work))


async def _put(api: Kube, kind: Kind, item: Object) -> Object:
    """Create an object and write its status."""
    kept = {key: value for key, value in item["metadata"].items() if key in _KEPT}
    created = await api.create(kind, {**item, "metadata": kept})
    if item.get("status"):
        place = (kept["name"], kept.get("namespace", ""))
        return await api.patch(kind, *place, {"status": item["status"]}, "status")
    return created


_KEPT = ("name", "namespace", "labels", "annotations", "finalizers", "ownerReferences")


def _moved(item: Object, **metadata: Any) -> Object:
    moved = copy.deepcopy(item)
    moved["metadata"] |= metadata
    return moved


async def _tenant(api: Kube, name: str, ended: Ended) -> None:
    await api.create(kinds.SERVICEACCOUNT, {"metadata": {"name": names.JOB_ACCOUNT, "namespace": name}})
    await _put(api, kinds.DATASET, _moved(ended.dataset, namespace=name))
    await api.create(kinds.TENANT, {"metadata": {"name": name}, "spec": {"namespaces": [name]}})
    await api.create(kinds.TENANT_KEY, {"metadata": {"name": "default", "namespace": name}})


async def _node(api: Kube, name: str, ended: Ended) -> None:
    """Make a Node as a kubelet reports it, and its ledger: Free after its last scrub."""
    node = _moved(ended.node, name=name)
    info = node["status"]["nodeInfo"]
    info |= {
        "bootID": f"boot-{name}",
        "machineID": "0" * 32,
        "architecture": "amd64",
        "operatingSystem": "linux",
        "osImage": "Debian GNU/Linux",
        "kernelVersion": "6.12.0-amd64",
        "containerRuntimeVersion": "containerd://2.1.0",
        "kubeletVersion": "v1.37.2",
        "kubeProxyVersion": "",
    }
    quantities = {"cpu": "96", "memory": "1056Gi", "pods": "110", names.GPU_RESOURCE: "2"}
    node["status"] |= {
        "capacity": quantities,
        "allocatable": quantities,
        "addresses": [{"type": "InternalIP", "address": "192.0.2.1"}, {"type": "Hostname", "address": name}],
        "conditions": [_node_condition(kind) for kind in ("MemoryPressure", "DiskPressure", "PIDPressure", "Ready")],
        "images": [
            {"names": [f"registry.example/image-{number}@sha256:{number:064x}"], "sizeBytes": 1 << 28}
            for number in range(_IMAGES_OF_A_NODE)
        ],
    }
    created = await _put(api, kinds.NODE, node)
    ledger = _moved(ended.ledger, name=name)
    ledger["status"] |= {"phase": "Free", "nodeUid": created["metadata"]["uid"], "bootId": info["bootID"]}
    await _put(api, kinds.GPU_NODE, ledger)


def _node_condition(kind: str) -> Object:
    return {
        "type": kind,
        "status": "True" if kind == "Ready" else "False",
        "reason": f"Kubelet{kind}",
        "message": "kubelet says so",
        "lastHeartbeatTime": _FINISHED,
        "lastTransitionTime": _STARTED,
    }


async def _receipt(api: Kube, number: int, nodes: list[str], ended: Ended) -> None:
    node = nodes[number % len(nodes)]
    receipt = _moved(ended.receipt, name=names.receipt(node, 1 + number // len(nodes)), labels={names.LABEL_NODE: node})
    receipt["spec"] |= {"node": node, "epoch": 1 + number // len(nodes)}
    await _put(api, kinds.RECEIPT, receipt)


async def _ended_job(api: Kube, name: str, namespace: str, ended: Ended) -> None:
    job = await _put(api, kinds.JOB_CR, _moved(ended.job, name=name, namespace=namespace))
    await _put(api, kinds.POD, _pod_of(job, ended))


async def _running_job(api: Kube, namespace: str, node: str, ended: Ended) -> None:
    """Make a job whose pod trains on a node that the ledger and the fence give it."""
    job = _moved(ended.job, name="running", namespace=namespace)
    job["metadata"] |= {"finalizers": [names.JOB_FINALIZER], "labels": {}}
    job["status"] |= {"phase": "Running", "node": node, "reason": "Training", "message": "trains"}
    job["status"].pop("finishedAt", None)
    job = await _put(api, kinds.JOB_CR, job)
    pod = _pod_of(job, ended)
    pod["metadata"]["finalizers"] = [names.POD_FINALIZER]
    pod["metadata"]["labels"].pop(names.LABEL_RELEASED, None)
    pod["spec"]["nodeName"] = node
    pod["status"] = {"phase": "Running"}
    uid = (await _put(api, kinds.POD, pod))["metadata"]["uid"]
    ledger = await api.get(kinds.GPU_NODE, node)
    assert ledger is not None
    holder = {
        "tenant": namespace,
        "namespace": namespace,
        "job": "running",
        "jobUid": job["metadata"]["uid"],
        "podUids": [uid],
        "since": _STARTED,
    }
    entry = {
        "name": pod["metadata"]["name"],
        "uid": uid,
        "node": node,
        "bootId": f"boot-{node}",
        "epoch": ledger["status"]["epoch"],
    }
    await api.patch(kinds.GPU_NODE, node, "", {"status": {"phase": "Assigned", "holder": holder}}, "status")
    await api.patch(kinds.JOB_CR, "running", namespace, {"status": {"pods": [entry]}}, "status")
    await api.create(kinds.ROLE, build_grant_role(node, namespace))
    await api.create(kinds.ROLEBINDING, build_grant_binding(node, namespace, [uid]))


def _pod_of(job: Object, ended: Ended) -> Object:
    """Return the ended pod of a job, with the status that a kubelet leaves."""
    metadata = job["metadata"]
    uid = names.JobUid(metadata["uid"])
    pod = _moved(ended.pod, namespace=metadata["namespace"], name=names.training_pod(metadata["name"], uid, 1, 0))
    pod["metadata"]["labels"] |= {names.LABEL_JOB: metadata["name"], names.LABEL_JOB_UID: uid}
    for owner in pod["metadata"]["ownerReferences"]:
        owner |= {"name": metadata["name"], "uid": uid}
    spec = pod["spec"]
    spec.pop("schedulingGates", None)
    pod["status"] = {
        "phase": "Succeeded",
        "qosClass": "Burstable",
        "hostIP": "192.0.2.1",
        "podIP": "198.51.100.1",
        "startTime": _STARTED,
        "conditions": [
            {"type": kind, "status": "True", "reason": "PodCompleted", "lastTransitionTime": _FINISHED}
            for kind in ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")
        ],
        "initContainerStatuses": [_container_status(container) for container in spec.get("initContainers") or []],
        "containerStatuses": [_container_status(container) for container in spec["containers"]],
    }
    return pod


def _container_status(container: Object) -> Object:
    digest = "0" * 64
    return {
        "name": container["name"],
        "image": container["image"],
        "imageID": f"registry.example/image@sha256:{digest}",
        "containerID": f"containerd://{digest}",
        "ready": False,
        "restartCount": 0,
        "started": False,
        "state": {
            "terminated": {
                "exitCode": 0,
                "reason": "Completed",
                "startedAt": _STARTED,
                "finishedAt": _FINISHED,
                "containerID": f"containerd://{digest}",
            }
        },
    }
