"""Attacks by way of a job: a template that reaches the host, a token or Lethe's mounts; a job changed afterwards."""

import copy
from collections.abc import Callable
from typing import Any

from lethe.adapters import kube as kinds
from tests.apiserver.cluster import Scene
from tests.apiserver.requests import TENANT, Row, create, patch
from tests.apiserver.server import Answer, Client, Object

PUBLIC_KEY = "lethe-pub-1:X25519:" + "A" * 43 + "="
SHA256 = "a" * 64
HEX32 = "b" * 32
MEMORY = {"name": "v", "emptyDir": {"medium": "Memory"}}

FULL_JOB: Object = {
    "metadata": {"name": "full", "namespace": "acme"},
    "spec": {
        "datasets": [
            {"name": "digits"},
            {"name": "letters", "mode": "unpack", "path": "/data/letters", "unpackSize": "2Gi"},
        ],
        "outputs": {
            "storage": {
                "url": "s3://acme/models/digits",
                "endpoint": "https://s3.example:9000",
                "secretRef": {"name": "s"},
            },
            "recipients": [{"tenantKey": "default"}, {"publicKey": PUBLIC_KEY}],
            "uploadTimeout": "1h30m",
        },
        "activeDeadlineSeconds": 3600,
        "template": {
            "metadata": {"creationTimestamp": None, "labels": {"team": "vision"}, "annotations": {"note": "x"}},
            "spec": {
                "restartPolicy": "Never",
                "automountServiceAccountToken": False,
                "enableServiceLinks": False,
                "imagePullSecrets": [{"name": "pull"}],
                "nodeSelector": {"zone": "a"},
                "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
                "securityContext": {"runAsUser": 1000, "fsGroup": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
                "volumes": [
                    MEMORY,
                    {"name": "c", "configMap": {"name": "c"}},
                    {
                        "name": "p",
                        "projected": {"sources": [{"secret": {"name": "s"}}, {"downwardAPI": {"items": []}}]},
                    },
                ],
                "initContainers": [{"name": "prepare", "image": "image", "command": ["true"]}],
                "containers": [
                    {
                        "name": "train",
                        "image": "image",
                        "command": ["python", "train.py"],
                        "env": [
                            {"name": "SEED", "value": "1"},
                            {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                        ],
                        "ports": [{"containerPort": 8000, "protocol": "TCP"}],
                        "resources": {"requests": {"cpu": "1"}, "limits": {"memory": "1Gi"}},
                        "volumeMounts": [
                            {"name": "v", "mountPath": "/scratch/"},
                            {"name": "c", "mountPath": "/etc/c", "readOnly": True},
                        ],
                        "securityContext": {
                            "privileged": False,
                            "allowPrivilegeEscalation": False,
                            "readOnlyRootFilesystem": True,
                            "capabilities": {"drop": ["ALL"]},
                        },
                    }
                ],
            },
        },
    },
}

Change = Callable[[Object], Any]


def spec(item: Object) -> Object:
    return item["spec"]


def pod_spec(item: Object) -> Object:
    return item["spec"]["template"]["spec"]


def container(item: Object) -> Object:
    return pod_spec(item)["containers"][0]


def outputs(item: Object) -> Object:
    return item["spec"]["outputs"]


def mount(path: str) -> Change:
    return lambda item: container(item).update(volumeMounts=[{"name": "v", "mountPath": path}])


def security(**context: Any) -> Change:
    return lambda item: container(item).update(securityContext=context)


def volume(**source: Any) -> Change:
    return lambda item: pod_spec(item)["volumes"].append({"name": "x", **source})


def dataset(**fields: Any) -> Change:
    return lambda item: spec(item)["datasets"].append({"name": "more", **fields})


TEMPLATES: dict[str, tuple[Change, str]] = {
    "unknown field of the pod": (
        lambda j: pod_spec(j).update(shareProcessNamespace=True),
        "spec.shareProcessNamespace",
    ),
    "hostPID": (lambda j: pod_spec(j).update(hostPID=True), "spec.hostPID"),
    "hostNetwork": (lambda j: pod_spec(j).update(hostNetwork=True), "spec.hostNetwork"),
    "hostIPC": (lambda j: pod_spec(j).update(hostIPC=True), "spec.hostIPC"),
    "hostUsers": (lambda j: pod_spec(j).update(hostUsers=True), "spec.hostUsers"),
    "nodeName": (lambda j: pod_spec(j).update(nodeName="gpu-1"), "spec.nodeName"),
    "affinity": (lambda j: pod_spec(j).update(affinity={"nodeAffinity": {}}), "spec.affinity"),
    "schedulerName": (lambda j: pod_spec(j).update(schedulerName="mine"), "spec.schedulerName"),
    "schedulingGates": (lambda j: pod_spec(j).update(schedulingGates=[{"name": "x"}]), "spec.schedulingGates"),
    "serviceAccountName": (lambda j: pod_spec(j).update(serviceAccountName="default"), "spec.serviceAccountName"),
    "runtimeClassName": (lambda j: pod_spec(j).update(runtimeClassName="x"), "spec.runtimeClassName"),
    "resourceClaims": (lambda j: pod_spec(j).update(resourceClaims=[{"name": "x"}]), "spec.resourceClaims"),
    "token mounted": (lambda j: pod_spec(j).update(automountServiceAccountToken=True), "automountServiceAccountToken"),
    "restarts": (lambda j: pod_spec(j).update(restartPolicy="OnFailure"), "restartPolicy"),
    "our node label": (
        lambda j: pod_spec(j).update(nodeSelector={"node-restriction.kubernetes.io/lethe": "managed"}),
        "nodeSelector",
    ),
    "tolerates everything": (lambda j: pod_spec(j).update(tolerations=[{"operator": "Exists"}]), "tolerations"),
    "tolerates our taint": (lambda j: pod_spec(j).update(tolerations=[{"key": "lethe.dev/gpu"}]), "tolerations"),
    "our label": (lambda j: j["spec"]["template"]["metadata"]["labels"].update({"lethe.dev/role": "x"}), "labels"),
    "mirror annotation": (
        lambda j: j["spec"]["template"]["metadata"]["annotations"].update({"kubernetes.io/config.mirror": "x"}),
        "annotations",
    ),
    "device annotation": (
        lambda j: j["spec"]["template"]["metadata"]["annotations"].update({"cdi.k8s.io/x": "nvidia.com/gpu=all"}),
        "annotations",
    ),
    "finalizer in the template": (
        lambda j: j["spec"]["template"]["metadata"].update(finalizers=["x/y"]),
        "metadata.finalizers",
    ),
    "privileged": (security(privileged=True), "privileged"),
    "escalation": (security(allowPrivilegeEscalation=True), "allowPrivilegeEscalation"),
    "capabilities": (security(capabilities={"add": ["SYS_ADMIN"]}), "capabilities"),
    "writable root": (security(readOnlyRootFilesystem=False), "readOnlyRootFilesystem"),
    "unconfined": (security(seccompProfile={"type": "Unconfined"}), "seccompProfile"),
    "procMount": (security(procMount="Unmasked"), "procMount"),
    "SELinux": (security(seLinuxOptions={"type": "x"}), "seLinuxOptions"),
    "sysctls": (
        lambda j: pod_spec(j)["securityContext"].update(sysctls=[{"name": "kernel.x", "value": "1"}]),
        "sysctls",
    ),
    "privileged init container": (
        lambda j: pod_spec(j)["initContainers"][0].update(securityContext={"privileged": True}),
        "privileged",
    ),
    "host path": (volume(hostPath={"path": "/"}), "hostPath"),
    "claim": (volume(persistentVolumeClaim={"claimName": "x"}), "persistentVolumeClaim"),
    "CSI volume": (volume(csi={"driver": "x"}), "csi"),
    "disk": (volume(emptyDir={}), "emptyDir"),
    "token volume": (volume(projected={"sources": [{"serviceAccountToken": {"path": "t"}}]}), "serviceAccountToken"),
    "our volume's name": (
        lambda j: pod_spec(j)["volumes"].append({**MEMORY, "name": "lethe-keys"}),
        "names that begin with lethe-",
    ),
    "our container's name": (lambda j: container(j).update(name="lethe-keyfetch"), "names that begin with lethe-"),
    "our volume mounted": (
        lambda j: container(j).update(volumeMounts=[{"name": "lethe-keys", "mountPath": "/k"}]),
        "volumes that begin with lethe-",
    ),
    "mount below /run/lethe": (mount("/run/lethe/datasets"), "overlaps /run/lethe"),
    "mount above /run/lethe": (mount("/run"), "overlaps /run/lethe"),
    "mount above all": (mount("/"), "mountPath"),
    "mount by a detour": (mount("/x/../run/lethe"), "mountPath"),
    "mount by two slashes": (mount("//run/lethe"), "mountPath"),
    "mount of the outputs": (mount("/outputs"), "overlaps /outputs"),
    "mount over a dataset": (mount("/data/letters"), "overlaps /data/letters"),
    "mount propagation": (
        lambda j: container(j)["volumeMounts"][0].update(mountPropagation="Bidirectional"),
        "mountPropagation",
    ),
    "host port": (lambda j: container(j).update(ports=[{"containerPort": 80, "hostPort": 80}]), "hostPort"),
    "GPU limit": (lambda j: container(j)["resources"]["limits"].update({"nvidia.com/gpu": 1}), "nvidia.com/gpu"),
    "MIG": (lambda j: container(j)["resources"]["limits"].update({"nvidia.com/mig-1g.5gb": 1}), "mig-1g.5gb"),
    "huge pages": (lambda j: container(j)["resources"]["limits"].update({"hugepages-2Mi": "2Mi"}), "hugepages-2Mi"),
    "device claim": (lambda j: container(j)["resources"].update(claims=[{"name": "x"}]), "claims"),
    "block device": (lambda j: container(j).update(volumeDevices=[{"name": "v", "devicePath": "/x"}]), "volumeDevices"),
    "hook": (lambda j: container(j).update(lifecycle={"postStart": {"exec": {"command": ["x"]}}}), "lifecycle"),
    "sidecar": (lambda j: pod_spec(j)["initContainers"][0].update(restartPolicy="Always"), "restartPolicy"),
    "our variable": (
        lambda j: container(j)["env"].append({"name": "LETHE_DATASETS", "value": "/x"}),
        "variables that begin with LETHE_",
    ),
}

IMMUTABLE: dict[str, Object] = {
    "gpusPerReplica": {"gpusPerReplica": 7},
    "datasets": {"datasets": []},
    "outputs": {"outputs": {"storage": {"url": "s3://abc"}, "recipients": [{"publicKey": PUBLIC_KEY}]}},
    "activeDeadlineSeconds": {"activeDeadlineSeconds": 5},
    "template": {"template": {"metadata": {"labels": {"a": "b"}}}},
    "host's processes": {"template": {"spec": {"hostPID": True}}},
    "image": {"template": {"spec": {"containers": [{"name": "train", "image": "evil", "command": ["python"]}]}}},
    "argument": {"template": {"spec": {"containers": [{"name": "train", "image": "image", "command": ["sh"]}]}}},
}
"""Parts of a job that the schema keeps as they were, also those that it knows nothing of."""


def job_attacks(s: Scene) -> list[Row]:
    """Return every field of a template that is refused, and attempts to change a job that runs."""
    return [
        *(
            Row(f"template: {name}", TENANT, create(kinds.JOB_CR, changed(change)), says)
            for name, (change, says) in TEMPLATES.items()
        ),
        Row(
            "job: finalizer removed",
            TENANT,
            patch(kinds.JOB_CR, s.job, "acme", {"metadata": {"finalizers": None}}),
            "finalizer",
        ),
        Row(
            "job: hidden from the operator by its label",
            TENANT,
            patch(kinds.JOB_CR, s.job, "acme", {"metadata": {"labels": {"lethe.dev/released": "true"}}}),
            "lethe.dev/released",
        ),
    ]


def swap(name: str, change: Object) -> Callable[[Client], Answer]:
    """Return a request that changes the spec of a job that is there."""
    return patch(kinds.JOB_CR, name, "acme", {"spec": change})


def changed(change: Change) -> Object:
    """Return a copy of the full job with a change."""
    item = copy.deepcopy(FULL_JOB)
    change(item)
    return item
