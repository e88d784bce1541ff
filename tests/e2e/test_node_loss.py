"""A node that is lost, comes back, or only seems to: it is never Free without proof or a new boot id, and a scrub.

Needs a cluster whose nodes can be broken; elsewhere the tests are skipped.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.cluster.errors import ClusterError, NotSupported
from tests.cluster.kubectl import Kubectl
from tests.cluster.provider import Provider
from tests.common.installation import Installation
from tests.common.objects import Object, condition, find, message, phase, wait_until
from tests.common.tenants import TrialTenant
from tests.common.world import World
from tests.e2e.jobs import end, held_job, let_go, reach, releases, run_held, start

PROOF_SECONDS = 10
NOT_READY_SECONDS = 120
OUT_OF_SERVICE = "node.kubernetes.io/out-of-service"
NODE_CONTROLLER = "system:serviceaccount:kube-system:node-controller"
GROUPS = ("system:serviceaccounts", "system:serviceaccounts:kube-system", "system:authenticated")


@dataclass(frozen=True)
class Nodes:
    """The GPU nodes, with somebody who breaks them."""

    installation: Installation

    @property
    def provider(self) -> Provider:
        return self.installation.provider

    @property
    def kubectl(self) -> Kubectl:
        return self.provider.kubectl()

    def ledger(self, node: str) -> Object:
        found = find(self.kubectl, "gpunode", node)
        assert found is not None
        return found

    def epoch(self, node: str) -> int:
        return int(self.ledger(node)["status"]["epoch"])

    def is_out_of_service(self, node: str) -> bool:
        taints = self.kubectl.read("get", "node", node)["spec"].get("taints", [])
        return OUT_OF_SERVICE in [taint["key"] for taint in taints]

    def wait_until_lost(self, node: str) -> None:
        """Wait until Kubernetes has noticed that a kubelet is silent."""
        wait_until(
            self.kubectl,
            "node",
            node,
            lambda found: condition(found, "Ready")["status"] != "True",
            what=f"node {node} to be NotReady",
            seconds=NOT_READY_SECONDS,
        )

    def wait_until_quarantined(self, node: str, pod: str) -> str:
        """Wait until a node is quarantined for want of proof of this pod's end, and return what was seen of the pod."""
        status = self.installation.wait_for_node(node, "Quarantined", seconds=60)["status"]
        assert (status["reason"], status["quarantine"]["reason"]) == ("ProofTimedOut", "ProofTimedOut")
        assert "reboot the node, which is proof" in status["quarantine"]["advice"]
        assert status["quarantine"]["advice"] in " ".join(self.installation.cli("node", "show", node).split())
        [seen] = [line for line in status["quarantine"]["evidence"] if f"/{pod} (" in line]
        return str(seen)

    def wait_for_scrub(self, node: str, after: int) -> None:
        """Wait until a node is Free; its scrub is of the next epoch, of the boot that runs, and has its receipt."""
        ledger = self.installation.wait_for_node(node, "Free")
        status = ledger["status"]
        assert status["epoch"] == after + 1
        assert status["lastReceipt"]["epoch"] == status["epoch"]
        assert status["lastReceipt"]["bootId"] == status["bootId"]
        running = self.kubectl.read("get", "node", node)
        assert status["bootId"] == running["status"]["nodeInfo"]["bootID"]
        assert status["nodeUid"] == running["metadata"]["uid"]
        self.installation.cli("receipt", "verify", "--node", node)


@pytest.fixture(scope="module")
def nodes(world: World) -> Iterator[Nodes]:
    """Return the nodes, under an operator that does not wait long for proof; whatever a test leaves is mended."""
    made = Nodes(world.installation)
    names = [node.name for node in world.installation.gpu_nodes()]
    try:
        made.provider.start_kubelet(names[0])
    except NotSupported as reason:
        pytest.skip(str(reason))
    world.installation.install(gpuNodes={"proofTimeoutSeconds": PROOF_SECONDS})
    try:
        yield made
    finally:
        for name in names:
            if made.is_out_of_service(name):
                made.kubectl("taint", "node", name, f"{OUT_OF_SERVICE}-")
            made.provider.start_kubelet(name)
            if phase(made.ledger(name)) == "Quarantined":
                made.provider.reboot(name)
        world.installation.install()
        for name in names:
            made.installation.wait_for_node(name, "Free")


def node_of(job: Object) -> str:
    name: str = job["status"]["node"]
    return name


def test_a_kubelet_that_restarts_ends_nothing(nodes: Nodes, acme: TrialTenant) -> None:
    job = run_held(acme, "kubelet-restarts")
    node, epoch = node_of(job), nodes.epoch(node_of(job))
    nodes.provider.stop_kubelet(node)
    nodes.provider.start_kubelet(node)
    let_go(acme, job)
    ended = end(acme, "kubelet-restarts")
    assert phase(ended) == "Succeeded", message(ended)
    assert ended["status"]["attempt"] == 1
    assert releases(nodes.kubectl, job) == 1
    nodes.wait_for_scrub(node, epoch)


