"""Every field of a template that is refused, by its path; and what is allowed."""

from typing import Any

import pytest

from lethe.decisions.template import verify_template
from lethe.model.errors import ResourceError
from lethe.model.resources import DatasetUse

DATASETS = [DatasetUse(name="digits", mode="unpack", path="/data/digits", unpack_size="1Gi")]


def template(pod: dict[str, Any] | None = None, **container: Any) -> dict[str, Any]:
    main = {"name": "train", "image": "example/train:1", **container}
    return {"spec": {"containers": [main], **(pod or {})}}


def mount(**changes: Any) -> dict[str, Any]:
    return {"volumeMounts": [{"name": "scratch", "mountPath": "/scratch", **changes}]}


def context(**changes: Any) -> dict[str, Any]:
    return {"securityContext": changes}


REFUSED = {
    "spec.nodeName": template({"nodeName": "gpu-1"}),
    "spec.hostPID": template({"hostPID": True}),
    "spec.hostNetwork": template({"hostNetwork": True}),
    "spec.hostIPC": template({"hostIPC": True}),
    "spec.hostUsers": template({"hostUsers": False}),
    "spec.shareProcessNamespace": template({"shareProcessNamespace": True}),
    "spec.serviceAccountName": template({"serviceAccountName": "default"}),
    "spec.serviceAccount": template({"serviceAccount": "default"}),
    "spec.automountServiceAccountToken": template({"automountServiceAccountToken": True}),
    "spec.runtimeClassName": template({"runtimeClassName": "other"}),
    "spec.schedulerName": template({"schedulerName": "own"}),
    "spec.schedulingGates": template({"schedulingGates": [{"name": "x"}]}),
    "spec.priorityClassName": template({"priorityClassName": "system-node-critical"}),
    "spec.affinity": template({"affinity": {"nodeAffinity": {}}}),
    "spec.ephemeralContainers": template({"ephemeralContainers": []}),
    "spec.resourceClaims": template({"resourceClaims": []}),
    "spec.somethingNew": template({"somethingNew": 1}),
    "spec.restartPolicy": template({"restartPolicy": "OnFailure"}),
    "spec.nodeSelector[lethe.dev/x]": template({"nodeSelector": {"lethe.dev/x": "y"}}),
    "spec.nodeSelector[node-restriction.kubernetes.io/lethe]": template(
        {"nodeSelector": {"node-restriction.kubernetes.io/lethe": "managed"}}
    ),
    "spec.tolerations[0]": template({"tolerations": [{"operator": "Exists"}]}),
    "spec.tolerations[1]": template({"tolerations": [{"key": "a"}, {"key": "lethe.dev/gpu"}]}),
    "spec.securityContext.sysctls": template({"securityContext": {"sysctls": []}}),
    "spec.securityContext.seLinuxOptions": template({"securityContext": {"seLinuxOptions": {"type": "spc_t"}}}),
    "spec.securityContext.seccompProfile": template({"securityContext": {"seccompProfile": {"type": "Unconfined"}}}),
    "spec.volumes[0].hostPath": template({"volumes": [{"name": "a", "hostPath": {"path": "/"}}]}),
    "spec.volumes[0].persistentVolumeClaim": template({"volumes": [{"name": "a", "persistentVolumeClaim": {}}]}),
    "spec.volumes[0].csi": template({"volumes": [{"name": "a", "csi": {}}]}),
    "spec.volumes[0].image": template({"volumes": [{"name": "a", "image": {}}]}),
    "spec.volumes[0].emptyDir.medium": template({"volumes": [{"name": "a", "emptyDir": {}}]}),
    "spec.volumes[0].name": template({"volumes": [{"name": "lethe-keys", "emptyDir": {"medium": "Memory"}}]}),
    "spec.volumes[0].projected.sources[0].serviceAccountToken": template(
        {"volumes": [{"name": "a", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}]}
    ),
    "spec.containers[0].name": template(name="lethe-keyfetch"),
    "spec.containers[0].image": template(image=""),
    "spec.containers[0].securityContext.privileged": template(**context(privileged=True)),
    "spec.containers[0].securityContext.allowPrivilegeEscalation": template(**context(allowPrivilegeEscalation=True)),
    "spec.containers[0].securityContext.readOnlyRootFilesystem": template(**context(readOnlyRootFilesystem=False)),
    "spec.containers[0].securityContext.capabilities.add": template(**context(capabilities={"add": ["SYS_ADMIN"]})),
    "spec.containers[0].securityContext.procMount": template(**context(procMount="Unmasked")),
    "spec.containers[0].ports[0].hostPort": template(ports=[{"containerPort": 1, "hostPort": 1}]),
    "spec.containers[0].lifecycle": template(lifecycle={"postStart": {"httpGet": {"host": "10.0.0.1"}}}),
    "spec.containers[0].livenessProbe": template(livenessProbe={"httpGet": {"host": "10.0.0.1"}}),
    "spec.containers[0].volumeDevices": template(volumeDevices=[]),
    "spec.containers[0].restartPolicy": template(restartPolicy="Always"),
    "spec.containers[0].env[LETHE_DATASETS]": template(env=[{"name": "LETHE_DATASETS", "value": "/x"}]),
    "spec.containers[0].resources.claims": template(resources={"claims": []}),
    "spec.containers[0].resources.limits[nvidia.com/gpu]": template(resources={"limits": {"nvidia.com/gpu": 1}}),
    "spec.containers[0].resources.requests[hugepages-2Mi]": template(resources={"requests": {"hugepages-2Mi": "1Gi"}}),
    "spec.containers[0].resources.limits[nvidia.com/mig-1g.5gb]": template(
        resources={"limits": {"nvidia.com/mig-1g.5gb": 1}}
    ),
    "spec.containers[0].volumeMounts[0].name": template(**mount(name="lethe-keys")),
    "spec.containers[0].volumeMounts[0].mountPropagation": template(**mount(mountPropagation="Bidirectional")),
    "spec.containers": {"spec": {}},
    "status": {**template(), "status": {}},
    "metadata.finalizers": {**template(), "metadata": {"finalizers": ["x"]}},
    "metadata.name": {**template(), "metadata": {"name": "x"}},
    "metadata.labels[lethe.dev/tenant]": {**template(), "metadata": {"labels": {"lethe.dev/tenant": "globex"}}},
    "metadata.annotations[container.apparmor.security.beta.kubernetes.io/train]": {
        **template(),
        "metadata": {"annotations": {"container.apparmor.security.beta.kubernetes.io/train": "unconfined"}},
    },
    "metadata.annotations[lethe.dev/outputs-criticality]": {
        **template(),
        "metadata": {"annotations": {"lethe.dev/outputs-criticality": "standard"}},
    },
}


