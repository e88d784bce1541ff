"""The DaemonSet of simulated GPUs for a cluster.

    python3 -m tests.simgpu.manifest                       | kubectl apply -f -     nodes with file systems of their own
    python3 -m tests.simgpu.manifest --shared-host FOLDER  | kubectl apply -f -     nodes on one host

1. `daemonset.yaml` is right for nodes that have a file system each: kind's and real ones.
2. Nodes that are only namespaces of one host share its file system, whatever each sees at /var/lib/kubelet. There, all
   that belongs to node N lies below FOLDER/N: `kubelet/device-plugins`, `cdi`, and `simgpu` for the GPUs.
3. The image keeps its name when it is built anew, so an annotation with the sources' digest makes the pods follow.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.simgpu.libraries import source_digest

DAEMON_SET = Path(__file__).with_name("daemonset.yaml")


@dataclass(frozen=True, kw_only=True)
class OwnNode:
    """Each node has a file system of its own; the GPUs are kept in `folder` on it."""

    folder: str = "/var/lib/simgpu"


@dataclass(frozen=True, kw_only=True)
class SharedHost:
    """All nodes are on one host; each node's folders are below `folder`, in a folder of the node's name."""

    folder: str


def build_manifests(
    layout: OwnNode | SharedHost, *, image: str = "localhost/lethe-simgpu:dev", gpus: int = 2, mib: int = 64
) -> list[dict[str, Any]]:
    """Return the Kubernetes objects that put simulated GPUs on the nodes labelled nvidia.com/gpu.present=true."""
    daemon_set: dict[str, Any] = yaml.safe_load(DAEMON_SET.read_text())
    daemon_set["spec"]["template"]["metadata"]["annotations"] = {"simgpu/sources": source_digest()}
    pod = daemon_set["spec"]["template"]["spec"]
    [container] = pod["containers"]
    container["image"] = image
    _set(container["env"], GPUS=str(gpus), MIB=str(mib))
    if isinstance(layout, OwnNode):
        _set(container["env"], HOST_ROOT=layout.folder)
        _volume(pod, "gpus")["hostPath"]["path"] = layout.folder
    else:
        # $(NODE_NAME) is filled in by the kubelet; the variable must come before the one that uses it.
        _set(container["env"], HOST_ROOT=f"{layout.folder}/$(NODE_NAME)/simgpu")
        places = {"device-plugins": "kubelet/device-plugins", "cdi": "cdi", "gpus": "simgpu"}
        for mount in container["volumeMounts"]:
            mount["subPathExpr"] = f"$(NODE_NAME)/{places[mount['name']]}"
            _volume(pod, mount["name"])["hostPath"] = {"path": layout.folder, "type": "Directory"}
    return [daemon_set]


def gpu_folder(layout: OwnNode | SharedHost, node: str, number: int) -> Path:
    """Return the folder of a GPU, on the node's file system."""
    root = Path(layout.folder) if isinstance(layout, OwnNode) else Path(layout.folder, node, "simgpu")
    return root / f"gpu{number}"


def _set(environment: list[dict[str, Any]], **values: str) -> None:
    for variable in environment:
        if variable["name"] in values:
            variable["value"] = values[variable["name"]]


def _volume(pod: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any]
    [found] = [volume for volume in pod["volumes"] if volume["name"] == name]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Print the DaemonSet of simulated GPUs.")
    parser.add_argument("--shared-host", metavar="FOLDER", help="nodes share this host's file system; see the module")
    parser.add_argument("--image", default="localhost/lethe-simgpu:dev")
    parser.add_argument("--gpus", type=int, default=2, help="GPUs on each node")
    parser.add_argument("--mib", type=int, default=64, help="video memory of each")
    arguments = parser.parse_args()
    layout = SharedHost(folder=arguments.shared_host) if arguments.shared_host else OwnNode()
    manifests = build_manifests(layout, image=arguments.image, gpus=arguments.gpus, mib=arguments.mib)
    print(yaml.safe_dump_all(manifests, sort_keys=False), end="")


if __name__ == "__main__":
    main()
