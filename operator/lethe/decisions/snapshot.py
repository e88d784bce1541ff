"""What one cycle of the operator knows: the input of every decision.

1. Everything in a Snapshot was read from the API server for this cycle; nothing is remembered from an earlier one.
2. The ledger (jobs and GPUNodes) is read first and the pods after it. Who is on a node (`occupants`) is read last, by a
   live list for each node that is closed or about to be granted: what was closed can only have become emptier.
3. Facts are small copies of the fields that decisions use; `resource_version` is what a write compares with.
4. Jobs and training pods with the label `lethe.dev/released` are not in it: nothing is decided about them any more.
5. Who looks something up for every job or node uses an index, made on first use: a cycle over thousands stays linear.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from datetime import datetime
from functools import cached_property
from typing import Final, Literal, TypeVar

import msgspec

from lethe.model.config import OperatorConfig
from lethe.model.names import GATE, POD_FINALIZER, ROLE_SCRUB, SYSTEM_NAMESPACE
from lethe.model.phases import JobPhase, NodePhase
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

_T = TypeVar("_T")

_REFUSALS: Final = ("UnexpectedAdmissionError", "TopologyAffinityError")
_TOO_LITTLE: Final = "OutOf"
"""Why a kubelet refuses a pod, for what may pass: devices that are not there yet, or not free yet.