@pytest.mark.parametrize("path", REFUSED, ids=list(REFUSED))
def test_is_refused_by_name(path: str) -> None:
    with pytest.raises(ResourceError) as refusal:
        verify_template(REFUSED[path], DATASETS, require_digest=False)

    assert f"spec.template.{path}: " in str(refusal.value)
    assert refusal.value.reason == "TemplateFieldRefused"


@pytest.mark.parametrize(
    "path",
    [
        "/run/lethe",
        "/run/lethe/datasets",
        "/run",
        "/",
        "/run//lethe/../lethe",
        "/run/lethe-credentials/digits",
        "/run/lethe-token",
        "/outputs",
        "/data/digits/train",
        "/data",
    ],
)
def test_no_mount_overlaps_ours(path: str) -> None:
    with pytest.raises(ResourceError, match="overlaps"):
        verify_template(template(**mount(mountPath=path)), DATASETS, require_digest=False)


def test_init_containers_are_checked_too() -> None:
    bad = template({"initContainers": [{"name": "prepare", "image": "x", "securityContext": {"privileged": True}}]})
    with pytest.raises(ResourceError, match=r"spec\.initContainers\[0\]\.securityContext\.privileged"):
        verify_template(bad, [], require_digest=False)


def test_every_refused_field_is_named_at_once() -> None:
    with pytest.raises(ResourceError, match=r"hostNetwork.*hostPID"):
        verify_template(template({"hostPID": True, "hostNetwork": True}), [], require_digest=False)


def test_two_containers_of_one_name() -> None:
    bad = template({"initContainers": [{"name": "train", "image": "x"}]})
    with pytest.raises(ResourceError, match="train is there twice"):
        verify_template(bad, [], require_digest=False)


def test_an_ordinary_template_passes() -> None:
    verify_template(
        {
            "metadata": {"labels": {"app.kubernetes.io/name": "digits"}, "annotations": {"example.org/team": "a"}},
            "spec": {
                "restartPolicy": "Never",
                "automountServiceAccountToken": False,
                "nodeSelector": {"example.org/gpu": "h100"},
                "tolerations": [{"key": "example.org/spot", "operator": "Exists"}],
                "securityContext": {"runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
                "volumes": [
                    {"name": "scratch", "emptyDir": {"medium": "Memory"}},
                    {"name": "settings", "configMap": {"name": "settings"}},
                    {"name": "all", "projected": {"sources": [{"secret": {"name": "wandb"}}]}},
                ],
                "containers": [
                    {
                        "name": "train",
                        "image": "example/train@sha256:" + "00" * 32,
                        "command": ["python", "train.py"],
                        "env": [{"name": "EPOCHS", "value": "3"}],
                        "resources": {"limits": {"memory": "4Gi", "cpu": 2}},
                        "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}],
                        "securityContext": {"capabilities": {"drop": ["ALL"]}, "privileged": False},
                    }
                ],
            },
        },
        DATASETS,
        require_digest=True,
    )


def test_an_image_without_digest_where_policy_wants_one() -> None:
    verify_template(template(), [], require_digest=False)
    with pytest.raises(ResourceError, match="demands a digest") as refusal:
        verify_template(template(), [], require_digest=True)
    assert refusal.value.reason == "ImageWithoutDigest"
