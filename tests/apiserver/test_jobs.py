"""What a real API server refuses of a tenant's objects, by schema and by policy, and what it takes."""

import copy
from collections.abc import Iterator

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
from tests.attacks.jobs import (
    FULL_JOB,
    HEX32,
    PUBLIC_KEY,
    SHA256,
    TEMPLATES,
    Change,
    changed,
    container,
    dataset,
    outputs,
    pod_spec,
    spec,
)
from tests.cluster.waiting import until

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
    "a web server as storage": (lambda j: outputs(j)["storage"].update(url="https://data.example/x"), "web server"),
    "storage out of its folder": (lambda j: outputs(j)["storage"].update(url="s3://acme/../globex"), "'..'"),
    "plain http": (lambda j: outputs(j)["storage"].update(endpoint="http://s3.example"), "https"),
    "no PEM": (lambda j: outputs(j)["storage"].update(caBundle="x"), "PEM"),
    "no time": (lambda j: outputs(j).update(uploadTimeout="soon"), "90s"),
    "time of zero": (lambda j: outputs(j).update(uploadTimeout="0s"), "above zero"),
    "no containers": (lambda j: pod_spec(j).pop("containers"), "containers"),
    "name too long": (lambda j: j["metadata"].update(name="x" * 64), "63"),
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


@pytest.mark.parametrize("case", REFUSED_BY_SCHEMA)
def test_job_is_refused(case: str, fenced: Client) -> None:
    change, says = REFUSED_BY_SCHEMA[case]
    answer = create(kinds.JOB_CR, changed(change))(fenced.acting(*TENANT))
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


@pytest.mark.parametrize("case", TEMPLATES)
def test_the_operator_refuses_the_same(case: str) -> None:
    with pytest.raises(ResourceError):
        check_as_operator(changed(TEMPLATES[case][0]))


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


def test_defaults_are_written(fenced: Client) -> None:
    answer = create(kinds.JOB_CR, job("small"))(fenced)
    found = answer.body["spec"]
    assert (found["replicas"], found["gpusPerReplica"], found["priority"], found["suspend"]) == (1, 1, 0, False)
    assert found["datasets"] == [{"name": "digits", "mode": "stream"}]
