"""What one cycle of the operator knows: the input of every decision.

1. Everything in a Snapshot was read from the API server for this cycle; nothing is remembered from an earlier one.
2. The ledger (jobs and GPUNodes) is read first and the pods after it. Who is on a node (`occupants`) is read last, by a
   live list for each node: what was closed in the ledger can only have become emptier.
3. Facts are small copies of the fields that decisions use; `resource_version` is what a write compares with.
"""

from datetime import datetime
from typing import Literal

import msgspec

from lethe.model.config import OperatorConfig
from lethe.model.names import GATE, POD_FINALIZER
from lethe.model.phases import NodePhase
from lethe.model.resources import (
    Criticality,
    EncryptedDataset,
    GPUNode,
    NodeStatus,
    SecureTrainingJob,
    Tenant,
    TenantKey,
)
from lethe.model.scrub import ScrubReport, ScrubSummary

Key = tuple[str, str]
"""Namespace and name."""


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """Base of what a Snapshot holds."""


class ContainerFacts(Facts, frozen=True, kw_only=True):
    """The status of one container, init containers included."""

    state: Literal["waiting", "running", "terminated"]
    reason: str = ""
    message: str = ""
    exit_code: int = 0
    since: str = ""
    """When it started to run, for a running container."""
    image_id: str = ""


class PodFacts(Facts, frozen=True, kw_only=True):
    """A pod that the operator made."""

    name: str
    namespace: str
    uid: str
    resource_version: str
    role: str
    job_uid: str = ""
    node: str = ""
    """Where it is bound; empty before."""
    phase: str = "Pending"
    reason: str = ""
    message: str = ""
    deletion_timestamp: str | None = None
    """By when it should be gone."""
    gates: tuple[str, ...] = ()
    finalizers: tuple[str, ...] = ()
    collected: bool = False
    """The pod garbage collector, not a kubelet, has declared it ended."""
    unschedulable: str = ""
    containers: dict[str, ContainerFacts] = {}
    main: tuple[str, ...] = ()
    """Names of the regular containers, in order."""
    hash: str = ""
    """Of a gated pod: what the ledger records when it grants the node."""
    criticality: Criticality = "critical"
    """Of the outputs, as it was written into the pod when it was created."""

    @property
    def deleting(self) -> bool:
        """Say whether somebody has asked for its deletion."""
        return self.deletion_timestamp is not None

    @property
    def is_gated(self) -> bool:
        """Say whether the scheduler must still leave it alone."""
        return GATE in self.gates

    @property
    def is_guarded(self) -> bool:
        """Say whether our finalizer still keeps the object."""
        return POD_FINALIZER in self.finalizers

    @property
    def has_ended(self) -> bool:
        """Say whether its phase is terminal, whoever said so."""
        return self.phase in ("Succeeded", "Failed")


class NodeFacts(Facts, frozen=True, kw_only=True):
    """A Node object."""

    name: str
    uid: str
    boot_id: str
    system_uuid: str = ""
    resource_version: str = ""
    labels: dict[str, str] = {}
    gpu_capacity: int = 0
    is_gpu_node: bool = False
    is_ready: bool = True
    is_cordoned: bool = False
    is_marked: bool = False
    """Has our taint and our label."""
    has_mark: bool = False
    """Has one of them at least: it is managed, or was."""
    taints: tuple[dict[str, str], ...] = ()

    def has_left_boot(self, boot_id: str) -> bool:
        """Say whether the node runs another boot than this one. A Node without boot id says nothing."""
        return bool(self.boot_id) and self.boot_id != boot_id

    def is_as_scrubbed(self, status: NodeStatus) -> bool:
        """Say whether this is still what the ledger's receipt is about: the Node object, the boot, the GPUs."""
        return bool(self.boot_id) and (self.uid, self.boot_id, self.gpu_capacity) == (
            status.node_uid,
            status.boot_id,
            status.gpu_count,
        )


class GrantFacts(Facts, frozen=True, kw_only=True):
    """A RoleBinding that lets pods occupy a node."""

    node: str
    namespace: str
    pod_uids: tuple[str, ...]


class GrantRoleFacts(Facts, frozen=True, kw_only=True):
    """A Role that a grant binds; by itself it lets nobody in."""

    node: str
    namespace: str
    is_right: bool
    """Says what it must say."""