Source: pkg/kubelet/lifecycle/predicate.go and pkg/kubelet/cm/topologymanager of Kubernetes 1.37.
"""

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
    """When it started to run, for a running container; when it ended, for one that has ended."""
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
    ended_by_kubelet: bool = False
    """Its terminal phase came with what only kubelets write."""
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

    @property
    def is_refused(self) -> bool:
        """Say whether its kubelet has refused it: nothing of it ever ran."""
        refused = self.reason in _REFUSALS or self.reason.startswith(_TOO_LITTLE)
        return self.phase == "Failed" and refused and not self.containers


class NodeFacts(Facts, frozen=True, kw_only=True):
    """A Node object."""

    name: str
    uid: str
    boot_id: str
    system_uuid: str = ""
    resource_version: str = ""
    labels: dict[str, str] = {}
    gpu_capacity: int = 0
    gpu_allocatable: int = 0
    """Those of its GPUs that its device plugin calls healthy."""
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
    """A ScrubReceipt that exists, verified with the trusted keys. Of one that does not verify `sha256` is empty."""

    name: str
    uid: str = ""
    sha256: str
    nonce: str
    node_uid: str
    boot_id: str
    epoch: int
    issued_at: str = ""


class Snapshot(Facts, frozen=True, kw_only=True, dict=True):
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
    closed_for: dict[str, float] = {}
    """By node whose fence is closed: for how many seconds this process has seen it so, by its monotonic clock."""
    closed_nodes: frozenset[str] = frozenset()
    """Nodes on which a dry-run bind for the pods that leave was refused in this cycle."""
    scrubs: dict[str, ScrubResult] = {}
    """By uid of a scrub pod that has ended."""
    receipts: dict[str, IssuedReceipt] = {}
    """By node, for the current epoch."""
    earlier_receipts: dict[str, IssuedReceipt] = {}
    """By node whose ledger knows of no scrub: the newest receipt that an earlier ledger of its name has left."""
    past_receipts: dict[str, tuple[IssuedReceipt, ...]] = {}
    """By node in `receipts`: all that it has, where old ones are to be deleted."""
    keyfetch_words: dict[str, str] = {}
    """By pod uid: the last line that a key fetch said that takes long."""
    new_nonces: dict[str, str] = {}
    """By node: a fresh nonce, used if a scrub starts in this cycle."""

    def job_by_uid(self, uid: str) -> SecureTrainingJob | None:
        """Return the job with this uid, if it still exists."""
        return self._jobs_by_uid.get(uid)

    def pods_of(self, job: SecureTrainingJob) -> list[PodFacts]:
        """Return the training pods of a job that still exist, all attempts."""
        return self._pods_by_job.get(job.metadata.uid, [])

    def tenants_of(self, namespace: str) -> list[Tenant]:
        """Return the tenants that claim a namespace: one, if everything is right."""
        return self._tenants_by_namespace.get(namespace, [])

    def nodes_held_by(self, job: SecureTrainingJob) -> list[GPUNode]:
        """Return the nodes whose ledger names this job as the holder: of an earlier attempt too."""
        return self._nodes_by_job.get(job.metadata.uid, [])

    def scrub_pod(self, name: str) -> PodFacts | None:
        """Return the scrub pod of this name, if it still exists."""
        return self._scrub_pods.get(name)

    def grants_of(self, node: str) -> list[GrantFacts]:
        """Return the grants that let somebody on a node."""
        return self._grants_by_node.get(node, [])

    def grant_roles_of(self, node: str) -> list[GrantRoleFacts]:
        """Return the Roles that grants of a node bind, or have bound."""
        return self._grant_roles_by_node.get(node, [])

    def admitted_to(self, node: str) -> list[SecureTrainingJob]:
        """Return the jobs that were admitted to a node and whose pod does not run yet."""
        return self._admitted_by_node.get(node, [])

    @cached_property
    def largest_node(self) -> int | None:
        """GPUs of the largest node under custody; None when there is no such node."""
        return max(
            (
                node.status.gpu_count
                for node in self.gpu_nodes.values()
                if node.spec.managed and node.status.phase != NodePhase.UNMANAGED
            ),
            default=None,
        )

    def successor_of(self, name: str) -> GPUNode | None:
        """Return the ledger that goes on where this one ends: the same machine under its new name."""
        if name in self.nodes:
            return None
        return self._successors.get(name)

    def node_phase(self, name: str) -> NodePhase:
        """Return a node's phase in the ledger; a node without ledger is Unmanaged."""
        node = self.gpu_nodes.get(name)
        return node.status.phase if node is not None else NodePhase.UNMANAGED

    @cached_property
    def _jobs_by_uid(self) -> dict[str, SecureTrainingJob]:
        return {job.metadata.uid: job for job in self.jobs.values()}

    @cached_property
    def _pods_by_job(self) -> dict[str, list[PodFacts]]:
        return _grouped(self.pods.values(), lambda pod: [pod.job_uid])

    @cached_property
    def _scrub_pods(self) -> dict[str, PodFacts]:
        return {
            pod.name: pod for pod in self.pods.values() if pod.role == ROLE_SCRUB and pod.namespace == SYSTEM_NAMESPACE
        }

    @cached_property
    def _tenants_by_namespace(self) -> dict[str, list[Tenant]]:
        return _grouped(self.tenants.values(), lambda tenant: tenant.spec.namespaces)

    @cached_property
    def _nodes_by_job(self) -> dict[str, list[GPUNode]]:
        return _grouped(
            self.gpu_nodes.values(),
            lambda node: [node.status.holder.job_uid] if node.status.holder is not None else [],
        )

    @cached_property
    def _successors(self) -> dict[str, GPUNode]:
        return {node.status.former_name: node for node in self.gpu_nodes.values() if node.status.former_name}

    @cached_property
    def _grants_by_node(self) -> dict[str, list[GrantFacts]]:
        return _grouped(self.grants, lambda grant: [grant.node])

    @cached_property
    def _grant_roles_by_node(self) -> dict[str, list[GrantRoleFacts]]:
        return _grouped(self.grant_roles, lambda role: [role.node])

    @cached_property
    def _admitted_by_node(self) -> dict[str, list[SecureTrainingJob]]:
        admitted = (job for job in self.jobs.values() if job.status.phase == JobPhase.ADMITTED)
        return _grouped(admitted, lambda job: [job.status.node])


def _grouped(items: Iterable[_T], keys: Callable[[_T], Iterable[str]]) -> dict[str, list[_T]]:
    groups: dict[str, list[_T]] = defaultdict(list)
    for item in items:
        for key in keys(item):
            groups[key].append(item)
    return groups
