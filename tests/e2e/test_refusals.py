"""Bad input gets a clear refusal: at `kubectl apply` where the server can tell, else as a condition with a sentence."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from tests.cluster.errors import ClusterError
from tests.cluster.s3 import Credentials
from tests.common.objects import Object, condition, message, phase, remove, wait_until
from tests.common.tenants import TrialTenant
from tests.e2e.jobs import end, say_reason, start, training_log

Change = Callable[[Object], Any]


def pod_spec(job: Object) -> Object:
    return job["spec"]["template"]["spec"]


def container(job: Object) -> Object:
    return pod_spec(job)["containers"][0]


TEMPLATE_FIELDS: dict[str, Change] = {
    "privileged": lambda job: container(job).update(securityContext={"privileged": True}),
    "capabilities": lambda job: container(job).update(securityContext={"capabilities": {"add": ["SYS_ADMIN"]}}),
    "allowPrivilegeEscalation": lambda job: container(job).update(securityContext={"allowPrivilegeEscalation": True}),
    "hostPID": lambda job: pod_spec(job).update(hostPID=True),
    "hostIPC": lambda job: pod_spec(job).update(hostIPC=True),
    "hostNetwork": lambda job: pod_spec(job).update(hostNetwork=True),
    "hostPort": lambda job: container(job).update(ports=[{"containerPort": 80, "hostPort": 80}]),
    "hostPath": lambda job: pod_spec(job).update(volumes=[{"name": "v", "hostPath": {"path": "/"}}]),
    "emptyDir": lambda job: pod_spec(job).update(volumes=[{"name": "v", "emptyDir": {}}]),
    "persistentVolumeClaim": lambda job: pod_spec(job).update(
        volumes=[{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]
    ),
    "serviceAccountToken": lambda job: pod_spec(job).update(
        volumes=[{"name": "v", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}]
    ),
    "nodeName": lambda job: pod_spec(job).update(nodeName="cpu-1"),
    "nodeSelector": lambda job: pod_spec(job).update(nodeSelector={"node-restriction.kubernetes.io/lethe": "managed"}),
    "serviceAccountName": lambda job: pod_spec(job).update(serviceAccountName="default"),
    "automountServiceAccountToken": lambda job: pod_spec(job).update(automountServiceAccountToken=True),
    "runtimeClassName": lambda job: pod_spec(job).update(runtimeClassName="other"),
    "restartPolicy": lambda job: pod_spec(job).update(restartPolicy="Always"),
    "shareProcessNamespace": lambda job: pod_spec(job).update(shareProcessNamespace=True),
    "tolerations": lambda job: pod_spec(job).update(tolerations=[{"operator": "Exists"}]),
    "schedulingGates": lambda job: pod_spec(job).update(schedulingGates=[{"name": "mine"}]),
    "nvidia.com/gpu": lambda job: container(job).update(resources={"limits": {"nvidia.com/gpu": 1}}),
    "lethe-keyfetch": lambda job: container(job).update(name="lethe-keyfetch"),
    "/run/lethe": lambda job: (
        pod_spec(job).update(volumes=[{"name": "v", "emptyDir": {"medium": "Memory"}}]),
        container(job).update(volumeMounts=[{"name": "v", "mountPath": "/run/lethe/datasets"}]),
    ),
}

SCHEMA: dict[str, Change] = {
    "replicas": lambda job: job["spec"].update(replicas=2),
    "gpusPerReplica": lambda job: job["spec"].update(gpusPerReplica=0),
    "unpackSize": lambda job: job["spec"].update(datasets=[{"name": "digits", "mode": "unpack", "path": "/data"}]),
    "url": lambda job: job["spec"]["outputs"]["storage"].update(url="ftp://somewhere"),
    "publicKey": lambda job: job["spec"]["outputs"].update(recipients=[{"tenantKey": "default"}]),
}


@pytest.mark.parametrize("name", [*TEMPLATE_FIELDS, *SCHEMA])
def test_refused_at_apply_by_name(name: str, acme: TrialTenant) -> None:
    job = acme.job("refused")
    {**TEMPLATE_FIELDS, **SCHEMA}[name](job)
    with pytest.raises(ClusterError) as refusal:
        acme.kubectl.apply([job])
    assert name.split("/")[-1] in str(refusal.value)


CONDITIONS: dict[str, tuple[str, Change]] = {
    "unknown dataset": ("DatasetNotFound", lambda job: job["spec"].update(datasets=[{"name": "nothing"}])),
    "no such key": ("TenantKeyNotFound", lambda job: job["spec"]["outputs"]["recipients"][0].update(tenantKey="none")),
    "more GPUs than any node has": ("TooManyGPUs", lambda job: job["spec"].update(gpusPerReplica=64)),
    "no such Secret": (
        "SecretNotFound",
        lambda job: job["spec"]["outputs"]["storage"].update(secretRef={"name": "none"}),
    ),
}


@pytest.mark.parametrize("case", CONDITIONS)
def test_refused_by_a_condition(case: str, acme: TrialTenant) -> None:
    reason, change = CONDITIONS[case]
    job = acme.job("refused")
    change(job)
    start(acme, job)
    found = say_reason(acme, "refused", reason)
    accepted = condition(found, "Accepted")
    assert accepted["status"] == "False"
    assert accepted["reason"] == reason
    assert len(message(found)) > 20


def test_a_namespace_without_a_tenant(acme: TrialTenant) -> None:
    stray = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "stray"}}
    job = acme.job("nobody")
    job["metadata"]["namespace"] = "stray"
    try:
        acme.kubectl.apply([stray])
        acme.kubectl.apply([job])
        wait_until(
            acme.kubectl,
            "stj",
            "nobody",
            lambda found: found.get("status", {}).get("reason") == "NamespaceWithoutTenant",
            "stray",
            what="the job to say that its namespace has no tenant",
            seconds=60,
        )
    finally:
        remove(acme.kubectl, "namespace", "stray")


def test_a_namespace_that_two_tenants_claim(acme: TrialTenant) -> None:
    rival = {
        "apiVersion": "lethe.dev/v1alpha1",
        "kind": "Tenant",
        "metadata": {"name": "rival"},
        "spec": {"namespaces": ["acme"]},
    }
    try:
        acme.kubectl.apply([rival])
        start(acme, acme.job("contested"))
        say_reason(acme, "contested", "NamespaceClaimedTwice")
    finally:
        remove(acme.kubectl, "tenant", "rival")
    assert phase(end(acme, "contested")) == "Succeeded"


def test_the_dataset_of_another_tenant(acme: TrialTenant, globex: TrialTenant) -> None:
    theirs = acme.kubectl.read("get", "eds", "digits", "--namespace=globex")
    stolen = {
        "apiVersion": theirs["apiVersion"],
        "kind": theirs["kind"],
        "metadata": {"name": "stolen", "namespace": "acme"},
        "spec": {**theirs["spec"], "storage": {**theirs["spec"]["storage"], "secretRef": {"name": "globex-s3"}}},
    }
    acme.kubectl.apply([acme.s3_secret("globex-s3", globex.credentials), stolen])
    start(acme, acme.job("thief", dataset="stolen"))
    job = end(acme, "thief")
    assert phase(job) == "Failed"
    assert job["status"]["reason"] == "KeysRefused"


def changed_dataset(tenant: TrialTenant, name: str, change: Change) -> None:
    """Apply a copy of the tenant's dataset with a change."""
    dataset = tenant.kubectl.read("get", "eds", "digits", f"--namespace={tenant.name}")
    copied = {
        "apiVersion": dataset["apiVersion"],
        "kind": dataset["kind"],
        "metadata": {"name": name, "namespace": tenant.name},
        "spec": copy.deepcopy(dataset["spec"]),
    }
    change(copied["spec"])
    tenant.kubectl.apply([copied])


