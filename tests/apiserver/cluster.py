"""A little life for an API server: two tenants, three nodes, one of them held, pods of ours and of others.

1. A `Scene` names what the tables of attacks and honest paths (tests/attacks) are about. Its defaults are what
   `populate` makes on an API server without nodes; the end-to-end suite names a real node, a running job and so on.
2. What neither has by itself is made by `people` and `pods`, the same on both.
3. Pods that wait name a scheduler that does not exist, so that a real one leaves them alone.
"""

from dataclasses import dataclass
from typing import Any

from lethe.adapters import kube as kinds
from lethe.adapters.kube import Kind
from lethe.model import names
from lethe.specs.fence import build_grant_binding, build_grant_role, build_open_binding, build_open_role
from tests.apiserver.server import Client, Object

RBAC = "rbac.authorization.k8s.io"
TAINT = {"key": "lethe.dev/gpu", "value": "managed", "effect": "NoSchedule"}
MANAGED = {"node-restriction.kubernetes.io/lethe": "managed"}
CUSTODY = ["lethe.dev/custody"]
SHA256 = "0" * 64
NODE_INFORMATION = (
    *("machineID", "systemUUID", "bootID", "kernelVersion", "osImage", "containerRuntimeVersion"),
    *("kubeletVersion", "kubeProxyVersion", "operatingSystem", "architecture"),
)

# The role `edit` is their sum; where no controller adds them up, it is empty.
EDIT = ("system:aggregate-to-view", "system:aggregate-to-edit", "lethe-view", "lethe-edit")

# Everything but the right to install: what a rogue administrator of nodes or namespaces could have at most.
ROGUE_RULES: list[Object] = [
    {"apiGroups": ["", "apps", "batch"], "resources": ["*"], "verbs": ["*"]},
    {"apiGroups": [RBAC], "resources": ["*"], "verbs": ["*"]},
    {"apiGroups": ["apiextensions.k8s.io"], "resources": ["*"], "verbs": ["*"]},
    {
        "apiGroups": ["lethe.dev"],
        "resources": ["*"],
        "verbs": ["get", "list", "create", "update", "patch", "delete", "deletecollection", "host", "occupy"],
    },
]


@dataclass(frozen=True)
class Scene:
    """Names of what requests are about: nodes, the job that holds one of them, a scrub on the other."""

    held: str = "gpu-1"
    free: str = "gpu-2"
    open: str = "cpu-1"
    job: str = "digits"
    running: str = "lethe-running"
    """The job's pod, on the held node."""
    scrub: str = "lethe-scrub-gpu-2-4"
    """A scrub pod on the free node."""
    receipt: str = "gpu-1-3"
    image: str = "image"
    """Of the pods that run; it has a shell."""

    @property
    def grant(self) -> str:
        """Return the name of Role and RoleBinding that let the job's pod onto its node."""
        return names.grant(self.held)


def pod(name: str, namespace: str, **spec: Any) -> Object:
    """Return a pod."""
    labels = spec.pop("labels", {})
    annotations = spec.pop("annotations", {})
    finalizers = spec.pop("finalizers", [])
    owners = spec.pop("owners", [])
    return {
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": labels,
            "annotations": annotations,
            "finalizers": finalizers,
            "ownerReferences": owners,
        },
        "spec": {
            "containers": [{"name": "train", "image": "image", "resources": {"requests": {"cpu": "10m"}}}],
            **spec,
        },
    }


def running_pod(name: str, namespace: str, node: str, image: str, **spec: Any) -> Object:
    """Return a pod that is on a node from the beginning, and does nothing there."""
    made = pod(name, namespace, nodeName=node, terminationGracePeriodSeconds=1, **spec)
    made["spec"]["containers"][0].update(
        image=image, imagePullPolicy="IfNotPresent", command=["sh", "-c", "exec sleep 86400"]
    )
    return made


def waiting_pod(name: str, namespace: str, **spec: Any) -> Object:
    """Return a pod that no scheduler binds."""
    return pod(name, namespace, schedulerName="nobody", **spec)


