"""A job's training pod: the tenant's template, and around it what Lethe demands (custody.md; keys.md, In the pod).

1. The pod is gated, named, labelled and guarded by our finalizer; it belongs to its job.
2. Init containers in this order: key fetch, the output sidecar, the tenant's own.
3. The first container is the training container. It alone gets GPUs, keys, data, outputs and, for streaming, the
   storage credentials of the datasets.
4. Forced on every container: seccomp RuntimeDefault, no new privileges, a read-only root, no capabilities (but one of
   the output sidecar); /tmp is in memory.
5. The template has passed `decisions.template`; nothing of it is dropped here, and nothing of ours can be overridden.
"""

from typing import Any, Final

import msgspec

from lethe.crypto.derive import sha256
from lethe.formats.quantity import parse_duration, parse_quantity
from lethe.model import agentconfig, names
from lethe.model.agentconfig import KeyfetchConfig, KeyfetchDataset, OutputRecipient, OutputsConfig
from lethe.model.config import OperatorConfig
from lethe.model.names import (
    CONTAINER_KEYFETCH,
    CONTAINER_OUTPUTS,
    CREDENTIALS_PATH,
    DATASETS_PATH,
    GATE,
    GPU_RESOURCE,
    JOB_ACCOUNT,
    KEYS_PATH,
    KEYSERVICE_ID,
    LABEL_JOB,
    LABEL_JOB_UID,
    LABEL_ROLE,
    LABEL_TENANT,
    OUTPUTS_CREDENTIALS,
    OUTPUTS_PATH,
    OUTPUTS_VARIABLE,
    POD_FINALIZER,
    ROLE_TRAIN,
    JobUid,
)
from lethe.model.resources import (
    Criticality,
    EncryptedDataset,
    Metadata,
    Outputs,
    Resource,
    SecureTrainingJob,
    TenantKey,
)
from lethe.specs.scheduling import own_toleration

ANNOTATION_CRITICALITY: Final = "lethe.dev/outputs-criticality"
_GROUP_ID: Final = 65532
_STRICTNESS: Final[tuple[Criticality, ...]] = ("standard", "sensitive", "critical")
_TOKEN_FOLDER, _TOKEN_FILE = names.TOKEN_PATH.rsplit("/", 1)
_KEYS: Final = "lethe-keys"
_OUTPUTS: Final = "lethe-outputs"
_TOKEN: Final = "lethe-token"
_SINK: Final = "lethe-outputs-credentials"
_AGENT_TMP: Final = "lethe-tmp"

Manifest = dict[str, Any]


class TrainingPodInput(Resource, frozen=True, kw_only=True):
    """Everything that a training pod is built from."""

    job: SecureTrainingJob
    tenant: str
    attempt: int
    datasets: list[EncryptedDataset]
    """In the order of the job's `datasets`."""
    tenant_keys: list[TenantKey]
    """Those that the outputs' recipients name."""
    ca_bundle: str
    """PEM of the CA that vouches for the key service."""


