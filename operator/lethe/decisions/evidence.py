"""What a release is decided on: one frozen snapshot of live reads, gathered after the nonce was consumed.

Absent objects are None. Nothing here has been checked; `lethe.decisions.release` does that.
"""

from typing import Any, TypeVar

import msgspec

from lethe.formats.receiptkeys import ReceiptKeys
from lethe.model.config import Criticalities
from lethe.model.names import CONTAINER_KEYFETCH
from lethe.model.resources import EncryptedDataset, GPUNode, ScrubReceipt, SecureTrainingJob, Tenant, TenantKey

ApiObject = dict[str, Any]

_Object = TypeVar("_Object")


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """Who a token speaks for, as the API server's TokenReview said and `lethe.decisions.identity` checked."""

    namespace: str
    pod: str
    pod_uid: str
    node: str
    node_uid: str
    credential_id: str


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """What the pod asks for. Nothing in it is believed; it only selects what is read."""

    namespace: str
    job: str
    job_uid: str
    public_key: str
    dataset: str
    dataset_id: str
    key: str
    versions: tuple[tuple[int, int], ...]
    """Key epoch of the dataset and version of the tenant's key, for each stanza, by rising epoch."""


class Challenge(msgspec.Struct, frozen=True, kw_only=True):
    """What a nonce was given out for. It has just been consumed."""

    namespace: str
    job_uid: str
    pod_uid: str
    public_key: str


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """All that one decision looks at."""

    claim: Claim
    identity: Identity
    challenge: Challenge | None
    """None: the nonce is unknown, was used before, or has expired."""
    pod: ApiObject | None
    tenants: tuple[Tenant, ...]
    """All tenants that claim the pod's namespace."""
    job: SecureTrainingJob | None
    node: ApiObject | None
    gpu_node: GPUNode | None
    receipt: ScrubReceipt | None
    """The one that the ledger names."""
    previous_receipt: ScrubReceipt | None
    """The newest one of the node with a smaller epoch, for the chain."""
    receipt_keys: ReceiptKeys
    dataset: EncryptedDataset | None
    tenant_key: TenantKey | None
    key_versions: frozenset[int]
    """Versions of the tenant's key of this name in the key service's store."""
    releases: int
    """How often this pod got this dataset's keys."""
    other_jobs: int
    """How many other jobs got keys on this node in this epoch."""
    criticalities: Criticalities


class Finding(msgspec.Struct, frozen=True):
    """Why a check fails."""

    message: str
    retryable: bool = False
    """The cluster may only not have reported it yet."""


def present(thing: _Object | None) -> _Object:
    """Return what an earlier check has established to be there; otherwise an error, never a release."""
    if thing is None:
        raise LookupError("a check was reached although an earlier one should have refused")
    return thing


def tenant_of(evidence: Evidence) -> Tenant:
    """Return the pod's tenant; for after `namespace_has_one_tenant`."""
    (tenant,) = evidence.tenants
    return tenant


def keyfetch_status(pod: ApiObject) -> dict[str, Any]:
    """Return the status of the container that fetches keys, empty when there is none."""
    for container in status_of(pod).get("initContainerStatuses") or []:
        if container.get("name") == CONTAINER_KEYFETCH:
            status: dict[str, Any] = container
            return status
    return {}


def metadata_of(thing: ApiObject) -> dict[str, Any]:
    """Return the metadata of an object of the API server."""
    return thing.get("metadata") or {}


def spec_of(thing: ApiObject) -> dict[str, Any]:
    """Return the spec of an object of the API server."""
    return thing.get("spec") or {}


def status_of(thing: ApiObject) -> dict[str, Any]:
    """Return the status of an object of the API server."""
    return thing.get("status") or {}


def pod_name(evidence: Evidence) -> str:
    """Return how messages name the pod."""
    return f"{evidence.identity.namespace}/{evidence.identity.pod}"


def job_name(evidence: Evidence) -> str:
    """Return how messages name the job."""
    return f"{evidence.identity.namespace}/{evidence.claim.job}"


def dataset_name(evidence: Evidence) -> str:
    """Return how messages name the dataset."""
    return f"{evidence.identity.namespace}/{evidence.claim.dataset}"
