"""Simulated GPUs on a cluster whose nodes have no real ones."""

from functools import partial

from tests.simgpu import manifest

from . import waiting
from .errors import NotSupported
from .progress import say, step
from .provider import Provider

FIRST_GPU = "/host/gpu0"


def deploy(provider: Provider) -> None:
    """Bring simulated GPUs up on the labelled nodes and return when kubelets offer them; leave real GPUs alone."""
    kubectl = provider.kubectl()
    names = [node.name for node in provider.nodes() if node.gpu]
    ours = kubectl.answers("--namespace=kube-system", "get", "daemonset", "simgpu")
    if not ours and all(_offered(provider, name) for name in names):
        say("The nodes have GPUs of their own; none is simulated.")
        return
    shared = provider.shared_host_folder()
    layout = manifest.SharedHost(folder=str(shared)) if shared else manifest.OwnNode()
    with step("Starting the simulated GPUs"):
        kubectl.apply(manifest.build_manifests(layout))
        kubectl.rolled_out("kube-system", "daemonset/simgpu", seconds=120)
        for name in names:
            waiting.until(partial(_offered, provider, name), what=f"node {name} to offer GPUs", seconds=60)


def remove(provider: Provider) -> None:
    """Take the simulated GPUs away again; their memory, which stands for the hardware, stays on the nodes."""
    provider.kubectl()("delete", "daemonset", "simgpu", "--namespace=kube-system", "--ignore-not-found")


def set_faults(provider: Provider, node: str, **faults: int | str) -> None:
    """Replace the faults of a node's first simulated GPU (see tests.simgpu.faults); none puts everything right."""
    words = [f"{name}={value}" for name, value in faults.items()]
    _on_node(provider, node, "python3", "-m", "tests.simgpu.faults", FIRST_GPU, *words)


def replace_gpu(provider: Provider, node: str) -> None:
    """Put another GPU into the place of a node's first one; it is there when the node was rebooted."""
    program = f"import pathlib, tests.simgpu.gpus as gpus; gpus.replace_gpu(pathlib.Path({FIRST_GPU!r}))"
    _on_node(provider, node, "python3", "-c", program)


def _on_node(provider: Provider, node: str, *program: str) -> None:
    """Run a program in the pod that keeps a node's simulated GPUs."""
    kubectl = provider.kubectl()
    chosen = ("--selector=app.kubernetes.io/name=simgpu", f"--field-selector=spec.nodeName={node}")
    pods = kubectl("--namespace=kube-system", "get", "pods", *chosen, "--output=name").split()
    if not pods:
        raise NotSupported(f"The GPUs of node {node} are real ones: no fault can be put into them.")
    kubectl("--namespace=kube-system", "exec", pods[0], "--", *program)


def _offered(provider: Provider, node: str) -> bool:
    """Look at allocatable: when a device plugin goes, a kubelet shows its devices as capacity for some minutes."""
    allocatable: dict[str, str] = provider.kubectl().read("get", "node", node)["status"]["allocatable"]
    return int(allocatable.get("nvidia.com/gpu", "0")) > 0
