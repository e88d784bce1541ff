"""Two tenants and a GPU node on a real API server with the chart's policies, without nodes: machines are simulated.

1. The operator's cycles run in this process, with the account and the rights that the chart gives it, through the real
   `lethe.adapters.kube`. Only container logs, which a kubelet serves, come from the simulation.
2. The simulated scheduler and kubelets act as such: under `system:kube-scheduler` and `system:node:<name>`.
3. Each run goes on where the last one ended, so custody is handed on from run to run.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from lethe.adapters import kube as kinds
from lethe.adapters.kube import Kind, Kube
from lethe.model import names
from lethe.model.config import OperatorConfig
from lethe.model.errors import ConflictError, RefusedError
from tests.apiserver.chart import install, program, put_policies_in, render, write_policies
from tests.apiserver.requests import SCHEDULER, kubelet
from tests.apiserver.server import Answer, Client, Object, serve
from tests.simulation.api_server import ManualClock
from tests.simulation.cluster import add_tenant, job_spec, trust
from tests.simulation.faults import Choice, Faults, never
from tests.simulation.hosts import Hosts
from tests.simulation.operators import Operator
from tests.simulation.scheduler import schedule

NODE = "gpu-1"
TENANTS = ("acme", "globex")
_RIGHTS = {kind.kind: kind for kind in (kinds.ROLE, kinds.ROLEBINDING)}


class RealBackend:
    """A real API server, as the simulated scheduler, the kubelet of one node, and administrators use it."""

    def __init__(self, admin: Client) -> None:
        self._admin = admin
        self._kubelet = admin.acting(*kubelet(NODE))
        self._scheduler = admin.acting(*SCHEDULER)

    def find(self, kind: Kind, name: str, namespace: str = "") -> Object | None:
        answer = self._admin.send("GET", kind.path(name, namespace))
        return None if answer.status == 404 else _done(answer)

    def all(self, kind: Kind, namespace: str = "", labels: str = "", fields: str = "") -> list[Object]:
        query = "&".join(
            f"{key}={value}" for key, value in (("labelSelector", labels), ("fieldSelector", fields)) if value
        )
        path = kind.path(namespace=namespace) + (f"?{query}" if query else "")
        items: list[Object] = _done(self._admin.send("GET", path)).get("items") or []
        return items

    def create(self, kind: Kind, body: Object) -> Object:
        return self._admin.create(kind, body)

    def patch(self, kind: Kind, name: str, namespace: str, patch: Any, subresource: str = "") -> Object:
        client = self._kubelet if subresource == "status" else self._admin
        path = kind.path(name, namespace, subresource)
        return _done(client.send("PATCH", path, patch, "application/merge-patch+json"))

    def delete(
        self, kind: Kind, name: str, namespace: str = "", uid: str | None = None, grace: int | None = None
    ) -> None:
        options: Object = {"apiVersion": "v1", "kind": "DeleteOptions"}
        if uid is not None:
            options["preconditions"] = {"uid": uid}
        if grace is not None:
            options["gracePeriodSeconds"] = grace
        client = self._kubelet if grace == 0 else self._admin
        answer = client.send("DELETE", kind.path(name, namespace), options)
        if answer.status != 404:
            _done(answer)

    def bind(self, namespace: str, name: str, uid: str, node: str, lag: float = 0.0) -> None:
        binding = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": name, "namespace": namespace, "uid": uid},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        }
        _done(self._scheduler.send("POST", kinds.POD.path(name, namespace, "binding"), binding))


class NodelessKube(Kube):
    """A connection to an API server without kubelets: logs are the simulation's."""

    container_logs: dict[str, bytes]

    async def logs(self, namespace: str, pod: str, container: str) -> bytes:
        return self.container_logs.get(f"{namespace}/{pod}/{container}", b"")


