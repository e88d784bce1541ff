"""What every kind of test cluster offers; the end-to-end suite knows no more than this."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from .kubectl import Kubectl

GPU_LABEL = "nvidia.com/gpu.present"


@dataclass(frozen=True, kw_only=True)
class ClusterNode:
    """A node: its name, its InternalIP, and whether it is one of those that get simulated GPUs."""

    name: str
    address: str
    gpu: bool


class Provider(Protocol):
    """One cluster. `up` and `down` may be repeated; all else needs the cluster to be up."""

    name: str

    def up(self, images: Sequence[Path] = ()) -> None:
        """Return when every node is Ready, DNS answers, GPU nodes carry their label, and every node has the images."""

    def down(self) -> None:
        """Remove all that `up` made and leave alone what it found."""

    def kubeconfig(self) -> Path:
        """Return the path of an administrator's kubeconfig, whose current context is the cluster."""

    def kubectl(self) -> Kubectl:
        """Return kubectl for the cluster."""

    def nodes(self) -> list[ClusterNode]:
        """Return the nodes, the ones without GPUs first."""

    def load_image(self, archive: Path) -> None:
        """Put the images of an archive on every node, so that no pull is needed."""

    def storage_class(self) -> str:
        """Return the storage class for the key service's volume; empty where the cluster's default one will do."""

    def reboot(self, node: str) -> None:
        """Take power from a node and start it again with a new boot id; NotSupported where that cannot be done."""

    def stop_kubelet(self, node: str) -> None:
        """End a node's kubelet and nothing else there; NotSupported where that cannot be done."""

    def start_kubelet(self, node: str) -> None:
        """Start a node's kubelet again, unless it runs; NotSupported where that cannot be done."""

    def logs(self) -> Path:
        """Return the folder of the cluster's logs (it is kept when a run fails)."""

    def shared_host_folder(self) -> Path | None:
        """Return the folder in which each node's folder lies, where the nodes share the machine's file system.

        `<folder>/<node>/kubelet` and `<folder>/<node>/cdi` are then what the node sees at /var/lib/kubelet and at
        /etc/cdi. None where each node has a file system of its own.
        """
