"""The embedded cluster: a control plane on this machine and nodes in namespaces of it. Needs root on Linux.

Everything lies in the provider's state folder: `pki`, `etcd`, `run` (records of processes), `logs`, `nodes/<node>`.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from . import archive, debian, folders, image_store, network, node, system, tools, waiting
from .addresses import addresses_from_environment
from .control_plane import ControlPlane
from .errors import ClusterError
from .kubectl import Kubectl
from .network import Network
from .node import Node, NodePlan
from .node_config import PAUSE_IMAGE
from .processes import Processes
from .progress import step
from .provider import GPU_LABEL, ClusterNode
from .scratch import scratch_image

PLANS = (
    NodePlan(name="cpu-1", index=1, labels={}),
    NodePlan(name="gpu-1", index=2, labels={GPU_LABEL: "true"}),
    NodePlan(name="gpu-2", index=3, labels={GPU_LABEL: "true"}),
)
# Kubelets and containerds watch many files; the usual 128 instances are too few for three nodes.
INOTIFY = Path("/proc/sys/fs/inotify/max_user_instances")
INOTIFY_INSTANCES = 1024


class Embedded:
    """The embedded cluster of one state folder."""

    name = "embedded"

    def __init__(self) -> None:
        self.folder = folders.state(self.name)
        self.addresses = addresses_from_environment()
        self.bin = tools.bin_folder()
        self.processes = Processes(self.folder / "run", self.folder / "logs")
        self.network = Network(self.addresses)
        self.control_plane = ControlPlane(self.folder, bin=self.bin, addresses=self.addresses, processes=self.processes)
        self.all_nodes = [
            Node(
                plan,
                folder=self.folder / "nodes" / plan.name,
                bin=self.bin,
                addresses=self.addresses,
                network=self.network,
                processes=self.processes,
            )
            for plan in PLANS
        ]

    def up(self, images: Sequence[Path] = ()) -> None:
        """Start all that does not run; see Provider."""
        if os.geteuid() != 0:
            raise ClusterError(
                "The embedded cluster needs root (namespaces, mounts, cgroups); run it as root, or use CLUSTER=kind."
            )
        debian.require(debian.NODES)
        tools.require(tools.FOR_EMBEDDED)
        with self._one_at_a_time(), step("Starting the embedded cluster (three nodes)"):
            archives = [*self._own_images(), *images]
            new = any(not each.images.exists() for each in self.all_nodes)
            store = image_store.filled(archives, self.bin) if new else None
            self._prepare_machine()
            self.network.up()
            with ThreadPoolExecutor() as pool:
                starting = [pool.submit(each.power_on, self._neighbours(each), store) for each in self.all_nodes]
                self.control_plane.start(self.kubeconfig())
                for started in starting:
                    started.result()
            self.kubectl().apply(system.kubelet_rights())
            for each in self.all_nodes:
                self._join(each)
            self._apply_system_objects()
            self._wait_for_nodes()
            for image in archives:
                self.load_image(image)
            self.kubectl().rolled_out("kube-system", "deployment/coredns", seconds=120)
            for each in self.all_nodes:
                each.check()

    def down(self) -> None:
        """Stop and remove all; see Provider."""
        if not self.folder.exists():
            return
        with self._one_at_a_time(), step("Removing the embedded cluster"):
            self.control_plane.stop()
            for each in self.all_nodes:
                each.remove()
            self.network.down()
            self._restore_machine()
            shutil.rmtree(self.folder)

    def kubeconfig(self) -> Path:
        return self.folder / "kubeconfig"

    def kubectl(self) -> Kubectl:
        return Kubectl(self.bin / "kubectl", self.kubeconfig())

    def nodes(self) -> list[ClusterNode]:
        return [
            ClusterNode(name=each.plan.name, address=each.address, gpu=GPU_LABEL in each.plan.labels)
            for each in self.all_nodes
        ]

    def load_image(self, archive_file: Path) -> None:
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda each: archive.import_into_node(archive_file, each.ctr), self.all_nodes))

    def storage_class(self) -> str:
        return system.STORAGE_CLASS

    def reboot(self, node: str) -> None:
        chosen = self._node(node)
        chosen.power_off()
        chosen.power_on(self._neighbours(chosen), None)
        self._join(chosen)
        expected = chosen.boot_id()
        waiting.until(
            lambda: self._reported_boot_id(node) == expected, what=f"node {node} to report its new boot id", seconds=120
        )
        self._wait_for_nodes()

    def stop_kubelet(self, node: str) -> None:
        self._node(node).stop_kubelet()

    def start_kubelet(self, node: str) -> None:
        self._join(self._node(node))

    def logs(self) -> Path:
        return self.processes.logs

    def shared_host_folder(self) -> Path | None:
        return self.folder / "nodes"

    def _node(self, name: str) -> Node:
        for each in self.all_nodes:
            if each.plan.name == name:
                return each
        raise ClusterError(f"There is no node {name!r}; the nodes are {', '.join(plan.name for plan in PLANS)}.")

    def _join(self, node: Node) -> None:
        node.join(self.control_plane.authority, self.control_plane.kube_proxy_kubeconfig())

    def _neighbours(self, of: Node) -> list[int]:
        return [each.plan.index for each in self.all_nodes if each is not of]

    def _own_images(self) -> list[Path]:
        return [
            scratch_image(PAUSE_IMAGE, {"/lethe-pause": self.bin / "lethe-pause"}),
            scratch_image(system.DNS_IMAGE, {"/coredns": self.bin / "lethe-kube"}),
        ]

    def _apply_system_objects(self) -> None:
        first = PLANS[0].name
        self._key_volume().mkdir(parents=True, exist_ok=True)
        self.kubectl().apply(
            [
                *system.cluster_dns(self.addresses, first),
                *system.key_service_volume(first, self._key_volume()),
            ]
        )

    def _key_volume(self) -> Path:
        return self.folder / "nodes" / PLANS[0].name / "volumes" / system.KEY_SERVICE_VOLUME

    def _wait_for_nodes(self) -> None:
        def ready() -> bool:
            return all(
                any(it["type"] == "Ready" and it["status"] == "True" for it in each["status"].get("conditions", []))
                for each in self._reported_nodes()
            ) and len(self._reported_nodes()) == len(PLANS)

        waiting.until(ready, what="all nodes to be Ready", seconds=90, hint=f"Logs are in {self.processes.logs}.")

    def _reported_nodes(self) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = self.kubectl().read("get", "nodes")["items"]
        return items

    def _reported_boot_id(self, name: str) -> str:
        boot_id: str = self.kubectl().read("get", "node", name)["status"]["nodeInfo"]["bootID"]
        return boot_id

    @contextmanager
    def _one_at_a_time(self) -> Iterator[None]:
        lock = self.folder.with_name(f"{self.name}.lock")
        lock.parent.mkdir(parents=True, exist_ok=True)
        with lock.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise ClusterError(
                    f"Another `up` or `down` of this cluster is at work (it holds {lock}); wait for it."
                ) from error
            yield
        if not self.folder.exists():
            lock.unlink()

    def _prepare_machine(self) -> None:
        """Make the machine's folders that nodes mount over, and raise one limit; remember what was before."""
        self.folder.mkdir(parents=True, exist_ok=True)
        record = self.folder / "machine.json"
        before = json.loads(record.read_text()) if record.exists() else {"made": [], "inotify": None}
        for folder in node.mount_points():
            made = [each for each in (folder, *folder.parents) if not each.exists()]
            before["made"] = [*(str(each) for each in made), *before["made"]]
        if before["inotify"] is None and int(INOTIFY.read_text()) < INOTIFY_INSTANCES:
            before["inotify"] = int(INOTIFY.read_text())
        record.write_text(json.dumps(before))
        for folder in node.mount_points():
            folder.mkdir(parents=True, exist_ok=True)
        if before["inotify"] is not None:
            INOTIFY.write_text(str(INOTIFY_INSTANCES))

    def _restore_machine(self) -> None:
        record = self.folder / "machine.json"
        if not record.exists() or network.clusters():
            # A second cluster on this machine (another slot) needs the same folders and limit.
            return
        before = json.loads(record.read_text())
        for made in before["made"]:
            if Path(made).is_dir() and not any(Path(made).iterdir()):
                Path(made).rmdir()
        if before["inotify"] is not None:
            INOTIFY.write_text(str(before["inotify"]))
