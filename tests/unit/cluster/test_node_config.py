"""What the embedded cluster's nodes are told."""

import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

from tests.cluster import node_config
from tests.cluster.addresses import addresses
from tests.cluster.errors import ClusterError

OURS = addresses()


def test_slots_share_no_name_and_no_range() -> None:
    slots = [addresses(slot) for slot in range(10)]
    ranges = [each for slot in slots for each in (slot.lan, slot.pods, slot.services)]
    assert len(set(ranges)) == len(ranges)
    assert len({slot.prefix for slot in slots}) == len(slots)


def test_interface_names_fit_into_the_kernels_fifteen_characters() -> None:
    assert all(len(f"{addresses(slot).prefix}-host") <= 15 for slot in range(10))


@pytest.mark.parametrize("slot", [-1, 10])
def test_a_slot_out_of_range_is_refused(slot: int) -> None:
    with pytest.raises(ClusterError, match="from 0 to 9"):
        addresses(slot)


def test_containerd_keeps_images_on_disk_and_the_rest_in_the_nodes_own_run() -> None:
    text = node_config.containerd_toml(root=Path("/n/containerd"), cni=Path("/n/cni"), cdi=Path("/n/cdi"))
    config = tomllib.loads(text)
    runtime = config["plugins"]["io.containerd.cri.v1.runtime"]
    assert config["root"] == "/n/containerd"
    assert config["state"].startswith("/run/")
    assert config["plugins"]["io.containerd.cri.v1.images"]["pinned_images"]["sandbox"] == node_config.PAUSE_IMAGE
    assert runtime["cdi_spec_dirs"] == ["/n/cdi"]
    assert runtime["restrict_oom_score_adj"] is True
    assert runtime["cni"]["conf_dir"] == "/n/cni"


def test_a_nodes_pods_have_addresses_of_the_node_and_leases_end_with_it() -> None:
    [plugin] = node_config.pod_network(OURS, 2)["plugins"]
    assert plugin["ipam"]["ranges"] == [[{"subnet": "10.244.2.0/24"}]]
    assert plugin["ipam"]["dataDir"].startswith("/run/")


def test_the_kubelet_trusts_the_cluster_only_and_never_throws_images_away() -> None:
    config = yaml.safe_load(
        node_config.kubelet(
            OURS,
            authority=Path("/pki/ca.crt"),
            certificate=Path("/pki/n.crt"),
            key=Path("/pki/n.key"),
            cgroup="lethe-gpu-1",
            pod_logs=Path("/var/log/pods"),
        )
    )
    assert config["authentication"]["anonymous"] == {"enabled": False}
    assert config["authentication"]["x509"] == {"clientCAFile": "/pki/ca.crt"}
    assert config["authorization"] == {"mode": "Webhook"}
    assert config["cgroupRoot"] == "/lethe-gpu-1"
    assert config["clusterDNS"] == ["10.96.0.10"]
    assert config["imageGCHighThresholdPercent"] == 100


def test_kube_proxy_uses_nftables_and_leaves_the_machines_settings_alone() -> None:
    config = yaml.safe_load(node_config.kube_proxy(OURS, kubeconfig=Path("/k"), node="gpu-1"))
    assert config["mode"] == "nftables"
    assert config["conntrack"] == {"maxPerCore": 0}
    assert config["hostnameOverride"] == "gpu-1"


def test_a_node_mounts_its_own_files_before_it_says_ready() -> None:
    script = node_config.start_script(
        hostname="gpu-1", binds={"/etc/cdi": Path("/n/cdi"), "/run/cdi": Path("/n/cdi")}, pause=Path("/bin/pause")
    )
    lines = script.splitlines()
    own_run = next(number for number, line in enumerate(lines) if line.endswith("tmpfs /run"))
    binds = [number for number, line in enumerate(lines) if line.startswith("mount --bind")]
    ready = next(number for number, line in enumerate(lines) if "ready" in line)
    assert own_run < min(binds) <= max(binds) < ready
    assert lines[0] == "set -eu"
    assert lines[-1] == "exec /bin/pause"
    subprocess.run(["/bin/sh", "-n"], input=script, text=True, check=True)