class NamespaceFacts(Facts, frozen=True, kw_only=True):
    """A namespace that belongs to a tenant, or is labelled as if it did."""

    name: str
    resource_version: str = ""
    tenant_label: str = ""
    has_job_account: bool = False
    is_terminating: bool = False


class ScrubResult(Facts, frozen=True, kw_only=True):
    """What a scrub pod that has ended left behind."""

    report: ScrubReport | None
    report_sha256: str = ""
    summary: ScrubSummary | None
    error: str = ""
    """Why report or summary could not be read."""


class IssuedReceipt(Facts, frozen=True, kw_only=True):
    """A ScrubReceipt that exists for a node's current epoch, verified with the operator's own key."""

    name: str
    sha256: str
    nonce: str
    node_uid: str
    boot_id: str
    epoch: int


class Snapshot(Facts, frozen=True, kw_only=True):
    """The world at one moment."""

    now: datetime
    config: OperatorConfig
    jobs: dict[Key, SecureTrainingJob] = {}
    gpu_nodes: dict[str, GPUNode] = {}
    unreadable_gpu_nodes: frozenset[str] = frozenset()
    """GPUNodes that exist and do not parse: nothing is decided about them, and nothing open is granted on them."""
    nodes: dict[str, NodeFacts] = {}
    pods: dict[str, PodFacts] = {}
    """By uid."""
    tenants: dict[str, Tenant] = {}
    datasets: dict[Key, EncryptedDataset] = {}
    tenant_keys: dict[Key, TenantKey] = {}
    namespaces: dict[str, NamespaceFacts] = {}
    missing_secrets: frozenset[Key] = frozenset()
    """Secrets that a job or its datasets name and that do not exist."""
    grants: tuple[GrantFacts, ...] = ()
    debug: dict[str, frozenset[str]] = {}
    """By namespace: the pods that are open to exec, where a list of them exists."""
    grant_roles: tuple[GrantRoleFacts, ...] = ()
    open_nodes: frozenset[str] | None = None
    """Nodes on the open list; None before it exists."""
    open_nodes_version: str = ""
    occupants: dict[str, tuple[str, ...]] = {}
    """By node: pods outside the system namespaces that have not ended. A node that was not asked about is absent."""
    closed_nodes: frozenset[str] = frozenset()
    """Nodes on which a dry-run bind for the pods that leave was refused in this cycle."""
    scrubs: dict[str, ScrubResult] = {}
    """By uid of a scrub pod that has ended."""
    receipts: dict[str, IssuedReceipt] = {}
    """By node, for the current epoch."""
    earlier_receipts: dict[str, IssuedReceipt] = {}
    """By node whose ledger knows of no scrub: the newest receipt that an earlier ledger of its name has left."""
    keyfetch_words: dict[str, str] = {}
    """By pod uid: the last line that a key fetch said that takes long."""
    new_nonces: dict[str, str] = {}
    """By node: a fresh nonce, used if a scrub starts in this cycle."""

    def job_by_uid(self, uid: str) -> SecureTrainingJob | None:
        """Return the job with this uid, if it still exists."""
        return next((job for job in self.jobs.values() if job.metadata.uid == uid), None)

    def pods_of(self, job: SecureTrainingJob) -> list[PodFacts]:
        """Return the training pods of a job that still exist, all attempts."""
        return [pod for pod in self.pods.values() if pod.job_uid == job.metadata.uid]

    def tenants_of(self, namespace: str) -> list[Tenant]:
        """Return the tenants that claim a namespace: one, if everything is right."""
        return [tenant for tenant in self.tenants.values() if namespace in tenant.spec.namespaces]

    def is_held(self, job: SecureTrainingJob) -> bool:
        """Say whether a node's ledger still names this job as its holder."""
        return any(
            node.status.holder is not None and node.status.holder.job_uid == job.metadata.uid
            for node in self.gpu_nodes.values()
        )

    def successor_of(self, name: str) -> GPUNode | None:
        """Return the ledger that goes on where this one ends: the same machine under its new name."""
        if name in self.nodes:
            return None
        return next((node for node in self.gpu_nodes.values() if node.status.former_name == name), None)

    def node_phase(self, name: str) -> NodePhase:
        """Return a node's phase in the ledger; a node without ledger is Unmanaged."""
        node = self.gpu_nodes.get(name)
        return node.status.phase if node is not None else NodePhase.UNMANAGED
