"""The resources of `lethe.dev/v1alpha1` as types.

1. Field for field the schemas of `crds/`; a test compares them. Wire names are camelCase.
2. Unknown fields of `template` and of objects that newer versions wrote are kept out of decisions, not refused here:
   the API server has validated the object already.
3. Timestamps are RFC 3339 strings in UTC with whole seconds, as Kubernetes writes them.
"""

from typing import Any, Literal

import msgspec

from lethe.model.phases import JobPhase, NodePhase
from lethe.model.posture import Posture

Criticality = Literal["standard", "sensitive", "critical"]
Scheme = Literal["provider"]
Isolation = Literal["tenant", "job"]
Mode = Literal["stream", "unpack"]


class Resource(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Base of all types that appear in an object of the API server."""


class OwnerReference(Resource, frozen=True, kw_only=True):
    api_version: str
    kind: str
    name: str
    uid: str
    controller: bool = False
    block_owner_deletion: bool = False


class Metadata(Resource, frozen=True, kw_only=True):
    """The part of ObjectMeta that Lethe reads."""

    name: str
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: str = ""
    deletion_timestamp: str | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    finalizers: list[str] = []
    owner_references: list[OwnerReference] = []


class Condition(Resource, frozen=True, kw_only=True):
    """metav1.Condition."""

    type: str
    status: Literal["True", "False", "Unknown"]
    reason: str
    message: str = ""
    last_transition_time: str
    observed_generation: int = 0


class SecretRef(Resource, frozen=True, kw_only=True):
    name: str


class Storage(Resource, frozen=True, kw_only=True):
    """Where objects lie, and how to reach them.

    The Secret's keys are the names of credentials in `lethe.adapters.objectstore`.
    """

    url: str
    endpoint: str | None = None
    region: str | None = None
    ca_bundle: str | None = None
    """PEM certificates that vouch for `endpoint`, in place of the image's own."""
    secret_ref: SecretRef | None = None


class IndexPin(Resource, frozen=True, kw_only=True):
    object: str
    """Object id of the index, 32 hex digits."""
    sha256: str
    """SHA-256 of the whole index object, 64 hex digits."""


class DatasetUse(Resource, frozen=True, kw_only=True):
    name: str
    mode: Mode = "stream"
    path: str | None = None
    """Where an unpacked dataset lies in the training container."""
    unpack_size: str | None = None


class Recipient(Resource, frozen=True, kw_only=True):
    """Exactly one of the two."""

    tenant_key: str | None = None
    public_key: str | None = None


class Outputs(Resource, frozen=True, kw_only=True):
    storage: Storage
    recipients: list[Recipient]
    size: str = "1Gi"
    upload_timeout: str = "1h"
    snapshot_interval: str = "1m"


class JobSpec(Resource, frozen=True, kw_only=True):
    template: dict[str, Any]
    replicas: int = 1
    gpus_per_replica: int = 1
    datasets: list[DatasetUse] = []
    outputs: Outputs | None = None
    priority: int = 0
    suspend: bool = False
    active_deadline_seconds: int | None = None


class JobPod(Resource, frozen=True, kw_only=True):
    name: str
    uid: str
    node: str
    boot_id: str
    """Boot id of the node when the pod was granted; another one is proof that the pod has ended."""
    epoch: int


class SealedOutputs(Resource, frozen=True, kw_only=True):
    url: str
    dataset_id: str
    index: IndexPin
    criticality: Criticality
    files: int = 0
    bytes: int = 0


class JobStatus(Resource, frozen=True, kw_only=True):
    phase: JobPhase = JobPhase.QUEUED
    reason: str = ""
    message: str = ""
    observed_generation: int = 0
    tenant: str = ""
    attempt: int = 0
    node: str = ""
    pods: list[JobPod] = []
    admitted_at: str | None = None
    started_at: str | None = None
    finished_at: str | None = None
    outputs: SealedOutputs | None = None
    conditions: list[Condition] = []


class SecureTrainingJob(Resource, frozen=True, kw_only=True):
    metadata: Metadata
    spec: JobSpec
    status: JobStatus = JobStatus()


class DatasetSpec(Resource, frozen=True, kw_only=True):
    storage: Storage
    dataset_id: str
    index: IndexPin
    scheme: Scheme = "provider"
    criticality: Criticality = "standard"


class EncryptedDataset(Resource, frozen=True, kw_only=True):
    metadata: Metadata
    spec: DatasetSpec


class TenantKeySpec(Resource, frozen=True, kw_only=True):
    suite: Literal["MLKEM768-X25519", "X25519"] = "MLKEM768-X25519"


class TenantKeyStatus(Resource, frozen=True, kw_only=True):
    public_key: str = ""
    """Base64 of the raw public key of the newest version."""
    suite: str = ""
    version: int = 0
    observed_generation: int = 0
    conditions: list[Condition] = []


class TenantKey(Resource, frozen=True, kw_only=True):
    metadata: Metadata
    spec: TenantKeySpec = TenantKeySpec()
    status: TenantKeyStatus = TenantKeyStatus()


class TenantGpus(Resource, frozen=True, kw_only=True):
    quota: int | None = None


class TenantSpec(Resource, frozen=True, kw_only=True):
    namespaces: list[str]
    gpus: TenantGpus = TenantGpus()
    isolation: Isolation = "tenant"
    idle_retention: str = "0s"
    debug: bool = False


class TenantStatus(Resource, frozen=True, kw_only=True):
    observed_generation: int = 0
    conditions: list[Condition] = []


class Tenant(Resource, frozen=True, kw_only=True):
    metadata: Metadata
    spec: TenantSpec
    status: TenantStatus = TenantStatus()


class Holder(Resource, frozen=True, kw_only=True):
    """Who may be on a node now."""

    tenant: str
    namespace: str
    job: str
    job_uid: str
    pod_uids: list[str]
    pod_hashes: dict[str, str] = {}
    """By pod uid: hash of what the API server returned after creation; a release compares it with the live pod."""
    since: str


class PastHolder(Resource, frozen=True, kw_only=True):
    """Who was on a node last: what the next receipt accounts for."""

    tenant: str
    namespace: str
    jobs: list[str]
    job_uids: list[str]
    since: str
    until: str


class ScrubState(Resource, frozen=True, kw_only=True):
    """The scrub of the current epoch."""

    pod_name: str
    pod_uid: str = ""
    nonce: str
    """32 bytes as hex; the report must repeat it."""
    started_at: str
    refusals: int = 0
    """How many scrub pods of this epoch the kubelet has refused before anything of them ran."""


class LastReceipt(Resource, frozen=True, kw_only=True):
    name: str
    sha256: str
    """SHA-256 of the DSSE envelope's canonical bytes, hex: what the next receipt chains to."""
    epoch: int
    boot_id: str


class Override(Resource, frozen=True, kw_only=True):
    """A named human's word that a quarantined node may be scrubbed again; the API server checks the name."""

    reason: str
    by: str


class NodeSpec(Resource, frozen=True, kw_only=True):
    managed: bool = False
    drain: bool = False
    override: Override | None = None


class Quarantine(Resource, frozen=True, kw_only=True):
    """Why a node is out of use."""

    reason: str
    since: str
    evidence: list[str]
    """What was seen: pods with uids, scrub and epoch."""
    advice: str


class OverrideRecord(Resource, frozen=True, kw_only=True):
    """The last override, and what came of it."""

    reason: str
    by: str
    at: str
    over: str = ""
    """Reason of the quarantine that it ended; empty when the node was not quarantined, and nothing followed."""
    evidence: list[str] = []
    withdrawn: bool = False
    """`spec.override` was taken away or replaced since: the same words count again."""


class NodeStatus(Resource, frozen=True, kw_only=True):
    phase: NodePhase = NodePhase.UNMANAGED
    reason: str = ""
    message: str = ""
    observed_generation: int = 0
    since: str = ""
    epoch: int = 0
    node_uid: str = ""
    boot_id: str = ""
    system_uuid: str = ""
    gpu_count: int = 0
    """Capacity of nvidia.com/gpu, which counts unhealthy GPUs too."""
    gpus: list[str] = []
    """UUIDs that the last verified scrub reported."""
    holder: Holder | None = None
    previous_holder: PastHolder | None = None
    scrub: ScrubState | None = None
    last_receipt: LastReceipt | None = None
    posture: Posture | None = None
    """As the last verified scrub found it; its receipt has it, too."""
    pruned_receipt: LastReceipt | None = None
    """The newest receipt that retention has deleted: the chain goes on after it."""
    quarantine: Quarantine | None = None
    override: OverrideRecord | None = None
    former_name: str = ""
    """Name under which the same machine was managed before: what that ledger says of its past holds here."""
    conditions: list[Condition] = []


class GPUNode(Resource, frozen=True, kw_only=True):
    metadata: Metadata
    spec: NodeSpec = NodeSpec()
    status: NodeStatus = NodeStatus()


class Signature(Resource, frozen=True, kw_only=True):
    keyid: str
    sig: str


class Envelope(Resource, frozen=True, kw_only=True):
    """DSSE envelope: `payload` and `sig` are standard base64."""

    payload_type: str
    payload: str
    signatures: list[Signature]


class ReceiptSpec(Resource, frozen=True, kw_only=True):
    """Plain copies for printer columns and selectors; the envelope is the evidence."""

    node: str
    epoch: int
    tenant: str = ""
    residue_bytes: int = 0
    sha256: str
    envelope: Envelope


class ScrubReceipt(Resource, frozen=True, kw_only=True):
    metadata: Metadata
    spec: ReceiptSpec
