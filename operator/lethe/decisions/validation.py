"""May this job run at all? The checks behind the condition `Accepted`.

1. `_CHECKS` is the specification: in order, the first that fails names the reason.
2. A refusal is not the end of a job: it is asked again in every cycle while the job waits, so a dataset, key or tenant
   may be applied after the job.
3. What the schemas and admission policies have refused already is checked again where a pod is built from it.
"""

from collections.abc import Callable

import msgspec

from lethe.crypto.hpke import parse_public
from lethe.decisions.snapshot import Snapshot
from lethe.decisions.template import verify_template
from lethe.formats.quantity import parse_duration, parse_quantity
from lethe.model import reasons
from lethe.model.errors import CryptoError, InputError, ResourceError
from lethe.model.resources import EncryptedDataset, SecureTrainingJob, Tenant


class Accepted(msgspec.Struct, frozen=True, kw_only=True):
    """A job that may run."""

    tenant: Tenant
    datasets: list[EncryptedDataset]

    def needs_fresh_scrub(self, snapshot: Snapshot) -> bool:
        """Say whether the node must have had no other job, of the same tenant either, since its scrub."""
        rules = snapshot.config.criticalities
        return any(
            dataset.spec.criticality in rules and rules[dataset.spec.criticality].fresh_scrub
            for dataset in self.datasets
        )

    def demanded_posture(self, snapshot: Snapshot) -> frozenset[str]:
        """Return the posture checks that the node must pass."""
        rules = snapshot.config.criticalities
        return frozenset(
            check
            for dataset in self.datasets
            if (rule := rules.get(dataset.spec.criticality)) is not None
            for check in rule.posture
        )


def validate_job(snapshot: Snapshot, job: SecureTrainingJob) -> Accepted:
    """Return tenant and datasets of a job that may run; raise ResourceError."""
    for check in _CHECKS:
        check(snapshot, job)
    return Accepted(tenant=find_tenant(snapshot, job.metadata.namespace), datasets=find_datasets(snapshot, job))


def find_tenant(snapshot: Snapshot, namespace: str) -> Tenant:
    """Return the one tenant that a namespace belongs to; raise ResourceError."""
    if namespace in snapshot.config.system_namespaces:
        raise ResourceError(
            reasons.NAMESPACE_OF_THE_SYSTEM,
            f"namespace {namespace} is one of the chart's systemNamespaces, whose pods may be on every node: the "
            "provider must take it out of them, or give the tenant another one",
        )
    tenants = snapshot.tenants_of(namespace)
    if not tenants:
        raise ResourceError(
            reasons.NAMESPACE_WITHOUT_TENANT,
            f"namespace {namespace} belongs to no tenant: the provider must name it in a Tenant's spec.namespaces",
        )
    if len(tenants) > 1:
        raise ResourceError(
            reasons.NAMESPACE_CLAIMED_TWICE,
            f"namespace {namespace} is claimed by {len(tenants)} tenants: the provider must leave it in one",
        )
    return tenants[0]


def find_datasets(snapshot: Snapshot, job: SecureTrainingJob) -> list[EncryptedDataset]:
    """Return the datasets that a job uses, in its order; raise ResourceError."""
    namespace = job.metadata.namespace
    found = []
    for use in job.spec.datasets:
        dataset = snapshot.datasets.get((namespace, use.name))
        if dataset is None:
            raise ResourceError(
                reasons.DATASET_NOT_FOUND,
                f"EncryptedDataset {use.name} is not in namespace {namespace}: apply what `lethe dataset seal` printed",
            )
        found.append(dataset)
    return found


def _check_tenant(snapshot: Snapshot, job: SecureTrainingJob) -> None:
    find_tenant(snapshot, job.metadata.namespace)


def _check_datasets(snapshot: Snapshot, job: SecureTrainingJob) -> None:
    find_datasets(snapshot, job)


def _check_unpacking(snapshot: Snapshot, job: SecureTrainingJob) -> None:
    for index, use in enumerate(job.spec.datasets):
        if use.mode != "unpack":
            continue
        if use.path is None or use.unpack_size is None:
            raise ResourceError(
                reasons.SPEC_INVALID, f"spec.datasets[{index}]: mode unpack needs both path and unpackSize"
            )
        _require_quantity(f"spec.datasets[{index}].unpackSize", use.unpack_size)


