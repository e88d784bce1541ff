import msgspec

from lethe.model.agentconfig import ScrubConfig
from lethe.model.config import OperatorConfig
from lethe.specs.scrub import build_scrub_pod

SCRUB = ScrubConfig(node="gpu-1", node_uid="n", boot_id="b", epoch=3, nonce="00" * 32, gpu_count=8)


def test_the_scrub_pod_takes_every_gpu_of_one_node_and_nothing_else() -> None:
    config = OperatorConfig(
        image="lethe:1",
        image_pull_secrets=["pull"],
        runtime_class_name="nvidia",
        tolerations=[{"key": "nvidia.com/gpu", "operator": "Exists"}],
    )
    pod = build_scrub_pod("lethe-scrub-gpu-1-3", SCRUB, config)
    spec, container = pod["spec"], pod["spec"]["containers"][0]

    assert pod["metadata"]["namespace"] == "lethe-system"
    assert pod["metadata"]["finalizers"] == ["lethe.dev/custody"]
    assert container["resources"]["limits"] == {"nvidia.com/gpu": "8"}
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"], "add": ["KILL"]}
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert (spec["hostPID"], spec["automountServiceAccountToken"], spec["serviceAccountName"]) == (
        True,
        False,
        "lethe-scrub",
    )
    assert "hostNetwork" not in spec and len(spec["containers"]) == 1
    terms = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert terms == [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["gpu-1"]}]}]
    assert {toleration["key"] for toleration in spec["tolerations"]} == {
        "lethe.dev/gpu",
        "node.kubernetes.io/unschedulable",
        "nvidia.com/gpu",
    }
    assert (spec["runtimeClassName"], spec["imagePullSecrets"]) == ("nvidia", [{"name": "pull"}])
    assert msgspec.json.decode(container["args"][1], type=ScrubConfig) == SCRUB


def test_the_scrub_pod_sees_the_node_and_changes_nothing_of_it() -> None:
    pod = build_scrub_pod("lethe-scrub-gpu-1-3", SCRUB, OperatorConfig(image="lethe:1"))
    container = pod["spec"]["containers"][0]
    folders = {volume["name"]: volume["hostPath"]["path"] for volume in pod["spec"]["volumes"] if "hostPath" in volume}
    mounts = {mount["name"]: mount for mount in container["volumeMounts"] if mount["name"] in folders}

    assert folders == {"boot-id": "/proc/sys/kernel/random/boot_id", "kernel": "/sys/kernel"}
    assert all(mount["readOnly"] for mount in mounts.values())
    assert mounts["kernel"]["recursiveReadOnly"] == "IfPossible"
    words = container["args"]
    assert words[words.index("--boot-id-file") + 1] == mounts["boot-id"]["mountPath"]
    assert words[words.index("--kernel-folder") + 1] == mounts["kernel"]["mountPath"]
