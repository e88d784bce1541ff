"""The DaemonSet, for both layouts of nodes."""

from pathlib import Path
from typing import Any

import pytest

from tests.simgpu import libraries
from tests.simgpu.manifest import OwnNode, SharedHost, build_manifests, gpu_folder


def pod_of(layout: OwnNode | SharedHost, **options: Any) -> dict[str, Any]:
    [daemon_set] = build_manifests(layout, **options)
    assert (daemon_set["kind"], daemon_set["metadata"]["namespace"]) == ("DaemonSet", "kube-system")
    pod: dict[str, Any] = daemon_set["spec"]["template"]["spec"]
    return pod


def environment_of(pod: dict[str, Any]) -> dict[str, str]:
    return {variable["name"]: variable.get("value", "") for variable in pod["containers"][0]["env"]}


def test_it_runs_on_every_gpu_node_whatever_its_taints() -> None:
    pod = pod_of(OwnNode())
    assert pod["nodeSelector"] == {"nvidia.com/gpu.present": "true"}
    assert pod["tolerations"] == [{"operator": "Exists"}]
    assert pod["priorityClassName"] == "system-node-critical"


def test_nodes_with_their_own_file_systems_use_the_usual_folders() -> None:
    pod = pod_of(OwnNode(folder="/data/gpus"), gpus=4, mib=128, image="registry.example/simgpu:1")
    assert {volume["name"]: volume["hostPath"]["path"] for volume in pod["volumes"]} == {
        "device-plugins": "/var/lib/kubelet/device-plugins",
        "cdi": "/etc/cdi",
        "gpus": "/data/gpus",
    }
    assert all("subPathExpr" not in mount for mount in pod["containers"][0]["volumeMounts"])
    assert environment_of(pod) == {"NODE_NAME": "", "HOST_ROOT": "/data/gpus", "GPUS": "4", "MIB": "128"}
    assert pod["containers"][0]["image"] == "registry.example/simgpu:1"


def test_nodes_on_one_host_use_folders_of_their_own() -> None:
    pod = pod_of(SharedHost(folder="/state/nodes"))
    assert {volume["hostPath"]["path"] for volume in pod["volumes"]} == {"/state/nodes"}
    assert {mount["mountPath"]: mount["subPathExpr"] for mount in pod["containers"][0]["volumeMounts"]} == {
        "/device-plugins": "$(NODE_NAME)/kubelet/device-plugins",
        "/cdi": "$(NODE_NAME)/cdi",
        "/host": "$(NODE_NAME)/simgpu",
    }
    names = list(environment_of(pod))
    assert names.index("NODE_NAME") < names.index("HOST_ROOT")  # a variable uses only those before it
    assert environment_of(pod)["HOST_ROOT"] == "/state/nodes/$(NODE_NAME)/simgpu"


def test_tests_find_a_gpu_of_a_node() -> None:
    assert gpu_folder(SharedHost(folder="/state/nodes"), "gpu-1", 1) == Path("/state/nodes/gpu-1/simgpu/gpu1")
    assert gpu_folder(OwnNode(), "gpu-1", 0) == Path("/var/lib/simgpu/gpu0")


def test_pods_are_replaced_when_their_sources_change(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def annotations() -> dict[str, str]:
        [daemon_set] = build_manifests(OwnNode())
        found: dict[str, str] = daemon_set["spec"]["template"]["metadata"]["annotations"]
        return found

    before = annotations()
    assert annotations() == before
    kernels = tmp_path / "scrub.cu"
    kernels.write_text("another")
    monkeypatch.setattr(libraries, "SCRUB_KERNELS", kernels)
    assert annotations() != before