def build_training_pod(given: TrainingPodInput, config: OperatorConfig) -> Manifest:
    """Build the pod of an attempt, gated."""
    job = given.job
    template: Manifest = job.spec.template
    spec: Manifest = msgspec.json.decode(msgspec.json.encode(template.get("spec") or {}))
    main, *others = spec["containers"]
    user = _agent_user(spec, main)
    spec["containers"] = [_training(given, main), *(_hardened(other) for other in others)]
    inits = [_hardened(container) for container in spec.get("initContainers") or []]
    volumes = spec.get("volumes") or []
    for index, container in enumerate([*spec["containers"], *inits]):
        volumes += _scratch(container, index)
    agents = []
    if given.datasets:
        agents.append(_keyfetch(given, config, user))
        volumes += _key_volumes(given)
    if job.spec.outputs is not None:
        agents.append(_sidecar(given, job.spec.outputs, config, user))
        volumes += _output_volumes(job.spec.outputs)
    if agents:
        volumes.append({"name": _AGENT_TMP, "emptyDir": {"medium": "Memory", "sizeLimit": "256Mi"}})
    spec["initContainers"] = [*agents, *inits]
    spec["volumes"] = volumes
    grace = spec.get("terminationGracePeriodSeconds", 30)
    if job.spec.outputs is not None:
        grace = max(grace, parse_duration(job.spec.outputs.upload_timeout))
    pull_secrets = [*(spec.get("imagePullSecrets") or []), *({"name": name} for name in config.image_pull_secrets)]
    spec |= {
        "restartPolicy": "Never",
        "serviceAccountName": JOB_ACCOUNT,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "schedulingGates": [{"name": GATE}],
        "terminationGracePeriodSeconds": grace,
        "tolerations": [own_toleration(), *config.tolerations, *(spec.get("tolerations") or [])],
        "securityContext": {
            "fsGroup": _GROUP_ID,
            **(spec.get("securityContext") or {}),
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }
    if pull_secrets:
        spec["imagePullSecrets"] = pull_secrets
    if config.runtime_class_name is not None:
        spec["runtimeClassName"] = config.runtime_class_name
    return {"metadata": _metadata(given, template.get("metadata") or {}), "spec": spec}


def strictest(datasets: list[EncryptedDataset]) -> Criticality:
    """Return the strictest criticality of some datasets: what their outputs get."""
    return max((dataset.spec.criticality for dataset in datasets), key=_STRICTNESS.index, default="standard")


def _metadata(given: TrainingPodInput, template: Manifest) -> Manifest:
    job = given.job.metadata
    return {
        "name": names.training_pod(job.name, JobUid(job.uid), given.attempt, 0),
        "namespace": job.namespace,
        "labels": {
            **(template.get("labels") or {}),
            LABEL_JOB: job.name[:63].rstrip("-."),
            LABEL_JOB_UID: job.uid,
            LABEL_TENANT: given.tenant,
            LABEL_ROLE: ROLE_TRAIN,
        },
        "annotations": {**(template.get("annotations") or {}), ANNOTATION_CRITICALITY: strictest(given.datasets)},
        "finalizers": [POD_FINALIZER],
        "ownerReferences": [
            {
                "apiVersion": names.API_VERSION,
                "kind": "SecureTrainingJob",
                "name": job.name,
                "uid": job.uid,
                "controller": True,
            }
        ],
    }


# ---- the tenant's containers


def _training(given: TrainingPodInput, container: Manifest) -> Manifest:
    spec = given.job.spec
    env = [*(container.get("env") or [])]
    mounts = [*(container.get("volumeMounts") or [])]
    if given.datasets:
        env.append({"name": "LETHE_DATASETS", "value": DATASETS_PATH})
        mounts.append({"name": _KEYS, "mountPath": KEYS_PATH, "readOnly": True})
    for use, dataset in zip(spec.datasets, given.datasets, strict=True):
        if use.mode == "unpack":
            mounts.append({"name": _volume("data", use.name), "mountPath": use.path, "readOnly": True})
        elif dataset.spec.storage.secret_ref is not None:
            mounts.append(_credentials_mount(use.name))
    if spec.outputs is not None:
        env.append({"name": OUTPUTS_VARIABLE, "value": OUTPUTS_PATH})
        mounts.append({"name": _OUTPUTS, "mountPath": OUTPUTS_PATH})
    if not _mounts(container, "/dev/shm"):
        mounts.append({"name": "lethe-shm", "mountPath": "/dev/shm"})
    resources = _with_memory_volumes(container.get("resources") or {}, _memory_volumes(given))
    resources["limits"] = {**(resources.get("limits") or {}), GPU_RESOURCE: str(spec.gpus_per_replica)}
    return _hardened({**container, "env": env, "volumeMounts": mounts, "resources": resources})


def _hardened(container: Manifest) -> Manifest:
    context = container.get("securityContext") or {}
    return {
        **container,
        "securityContext": {
            **context,
            "privileged": False,
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }


def _scratch(container: Manifest, index: int) -> list[Manifest]:
    """Give a container its /tmp in memory, and return the volumes that it needs."""
    volumes = []
    if any(mount["name"] == "lethe-shm" for mount in container.get("volumeMounts") or []):
        volumes.append({"name": "lethe-shm", "emptyDir": {"medium": "Memory"}})
    if not _mounts(container, "/tmp"):
        name = f"lethe-tmp-{index}"
        container["volumeMounts"] = [*(container.get("volumeMounts") or []), {"name": name, "mountPath": "/tmp"}]
        volumes.append({"name": name, "emptyDir": {"medium": "Memory"}})
    return volumes


def _mounts(container: Manifest, path: str) -> bool:
    return any(mount.get("mountPath", "").rstrip("/") == path for mount in container.get("volumeMounts") or [])


def _memory_volumes(given: TrainingPodInput) -> int:
    """Return the bytes of the memory volumes with a size of their own."""
    spec = given.job.spec
    sizes = [use.unpack_size for use in spec.datasets if use.unpack_size is not None]
    if spec.outputs is not None:
        sizes.append(spec.outputs.size)
    return sum(parse_quantity(size) for size in sizes)


def _with_memory_volumes(resources: Manifest, extra: int) -> Manifest:
    """Add what lies in memory volumes, which count as the pod's memory, to a memory limit and request."""
    grown = {group: dict(values) for group, values in resources.items() if values}
    for values in grown.values():
        if "memory" in values:
            values["memory"] = str(parse_quantity(str(values["memory"])) + extra)
    return grown


# ---- Lethe's containers


def _keyfetch(given: TrainingPodInput, config: OperatorConfig, user: int) -> Manifest:
    job = given.job
    told = KeyfetchConfig(
        namespace=job.metadata.namespace,
        job=job.metadata.name,
        job_uid=job.metadata.uid,
        service_url=config.keyservice_url,
        ca_bundle=given.ca_bundle,
        datasets=[
            KeyfetchDataset(
                use=use,
                dataset=EncryptedDataset(
                    metadata=Metadata(
                        name=dataset.metadata.name, namespace=dataset.metadata.namespace, uid=dataset.metadata.uid
                    ),
                    spec=dataset.spec,
                ),
            )
            for use, dataset in zip(job.spec.datasets, given.datasets, strict=True)
        ],
    )
    mounts: list[Manifest] = [
        {"name": _KEYS, "mountPath": KEYS_PATH},
        {"name": _TOKEN, "mountPath": _TOKEN_FOLDER, "readOnly": True},
    ]
    for use, dataset in zip(job.spec.datasets, given.datasets, strict=True):
        if dataset.spec.storage.secret_ref is not None:
            mounts.append(_credentials_mount(use.name))
        if use.mode == "unpack":
            mounts.append({"name": _volume("data", use.name), "mountPath": str(use.path)})
    return _agent(CONTAINER_KEYFETCH, "lethe.keyfetch_main", told, mounts, config, user)


def _sidecar(given: TrainingPodInput, outputs: Outputs, config: OperatorConfig, user: int) -> Manifest:
    keys = {key.metadata.name: key for key in given.tenant_keys}
    recipients = []
    for recipient in outputs.recipients:
        if recipient.public_key is not None:
            recipients.append(OutputRecipient(public_key=recipient.public_key))
        elif recipient.tenant_key is not None:
            status = keys[recipient.tenant_key].status
            recipients.append(
                OutputRecipient(key=recipient.tenant_key, version=status.version, public_key=status.public_key)
            )
    told = OutputsConfig(
        tenant=given.tenant,
        namespace=given.job.metadata.namespace,
        dataset_id=names.outputs_dataset(JobUid(given.job.metadata.uid), given.attempt),
        storage=outputs.storage,
        recipients=recipients,
        criticality=strictest(given.datasets),
        timeout_seconds=parse_duration(outputs.upload_timeout),
        snapshot_seconds=parse_duration(outputs.snapshot_interval),
    )
    mounts: list[Manifest] = [{"name": _OUTPUTS, "mountPath": OUTPUTS_PATH}]
    if outputs.storage.secret_ref is not None:
        path = f"{CREDENTIALS_PATH}/{OUTPUTS_CREDENTIALS}"
        mounts.append({"name": _SINK, "mountPath": path, "readOnly": True})
    sidecar = _agent(CONTAINER_OUTPUTS, "lethe.outputs_main", told, mounts, config, user)
    if user == 0:
        # The training may run as the image's own user, as whom alone the kernel tells whether a file is being written.
        sidecar["securityContext"]["capabilities"]["add"] = ["SETUID"]
    return {**sidecar, "restartPolicy": "Always", "env": [{"name": OUTPUTS_VARIABLE, "value": OUTPUTS_PATH}]}


def _agent(
    name: str, module: str, told: Resource, mounts: list[Manifest], config: OperatorConfig, user: int
) -> Manifest:
    return _hardened(
        {
            "name": name,
            "image": config.image,
            "imagePullPolicy": config.image_pull_policy,
            "command": ["python3", "-m", module],
            "args": ["--config", agentconfig.encode(told)],
            "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}},
            "securityContext": {"runAsUser": user},
            "volumeMounts": [*mounts, {"name": _AGENT_TMP, "mountPath": "/tmp"}],
        }
    )


def _agent_user(spec: Manifest, main: Manifest) -> int:
    """Return the user of our containers: the training container's, so that each can read what the other wrote.

    Without capabilities not even root reads another user's private files. An image's own user cannot be known here:
    root is what it is unless the template says otherwise.
    """
    pod, own = spec.get("securityContext") or {}, main.get("securityContext") or {}
    user = own.get("runAsUser", pod.get("runAsUser"))
    if user is not None:
        return int(user)
    return _GROUP_ID if own.get("runAsNonRoot", pod.get("runAsNonRoot")) else 0


# ---- volumes


def _key_volumes(given: TrainingPodInput) -> list[Manifest]:
    job = given.job
    token = {
        "audience": names.release_audience(KEYSERVICE_ID, JobUid(job.metadata.uid)),
        "expirationSeconds": 600,
        "path": _TOKEN_FILE,
    }
    volumes: list[Manifest] = [
        {"name": _KEYS, "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}},
        {"name": _TOKEN, "projected": {"sources": [{"serviceAccountToken": token}], "defaultMode": 0o440}},
    ]
    for use, dataset in zip(job.spec.datasets, given.datasets, strict=True):
        if dataset.spec.storage.secret_ref is not None:
            volumes.append(_credentials_volume(use.name, dataset.spec.storage.secret_ref.name))
        if use.mode == "unpack":
            volumes.append(
                {"name": _volume("data", use.name), "emptyDir": {"medium": "Memory", "sizeLimit": use.unpack_size}}
            )
    return volumes


def _output_volumes(outputs: Outputs) -> list[Manifest]:
    volumes: list[Manifest] = [{"name": _OUTPUTS, "emptyDir": {"medium": "Memory", "sizeLimit": outputs.size}}]
    if outputs.storage.secret_ref is not None:
        secret = {"secretName": outputs.storage.secret_ref.name, "defaultMode": 0o440}
        volumes.append({"name": _SINK, "secret": secret})
    return volumes


def _credentials_volume(name: str, secret: str) -> Manifest:
    return {"name": _volume("credentials", name), "secret": {"secretName": secret, "defaultMode": 0o440}}


def _credentials_mount(name: str) -> Manifest:
    return {
        "name": _volume("credentials", name),
        "mountPath": f"{CREDENTIALS_PATH}/{name}",
        "readOnly": True,
    }


def _volume(kind: str, name: str) -> str:
    """Return the name of a volume for a dataset, whose own name may be longer than a volume's and have dots."""
    plain = f"lethe-{kind}-{name}"
    if len(plain) <= 63 and "." not in name:
        return plain
    return f"lethe-{kind}-{sha256(name.encode()).hex()[:16]}"
