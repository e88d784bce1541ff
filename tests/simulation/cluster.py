"""A simulated cluster around the API server in memory: scheduler, kubelets, GPUs, and the operator itself.

Each GPU node's memory remembers whose data lies in it. The invariants of custody are checked at every step:
no training container starts on memory that another tenant has left, and no two tenants are ever on one node.
"""

import json
from dataclasses import dataclass, field
from typing import Any

import msgspec

from lethe.adapters import kube
from lethe.adapters.kube import Object
from lethe.adapters.metrics import OperatorMetrics
from lethe.controller.cycle import Cycle
from lethe.controller.execute import Executor
from lethe.controller.observe import Observer
from lethe.controller.queue import Wakeups
from lethe.crypto.hpke import PrivateKey
from lethe.crypto.sign import Signer
from lethe.decisions.snapshot import Snapshot
from lethe.formats.quantity import format_time
from lethe.formats.receipt import encode_report
from lethe.model import names
from lethe.model.agentconfig import ScrubConfig
from lethe.model.config import OperatorConfig
from lethe.model.errors import ConflictError, UnavailableError
from lethe.model.scrub import Residue
from tests.common.scrubs import build_gpu, build_report, build_summary
from tests.simulation.api_server import ApiServer, Interruptions, ManualClock, Stopped

SIGNER = Signer.generate()
RECOVERY_KEY = PrivateKey.generate("X25519").public_key().encode()
GPUS = 2


@dataclass
class Behaviour:
    """How the containers of jobs and scrubs behave."""

    keyfetch: int = 0
    keyfetch_message: str = ""
    train: int = 0
    outputs: int = 0
    outputs_message: str = json.dumps(
        {
            "datasetId": "ab" * 16,
            "index": {"object": "cd" * 16, "sha256": "ef" * 32},
            "files": 3,
            "bytes": 99,
            "url": "s3://results/digits/" + "ab" * 16,
        }
    )
    endless: bool = False
    """Training goes on until it is killed."""
    scrub_changes: dict[str, Any] = field(default_factory=dict)
    """Changes of the scrub's report."""
    kubelets: bool = True


class Leader:
    """What an operator that is alone has in the place of a Lease."""

    def require(self) -> None:
        """Let every write pass."""


