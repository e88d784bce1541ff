"""Nodes that are kind's containers: images, files and volumes go through `kind` and `docker exec`."""

import functools
from pathlib import Path

from . import archive, system, tools
from .commands import run
from .kubectl import Kubectl
from .progress import step
from .provider import ClusterNode

KEY_VOLUME = f"/var/lib/{system.KEY_SERVICE_VOLUME}"


class KindNodes:
    """The nodes of one kind cluster."""

    def __init__(self, cluster: str) -> None:
        self.cluster = cluster

    def load_image(self, file: Path, nodes: list[ClusterNode]) -> None:
        """Put an archive's images on every node, by tag and by digest."""
        clients = [functools.partial(self._ctr, node.name) for node in nodes]
        if all(archive.is_on_node(file, ctr) for ctr in clients):
            return
        with step(f"Putting {file.name} on the nodes"):
            run([tools.bin_folder() / "kind", "load", "image-archive", file, f"--name={self.cluster}"])
            for ctr in clients:
                archive.name_by_digest(file, ctr)

    def renew_key_volume(self, kubectl: Kubectl, node: ClusterNode) -> None:
        """Make the key service's volume anew on the node."""
        kubectl("delete", "persistentvolume", system.KEY_SERVICE_VOLUME, "--ignore-not-found", "--wait")
        run(["docker", "exec", node.name, "rm", "-rf", KEY_VOLUME])
        run(["docker", "exec", node.name, "mkdir", "-p", KEY_VOLUME])
        kubectl.apply(system.key_service_volume(node.name, KEY_VOLUME))

    def _ctr(self, node: str, *words: str) -> str:
        return run(["docker", "exec", node, "ctr", "--namespace=k8s.io", *words])
