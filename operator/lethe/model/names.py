"""Names that more than one part of Lethe must agree on: API group, namespaces, labels, paths in pods."""

import hashlib
from typing import Final, NewType

PodUid = NewType("PodUid", str)
JobUid = NewType("JobUid", str)
NodeUid = NewType("NodeUid", str)
BootId = NewType("BootId", str)

GROUP: Final = "lethe.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"

SYSTEM_NAMESPACE: Final = "lethe-system"
OPEN_NAMESPACE: Final = "lethe-open"

OPERATOR_ACCOUNT: Final = "lethe-operator"
OPERATOR_LEASE: Final = "lethe-operator"
KEYSERVICE_ACCOUNT: Final = "lethe-keyservice"
SETUP_ACCOUNT: Final = "lethe-setup"
SCRUB_ACCOUNT: Final = "lethe-scrub"
JOB_ACCOUNT: Final = "lethe-job"
OPEN_NODES_ACCOUNT: Final = "open-nodes"
"""Virtual ServiceAccount that *hosts* on every node that is not managed; no object of that name exists."""
DEBUG: Final = "lethe-pods:debug"
"""Role and RoleBinding in a tenant's namespace that name the pods which are open to exec; no node has such a name."""

POD_PREFIX: Final = "lethe-"
SCRUB_POD_PREFIX: Final = "lethe-scrub-"

LABEL_JOB: Final = "lethe.dev/job"
LABEL_JOB_UID: Final = "lethe.dev/job-uid"
LABEL_TENANT: Final = "lethe.dev/tenant"
LABEL_ROLE: Final = "lethe.dev/role"
LABEL_NODE: Final = "lethe.dev/node"
LABEL_RELEASED: Final = "lethe.dev/released"
"""On a job or a training pod that is over and that nothing will be asked of any more: no cycle reads it again."""
ROLE_TRAIN: Final = "train"
ROLE_SCRUB: Final = "scrub"

NODE_LABEL: Final = "node-restriction.kubernetes.io/lethe"
NODE_LABEL_VALUE: Final = "managed"
TAINT: Final = "lethe.dev/gpu"
GATE: Final = "lethe.dev/hold"
POD_FINALIZER: Final = "lethe.dev/custody"
JOB_FINALIZER: Final = "lethe.dev/job"
GPU_RESOURCE: Final = "nvidia.com/gpu"
GPU_PRESENT_LABEL: Final = "nvidia.com/gpu.present"

TRUST_CONFIGMAP: Final = "lethe-trust"
TRUST_CA: Final = "ca.crt"
TRUST_RECEIPT_KEYS: Final = "receipt-keys.json"
RECEIPT_KEY_SECRET: Final = "lethe-receipt-key"
CA_SECRET: Final = "lethe-ca"
KEYSERVICE_TLS_SECRET: Final = "lethe-keyservice-tls"
KEYSERVICE_ID: Final = "lethe-keyservice"
KEYSERVICE_PORT: Final = 8443

CONTAINER_KEYFETCH: Final = "lethe-keyfetch"
CONTAINER_OUTPUTS: Final = "lethe-outputs"
CONTAINER_SCRUB: Final = "scrub"

KEYS_PATH: Final = "/run/lethe"
DATASETS_PATH: Final = "/run/lethe/datasets"
CREDENTIALS_PATH: Final = "/run/lethe-credentials"
OUTPUTS_CREDENTIALS: Final = "outputs"
TOKEN_PATH: Final = "/run/lethe-token/token"
OUTPUTS_PATH: Final = "/outputs"
OUTPUTS_VARIABLE: Final = "LETHE_OUTPUTS"
PARTIAL_SUFFIX: Final = ".partial"
"""How names end of files that the job has not completed."""
TERMINATION_LOG: Final = "/dev/termination-log"


_LONGEST_NODE: Final = 38


def release_audience(releaser: str, job_uid: JobUid) -> str:
    """Return the audience of the projected token that a pod of this job shows to this releaser."""
    return f"{GROUP}/keys/{releaser}/{job_uid}"


def virtual_pod_account(pod_uid: PodUid) -> str:
    """Return the virtual ServiceAccount under which a pod *occupies* its node in the fence."""
    return f"lethe-pod-{pod_uid}"


def training_pod(job: str, job_uid: JobUid, attempt: int, index: int) -> str:
    """Return the deterministic name of a training pod (at most 63 characters)."""
    return f"{POD_PREFIX}{job[:36].rstrip('-.')}-{job_uid[:8]}-{attempt}-{index}"


def outputs_dataset(job_uid: JobUid, attempt: int) -> str:
    """Return the dataset id, 32 hex digits, of what an attempt of a job leaves: no other has it."""
    return hashlib.sha256(f"{GROUP}/outputs/{job_uid}/{attempt}".encode()).hexdigest()[:32]


def outputs_url(url: str, dataset_id: str) -> str:
    """Return the prefix of outputs below the storage URL of their job: none overwrites what another left."""
    return f"{url.rstrip('/')}/{dataset_id}"


def scrub_pod(node: str, epoch: int, refusals: int = 0) -> str:
    """Return the name of the scrub pod of one node and epoch, after so many refusals by its kubelet.

    It is of no other node, has at most 63 characters up to epoch 10^8, and no dots, since it is a host name too.
    """
    short = node
    if len(node) > _LONGEST_NODE or "." in node:
        digest = hashlib.sha256(node.encode()).hexdigest()
        short = f"{node.replace('.', '-')[: _LONGEST_NODE - 13].rstrip('-')}-{digest[:12]}"
    return f"{SCRUB_POD_PREFIX}{short}-{epoch}{f'r{refusals}' if refusals else ''}"


def receipt(node: str, epoch: int) -> str:
    """Return the name of the ScrubReceipt of one node and epoch."""
    return f"{node}-{epoch}"


def grant(node: str) -> str:
    """Return the name of the Role and RoleBinding that let a pod occupy a node."""
    return f"{POD_PREFIX}{node}"
