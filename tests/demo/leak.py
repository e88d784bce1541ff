"""Why Lethe is needed: the same two programs as plain pods on the same simulated GPU.

The first pod trains on a tenant's images and ends. The second one reads the video memory that it was given.
"""

import base64
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.cluster.bring_up import bring_up
from tests.cluster.choice import choose
from tests.cluster.errors import ClusterError
from tests.cluster.progress import say
from tests.common.digits import make_canary, write_digits
from tests.common.installation import EXAMPLE_IMAGE
from tests.common.objects import Object, find, logs, phase, remove, wait_until
from tests.common.world import World
from tests.demo.stage import quote, scene

NAMESPACE = "plain"
CONFIGMAP_IMAGES = 400
"""A ConfigMap holds at most 1 MiB."""


def play() -> None:
    """Show the leak on a node that Lethe does not manage, then have the node scrubbed where Lethe is installed."""
    provider = choose()
    bring_up(provider)
    world = World(provider)
    node = world.installation.gpu_nodes()[-1].name
    managed = release_node(world, node)
    kubectl = world.provider.kubectl()
    canary = make_canary()
    kubectl.apply([{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}, images(canary)])
    try:
        with scene(1, f"A plain pod of one tenant trains on {node} and ends"):
            command = ["python3", "/app/train.py", "--folder", "/data"]
            quote(run_pod(world, node, "first", command))
            say(f"    its images carried the secret {canary}")
        with scene(2, "A plain pod of another tenant gets the same GPUs and looks at them"):
            seen = run_pod(world, node, "second", ["python3", "/app/inspect_memory.py"])
            quote(seen)
        if canary not in seen:
            raise ClusterError("The second pod did not find the first one's secret: the simulated GPU leaks nothing.")
        say("    The second tenant read the first one's secret. Kubernetes alone does not clean a GPU.")
    finally:
        kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--wait=true")
        if managed:
            with scene(3, f"Lethe takes {node} back, which is dirty until it was scrubbed"):
                world.installation.cli("node", "enrol", node)
                world.installation.wait_for_node(node, "Free")
                receipt = world.installation.cli("receipt", "show", newest_receipt(world, node))
                quote(receipt)


def release_node(world: World, node: str) -> bool:
    """Take a node out of Lethe's custody for the demo; say whether it was in it."""
    if not world.installation.is_installed():
        return False
    found = find(world.provider.kubectl(), "gpunode", node)
    if not found or not found.get("spec", {}).get("managed"):
        return False
    world.installation.cli("node", "release", node)
    world.installation.wait_for_node(node, "Unmanaged")
    return True


def images(canary: str) -> Object:
    """Return some of the images as a ConfigMap, with `_` for `/` in their names."""
    with TemporaryDirectory() as folder:
        write_digits(Path(folder), canary)
        paths = sorted(Path(folder).rglob("*.png"), key=lambda path: path.name)[:CONFIGMAP_IMAGES]
        data = {
            "_".join(path.relative_to(folder).parts): base64.b64encode(path.read_bytes()).decode() for path in paths
        }
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "images", "namespace": NAMESPACE},
        "binaryData": data,
    }


def run_pod(world: World, node: str, name: str, command: list[str]) -> str:
    """Run a plain pod with all GPUs of a node and return its log."""
    kubectl = world.provider.kubectl()
    remove(kubectl, "pod", name, NAMESPACE)
    data = find(kubectl, "configmap", "images", NAMESPACE) or {}
    items = [{"key": key, "path": key.replace("_", "/")} for key in data["binaryData"]]
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "nodeSelector": {"kubernetes.io/hostname": node},
            "containers": [
                {
                    "name": "main",
                    "image": EXAMPLE_IMAGE,
                    "imagePullPolicy": "IfNotPresent",
                    "command": command,
                    "resources": {"limits": {"nvidia.com/gpu": 2}},
                    "volumeMounts": [{"name": "data", "mountPath": "/data", "readOnly": True}],
                }
            ],
            "volumes": [{"name": "data", "configMap": {"name": "images", "items": items}}],
        },
    }
    kubectl.apply([pod])
    ended = wait_until(
        kubectl,
        "pod",
        name,
        lambda found: phase(found) in ("Succeeded", "Failed"),
        NAMESPACE,
        what=f"pod {name} to end",
        seconds=120,
    )
    said = logs(kubectl, name, NAMESPACE)
    if phase(ended) == "Failed":
        raise ClusterError(f"Pod {name} failed:\n{said}")
    remove(kubectl, "pod", name, NAMESPACE)
    return said


def newest_receipt(world: World, node: str) -> str:
    """Return the name of a node's newest receipt."""
    found = find(world.provider.kubectl(), "gpunode", node) or {}
    return found["status"]["lastReceipt"]["name"]
