"""What a decision may ask for: the intents of a Plan, in the order in which they are carried out.

1. An action says what, never how: `controller.execute` builds the objects and writes them.
2. Every action may be carried out twice. A write to an existing object carries its uid and resourceVersion, so that an
   action that was decided on an old view does nothing.
3. `about` names the object that an action is for. When a write for an object fails, the later actions for the same
   object are dropped, and the next cycle decides again.
"""

import msgspec

from lethe.decisions.snapshot import Key
from lethe.model.agentconfig import ScrubConfig
from lethe.model.resources import GPUNode, JobStatus, NodeStatus, SecureTrainingJob, Tenant, TenantStatus
from lethe.model.scrub import ReceiptPredicate


class Action(msgspec.Struct, frozen=True, kw_only=True):
    """Base of all actions."""

    @property
    def about(self) -> str:
        """Return the object that this action is for."""
        return ""


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """An event of an object: what `kubectl describe` tells."""

    reason: str
    message: str
    warning: bool = False


# ---- jobs


class JobAction(Action, frozen=True, kw_only=True):
    """An action for a job, as it was read."""

    job: SecureTrainingJob

    @property
    def about(self) -> str:
        return f"job {self.job.metadata.namespace}/{self.job.metadata.name}"


class GuardJob(JobAction, frozen=True, kw_only=True):
    """Put our finalizer on a job, before anything is done for it."""


class ReleaseJob(JobAction, frozen=True, kw_only=True):
    """Take our finalizer off a job: no node is in its hands."""


class CreateTrainingPod(JobAction, frozen=True, kw_only=True):
    """Create the gated pod of an attempt."""

    tenant: str
    attempt: int
    node: str


class WriteJobStatus(JobAction, frozen=True, kw_only=True):
    """Write a job's status; the notes become events if the write succeeds."""

    status: JobStatus
    notes: list[Note] = []


# ---- pods


class PodAction(Action, frozen=True, kw_only=True):
    """An action for a pod of ours, as it was read."""

    name: str
    namespace: str
    uid: str
    resource_version: str

    @property
    def about(self) -> str:
        return f"pod {self.namespace}/{self.name}"


class LiftGate(PodAction, frozen=True, kw_only=True):
    """Let the scheduler bind a pod, to this node only."""

    node: str


class DeletePod(PodAction, frozen=True, kw_only=True):
    """Delete a pod; the finalizer keeps the object until its end is proved."""

    grace_seconds: int | None = None
    """None: what the pod's spec gives, which lets the outputs be uploaded."""


class ReleasePod(PodAction, frozen=True, kw_only=True):
    """Take our finalizer off a pod whose end is recorded."""

    finalizers: list[str]
    """Those that stay."""
    forget: bool
    """Label it as released: it is not read again."""


# ---- nodes


class NodeAction(Action, frozen=True, kw_only=True):
    """An action for a GPU node, by name."""

    node: str

    @property
    def about(self) -> str:
        return f"node {self.node}"


class CreateLedger(NodeAction, frozen=True, kw_only=True):
    """Create the GPUNode of a GPU node."""

    managed: bool


class EnrolNode(NodeAction, frozen=True, kw_only=True):
    """Set `spec.managed`, where every GPU node is to be enrolled."""

    ledger: GPUNode


class WriteNodeStatus(NodeAction, frozen=True, kw_only=True):
    """Write a GPUNode's status: the compare-and-swap that every move of the ledger is."""

    ledger: GPUNode
    status: NodeStatus
    notes: list[Note] = []


class OpenGrant(NodeAction, frozen=True, kw_only=True):
    """Copy the ledger's holder into RBAC: these pods may occupy the node."""

    namespace: str
    pod_uids: list[str]
    has_role: bool = False
    """The Role that the binding names is there and says what it must."""


class CloseGrant(NodeAction, frozen=True, kw_only=True):
    """Delete the binding, without which the Role lets nobody in."""

    namespace: str


class RemoveGrantRole(NodeAction, frozen=True, kw_only=True):
    """Delete the Role of a node that was released."""

    namespace: str


class MarkNode(NodeAction, frozen=True, kw_only=True):
    """Put our taint and label on a Node, or take them off."""

    uid: str
    resource_version: str
    taints: list[dict[str, str]]
    managed: bool


class CreateScrubPod(NodeAction, frozen=True, kw_only=True):
    """Create the scrub pod of an epoch."""

    config: ScrubConfig
    pod_name: str


class IssueReceipt(NodeAction, frozen=True, kw_only=True):
    """Sign and create the receipt of a scrub that cleared its node."""

    name: str
    predicate: ReceiptPredicate
    residue_bytes: int


class DeleteReceipt(NodeAction, frozen=True, kw_only=True):
    """Delete a receipt that retention no longer keeps; the ledger says so already."""

    name: str
    uid: str


# ---- the rest


class SetOpenNodes(Action, frozen=True, kw_only=True):
    """Write the open list: the nodes on which everybody may run."""

    nodes: list[str]
    version: str
    """resourceVersion of the list as it was read; empty when there is none."""

    @property
    def about(self) -> str:
        return "open list"


class SetDebugPods(Action, frozen=True, kw_only=True):
    """Write which pods of a namespace are open to exec."""

    namespace: str
    pods: list[str]

    @property
    def about(self) -> str:
        return f"debug list of namespace {self.namespace}"


class LabelNamespace(Action, frozen=True, kw_only=True):
    """Set the tenant label of a namespace, or take it off."""

    namespace: str
    resource_version: str
    tenant: str | None

    @property
    def about(self) -> str:
        return f"namespace {self.namespace}"


class CreateJobAccount(Action, frozen=True, kw_only=True):
    """Create the ServiceAccount without rights under which training pods run."""

    namespace: str

    @property
    def about(self) -> str:
        return f"namespace {self.namespace}"


class WriteTenantStatus(Action, frozen=True, kw_only=True):
    """Write a Tenant's status."""

    tenant: Tenant
    status: TenantStatus
    notes: list[Note] = []

    @property
    def about(self) -> str:
        return f"tenant {self.tenant.metadata.name}"


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that one cycle wants done."""

    actions: list[Action] = []
    again_in: float | None = None
    """Seconds after which to decide again even if nothing happens."""
    waiting: dict[Key, str] = {}
    """Jobs that wait for a node, and why: for metrics."""
