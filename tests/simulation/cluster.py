"""A simulated cluster around the API server in memory: what people make, machines, a scheduler, and the operator.

The invariants of custody are checked at every step: by the machines themselves (`hosts`), and by `check`.
"""

from typing import Any

import msgspec

from lethe.adapters import kube
from lethe.adapters.kube import Object
from lethe.crypto.hpke import PrivateKey
from lethe.decisions.snapshot import Snapshot
from lethe.model import names
from lethe.model.config import OperatorConfig
from tests.simulation.api_server import ApiServer, ManualClock
from tests.simulation.containers import Behaviour
from tests.simulation.faults import Faults
from tests.simulation.hosts import GPUS, Host, Hosts
from tests.simulation.operators import Operator
from tests.simulation.scheduler import schedule

RECOVERY_KEY = PrivateKey.generate("X25519").public_key().encode()


class Cluster:
    """Nodes, tenants, and an operator that may be killed and started again."""

    def __init__(self, faults: Faults | None = None, **config: Any) -> None:
        self.clock = ManualClock()
        self.server = ApiServer(self.clock)
        self.config = OperatorConfig(image="lethe:test", **config)
        self.hosts = Hosts(self.server, self.clock, self.server.container_logs)
        self.operator = Operator(self.server.client(), self.clock, self.config, faults or Faults())
        prepare(self.server)

    @property
    def behaviour(self) -> Behaviour:
        return self.hosts.behaviour

    @behaviour.setter
    def behaviour(self, behaviour: Behaviour) -> None:
        self.hosts.behaviour = behaviour

    @property
    def faults(self) -> Faults:
        return self.operator.faults

    @property
    def memory(self) -> dict[tuple[str, int], str]:
        return self.hosts.memory

    @property
    def ran(self) -> list[tuple[str, str]]:
        return self.hosts.ran

    def configure(self, **changes: Any) -> None:
        """Start the operator again with a changed configuration."""
        self.config = msgspec.structs.replace(self.config, **changes)
        self.operator = Operator(self.server.client(), self.clock, self.config, self.faults)

    # ---- what people make

    def add_node(self, name: str, *, gpus: int = GPUS, managed: bool = True, system: str = "") -> Host:
        """Add a machine and its Node; `system` is the name that it had before, if it had another."""
        host = self.hosts.add(name, gpus, system)
        self.server.create(kube.NODE, host.node())
        if gpus and managed:
            self.server.create(kube.GPU_NODE, {"metadata": {"name": name}, "spec": {"managed": True}})
        return host

    def reboot(self, name: str) -> None:
        """Reboot a node: its processes end, its GPUs' memory may survive, and its kubelet registers at once."""
        self.hosts.reboot(name)
        self.hosts.machines[name].register(self.server)

    def add_tenant(self, name: str, **spec: Any) -> None:
        add_tenant(self.server, name, **spec)

    def add_job(self, namespace: str, name: str = "digits", **spec: Any) -> None:
        self.server.create(kube.JOB_CR, {"metadata": {"name": name, "namespace": namespace}, "spec": job_spec(**spec)})

    # ---- time

    async def settle(self, *, limit: int = 400) -> None:
        """Let everything happen until nothing does any more; time moves to the next thing that is due."""
        for _ in range(limit):
            before = self.server.version
            wait = await self.operate()
            moved = schedule(self.server) | self.hosts.run()
            self.check()
            if self.server.version != before or moved or wait == 0:
                self.clock.move(0.2)
            elif wait < self.config.resync_seconds:
                self.clock.move(wait)
            else:
                return
        last = [str(request) for request in self.faults.writes[-10:]]
        raise AssertionError(f"no rest after {limit} steps; last writes: {last}")

    async def operate(self) -> float:
        """Run one cycle of the operator."""
        return await self.operator.cycle()

    async def observe(self) -> Snapshot:
        """Return what a cycle would know now."""
        return await self.operator.observe()

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
        """Check what must hold of the API server's objects at every moment."""
        check_company(self.server)


def check_company(server: ApiServer) -> None:
    """Check that no two tenants' pods, and no scrub and training pod, are bound to one node."""
    company: dict[str, tuple[set[str], set[str]]] = {}
    for pod in server.all(kube.POD):
        node, labels = pod["spec"].get("nodeName"), pod["metadata"].get("labels") or {}
        if not node or names.LABEL_ROLE not in labels or pod["status"].get("phase") in ("Succeeded", "Failed"):
            continue
        tenants, roles = company.setdefault(node, (set(), set()))
        roles.add(labels[names.LABEL_ROLE])
        if names.LABEL_TENANT in labels:
            tenants.add(labels[names.LABEL_TENANT])
        assert len(tenants) <= 1, f"two tenants on {node}: {tenants}"
        assert roles != {names.ROLE_SCRUB, names.ROLE_TRAIN}, f"{node} is scrubbed under a running pod"


def prepare(server: Any) -> None:
    """Make what the chart makes."""
    for name in ("default", names.SYSTEM_NAMESPACE, names.OPEN_NAMESPACE):
        server.create(kube.NAMESPACE, {"metadata": {"name": name}})
    server.create(kube.CONFIGMAP, trust())


def trust() -> Object:
    """Build the ConfigMap that training pods take the key service's CA from."""
    metadata = {"name": names.TRUST_CONFIGMAP, "namespace": names.SYSTEM_NAMESPACE}
    return {"metadata": metadata, "data": {names.TRUST_CA: "a certificate"}}


def add_tenant(server: Any, name: str, **spec: Any) -> None:
    """Make a tenant with its namespace, a dataset and a Secret."""
    server.create(kube.NAMESPACE, {"metadata": {"name": name}})
    server.create(kube.TENANT, {"metadata": {"name": name}, "spec": {"namespaces": [name], **spec}})
    dataset = {
        "storage": {"url": f"s3://{name}/digits", "secretRef": {"name": "s3"}},
        "datasetId": "41" * 16,
        "index": {"object": "6f" * 16, "sha256": "9a" * 32},
        "criticality": "sensitive",
    }
    server.create(kube.DATASET, {"metadata": {"name": "digits", "namespace": name}, "spec": dataset})
    server.create(kube.SECRET, {"metadata": {"name": "s3", "namespace": name}, "data": {}})


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
