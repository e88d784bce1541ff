"""A node of the embedded cluster: namespaces of its own in which real containerd, kubelet and kube-proxy run.

1. A node's first process holds its pid, mount, host name and IPC namespaces. Its end ends all that runs on the node,
   containers too: that is how a node loses power.
2. What is one for a whole machine is bound over with files of the node's own: the kubelet's folder (device plugins
   register there whatever `--root-dir` says), CDI's folders, pod logs, the boot id and the machine id.
3. A start after a stop is a reboot: memory volumes are gone, disks are kept, the boot id is new.
"""

import json
import os
import uuid
from dataclasses import dataclass
from pathlib import Path

from . import cgroups, image_store, node_config, waiting
from .addresses import Addresses
from .commands import run
from .errors import ClusterError
from .folders import write_if_changed
from .network import Network
from .pki import Authority
from .processes import Process, Processes, end, only_child, start_time

IMAGE_NAMESPACE = "k8s.io"
PROGRAMS = ("containerd", "kubelet", "kube-proxy")
# Folders of the machine over which a node's own are mounted: `name of the node's folder` -> path.
BOUND_FOLDERS = {
    "kubelet": "/var/lib/kubelet",
    "cni-results": "/var/lib/cni",
    "pod-logs": "/var/log/pods",
    "container-logs": "/var/log/containers",
}


@dataclass(frozen=True, kw_only=True)
class NodePlan:
    """What a node is: its name, its number (from 1, which gives its addresses) and its labels."""

    name: str
    index: int
    labels: dict[str, str]


