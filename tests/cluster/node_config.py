"""What a node's programs are told: containerd, the pod network, the kubelet, kube-proxy. Pure functions."""

from pathlib import Path
from typing import Any

import yaml

from .addresses import CLUSTER_DOMAIN, Addresses

PAUSE_IMAGE = "localhost/lethe-pause:dev"
CONTAINERD_SOCKET = "/run/containerd/containerd.sock"
CNI_PLUGINS = "/usr/lib/cni"


def containerd_toml(*, root: Path, cni: Path, cdi: Path) -> str:
    """Return containerd's configuration; its run-time state is in the node's own /run and ends with the node."""
    return f"""\
version = 3
root = "{root}"
state = "/run/containerd"

[grpc]
address = "{CONTAINERD_SOCKET}"

[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = "{PAUSE_IMAGE}"

[plugins.'io.containerd.cri.v1.runtime']
# A machine that is itself a sandbox may lack AppArmor, and may not lower a process's OOM score.
disable_apparmor = true
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true
cdi_spec_dirs = ["{cdi}"]

[plugins.'io.containerd.cri.v1.runtime'.cni]
bin_dirs = ["{CNI_PLUGINS}"]
conf_dir = "{cni}"

[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
SystemdCgroup = false
"""


def pod_network(addresses: Addresses, index: int) -> dict[str, Any]:
    """Return the CNI configuration: each pod has a routed cable of its own, so that no bridge filter is needed."""
    return {
        "cniVersion": "1.0.0",
        "name": "pods",
        "plugins": [
            {
                "type": "ptp",
                "ipMasq": False,
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{"subnet": addresses.pod_range(index)}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                    "dataDir": "/run/cni",
                },
            }
        ],
    }


def kubelet(addresses: Addresses, *, authority: Path, certificate: Path, key: Path, cgroup: str, pod_logs: Path) -> str:
    """Return the kubelet's configuration file."""
    document = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(authority)},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(certificate),
        "tlsPrivateKeyFile": str(key),
        "containerRuntimeEndpoint": f"unix://{CONTAINERD_SOCKET}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{cgroup}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "clusterDomain": CLUSTER_DOMAIN,
        "clusterDNS": [addresses.dns_service],
        "resolvConf": "",
        "healthzPort": 0,
        "podLogsDir": str(pod_logs),
        # Images come from archives only: none may be thrown away for want of space, and the node's file system
        # cannot be told from the machine's.
        "imageGCHighThresholdPercent": 100,
        "enforceNodeAllocatable": [],
        "localStorageCapacityIsolation": False,
        "evictionHard": {"memory.available": "100Mi"},
    }
    return yaml.safe_dump(document, sort_keys=False)


def kube_proxy(addresses: Addresses, *, kubeconfig: Path, node: str) -> str:
    """Return kube-proxy's configuration file."""
    document = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": str(kubeconfig)},
        "hostnameOverride": node,
        "mode": "nftables",
        "clusterCIDR": addresses.pods_range,
        "conntrack": {"maxPerCore": 0},
        "oomScoreAdj": 0,
    }
    return yaml.safe_dump(document, sort_keys=False)


def start_script(*, hostname: str, binds: dict[str, Path], pause: Path) -> str:
    """Return the shell script that furnishes a node's mount namespace and then becomes its first process.

    `binds` maps a path on the node to the file or folder of ours that is seen there. The script writes `ready` to
    the descriptor whose number is its argument when all is in place.
    """
    lines = [
        "set -eu",
        f"hostname {hostname}",
        # A /run of the node's own: sockets, pod namespaces and address leases end with the node.
        "mount -t tmpfs -o mode=755 tmpfs /run",
        "mkdir -p /run/cdi /run/lock",
        *(f"mount --bind {source} {target}" for target, source in binds.items()),
        'echo ready >"/proc/self/fd/$1"',
        f"exec {pause}",
    ]
    return "\n".join(lines) + "\n"