def test_the_wrong_index_pin(acme: TrialTenant) -> None:
    changed_dataset(acme, "wrong-pin", lambda spec: spec["index"].update(sha256="0" * 64))
    job = acme.job("wrong-pin")
    job["spec"]["datasets"] = [{"name": "wrong-pin", "mode": "unpack", "path": "/data", "unpackSize": "64Mi"}]
    start(acme, job)
    found = end(acme, "wrong-pin")
    assert phase(found) == "Failed"
    assert "index" in message(found)


def test_wrong_storage_credentials(acme: TrialTenant) -> None:
    wrong = Credentials(access_key=acme.credentials.access_key, secret_key="wrong")
    acme.kubectl.apply([acme.s3_secret("wrong", wrong)])
    changed_dataset(acme, "wrong-secret", lambda spec: spec["storage"].update(secretRef={"name": "wrong"}))
    start(acme, acme.job("wrong-secret", dataset="wrong-secret"))
    found = end(acme, "wrong-secret")
    assert phase(found) == "Failed"
    assert found["status"]["reason"] == "KeysRefused"
    assert "refuses access key" in message(found)


def test_storage_that_is_away(acme: TrialTenant) -> None:
    away = acme.store.endpoint.rsplit(":", 1)[0] + ":30999"
    changed_dataset(acme, "away", lambda spec: spec["storage"].update(endpoint=away))
    start(acme, acme.job("away", dataset="away"))
    found = wait_until(
        acme.kubectl,
        "stj",
        "away",
        lambda job: "storage" in message(job),
        acme.name,
        what="the job to say that its storage is away",
        seconds=120,
    )
    assert phase(found) == "Admitted"


def test_a_corrupted_object(acme: TrialTenant) -> None:
    acme.apply_dataset(acme.seal(acme.images, "corrupt"))
    name = acme.corrupt("corrupt")
    start(acme, acme.job("corrupt", dataset="corrupt"))
    assert phase(end(acme, "corrupt")) == "Failed"
    assert name in training_log(acme, "corrupt")

    unpacked = acme.job("corrupt-unpacked")
    unpacked["spec"]["datasets"] = [{"name": "corrupt", "mode": "unpack", "path": "/data", "unpackSize": "64Mi"}]
    start(acme, unpacked)
    found = end(acme, "corrupt-unpacked")
    assert phase(found) == "Failed"
    assert name in message(found)


def test_outputs_that_cannot_be_uploaded(acme: TrialTenant) -> None:
    wrong = Credentials(access_key=acme.credentials.access_key, secret_key="wrong")
    acme.kubectl.apply([acme.s3_secret("wrong", wrong)])
    job = acme.job("lost")
    job["spec"]["outputs"]["storage"]["secretRef"] = {"name": "wrong"}
    job["spec"]["outputs"]["uploadTimeout"] = "20s"
    start(acme, job)
    found = end(acme, "lost")
    assert phase(found) == "Failed"
    assert found["status"]["reason"] == "OutputsLost"
