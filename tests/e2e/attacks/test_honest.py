"""What is honest goes on, on a held, a dirty and a free node: agents, administrators, kubelets, device plugins."""

import shutil
from collections.abc import Iterator

import pytest

from tests.cluster import gpus, images
from tests.cluster.kubectl import Kubectl
from tests.cluster.waiting import until
from tests.common.installation import EXAMPLE_IMAGE
from tests.common.objects import Object, find, find_all, message, phase, remove, wait_for_running, wait_until
from tests.common.world import World
from tests.e2e.attacks.agents import NAMESPACE, PORT, RECIPE, build_agents
from tests.e2e.jobs import ENDED

SQUATTER = "squatter"

admits = pytest.mark.usefixtures("admitted")


@pytest.fixture(scope="module")
def agents_image(world: World) -> None:
    """Put the image of the stand-ins on every node."""
    if shutil.which("apt-get") is None:
        pytest.skip("the stand-ins are made from Debian packages, and apt-get is not here")
    world.provider.load_image(images.build(RECIPE))


@pytest.fixture(scope="module")
def dirty(world: World, held: Object) -> Iterator[str]:
    """Return a node that is managed and Dirty, because a pod from before is still on it."""
    kubectl = world.provider.kubectl()
    node = next(node.name for node in world.installation.gpu_nodes() if node.name != held["status"]["node"])
    world.installation.wait_for_node(node, "Free")
    world.installation.cli("node", "release", node)
    world.installation.wait_for_node(node, "Unmanaged")
    try:
        kubectl.apply([{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SQUATTER}}, squatter(node)])
        what = "a pod of no tenant to run on a node that is not managed"
        wait_for_running(kubectl, SQUATTER, SQUATTER, what=what)
        world.installation.cli("node", "enrol", node)
        world.installation.wait_for_node(node, "Dirty")
        yield node
    finally:
        remove(kubectl, "namespace", SQUATTER)
        world.installation.cli("node", "enrol", node)
        world.installation.wait_for_node(node, "Free")


@pytest.fixture(scope="module")
def agents(world: World, held: Object, dirty: str, agents_image: None) -> Iterator[Kubectl]:
    """Deploy the agents in a namespace that is not the system's, and take all away at the end."""
    kubectl = world.provider.kubectl()
    try:
        kubectl.apply([{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}, *build_agents("1")])
        yield kubectl
    finally:
        remove(kubectl, "namespace", NAMESPACE)
        world.installation.install()


@pytest.fixture(scope="module")
def admitted(agents: Kubectl, world: World) -> None:
    """Make the agents' namespace one of the system's, and wait until they run on every node."""
    system = sorted({each["metadata"]["namespace"] for each in find_all(agents, "daemonsets")} | {"kube-system"})
    assert NAMESPACE in system
    world.installation.install(systemNamespaces=system)
    _rolled_out(agents)


def squatter(node: str) -> Object:
    """Return a pod that tolerates everything and stays."""
    container = {
        "name": "sleep",
        "image": EXAMPLE_IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "command": ["sleep", "86400"],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": SQUATTER, "namespace": SQUATTER},
        "spec": {
            "nodeName": node,
            "terminationGracePeriodSeconds": 0,
            "tolerations": [{"operator": "Exists"}],
            "containers": [container],
        },
    }


def test_outside_system_namespaces_they_run_on_open_nodes_only(agents: Kubectl, held: Object, dirty: str) -> None:
    closed = {held["status"]["node"], dirty}

    def refused() -> set[str]:
        events = find_all(agents, "events", NAMESPACE)
        return {node for node in closed for event in events if f"node {node} is closed" in event["message"]}

    until(lambda: refused() == closed, what="the scheduler to say that the nodes are closed to the agents", seconds=60)
    until(lambda: bool(_nodes(agents)), what="the agents to run on the open node", seconds=60)
    assert not _nodes(agents) & closed