def training_pod(name: str, **spec: Any) -> Object:
    """Return a pod as the operator makes it."""
    labels = {"lethe.dev/role": "train", "lethe.dev/job": "digits", "lethe.dev/tenant": "acme"}
    tolerations = [{"key": "lethe.dev/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    return waiting_pod(name, "acme", labels=labels, finalizers=CUSTODY, tolerations=tolerations, **spec)


def job(name: str = "digits", **template_spec: Any) -> Object:
    """Return a job that is allowed."""
    return {
        "metadata": {"name": name, "namespace": "acme"},
        "spec": {
            "template": {
                "spec": {"containers": [{"name": "train", "image": "image", "command": ["python"]}], **template_spec}
            },
            "datasets": [{"name": "digits"}],
        },
    }


def role(name: str, namespace: str, rules: list[Object]) -> Object:
    """Return a Role."""
    return {"metadata": {"name": name, "namespace": namespace}, "rules": rules}


def binding(name: str, namespace: str, role_name: str, *subjects: Object, role_kind: str = "Role") -> Object:
    """Return a RoleBinding."""
    reference = {"apiGroup": RBAC, "kind": role_kind, "name": role_name}
    return {"metadata": {"name": name, "namespace": namespace}, "roleRef": reference, "subjects": list(subjects)}


def user(name: str) -> Object:
    """Return a subject."""
    return {"apiGroup": RBAC, "kind": "User", "name": name}


def group(name: str) -> Object:
    """Return a subject."""
    return {"apiGroup": RBAC, "kind": "Group", "name": name}


def account(name: str, namespace: str) -> Object:
    """Return a subject."""
    return {"kind": "ServiceAccount", "name": name, "namespace": namespace}


def populate(client: Client) -> None:
    """Make the default scene on an API server without nodes."""
    scene = Scene()
    for name, labels in (
        ("acme", {"lethe.dev/tenant": "acme"}),
        ("globex", {"lethe.dev/tenant": "globex"}),
        ("plain", {}),
    ):
        client.create(kinds.NAMESPACE, {"metadata": {"name": name, "labels": labels}})
    for name, namespace in (("default", "acme"), ("lethe-job", "acme"), ("default", "plain")):
        client.create(kinds.SERVICEACCOUNT, {"metadata": {"name": name, "namespace": namespace}})
    _nodes(client)
    client.create(kinds.POD, training_pod(scene.running, nodeName=scene.held))
    client.create(kinds.POD, pod("lethe-keyservice-0", "lethe-system"))
    for kind, body in (*people(), *pods(scene)):
        client.create(kind, body)
    granted = client.get(kinds.POD, "lethe-digits-0", "acme")["metadata"]["uid"]
    client.create(kinds.ROLE, build_grant_role(scene.held, "acme"))
    client.create(kinds.ROLEBINDING, build_grant_binding(scene.held, "acme", [granted]))
    client.create(kinds.JOB_CR, {**job(), "metadata": {**job()["metadata"], "finalizers": ["lethe.dev/job"]}})
    client.create(kinds.TENANT_KEY, {"metadata": {"name": "default", "namespace": "acme"}})
    client.create(kinds.TENANT, {"metadata": {"name": "acme"}, "spec": {"namespaces": ["acme"]}})
    envelope = {"payloadType": "t", "payload": "cA==", "signatures": [{"keyid": "k", "sig": "cw=="}]}
    receipt = {"node": "gpu-1", "epoch": 3, "sha256": SHA256, "envelope": envelope}
    client.create(kinds.RECEIPT, {"metadata": {"name": scene.receipt}, "spec": receipt})


def people() -> list[tuple[Kind, Object]]:
    """Return those who try: ed edits acme, eve edits globex, tess may do all in acme, rogue has a cluster role."""
    edit = [
        (kinds.ROLEBINDING, binding(f"{who}-{part}".replace(":", "-"), space, part, user(who), role_kind="ClusterRole"))
        for who, space in (("ed", "acme"), ("eve", "globex"))
        for part in EDIT
    ]
    everything = [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]
    return [
        *edit,
        (kinds.ROLE, role("everything", "acme", everything)),
        (kinds.ROLEBINDING, binding("everything", "acme", "everything", user("tess"))),
        (kinds.CLUSTERROLE, {"metadata": {"name": "rogue"}, "rules": ROGUE_RULES}),
        (kinds.CLUSTERROLEBINDING, binding("rogue", "", "rogue", user("rogue"), role_kind="ClusterRole")),
    ]


def pods(scene: Scene) -> list[tuple[Kind, Object]]:
    """Return the pods of the scene but for the running one; the first is the one that has a grant."""
    scrub = running_pod(
        scene.scrub, "lethe-system", scene.free, scene.image, labels={"lethe.dev/role": "scrub"}, finalizers=CUSTODY
    )
    return [
        (kinds.POD, made)
        for made in (
            training_pod("lethe-digits-0"),
            training_pod("lethe-digits-1", schedulingGates=[{"name": "lethe.dev/hold"}]),
            training_pod("lethe-digits-2"),
            waiting_pod("mine", "acme"),
            running_pod("on-gpu", "acme", scene.free, scene.image),
            running_pod("on-cpu", "acme", scene.open, scene.image),
            waiting_pod("theirs", "globex"),
            waiting_pod("other", "plain"),
            waiting_pod("agent", "kube-system"),
            scrub,
        )
    ]


def _nodes(client: Client) -> None:
    for name, gpu in (("cpu-1", False), ("gpu-1", True), ("gpu-2", True)):
        node = {
            "metadata": {"name": name, "labels": {**MANAGED, "nvidia.com/gpu.present": "true"} if gpu else {}},
            "spec": {"taints": [TAINT]} if gpu else {},
        }
        client.create(kinds.NODE, node)
        if gpu:
            client.create(kinds.GPU_NODE, {"metadata": {"name": name}, "spec": {"managed": True}})
            client.write_status(kinds.GPU_NODE, name, {"phase": "Assigned" if name == "gpu-1" else "Free", "epoch": 3})
        allocatable = {"cpu": "8", "memory": "8Gi", "pods": "110"}
        information = dict.fromkeys(NODE_INFORMATION, "x")
        status = {"capacity": allocatable, "allocatable": allocatable, "nodeInfo": information}
        client.write_status(kinds.NODE, name, status)
    client.create(kinds.ROLE, build_open_role(["cpu-1"]))
    client.create(kinds.ROLEBINDING, build_open_binding())
