"""The training pod: what is forced, who mounts what, and what counts as memory."""

from typing import Any

import msgspec
import pytest

from lethe.model.agentconfig import KeyfetchConfig, OutputsConfig
from lethe.model.config import OperatorConfig
from lethe.model.names import JobUid, outputs_dataset
from lethe.model.resources import EncryptedDataset, SecureTrainingJob, TenantKey
from lethe.specs.training import TrainingPodInput, build_training_pod, strictest

CONFIG = OperatorConfig(image="lethe:1", tolerations=[{"key": "nvidia.com/gpu", "operator": "Exists"}])


def dataset(name: str, criticality: str = "standard", secret: str | None = "s3") -> EncryptedDataset:
    storage: dict[str, Any] = {"url": f"s3://acme/{name}"}
    if secret is not None:
        storage["secretRef"] = {"name": secret}
    return msgspec.convert(
        {
            "metadata": {"name": name, "namespace": "acme", "uid": "d", "annotations": {"long": "text"}},
            "spec": {
                "storage": storage,
                "datasetId": "41" * 16,
                "index": {"object": "6f" * 16, "sha256": "9a" * 32},
                "criticality": criticality,
            },
        },
        EncryptedDataset,
    )


def build(
    datasets: list[EncryptedDataset] | None = None,
    container: dict[str, Any] | None = None,
    pod: dict[str, Any] | None = None,
    config: OperatorConfig = CONFIG,
    **spec: Any,
) -> dict[str, Any]:
    found = [dataset("digits")] if datasets is None else datasets
    main = {"name": "train", "image": "example/train:1", **(container or {})}
    job = msgspec.convert(
        {
            "metadata": {"name": "digits", "namespace": "acme", "uid": "0123456789"},
            "spec": {
                "gpusPerReplica": 2,
                "datasets": [{"name": item.metadata.name} for item in found],
                "template": {"spec": {"containers": [main], **(pod or {})}},
                **spec,
            },
        },
        SecureTrainingJob,
    )
    key = msgspec.convert(
        {
            "metadata": {"name": "default", "namespace": "acme"},
            "status": {"publicKey": "lethe-pub", "version": 4, "suite": "X25519"},
        },
        TenantKey,
    )
    given = TrainingPodInput(
        job=job, tenant="acme-corp", attempt=2, datasets=found, tenant_keys=[key], ca_bundle="a certificate"
    )
    return build_training_pod(given, config)


OUTPUTS = {
    "storage": {"url": "s3://models/digits", "secretRef": {"name": "s3-write"}},
    "recipients": [{"tenantKey": "default"}, {"publicKey": "recovery"}],
    "size": "1Gi",
    "uploadTimeout": "20m",
}