class Site:
    """One installation."""

    def __init__(self, admin: Client, connection: NodelessKube) -> None:
        self.backend = RealBackend(admin)
        self.clock = ManualClock()
        self.clock.time = datetime.now(UTC)
        connection.container_logs = {}
        self.hosts = Hosts(self.backend, self.clock, connection.container_logs)
        self.faults = Faults()
        config = OperatorConfig(image="lethe:test", enrolment="automatic")
        self.operator = Operator(connection, self.clock, config, self.faults)
        self.runs = 0

    def populate(self) -> None:
        """Make what people make."""
        self.backend.create(kinds.CONFIGMAP, trust())
        for tenant in TENANTS:
            add_tenant(self.backend, tenant)
        self.backend.create(kinds.NODE, self.hosts.add(NODE, 2).node())

    async def pass_rounds(self, done: Any, *, limit: int = 400) -> None:
        """Let everything happen until `done()`."""
        for _ in range(limit):
            await self.operator.cycle()
            schedule(self.backend)
            self.hosts.run()
            self.clock.move(0.5)
            if done():
                return
        last = [str(request) for request in self.faults.writes[-10:]]
        raise AssertionError(f"not done after {limit} rounds: {self.summary()}; last writes: {last}")

    async def run(self, choose: Choice = never) -> Object:
        """Let both tenants' jobs follow each other on the node, disturbed; return what must always be the same."""
        self.runs += 1
        self.faults.choose = choose
        epoch, started = self.node()["epoch"], len(self.hosts.ran)
        extra = f"cpu-{self.runs}"
        self.backend.create(kinds.NODE, {"metadata": {"name": extra}})
        for tenant in TENANTS:
            metadata = {"name": f"digits-{self.runs}", "namespace": tenant}
            self.backend.create(kinds.JOB_CR, {"metadata": metadata, "spec": job_spec()})
        await self.pass_rounds(self._has_ended)
        self.faults.choose = never
        summary = {**self.summary(), "epochs": self.node()["epoch"] - epoch, "started": len(self.hosts.ran) - started}
        summary["open"] = extra in self._open_nodes()
        self._clear(extra)
        return summary

    def summary(self) -> Object:
        """Return what is left of a run."""
        jobs = self.backend.all(kinds.JOB_CR)
        return {
            "node": self.node().get("phase"),
            "jobs": {job["metadata"]["namespace"]: _outcome(job) for job in jobs},
            "grants": [item["metadata"]["name"] for item in self._grants()],
            "memory": dict(self.hosts.memory),
            "held": [pod["metadata"]["name"] for pod in self._training_pods() if pod["metadata"].get("finalizers")],
            "receipt": self.node().get("lastReceipt", {}).get("epoch") == self.node().get("epoch"),
        }

    def node(self) -> Object:
        """Return the ledger's status."""
        return (self.backend.find(kinds.GPU_NODE, NODE) or {}).get("status") or {}

    def _has_ended(self) -> bool:
        summary = self.summary()
        over = all(phase in ("Succeeded", "Failed") and not held for phase, _, held in summary["jobs"].values())
        return bool(over and summary["node"] == "Free" and not summary["held"] and not summary["grants"])

    def _clear(self, extra: str) -> None:
        """Take away what a run has made; a real cluster's garbage collector would do the pods."""
        for job in self.backend.all(kinds.JOB_CR):
            self.backend.delete(kinds.JOB_CR, job["metadata"]["name"], job["metadata"]["namespace"])
        for pod in self._training_pods():
            self.backend.delete(kinds.POD, pod["metadata"]["name"], pod["metadata"]["namespace"])
        self.backend.delete(kinds.NODE, extra)

    def _training_pods(self) -> list[Object]:
        return self.backend.all(kinds.POD, labels=f"{names.LABEL_ROLE}={names.ROLE_TRAIN}")

    def _grants(self) -> list[Object]:
        return self.backend.all(kinds.ROLEBINDING, labels=f"{names.LABEL_ROLE}=grant")

    def _open_nodes(self) -> list[str]:
        role = self.backend.find(kinds.ROLE, names.OPEN_NODES_ACCOUNT, names.OPEN_NAMESPACE) or {}
        return [name for rule in role.get("rules") or [] for name in rule["resourceNames"]]


@asynccontextmanager
async def open_site(folder: Path) -> AsyncIterator[Site]:
    """Run an API server with the chart and its policies, and an operator that has enrolled and scrubbed the node."""
    chart = render()
    with serve(program("lethe-kube"), folder) as (admin, kubeconfig):
        install(admin, chart)
        for item in chart:
            if item["kind"] in _RIGHTS and "helm.sh/hook" not in item["metadata"].get("annotations", {}):
                admin.create(_RIGHTS[item["kind"]], item)
        async with await NodelessKube.connect(str(_operator_kubeconfig(admin, kubeconfig))) as connection:
            site = Site(admin, connection)
            site.populate()
            for _ in range(5):
                await site.operator.cycle()
            await put_policies_in(kubeconfig, write_policies(chart, folder / "policies"))
            await site.pass_rounds(lambda: site.node().get("phase") == "Free")
            yield site


def _operator_kubeconfig(admin: Client, kubeconfig: Path) -> Path:
    """Write a kubeconfig with a token of the operator's account."""
    path = kinds.SERVICEACCOUNT.path(names.OPERATOR_ACCOUNT, names.SYSTEM_NAMESPACE, "token")
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 7200}}
    token = _done(admin.send("POST", path, request))["status"]["token"]
    config = yaml.safe_load(kubeconfig.read_text())
    config["users"][0]["user"] = {"token": token}
    file = kubeconfig.with_name("operator-kubeconfig")
    file.write_text(yaml.safe_dump(config))
    return file


def _outcome(job: Object) -> tuple[str, int, list[str]]:
    status = job.get("status") or {}
    return status.get("phase", ""), status.get("attempt", 0), job["metadata"].get("finalizers") or []


def _done(answer: Answer) -> Object:
    if answer.ok:
        return answer.body
    kind = ConflictError if answer.status in (404, 409) else RefusedError
    raise kind(f"{answer.status} {answer.message}")