def _check_outputs(snapshot: Snapshot, job: SecureTrainingJob) -> None:
    outputs = job.spec.outputs
    if outputs is None:
        return
    _require_quantity("spec.outputs.size", outputs.size)
    for field, value in (("uploadTimeout", outputs.upload_timeout), ("snapshotInterval", outputs.snapshot_interval)):
        try:
            parse_duration(value)
        except InputError as error:
            raise ResourceError(reasons.SPEC_INVALID, f"spec.outputs.{field}: {error}") from error


def _check_recipients(snapshot: Snapshot, job: SecureTrainingJob) -> None:
    outputs = job.spec.outputs
    if outputs is None:
        return
    if not any(recipient.public_key is not None for recipient in outputs.recipients):
        raise ResourceError(
            reasons.RECIPIENT_INVALID,
            "spec.outputs.recipients: at least one must be a publicKey, so that the owner can unseal without a pod; "
            "make one with `lethe key generate`",
        )
    for index, recipient in enumerate(outputs.recipients):
        path = f"spec.outputs.recipients[{index}]"
        if (recipient.public_key is None) == (recipient.tenant_key is None):
            raise ResourceError(reasons.RECIPIENT_INVALID, f"{path}: exactly one of publicKey and tenantKey is needed")
        if recipient.public_key is not None:
            try:
                parse_public(recipient.public_key)
            except CryptoError as error:
                raise ResourceError(reasons.RECIPIENT_INVALID, f"{path}.publicKey: {error}") from error
        if recipient.tenant_key is not None:
            _require_tenant_key(snapshot, job.metadata.namespace, recipient.tenant_key)


def _require_tenant_key(snapshot: Snapshot, namespace: str, name: str) -> None:
    key = snapshot.tenant_keys.get((namespace, name))
    if key is None:
        raise ResourceError(
            reasons.TENANT_KEY_NOT_FOUND, f"TenantKey {name} is not in namespace {namespace}: apply one of that name"
        )
    if not key.status.public_key:
        raise ResourceError(
            reasons.TENANT_KEY_NOT_READY,
            f"TenantKey {name} in namespace {namespace} has no public key yet: the key service makes it; if it stays "
            "so, see `kubectl describe tenantkey`",
        )


def _check_template(snapshot: Snapshot, job: SecureTrainingJob) -> None:
    verify_template(job.spec.template, job.spec.datasets, require_digest=snapshot.config.image_policy.require_digest)


def _check_memory(snapshot: Snapshot, job: SecureTrainingJob) -> None:
    for index, container in enumerate((job.spec.template.get("spec") or {}).get("containers") or []):
        for group, resources in (container.get("resources") or {}).items():
            if "memory" in (resources or {}):
                path = f"spec.template.spec.containers[{index}].resources.{group}.memory"
                _require_quantity(path, str(resources["memory"]))


def _check_secrets(snapshot: Snapshot, job: SecureTrainingJob) -> None:
    namespace = job.metadata.namespace
    for name in secret_names(job, find_datasets(snapshot, job)):
        if (namespace, name) in snapshot.missing_secrets:
            raise ResourceError(
                reasons.SECRET_NOT_FOUND,
                f"Secret {name} is not in namespace {namespace}: it must hold the credentials of the storage, such as "
                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
            )


def _check_gpus(snapshot: Snapshot, job: SecureTrainingJob) -> None:
    largest = snapshot.largest_node
    if largest is not None and job.spec.gpus_per_replica > largest:
        raise ResourceError(
            reasons.TOO_MANY_GPUS,
            f"spec.gpusPerReplica: {job.spec.gpus_per_replica} GPUs are wanted, the largest node has {largest}",
        )


def secret_names(job: SecureTrainingJob, datasets: list[EncryptedDataset]) -> list[str]:
    """Return the names of the Secrets that a job's pod mounts for storage."""
    storages = [dataset.spec.storage for dataset in datasets]
    if job.spec.outputs is not None:
        storages.append(job.spec.outputs.storage)
    return sorted({storage.secret_ref.name for storage in storages if storage.secret_ref is not None})


def _require_quantity(path: str, text: str) -> None:
    try:
        parse_quantity(text)
    except InputError as error:
        raise ResourceError(reasons.SPEC_INVALID, f"{path}: {error}") from error


_CHECKS: tuple[Callable[[Snapshot, SecureTrainingJob], None], ...] = (
    _check_tenant,  # whose job it is: everything else depends on it
    _check_template,  # nothing that could reach the host
    _check_memory,
    _check_datasets,
    _check_unpacking,
    _check_outputs,
    _check_recipients,  # the owner can open the outputs, whatever happens to the cluster
    _check_secrets,
    _check_gpus,  # some node is large enough
)