def test_a_pod_that_is_force_deleted_behind_a_silent_kubelet(nodes: Nodes, acme: TrialTenant) -> None:
    job = run_held(acme, "force-deleted")
    node, epoch = node_of(job), nodes.epoch(node_of(job))
    [known] = job["status"]["pods"]
    nodes.provider.stop_kubelet(node)
    nodes.kubectl("delete", "pod", known["name"], "--namespace=acme", "--force", "--grace-period=0", "--wait=false")
    assert "train running" in nodes.wait_until_quarantined(node, known["name"])
    left = find(nodes.kubectl, "pod", known["name"], "acme")
    assert left is not None, "the object of a pod that still runs was let go"
    assert left["metadata"]["uid"] == known["uid"]
    assert phase(reach(acme, "force-deleted", "Running")) == "Running"

    nodes.provider.start_kubelet(node)
    ended = end(acme, "force-deleted")
    assert (phase(ended), ended["status"]["reason"]) == ("Failed", "PodLost"), message(ended)
    nodes.wait_for_scrub(node, epoch)


def test_a_node_object_that_is_deleted_and_registered_anew(nodes: Nodes, acme: TrialTenant) -> None:
    job = run_held(acme, "node-deleted")
    node, epoch = node_of(job), nodes.epoch(node_of(job))
    before = nodes.kubectl.read("get", "node", node)["metadata"]["uid"]
    with pytest.raises(ClusterError, match="is managed"):
        nodes.kubectl("delete", "node", node)
    nodes.provider.stop_kubelet(node)
    groups = [f"--as-group={group}" for group in GROUPS]
    nodes.kubectl("delete", "node", node, f"--as={NODE_CONTROLLER}", *groups)
    assert nodes.epoch(node) == epoch
    nodes.provider.start_kubelet(node)

    ended = end(acme, "node-deleted")
    assert (phase(ended), ended["status"]["reason"]) == ("Failed", "PodLost"), message(ended)
    nodes.wait_for_scrub(node, epoch)
    anew = nodes.kubectl.read("get", "node", node)
    assert anew["metadata"]["uid"] != before
    assert "lethe.dev/gpu" in [taint["key"] for taint in anew["spec"]["taints"]]


def test_power_fails_under_a_job(nodes: Nodes, acme: TrialTenant) -> None:
    job = run_held(acme, "power-failure")
    node, epoch = node_of(job), nodes.epoch(node_of(job))
    nodes.provider.reboot(node)
    ended = end(acme, "power-failure")
    assert (phase(ended), ended["status"]["reason"]) == ("Failed", "PodLost")
    # The kubelet may refuse the pod a moment before its Node shows the new boot.
    assert f"node {node} was rebooted" in message(ended) or "Pod was rejected" in message(ended), message(ended)
    nodes.wait_for_scrub(node, epoch)
    assert nodes.ledger(node)["status"]["bootId"] != job["status"]["pods"][0]["bootId"]


def test_two_lost_nodes_of_which_one_comes_back(nodes: Nodes, acme: TrialTenant, globex: TrialTenant) -> None:
    kept, lost = run_held(globex, "kept"), run_held(globex, "lost")
    node, epoch = node_of(lost), nodes.epoch(node_of(lost))
    for job in (kept, lost):
        nodes.provider.stop_kubelet(node_of(job))
    waiting = start(acme, held_job(acme, "waiting"))
    for job in (kept, lost):
        nodes.wait_until_lost(node_of(job))
        assert phase(nodes.ledger(node_of(job))) == "Assigned"
    nodes.provider.start_kubelet(node_of(kept))

    nodes.kubectl("taint", "node", node, f"{OUT_OF_SERVICE}=nodeshutdown:NoExecute")
    ended = end(globex, "lost")
    assert (phase(ended), ended["status"]["reason"]) == ("Failed", "PodLost"), message(ended)
    seen = nodes.wait_until_quarantined(node, lost["status"]["pods"][0]["name"])
    assert "Failed" in seen and "train running" in seen, "Kubernetes gave the pod up, and no kubelet has said so"
    assert phase(reach(acme, waiting, "Queued")) == "Queued"
    assert nodes.epoch(node) == epoch

    nodes.provider.reboot(node)
    nodes.kubectl("taint", "node", node, f"{OUT_OF_SERVICE}-")
    started = reach(acme, waiting, "Running")
    [granted] = started["status"]["pods"]
    assert (granted["node"], granted["epoch"]) == (node, epoch + 1)
    receipt = find(nodes.kubectl, "scrubreceipt", f"{node}-{epoch + 1}")
    assert receipt is not None
    assert receipt["spec"]["tenant"] == "globex"

    for tenant, job in ((globex, kept), (acme, started)):
        let_go(tenant, job)
        ended = end(tenant, job["metadata"]["name"])
        assert phase(ended) == "Succeeded", message(ended)
        assert ended["status"]["attempt"] == 1
        assert releases(nodes.kubectl, job) == 1