def named(items: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return next(item for item in items if item["name"] == name)


def mounts(container: dict[str, Any]) -> dict[str, str]:
    return {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}


def test_it_is_gated_named_labelled_guarded_and_owned() -> None:
    pod = build()

    metadata = pod["metadata"]
    assert (metadata["name"], metadata["namespace"]) == ("lethe-digits-01234567-2-0", "acme")
    assert metadata["labels"] == {
        "lethe.dev/job": "digits",
        "lethe.dev/job-uid": "0123456789",
        "lethe.dev/tenant": "acme-corp",
        "lethe.dev/role": "train",
    }
    assert metadata["finalizers"] == ["lethe.dev/custody"]
    assert metadata["ownerReferences"][0]["uid"] == "0123456789"
    assert pod["spec"]["schedulingGates"] == [{"name": "lethe.dev/hold"}]
    assert "affinity" not in pod["spec"] and "nodeName" not in pod["spec"]


def test_what_is_forced_on_every_container() -> None:
    pod = build(
        pod={"initContainers": [{"name": "prepare", "image": "x"}]},
        container={"securityContext": {"runAsUser": 7, "capabilities": {"drop": ["NET_RAW"]}}},
        outputs=OUTPUTS,
    )
    spec = pod["spec"]

    assert [container["name"] for container in spec["initContainers"]] == ["lethe-keyfetch", "lethe-outputs", "prepare"]
    for container in [*spec["initContainers"], *spec["containers"]]:
        context = container["securityContext"]
        assert context["privileged"] is False
        assert context["allowPrivilegeEscalation"] is False
        assert context["readOnlyRootFilesystem"] is True
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert "/tmp" in mounts(container)
    assert spec["securityContext"] == {"fsGroup": 65532, "seccompProfile": {"type": "RuntimeDefault"}}
    assert (spec["serviceAccountName"], spec["automountServiceAccountToken"]) == ("lethe-job", False)
    assert spec["restartPolicy"] == "Never"
    assert all(volume["emptyDir"]["medium"] == "Memory" for volume in spec["volumes"] if "emptyDir" in volume)


def test_only_the_first_container_gets_gpus_and_keys() -> None:
    pod = build(pod={"containers": [{"name": "train", "image": "x"}, {"name": "watch", "image": "x"}]}, outputs=OUTPUTS)
    train, watch = pod["spec"]["containers"]

    assert train["resources"]["limits"] == {"nvidia.com/gpu": "2"}
    assert mounts(train)["/run/lethe"] == "lethe-keys"
    assert mounts(train)["/run/lethe-credentials/digits"] == "lethe-credentials-digits"
    assert "/run/lethe-credentials/outputs" not in mounts(train)
    assert "/run/lethe-token" not in mounts(train)
    assert named(train["volumeMounts"], "lethe-keys")["readOnly"] is True
    assert {variable["name"]: variable["value"] for variable in train["env"]} == {
        "LETHE_DATASETS": "/run/lethe/datasets",
        "LETHE_OUTPUTS": "/outputs",
    }
    assert set(mounts(watch)) == {"/tmp"}
    assert "resources" not in watch


def test_the_token_is_for_the_key_service_and_this_job_and_in_keyfetch_alone() -> None:
    pod = build(outputs=OUTPUTS)
    token = named(pod["spec"]["volumes"], "lethe-token")["projected"]["sources"][0]["serviceAccountToken"]

    assert token == {
        "audience": "lethe.dev/keys/lethe-keyservice/0123456789",
        "expirationSeconds": 600,
        "path": "token",
    }
    holders = [
        container["name"]
        for container in [*pod["spec"]["initContainers"], *pod["spec"]["containers"]]
        if "lethe-token" in mounts(container).values()
    ]
    assert holders == ["lethe-keyfetch"]


def test_keyfetch_is_told_the_datasets_as_they_were_admitted() -> None:
    keyfetch = build()["spec"]["initContainers"][0]
    told = msgspec.json.decode(keyfetch["args"][1], type=KeyfetchConfig)

    assert (told.namespace, told.job, told.job_uid, told.ca_bundle) == ("acme", "digits", "0123456789", "a certificate")
    assert told.datasets[0].dataset.spec.dataset_id == "41" * 16
    assert told.datasets[0].dataset.metadata.annotations == {}


@pytest.mark.parametrize(
    ("pod", "added"),
    [
        ({}, ["SETUID"]),
        ({"securityContext": {"runAsUser": 1000}}, []),
        ({"securityContext": {"runAsNonRoot": True}}, []),
    ],
)
def test_the_sidecar_acts_for_the_image_s_user_where_nobody_says_who_that_is(
    pod: dict[str, Any], added: list[str]
) -> None:
    sidecar = named(build(pod=pod, outputs=OUTPUTS)["spec"]["initContainers"], "lethe-outputs")
    capabilities = sidecar["securityContext"]["capabilities"]
    assert (capabilities["drop"], capabilities.get("add", [])) == (["ALL"], added)


def test_each_attempt_of_each_job_has_outputs_of_its_own() -> None:
    ids = {outputs_dataset(JobUid(job), attempt) for job in ("a", "b") for attempt in (1, 2, 12)}
    assert len(ids) == 6 and all(len(bytes.fromhex(found)) == 16 for found in ids)


def test_the_sidecar_is_told_recipients_and_the_strictest_criticality() -> None:
    pod = build([dataset("a"), dataset("b", "critical"), dataset("c", "sensitive")], outputs=OUTPUTS)
    sidecar = named(pod["spec"]["initContainers"], "lethe-outputs")
    told = msgspec.json.decode(sidecar["args"][1], type=OutputsConfig)

    assert sidecar["restartPolicy"] == "Always"
    assert [(recipient.key, recipient.version, recipient.public_key) for recipient in told.recipients] == [
        ("default", 4, "lethe-pub"),
        ("", 0, "recovery"),
    ]
    assert (told.tenant, told.criticality) == ("acme-corp", "critical")
    assert (told.dataset_id, told.snapshot_seconds) == (outputs_dataset(JobUid("0123456789"), 2), 60)
    assert told.timeout_seconds == 20 * 60, "what uploadTimeout says, so that the sidecar can tell why it gave up"
    assert pod["metadata"]["annotations"] == {"lethe.dev/outputs-criticality": "critical"}
    assert mounts(sidecar)["/run/lethe-credentials/outputs"] == "lethe-outputs-credentials"
    assert "/run/lethe" not in mounts(sidecar)
    secret = named(pod["spec"]["volumes"], "lethe-outputs-credentials")["secret"]
    assert secret["secretName"] == "s3-write"
    assert pod["spec"]["terminationGracePeriodSeconds"] == 1200


def test_memory_volumes_count_as_the_training_containers_memory() -> None:
    pod = build(
        container={"resources": {"limits": {"memory": "2Gi"}, "requests": {"memory": "1Gi", "cpu": "1"}}},
        outputs=OUTPUTS,
    )
    train = pod["spec"]["containers"][0]
    assert train["resources"]["limits"]["memory"] == str((2 << 30) + (1 << 30))
    assert train["resources"]["requests"] == {"memory": str(2 << 30), "cpu": "1"}


@pytest.mark.parametrize("name", ["digits", "with.dots", "x" * 80])
def test_an_unpacked_dataset_is_mounted_where_the_job_says(name: str) -> None:
    found = dataset(name)
    job_uses = [{"name": name, "mode": "unpack", "path": "/data/x", "unpackSize": "512Mi"}]
    pod = build_with_uses([found], job_uses)
    keyfetch, train = pod["spec"]["initContainers"][0], pod["spec"]["containers"][0]
    volume = mounts(train)["/data/x"]

    assert len(volume) <= 63 and "." not in volume
    assert named(pod["spec"]["volumes"], volume)["emptyDir"] == {"medium": "Memory", "sizeLimit": "512Mi"}
    assert named(train["volumeMounts"], volume)["readOnly"] is True
    assert mounts(keyfetch)["/data/x"] == volume
    assert not any(path.startswith("/run/lethe-credentials") for path in mounts(train))


def build_with_uses(datasets: list[EncryptedDataset], uses: list[dict[str, Any]]) -> dict[str, Any]:
    job = msgspec.convert(
        {
            "metadata": {"name": "digits", "namespace": "acme", "uid": "0123456789"},
            "spec": {"datasets": uses, "template": {"spec": {"containers": [{"name": "train", "image": "x"}]}}},
        },
        SecureTrainingJob,
    )
    given = TrainingPodInput(job=job, tenant="acme", attempt=1, datasets=datasets, tenant_keys=[], ca_bundle="c")
    return build_training_pod(given, CONFIG)


@pytest.mark.parametrize(
    ("pod", "container", "user"),
    [
        ({}, {}, 0),
        ({"securityContext": {"runAsUser": 1000}}, {}, 1000),
        ({"securityContext": {"runAsUser": 1000}}, {"securityContext": {"runAsUser": 2000}}, 2000),
        ({"securityContext": {"runAsNonRoot": True}}, {}, 65532),
    ],
)
def test_our_containers_run_as_the_training_user(pod: dict[str, Any], container: dict[str, Any], user: int) -> None:
    spec = build(pod=pod, container=container, outputs=OUTPUTS)["spec"]

    for name in ("lethe-keyfetch", "lethe-outputs"):
        assert named(spec["initContainers"], name)["securityContext"]["runAsUser"] == user


def test_a_job_without_datasets_fetches_no_keys() -> None:
    spec = build([])["spec"]

    assert spec["initContainers"] == []
    assert not any(volume["name"] in ("lethe-keys", "lethe-token") for volume in spec["volumes"])


def test_volume_names_are_unique() -> None:
    volumes = build([dataset("outputs"), dataset("b")], outputs=OUTPUTS)["spec"]["volumes"]
    names = [volume["name"] for volume in volumes]

    assert len(names) == len(set(names))


def test_the_template_is_not_changed() -> None:
    container = {"env": [{"name": "A", "value": "b"}], "volumeMounts": [{"name": "s", "mountPath": "/tmp"}]}
    before = msgspec.json.encode(container)
    spec = build(container=container)["spec"]

    assert msgspec.json.encode(container) == before
    assert mounts(spec["containers"][0])["/tmp"] == "s"


def test_the_strictest_of_nothing_is_standard() -> None:
    assert strictest([]) == "standard"
