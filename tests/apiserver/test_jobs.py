"""What a real API server refuses of a tenant's objects, by schema and by policy, and what it takes."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
import yaml

from lethe.adapters import kube as kinds
from lethe.adapters.kube import Kind
from lethe.decisions.template import verify_template
from lethe.model.errors import ResourceError
from lethe.model.resources import DatasetUse
from tests.apiserver.chart import policy_files, render
from tests.apiserver.cluster import job
from tests.apiserver.requests import TENANT, create
from tests.apiserver.server import Client, Object
from tests.cluster.waiting import until

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

DATASET: Object = {
    "metadata": {"name": "digits", "namespace": "acme"},
    "spec": {
        "storage": {
            "url": "s3://acme/digits",
            "endpoint": "https://s3.example",
            "region": "r1",
            "secretRef": {"name": "s"},
        },
        "datasetId": HEX32,
        "index": {"object": HEX32, "sha256": SHA256},
    },
}
TENANT_OBJECT: Object = {"metadata": {"name": "initech"}, "spec": {"namespaces": ["initech"], "idleRetention": "10m"}}
KEY: Object = {"metadata": {"name": "default", "namespace": "globex"}}

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


REFUSED_BY_SCHEMA: dict[str, tuple[Change, str]] = {
    "two replicas": (lambda j: spec(j).update(replicas=2), "replicas"),
    "no GPUs": (lambda j: spec(j).update(gpusPerReplica=0), "gpusPerReplica"),
    "unpack without size": (dataset(mode="unpack", path="/d"), "unpackSize"),
    "unpack without path": (dataset(mode="unpack", unpackSize="1Gi"), "unpackSize"),
    "stream with path": (dataset(path="/d"), "mode stream"),
    "size is no quantity": (dataset(mode="unpack", path="/d", unpackSize="much"), "2Gi"),
    "size is zero": (dataset(mode="unpack", path="/d", unpackSize="0"), "above zero"),
    "relative path": (dataset(mode="unpack", path="data", unpackSize="1Gi"), "absolute path"),
    "path with dots": (dataset(mode="unpack", path="/a/../etc", unpackSize="1Gi"), "absolute path"),
    "path below /run/lethe": (dataset(mode="unpack", path="/run/lethe/x", unpackSize="1Gi"), "belong to Lethe"),
    "path beside /run/lethe": (dataset(mode="unpack", path="/run/lethe-token", unpackSize="1Gi"), "belong to Lethe"),
    "path of the system": (dataset(mode="unpack", path="/proc/x", unpackSize="1Gi"), "system folder"),
    "path of the outputs": (dataset(mode="unpack", path="/outputs/x", unpackSize="1Gi"), "/outputs"),
    "paths overlap": (dataset(mode="unpack", path="/data/letters/a", unpackSize="1Gi"), "inside the other"),
    "dataset named twice": (lambda j: spec(j)["datasets"].append({"name": "digits"}), "Duplicate"),
    "unknown mode": (dataset(mode="copy"), "mode"),
    "no recovery key": (lambda j: outputs(j).update(recipients=[{"tenantKey": "default"}]), "publicKey"),
    "recipient with both": (
        lambda j: outputs(j).update(recipients=[{"tenantKey": "a", "publicKey": PUBLIC_KEY}]),
        "exactly one",
    ),
    "recipient with neither": (lambda j: outputs(j)["recipients"].append({}), "exactly one"),
    "recipient twice": (lambda j: outputs(j)["recipients"].append({"tenantKey": "default"}), "twice"),
    "no recipients": (lambda j: outputs(j).update(recipients=[]), "recipients"),
    "private key as recipient": (
        lambda j: outputs(j).update(recipients=[{"publicKey": "lethe-key-1:X25519:AAAA"}]),
        "lethe key generate",
    ),
    "other scheme of storage": (lambda j: outputs(j)["storage"].update(url="ftp://x"), "s3://"),
    "storage out of its folder": (lambda j: outputs(j)["storage"].update(url="s3://acme/../globex"), "'..'"),
    "plain http": (lambda j: outputs(j)["storage"].update(endpoint="http://s3.example"), "https"),
    "no PEM": (lambda j: outputs(j)["storage"].update(caBundle="x"), "PEM"),
    "no time": (lambda j: outputs(j).update(uploadTimeout="soon"), "90s"),
    "time of zero": (lambda j: outputs(j).update(uploadTimeout="0s"), "above zero"),
    "no containers": (lambda j: pod_spec(j).pop("containers"), "containers"),
    "name too long": (lambda j: j["metadata"].update(name="x" * 64), "63"),
}

REFUSED_BY_POLICY: dict[str, tuple[Change, str]] = {
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

REFUSED_OTHERS: dict[str, tuple[Kind, Object, Change, str]] = {
    "dataset: short id": (kinds.DATASET, DATASET, lambda d: spec(d).update(datasetId="41c0"), "32 lower-case hex"),
    "dataset: upper-case id": (
        kinds.DATASET,
        DATASET,
        lambda d: spec(d).update(datasetId="B" * 32),
        "32 lower-case hex",
    ),
    "dataset: wrong pin": (kinds.DATASET, DATASET, lambda d: spec(d)["index"].update(sha256="x"), "64 lower-case hex"),
    "dataset: no pin": (kinds.DATASET, DATASET, lambda d: spec(d).pop("index"), "index"),
    "dataset: unknown scheme": (kinds.DATASET, DATASET, lambda d: spec(d).update(scheme="split"), "scheme"),
    "dataset: unknown criticality": (kinds.DATASET, DATASET, lambda d: spec(d).update(criticality="x"), "criticality"),
    "dataset: named outputs": (kinds.DATASET, DATASET, lambda d: d["metadata"].update(name="outputs"), "outputs"),
    "dataset: name with a dot": (kinds.DATASET, DATASET, lambda d: d["metadata"].update(name="a.b"), "dots"),
    "key: unknown suite": (kinds.TENANT_KEY, KEY, lambda k: k.update(spec={"suite": "RSA"}), "suite"),
    "tenant: no namespaces": (kinds.TENANT, TENANT_OBJECT, lambda t: spec(t).update(namespaces=[]), "namespaces"),
    "tenant: namespace twice": (
        kinds.TENANT,
        TENANT_OBJECT,
        lambda t: spec(t).update(namespaces=["a", "a"]),
        "Duplicate",
    ),
    "tenant: a namespace of the system": (
        kinds.TENANT,
        TENANT_OBJECT,
        lambda t: spec(t).update(namespaces=["kube-system"]),
        "cannot belong to a tenant",
    ),
    "tenant: unknown isolation": (kinds.TENANT, TENANT_OBJECT, lambda t: spec(t).update(isolation="x"), "isolation"),
    "tenant: no time": (kinds.TENANT, TENANT_OBJECT, lambda t: spec(t).update(idleRetention="later"), "10m"),
}

IMMUTABLE: dict[str, Object] = {
    "gpusPerReplica": {"gpusPerReplica": 2},
    "datasets": {"datasets": []},
    "outputs": {"outputs": {"storage": {"url": "s3://abc"}, "recipients": [{"publicKey": PUBLIC_KEY}]}},
    "activeDeadlineSeconds": {"activeDeadlineSeconds": 5},
    "template": {"template": {"metadata": {"labels": {"a": "b"}}}},
    "template, deep": {"template": {"spec": {"containers": [{"name": "train", "image": "image", "command": ["sh"]}]}}},
}


@pytest.mark.parametrize("case", [*REFUSED_BY_SCHEMA, *REFUSED_BY_POLICY])
def test_job_is_refused(case: str, fenced: Client) -> None:
    change, says = {**REFUSED_BY_SCHEMA, **REFUSED_BY_POLICY}[case]
    item = copy.deepcopy(FULL_JOB)
    change(item)
    answer = create(kinds.JOB_CR, item)(fenced.acting(*TENANT))
    assert answer.status == 422, f"{answer.status} {answer.message}"
    assert says in answer.message, answer.message


@pytest.fixture
def demanding_digests(fenced: Client) -> Iterator[Client]:
    """Return a tenant of a cluster whose provider set imagePolicy.requireDigest."""
    files = policy_files(render("imagePolicy.requireDigest=true"))
    documents = [item for text in files.values() for item in yaml.safe_load_all(text) if item is not None]
    policy, binding = (
        next(item for item in documents if item["kind"] == kind.kind and item["metadata"]["name"] == "lethe-jobs")
        for kind in (kinds.ADMISSION_POLICY, kinds.ADMISSION_BINDING)
    )
    name = policy["metadata"]["name"] = binding["metadata"]["name"] = binding["spec"]["policyName"] = "strict-jobs"
    fenced.create(kinds.ADMISSION_POLICY, policy)
    fenced.create(kinds.ADMISSION_BINDING, binding)
    tenant = fenced.acting(*TENANT)
    try:
        until(
            lambda: not create(kinds.JOB_CR, FULL_JOB)(tenant).ok, what="the stricter policy to take effect", seconds=15
        )
        yield tenant
    finally:
        for kind in (kinds.ADMISSION_BINDING, kinds.ADMISSION_POLICY):
            fenced.send("DELETE", kind.path(name))
        until(lambda: create(kinds.JOB_CR, FULL_JOB)(tenant).ok, what="the stricter policy to go", seconds=15)


def test_an_image_without_digest_where_the_provider_wants_one(demanding_digests: Client) -> None:
    item = copy.deepcopy(FULL_JOB)
    by_digest = f"registry.example.com/train@sha256:{SHA256}"
    container(item)["image"] = by_digest
    answer = create(kinds.JOB_CR, item)(demanding_digests)
    assert answer.status == 422
    assert "name@sha256:" in answer.message and "found image" in answer.message, answer.message
    for each in (*pod_spec(item)["initContainers"], *pod_spec(item)["containers"]):
        each["image"] = by_digest
    answer = create(kinds.JOB_CR, item)(demanding_digests)
    assert answer.ok, answer.message


def check_as_operator(item: Object) -> None:
    """Check a template as the operator does before it builds a pod."""
    datasets = msgspec.convert(item["spec"]["datasets"], list[DatasetUse])
    verify_template(item["spec"]["template"], datasets, require_digest=False)


@pytest.mark.parametrize("case", REFUSED_BY_POLICY)
def test_the_operator_refuses_the_same(case: str) -> None:
    item = copy.deepcopy(FULL_JOB)
    REFUSED_BY_POLICY[case][0](item)
    with pytest.raises(ResourceError):
        check_as_operator(item)


def test_the_operator_takes_the_same() -> None:
    check_as_operator(copy.deepcopy(FULL_JOB))


@pytest.mark.parametrize("case", REFUSED_OTHERS)
def test_object_is_refused(case: str, fenced: Client) -> None:
    kind, good, change, says = REFUSED_OTHERS[case]
    item = copy.deepcopy(good)
    change(item)
    answer = create(kind, item)(fenced)
    assert answer.status == 422, f"{answer.status} {answer.message}"
    assert says in answer.message, answer.message


@pytest.mark.parametrize(
    ("kind", "item"),
    [
        pytest.param(kinds.JOB_CR, FULL_JOB, id="job with everything"),
        pytest.param(kinds.JOB_CR, job("small"), id="small job"),
        pytest.param(kinds.DATASET, DATASET, id="dataset"),
        pytest.param(kinds.TENANT, TENANT_OBJECT, id="tenant"),
        pytest.param(kinds.TENANT_KEY, KEY, id="key"),
    ],
)
def test_good_object_is_taken(kind: Kind, item: Object, fenced: Client) -> None:
    answer = create(kind, item)(fenced)
    assert answer.ok, f"{answer.status} {answer.message}"


@pytest.mark.parametrize("case", IMMUTABLE)
def test_job_is_immutable(case: str, fenced: Client) -> None:
    path = f"{kinds.JOB_CR.path('digits', 'acme')}?dryRun=All"
    answer = fenced.acting(*TENANT).send("PATCH", path, {"spec": IMMUTABLE[case]}, "application/merge-patch+json")
    assert answer.status == 422, f"{answer.status} {answer.message}"
    assert "immutable" in answer.message, answer.message


def test_defaults_are_written(fenced: Client) -> None:
    answer = create(kinds.JOB_CR, job("small"))(fenced)
    found = answer.body["spec"]
    assert (found["replicas"], found["gpusPerReplica"], found["priority"], found["suspend"]) == (1, 1, 0, False)
    assert found["datasets"] == [{"name": "digits", "mode": "stream"}]