class Node:
    """One node; its files lie in `folder`."""

    def __init__(
        self, plan: NodePlan, *, folder: Path, bin: Path, addresses: Addresses, network: Network, processes: Processes
    ) -> None:
        self.plan = plan
        self.folder = folder
        self.bin = bin
        self.addresses = addresses
        self.network = network
        self.processes = processes
        self.cgroup = f"{addresses.prefix}-{plan.name}"
        self.images = folder / "containerd"

    @property
    def address(self) -> str:
        return self.addresses.node(self.plan.index)

    @property
    def init_pid(self) -> int | None:
        """The machine's id of the node's first process; None when the node is off."""
        holder = self.processes.find(f"{self.plan.name}-init")
        return only_child(holder.pid) if holder else None

    def power_on(self, neighbours: list[int], images: Path | None) -> None:
        """Make the node's namespaces and start containerd, unless it is on; a node that was off has a new boot id.

        A new node's disk starts with the images of the folder `images` (see image_store).
        """
        if self.init_pid is None:
            self.power_off()
            if images and not self.images.exists():
                self.folder.mkdir(parents=True, exist_ok=True)
                image_store.copy(images, self.images)
            cgroups.prepare(self.cgroup)
            self.network.plug_in(self.plan.name, self.plan.index, neighbours)
            self._write_identity()
            self._start_init()
        self._start_containerd()

    def join(self, authority: Authority, kube_proxy: Path) -> None:
        """Start the kubelet and kube-proxy, unless they run."""
        name = self.plan.name
        pair = authority.issue(
            f"node-{name}", name=f"system:node:{name}", organization="system:nodes", hosts=[name, self.address]
        )
        kubeconfig = authority.kubeconfig(
            self.folder / "kubelet.kubeconfig", server=self.addresses.api_url, pair=pair, context=name
        )
        config = self.folder / "kubelet.yaml"
        write_if_changed(
            config,
            node_config.kubelet(
                self.addresses,
                authority=authority.pair.certificate,
                certificate=pair.certificate,
                key=pair.key,
                cgroup=self.cgroup,
                pod_logs=Path("/var/log/pods"),
            ),
        )
        labels = ",".join(f"{key}={value}" for key, value in self.plan.labels.items())
        self._start(
            "kubelet",
            [
                self.bin / "lethe-kube",
                "kubelet",
                f"--config={config}",
                f"--kubeconfig={kubeconfig}",
                f"--hostname-override={name}",
                f"--node-ip={self.address}",
                f"--node-labels={labels}",
            ],
        )
        config = self.folder / "kube-proxy.yaml"
        write_if_changed(config, node_config.kube_proxy(self.addresses, kubeconfig=kube_proxy, node=name))
        self._start("kube-proxy", [self.bin / "lethe-kube", "kube-proxy", f"--config={config}"])

    def check(self) -> None:
        """Raise an error that names the log of a program that has ended by itself."""
        for program in PROGRAMS:
            name = f"{self.plan.name}-{program}"
            if self.processes.find(name) is None:
                log = self.processes.logs / f"{name}.log"
                raise ClusterError(
                    f"{program} on node {self.plan.name} has ended; its log is {log}. `up` starts it again."
                )

    def power_off(self) -> None:
        """End everything on the node at once, as a power failure does."""
        self.processes.stop(f"{self.plan.name}-init", grace=0)
        for program in PROGRAMS:
            self.processes.stop(f"{self.plan.name}-{program}", grace=0)

    def stop_kubelet(self) -> None:
        """End the kubelet, the child of our nsenter, as when it crashes; what it has started runs on."""
        name = f"{self.plan.name}-kubelet"
        entered = self.processes.find(name)
        kubelet = only_child(entered.pid) if entered else None
        started = start_time(kubelet) if kubelet is not None else None
        if kubelet is not None and started is not None:
            end(Process(pid=kubelet, started=started), grace=0)
        self.processes.stop(name)

    def remove(self) -> None:
        """Switch the node off and remove what it has outside its folder."""
        self.power_off()
        self.network.unplug(self.plan.name)
        waiting.until(self._cgroup_removed, what=f"the cgroup of node {self.plan.name} to be free", seconds=20)

    def enter(self) -> list[str]:
        """Return the words that go before a command so that it runs on the node."""
        pid = self.init_pid
        if pid is None:
            raise ClusterError(f"Node {self.plan.name} is off; `python3 -m tests.cluster up` starts it.")
        return ["nsenter", f"--target={pid}", "--mount", "--uts", "--ipc", "--net", "--pid", "--"]

    def ctr(self, *words: str | Path) -> str:
        """Run containerd's client on the node."""
        client: list[str | Path] = [
            self.bin / "ctr",
            "--address",
            node_config.CONTAINERD_SOCKET,
            "--namespace",
            IMAGE_NAMESPACE,
        ]
        return run([*self.enter(), *client, *words])

    def boot_id(self) -> str:
        """Return the boot id that programs on the node read."""
        return (self.folder / "boot_id").read_text().strip()

    def _binds(self) -> dict[str, Path]:
        binds = {target: self.folder / name for name, target in BOUND_FOLDERS.items()}
        binds |= {"/etc/cdi": self.folder / "cdi", "/run/cdi": self.folder / "cdi"}
        binds["/proc/sys/kernel/random/boot_id"] = self.folder / "boot_id"
        if Path("/etc/machine-id").exists():
            binds["/etc/machine-id"] = self.folder / "machine-id"
        return binds

    def _write_identity(self) -> None:
        for name in (*BOUND_FOLDERS, "cdi", "cni"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        (self.folder / "boot_id").write_text(f"{uuid.uuid4()}\n")
        if not (self.folder / "machine-id").exists():
            (self.folder / "machine-id").write_text(f"{uuid.uuid4().hex}\n")
        network = json.dumps(node_config.pod_network(self.addresses, self.plan.index), indent=1)
        (self.folder / "cni" / "10-pods.conflist").write_text(network)

    def _start_init(self) -> None:
        script = self.folder / "start.sh"
        script.write_text(
            node_config.start_script(hostname=self.plan.name, binds=self._binds(), pause=self.bin / "lethe-pause")
        )
        # `ip netns exec` is not used: it mounts /sys anew, which hides the cgroup hierarchies.
        namespaces = [
            "nsenter", f"--net=/run/netns/{self.network.namespace(self.plan.name)}", "--",
            "unshare", "--mount", "--propagation=slave", "--uts", "--ipc", "--pid", "--fork", "--kill-child",
            "--mount-proc", "--", "/bin/sh", str(script),
        ]  # fmt: skip
        reader, writer = os.pipe()
        try:
            self.processes.start(f"{self.plan.name}-init", [*namespaces, str(writer)], pass_fds=[writer])
        finally:
            os.close(writer)
        with os.fdopen(reader) as pipe:
            if pipe.readline().strip() != "ready":
                log = self.processes.logs / f"{self.plan.name}-init.log"
                raise ClusterError(f"Node {self.plan.name} could not be furnished; its log is {log}.")

    def _start_containerd(self) -> None:
        config = self.folder / "containerd.toml"
        config.write_text(
            node_config.containerd_toml(root=self.images, cni=self.folder / "cni", cdi=self.folder / "cdi")
        )
        path = {"PATH": f"{self.bin}:{os.environ.get('PATH', '')}:/usr/sbin:/sbin"}
        self._start("containerd", [self.bin / "containerd", "--config", config], env=path)
        waiting.until(
            self._containerd_answers,
            what=f"containerd on node {self.plan.name}",
            seconds=60,
            hint=f"Its log is {self.processes.logs}/{self.plan.name}-containerd.log.",
        )

    def _containerd_answers(self) -> bool:
        try:
            self.ctr("version")
        except ClusterError:
            return False
        return True

    def _start(self, program: str, argv: list[str | Path], env: dict[str, str] | None = None) -> None:
        self.processes.start(f"{self.plan.name}-{program}", [*self.enter(), *argv], env=env)

    def _cgroup_removed(self) -> bool:
        try:
            cgroups.remove(self.cgroup)
        except OSError:
            return False
        return True


def mount_points() -> list[Path]:
    """Return the machine's folders that must exist so that a node's can be mounted over them."""
    return [Path(path) for path in (*BOUND_FOLDERS.values(), "/etc/cdi")]