class Cluster:
    """Nodes, tenants, and an operator that may be killed and started again."""

    def __init__(self, interruptions: Interruptions | None = None, **config: Any) -> None:
        self.clock = ManualClock()
        self.server = ApiServer(self.clock)
        self.interruptions = interruptions or Interruptions()
        self.config = OperatorConfig(image="lethe:test", **config)
        self.behaviour = Behaviour()
        self.memory: dict[str, str] = {}
        self.ran: list[tuple[str, str]] = []
        """Pod and node of every training container that started."""
        for name in ("default", names.SYSTEM_NAMESPACE, names.OPEN_NAMESPACE):
            self.server.create(kube.NAMESPACE, {"metadata": {"name": name}})
        self.server.create(
            kube.CONFIGMAP,
            {
                "metadata": {"name": names.TRUST_CONFIGMAP, "namespace": names.SYSTEM_NAMESPACE},
                "data": {names.TRUST_CA: "a certificate"},
            },
        )
        self._start_operator()

    def _start_operator(self) -> None:
        api: Any = self.server.client(self.interruptions)
        metrics = OperatorMetrics()
        keys = {SIGNER.key_id: SIGNER.public_key}
        leader: Any = Leader()
        self._observer = Observer(api, self.clock, self.config, keys, lambda kind, newest: None)
        self._cycle = Cycle(
            self._observer,
            Executor(api, leader, self.clock, self.config, SIGNER, metrics),
            Wakeups(),
            self.config,
            self.clock,
            metrics,
        )

    def configure(self, **changes: Any) -> None:
        """Start the operator again with a changed configuration."""
        self.config = msgspec.structs.replace(self.config, **changes)
        self._start_operator()

    # ---- what people make

    def add_node(self, name: str, *, gpus: int = GPUS, managed: bool = True) -> None:
        self.server.create(
            kube.NODE,
            {
                "metadata": {"name": name, "labels": {names.GPU_PRESENT_LABEL: "true"} if gpus else {}},
                "spec": {},
                "status": {
                    "nodeInfo": {"bootID": f"boot-{name}-1", "systemUUID": f"system-{name}"},
                    "capacity": {names.GPU_RESOURCE: str(gpus)} if gpus else {},
                    "conditions": [{"type": "Ready", "status": "True"}],
                },
            },
        )
        if gpus and managed:
            self.server.create(kube.GPU_NODE, {"metadata": {"name": name}, "spec": {"managed": True}})

    def reboot(self, name: str) -> None:
        """Reboot a node: its processes end; the memory of its GPUs may survive."""
        boot = self.server.get(kube.NODE, name)["status"]["nodeInfo"]["bootID"]
        prefix, _, number = boot.rpartition("-")
        patch = {"status": {"nodeInfo": {"bootID": f"{prefix}-{int(number) + 1}"}}}
        self.server.patch(kube.NODE, name, "", patch)

    def add_tenant(self, name: str, **spec: Any) -> None:
        self.server.create(kube.NAMESPACE, {"metadata": {"name": name}})
        self.server.create(kube.TENANT, {"metadata": {"name": name}, "spec": {"namespaces": [name], **spec}})
        self.server.create(
            kube.DATASET,
            {
                "metadata": {"name": "digits", "namespace": name},
                "spec": {
                    "storage": {"url": f"s3://{name}/digits", "secretRef": {"name": "s3"}},
                    "datasetId": "41" * 16,
                    "index": {"object": "6f" * 16, "sha256": "9a" * 32},
                    "criticality": "sensitive",
                },
            },
        )
        self.server.create(kube.SECRET, {"metadata": {"name": "s3", "namespace": name}, "data": {}})

    def add_job(self, namespace: str, name: str = "digits", **spec: Any) -> None:
        self.server.create(kube.JOB_CR, {"metadata": {"name": name, "namespace": namespace}, "spec": job_spec(**spec)})

    # ---- time

    async def settle(self, *, limit: int = 400) -> None:
        """Let everything happen until nothing does any more; time moves to the next thing that is due."""
        for _ in range(limit):
            before = self.server._version
            wait = await self._operate()
            moved = self._schedule() | self._run_pods()
            self.check()
            if self.server._version != before or moved or wait == 0:
                self.clock.move(0.2)
            elif wait < self.config.resync_seconds:
                self.clock.move(wait)
            else:
                return
        raise AssertionError(f"no rest after {limit} steps; last writes: {self.interruptions.log[-10:]}")

    async def _operate(self) -> float:
        """Run one cycle; an operator that was killed is started again."""
        try:
            return await self._cycle.run_once()
        except Stopped:
            self._start_operator()
        except (UnavailableError, ConflictError):
            return 0.0
        return 0.0

    async def observe(self) -> Snapshot:
        """Return what a cycle would know now."""
        return await self._observer.observe()

    def job(self, namespace: str, name: str = "digits") -> Object:
        return self.server.get(kube.JOB_CR, name, namespace)

    def job_status(self, namespace: str, name: str = "digits") -> Object:
        return dict(self.job(namespace, name).get("status") or {})

    def node_status(self, name: str) -> Object:
        return dict(self.server.get(kube.GPU_NODE, name).get("status") or {})

    def events(self, name: str) -> list[str]:
        return [event["reason"] for event in self.server.all(kube.EVENT) if event["involvedObject"]["name"] == name]

    # ---- invariants

    def check(self) -> None:
        """Check what must hold at every moment."""
        for node in self.server.all(kube.NODE):
            name = node["metadata"]["name"]
            pods = [
                pod
                for pod in self.server.all(kube.POD, fields=f"spec.nodeName={name}")
                if pod["status"]["phase"] not in ("Succeeded", "Failed")
            ]
            tenants = {pod["metadata"]["labels"].get(names.LABEL_TENANT) for pod in pods} - {None}
            assert len(tenants) <= 1, f"two tenants on {name}: {tenants}"
            roles = {pod["metadata"]["labels"].get(names.LABEL_ROLE) for pod in pods}
            assert roles != {names.ROLE_SCRUB, names.ROLE_TRAIN}, f"{name} is scrubbed under a running pod"

    # ---- scheduler and kubelets

    def _schedule(self) -> bool:
        moved = False
        for pod in self.server.all(kube.POD):
            metadata, spec = pod["metadata"], pod["spec"]
            if spec.get("nodeName") or spec.get("schedulingGates") or "deletionTimestamp" in metadata:
                continue
            node = _only_node(spec)
            if node is None or not self._has_room(node, spec):
                continue
            system = metadata["namespace"] == names.SYSTEM_NAMESPACE
            if not system and not self.server.may_occupy(metadata["namespace"], metadata["uid"], node):
                continue
            self.server.patch(kube.POD, metadata["name"], metadata["namespace"], {"spec": {"nodeName": node}})
            moved = True
        return moved

    def _has_room(self, node: str, spec: Object) -> bool:
        found = self.server.find(kube.NODE, node)
        if found is None:
            return False
        used = sum(
            _gpus(pod["spec"])
            for pod in self.server.all(kube.POD, fields=f"spec.nodeName={node}")
            if pod["status"]["phase"] not in ("Succeeded", "Failed")
        )
        return used + _gpus(spec) <= int(found["status"]["capacity"].get(names.GPU_RESOURCE, 0))

    def _run_pods(self) -> bool:
        if not self.behaviour.kubelets:
            return False
        moved = False
        for pod in self.server.all(kube.POD):
            if pod["spec"].get("nodeName"):
                moved |= self._run_pod(pod)
        return moved

    def _run_pod(self, pod: Object) -> bool:
        """Take one step in the life of a bound pod."""
        metadata, status = pod["metadata"], pod["status"]
        if status["phase"] in ("Succeeded", "Failed"):
            if metadata.get("deletionGracePeriodSeconds"):
                self.server.finish_deletion(metadata["namespace"], metadata["name"])
                return True
            return False
        step = self._scrub if metadata["labels"].get(names.LABEL_ROLE) == names.ROLE_SCRUB else self._train
        new = step(pod)
        if new == status:
            return False
        self.server.update(kube.POD, {**pod, "status": new})
        return True

    def _train(self, pod: Object) -> Object:
        states = dict(pod["status"].get("_states") or {})
        inits = [container["name"] for container in pod["spec"].get("initContainers") or []]
        mains = [container["name"] for container in pod["spec"]["containers"]]
        behaviour = self.behaviour
        if "deletionTimestamp" in pod["metadata"]:
            for name in [*inits, *mains]:
                if (states.get(name) or {}).get("running"):
                    states[name] = _terminated(143)
            return _pod_status(states, inits, mains, "Failed")
        if names.CONTAINER_KEYFETCH in inits and names.CONTAINER_KEYFETCH not in states:
            states[names.CONTAINER_KEYFETCH] = {"running": {"startedAt": format_time(self.clock.now())}}
            return _pod_status(states, inits, mains, "Pending")
        if (states.get(names.CONTAINER_KEYFETCH) or {}).get("running"):
            states[names.CONTAINER_KEYFETCH] = _terminated(behaviour.keyfetch, behaviour.keyfetch_message)
            return _pod_status(states, inits, mains, "Failed" if behaviour.keyfetch else "Pending")
        if mains[0] not in states:
            self._start_training(pod)
            for name in [*mains, *([names.CONTAINER_OUTPUTS] if names.CONTAINER_OUTPUTS in inits else [])]:
                states[name] = {"running": {"startedAt": format_time(self.clock.now())}}
            return _pod_status(states, inits, mains, "Running")
        if states[mains[0]].get("running"):
            if behaviour.endless:
                return dict(pod["status"])
            for name in mains:
                states[name] = _terminated(behaviour.train)
            return _pod_status(states, inits, mains, "Running")
        if (states.get(names.CONTAINER_OUTPUTS) or {}).get("running"):
            states[names.CONTAINER_OUTPUTS] = _terminated(behaviour.outputs, behaviour.outputs_message)
            return _pod_status(states, inits, mains, "Running")
        return _pod_status(states, inits, mains, "Failed" if behaviour.train else "Succeeded")

    def _start_training(self, pod: Object) -> None:
        node, tenant = pod["spec"]["nodeName"], pod["metadata"]["labels"][names.LABEL_TENANT]
        found = self.memory.get(node, tenant)
        assert found == tenant, f"{tenant} was started on memory of {found}"
        self.memory[node] = tenant
        self.ran.append((f"{pod['metadata']['namespace']}/{pod['metadata']['name']}", node))

    def _scrub(self, pod: Object) -> Object:
        name = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
        states = dict(pod["status"].get("_states") or {})
        if names.CONTAINER_SCRUB not in states:
            states[names.CONTAINER_SCRUB] = {"running": {"startedAt": format_time(self.clock.now())}}
            return _pod_status(states, [], [names.CONTAINER_SCRUB], "Running")
        if "deletionTimestamp" in pod["metadata"]:
            states[names.CONTAINER_SCRUB] = _terminated(137)
            return _pod_status(states, [], [names.CONTAINER_SCRUB], "Failed")
        arguments = pod["spec"]["containers"][0]["args"]
        config = msgspec.json.decode(arguments[1], type=ScrubConfig)
        residue = 4096 if self.memory.pop(config.node, None) else 0
        gpus = [
            build_gpu(number, residue=Residue(nonzero_bytes=residue, nonzero_pages=residue // 4096, digest="00"))
            for number in range(config.gpu_count)
        ]
        report = build_report(config, **{"gpus": gpus, **self.behaviour.scrub_changes})
        self.server.container_logs[f"{name}/{names.CONTAINER_SCRUB}"] = encode_report(report) + b"\n"
        states[names.CONTAINER_SCRUB] = _terminated(0, encode_summary_of(report))
        return _pod_status(states, [], [names.CONTAINER_SCRUB], "Succeeded")


def encode_summary_of(report: Any) -> str:
    return msgspec.json.encode(build_summary(report)).decode()


def job_spec(**changes: Any) -> Object:
    """Return the spec of a job with a dataset and outputs."""
    return {
        "template": {"spec": {"containers": [{"name": "train", "image": "example/train@sha256:" + "00" * 32}]}},
        "gpusPerReplica": 2,
        "datasets": [{"name": "digits"}],
        "outputs": {
            "storage": {"url": "s3://models/digits", "secretRef": {"name": "s3"}},
            "recipients": [{"publicKey": RECOVERY_KEY}],
        },
        **changes,
    }


def _gpus(spec: Object) -> int:
    return sum(
        int((container.get("resources") or {}).get("limits", {}).get(names.GPU_RESOURCE, 0))
        for container in spec["containers"]
    )


def _only_node(spec: Object) -> str | None:
    affinity = (spec.get("affinity") or {}).get("nodeAffinity")
    if not affinity:
        return None
    terms = affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    return str(terms[0]["matchFields"][0]["values"][0])


def _terminated(code: int, message: str = "") -> Object:
    return {"terminated": {"exitCode": code, "reason": "Completed" if code == 0 else "Error", "message": message}}


def _pod_status(states: Object, inits: list[str], mains: list[str], phase: str) -> Object:
    def entries(wanted: list[str]) -> list[Object]:
        return [
            {"name": name, "imageID": "image@sha256:00", "state": states.get(name, {"waiting": {}})} for name in wanted
        ]

    return {
        "phase": phase,
        "initContainerStatuses": entries(inits),
        "containerStatuses": entries(mains),
        "_states": states,
    }