@admits
def test_in_a_system_namespace_they_run_everywhere(agents: Kubectl, world: World, held: Object) -> None:
    assert _nodes(agents) == {node.name for node in world.provider.nodes()}
    monitors = _pods(agents, "monitor")
    monitor = next(pod for pod in monitors if pod["spec"]["nodeName"] == held["status"]["node"])
    path = f"/api/v1/namespaces/{NAMESPACE}/pods/{monitor['metadata']['name']}:{PORT}/proxy/metrics"
    assert "node_memory_MemTotal_bytes" in agents("get", f"--raw={path}")


@admits
def test_they_are_restarted_and_updated_on_held_and_dirty_nodes(agents: Kubectl, world: World, dirty: str) -> None:
    assert phase(find(agents, "gpunode", dirty) or {}) == "Dirty"
    agents("delete", "pods", "--all", f"--namespace={NAMESPACE}", "--wait=false")
    _rolled_out(agents)
    agents.apply(build_agents("2"))
    _rolled_out(agents)
    assert _nodes(agents) == {node.name for node in world.provider.nodes()}


def test_the_device_plugin_is_restarted_on_all_nodes(agents: Kubectl, world: World, held: Object) -> None:
    if find(agents, "daemonset", "simgpu", "kube-system") is None:
        pytest.skip("this cluster has GPUs of its own, whose plugin is not ours to restart")
    agents("delete", "pods", "--namespace=kube-system", "--selector=app.kubernetes.io/name=simgpu")
    gpus.deploy(world.provider)
    assert phase(find(agents, "gpunode", held["status"]["node"]) or {}) == "Assigned"


@admits
def test_administrators_cordon_and_taint_and_kubelets_report(agents: Kubectl, held: Object) -> None:
    node = held["status"]["node"]
    seen = _renewed(agents, node)
    agents("cordon", node)
    agents("taint", "node", node, "example.com/maintenance=soon:NoSchedule")
    agents("label", "node", node, "example.com/rack=7")
    agents("label", "node", node, "example.com/rack-")
    agents("taint", "node", node, "example.com/maintenance-")
    agents("uncordon", node)
    wait_until(
        agents,
        "node",
        node,
        lambda found: [taint["key"] for taint in found["spec"]["taints"]] == ["lethe.dev/gpu"],
        what="the node to carry Lethe's taint and no other",
        seconds=30,
    )
    until(lambda: _renewed(agents, node) != seen, what="the kubelet's next heartbeat", seconds=60)


@admits
def test_agents_stay_while_a_node_is_scrubbed(agents: Kubectl, world: World, dirty: str) -> None:
    _rolled_out(agents)
    remove(agents, "pod", SQUATTER, SQUATTER)
    world.installation.wait_for_node(dirty, "Free")
    assert dirty in _nodes(agents)
    agents.apply(build_agents("3"))
    _rolled_out(agents)


@admits
def test_an_administrator_drains_a_held_node(agents: Kubectl, world: World, held: Object) -> None:
    job, node = held["metadata"]["name"], held["status"]["node"]
    assert phase(find(agents, "stj", job, "acme") or {}) == "Running"
    agents("drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=120s", timeout=150)
    try:
        ended = wait_until(
            agents, "stj", job, lambda found: phase(found) in ENDED, "acme", what="the job to end", seconds=60
        )
        assert message(ended)
        assert node in _nodes(agents), "agents are not drained"
    finally:
        agents("uncordon", node)
    world.installation.wait_for_node(node, "Free")


def _pods(kubectl: Kubectl, name: str) -> list[Object]:
    return [pod for pod in find_all(kubectl, "pods", NAMESPACE, f"app={name}") if phase(pod) == "Running"]


def _nodes(kubectl: Kubectl) -> set[str]:
    """Return the nodes on which both agents run."""
    return set.intersection(
        *({pod["spec"]["nodeName"] for pod in _pods(kubectl, name)} for name in ("monitor", "network"))
    )


def _rolled_out(kubectl: Kubectl) -> None:
    for name in ("monitor", "network"):
        kubectl.rolled_out(NAMESPACE, f"daemonset/{name}", seconds=120)


def _renewed(kubectl: Kubectl, node: str) -> str:
    lease: Object = find(kubectl, "lease", node, "kube-node-lease") or {}
    renewed: str = lease["spec"]["renewTime"]
    return renewed
