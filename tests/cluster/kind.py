"""A kind cluster of ours: one control plane that also takes Lethe's own pods, two workers for GPUs.

KIND_NODE_IMAGE names the node image; without it, kind takes its default.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import yaml

from . import borrowed, folders, system, tools
from .builders import docker_answers
from .commands import run
from .errors import ClusterError, NotSupported
from .kind_nodes import KindNodes
from .kubectl import Kubectl
from .progress import step
from .provider import GPU_LABEL, ClusterNode

CLUSTER = "lethe"
CONFIGURATION = {
    "kind": "Cluster",
    "apiVersion": "kind.x-k8s.io/v1alpha4",
    # Ranges that the embedded cluster does not use: both may run on one machine.
    "networking": {"podSubnet": "10.242.0.0/16", "serviceSubnet": "10.98.0.0/16"},
    "nodes": [
        {"role": "control-plane"},
        {"role": "worker", "labels": {GPU_LABEL: "true"}},
        {"role": "worker", "labels": {GPU_LABEL: "true"}},
    ],
}


class Kind:
    """The kind cluster named `lethe`."""

    name = "kind"

    def __init__(self) -> None:
        self.folder = folders.state(self.name)
        self._nodes = KindNodes(CLUSTER)

    def up(self, images: Sequence[Path] = ()) -> None:
        if not docker_answers():
            raise ClusterError(
                "kind needs a Docker engine, and `docker info` does not answer; start Docker, or use "
                "CLUSTER=embedded as root."
            )
        tools.require(tools.FOR_KIND)
        self.folder.mkdir(parents=True, exist_ok=True)
        if CLUSTER not in self._kind("get", "clusters").split():
            with step("Creating the kind cluster (three nodes)"):
                config = self.folder / "kind.yaml"
                config.write_text(yaml.safe_dump(CONFIGURATION, sort_keys=False))
                image = os.environ.get("KIND_NODE_IMAGE", "")
                chosen = [f"--image={image}"] if image else []
                words = [f"--name={CLUSTER}", f"--config={config}", f"--kubeconfig={self.kubeconfig()}", "--wait=180s"]
                self._kind("create", "cluster", *words, *chosen)
        else:
            self._kind("export", "kubeconfig", f"--name={CLUSTER}", f"--kubeconfig={self.kubeconfig()}")
        kubectl = self.kubectl()
        borrowed.prepare(kubectl, self.folder / "changed.json")
        for archive in images:
            self.load_image(archive)
        kubectl("wait", "--for=condition=Ready", "nodes", "--all", "--timeout=180s")
        kubectl.rolled_out("kube-system", "deployment/coredns", seconds=180)
        if not kubectl.answers("get", "persistentvolume", system.KEY_SERVICE_VOLUME):
            self._nodes.renew_key_volume(kubectl, self.nodes()[0])

    def down(self) -> None:
        if not self.folder.exists():
            return
        with step("Removing the kind cluster"):
            self._kind("delete", "cluster", f"--name={CLUSTER}", f"--kubeconfig={self.kubeconfig()}")
        run(["rm", "-rf", self.folder])

    def kubeconfig(self) -> Path:
        return self.folder / "kubeconfig"

    def kubectl(self) -> Kubectl:
        return Kubectl(tools.kubectl(), self.kubeconfig())

    def nodes(self) -> list[ClusterNode]:
        return borrowed.cluster_nodes(self.kubectl())

    def load_image(self, archive: Path) -> None:
        self._nodes.load_image(archive, self.nodes())

    def storage_class(self) -> str:
        return system.STORAGE_CLASS

    def reboot(self, node: str) -> None:
        raise NotSupported(
            f"Node {node} shares the machine's kernel and boot id with all of kind; use "
            "the embedded cluster to test reboots."
        )

    def stop_kubelet(self, node: str) -> None:
        raise NotSupported(f"Node {node} is kept running by kind; use the embedded cluster to lose nodes.")

    def start_kubelet(self, node: str) -> None:
        raise NotSupported(f"Node {node} is kept running by kind; use the embedded cluster to lose nodes.")

    def logs(self) -> Path:
        folder = self.folder / "logs"
        self._kind("export", "logs", f"--name={CLUSTER}", str(folder))
        return folder

    def shared_host_folder(self) -> Path | None:
        return None

    def _kind(self, *words: str) -> str:
        return run([tools.bin_folder() / "kind", *words])
