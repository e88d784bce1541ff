"""Workloads of people who know nothing of Lethe, on the same cluster: a Deployment, a pod with a GPU, a DaemonSet."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tests.cluster.kubectl import Kubectl
from tests.cluster.provider import GPU_LABEL
from tests.common.objects import Object, find, find_all, remove, wait_for_running, wait_until

NAMESPACE = "neighbours"
AGENT = "agent"
NOTEBOOK = "notebook"
IMAGE = "localhost/lethe:dev"
TOLERATE_EVERYTHING = [{"operator": "Exists"}]
HOST = "kubernetes.io/hostname"


@dataclass(frozen=True)
class Neighbours:
    """The neighbours of one cluster. The notebook holds a GPU of `gpu_node`; the agent runs everywhere but `spared`."""

    kubectl: Kubectl
    gpu_node: str
    spared: str

    def move_in(self) -> None:
        """Start everything and wait until it runs."""
        self.kubectl.apply([{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}])
        notebook = pod(NOTEBOOK, self.gpu_node)
        notebook["spec"]["containers"][0]["resources"] = {"limits": {"nvidia.com/gpu": 1}}
        web = _workload("Deployment", "web", replicas=2)
        web["spec"]["template"]["spec"]["affinity"] = _not_in(GPU_LABEL, "true")
        self.kubectl.apply([web, notebook, self._agents()])
        self.kubectl.rolled_out(NAMESPACE, "deployment/web", seconds=120)
        self.kubectl.rolled_out(NAMESPACE, f"daemonset/{AGENT}", seconds=120)
        self.wait_for(NOTEBOOK)

    def move_out(self) -> None:
        """Remove everything."""
        remove(self.kubectl, "namespace", NAMESPACE)

    def state(self) -> dict[str, object]:
        """Return, by name, what changes when a pod is disturbed: its uid, its node, its containers' restarts."""
        return {
            each["metadata"]["name"]: (
                each["metadata"]["uid"],
                each["spec"].get("nodeName"),
                [status["restartCount"] for status in each["status"].get("containerStatuses", [])],
            )
            for each in find_all(self.kubectl, "pods", NAMESPACE)
        }

    def bind(self, nodes: Iterable[str]) -> None:
        """Let the scheduler bind a new pod to each of these nodes, and take the pods away again."""
        probes = {f"probe-{node}": node for node in nodes}
        self.kubectl.apply([pod(name, node) for name, node in probes.items()])
        for name, node in probes.items():
            self.wait_for(name, f"pod {name} to run on {node}")
        self.kubectl("delete", "pod", *probes, f"--namespace={NAMESPACE}")

    def wait_for(self, name: str, what: str = "") -> Object:
        """Wait until a pod runs."""
        return wait_for_running(self.kubectl, name, NAMESPACE, what=what or f"pod {name} to run")

    def is_shut_out(self, node: str) -> None:
        """Check that a new pod which tolerates everything is refused by the fence of a node, and stays without one."""
        name = f"stranger-{node}"
        self.kubectl.apply([pod(name, node, tolerations=TOLERATE_EVERYTHING)])
        wait_until(
            self.kubectl,
            "pod",
            name,
            lambda found: f"node {node} is closed to pod" in _told(self.kubectl, name),
            NAMESPACE,
            what=f"the fence of {node} to refuse pod {name}",
            seconds=60,
        )
        found = find(self.kubectl, "pod", name, NAMESPACE)
        assert found is not None
        assert "nodeName" not in found["spec"]
        self.leave(name)

    def agent_on(self, node: str) -> Object | None:
        """Return the agent's pod that is bound to a node."""
        agents = find_all(self.kubectl, "pods", NAMESPACE, f"app={AGENT}")
        return next((each for each in agents if each["spec"].get("nodeName") == node), None)

    def leave(self, kind_or_name: str, name: str = "") -> None:
        """Delete one of their pods, or an object of another kind."""
        kind, of = (kind_or_name, name) if name else ("pod", kind_or_name)
        remove(self.kubectl, kind, of, NAMESPACE)

    def _agents(self) -> Object:
        agents = _workload("DaemonSet", AGENT)
        spec = agents["spec"]["template"]["spec"]
        spec["tolerations"] = TOLERATE_EVERYTHING
        spec["affinity"] = _not_in(HOST, self.spared)
        return agents


def pod(name: str, node: str, **spec: Any) -> Object:
    """Return a pod that a scheduler may put on one node only."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {**_sleeping(), "nodeSelector": {HOST: node}, **spec},
    }


def _workload(kind: str, name: str, **spec: Any) -> Object:
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": _sleeping()}
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"selector": {"matchLabels": labels}, "template": template, **spec},
    }


def _not_in(label: str, value: str) -> Object:
    terms = [{"matchExpressions": [{"key": label, "operator": "NotIn", "values": [value]}]}]
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}


def _sleeping() -> Object:
    container = {"name": "main", "image": IMAGE, "command": ["sleep", "infinity"]}
    return {"containers": [container], "terminationGracePeriodSeconds": 0}


def _told(kubectl: Kubectl, pod: str) -> str:
    """Return what events say about a pod."""
    chosen = f"--field-selector=involvedObject.name={pod}"
    return " ".join(
        event["message"] for event in kubectl.read("get", "events", f"--namespace={NAMESPACE}", chosen)["items"]
    )
