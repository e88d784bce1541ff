"""A little life for the API server: two tenants, three nodes, one of them held, pods of ours and of others."""

from typing import Any

from lethe.adapters import kube as kinds
from lethe.specs.fence import build_grant_binding, build_grant_role, build_open_binding, build_open_role
from tests.apiserver.server import Client, Object

RBAC = "rbac.authorization.k8s.io"
TAINT = {"key": "lethe.dev/gpu", "effect": "NoSchedule"}
MANAGED = {"node-restriction.kubernetes.io/lethe": "managed"}
CUSTODY = ["lethe.dev/custody"]
SHA256 = "0" * 64

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
            "containers": [{"name": "train", "image": "image", "resources": {"requests": {"cpu": "100m"}}}],
            **spec,
        },
    }


def training_pod(name: str, **spec: Any) -> Object:
    """Return a pod as the operator makes it."""
    labels = {"lethe.dev/role": "train", "lethe.dev/job": "digits", "lethe.dev/tenant": "acme"}
    tolerations = [{"key": "lethe.dev/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    return pod(name, "acme", labels=labels, finalizers=CUSTODY, tolerations=tolerations, **spec)


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
    """Create it all."""
    for name, labels in (
        ("acme", {"lethe.dev/tenant": "acme"}),
        ("globex", {"lethe.dev/tenant": "globex"}),
        ("plain", {}),
    ):
        client.create(kinds.NAMESPACE, {"metadata": {"name": name, "labels": labels}})
    _people(client)
    _nodes(client)
    _pods(client)
    client.create(kinds.JOB_CR, {**job(), "metadata": {**job()["metadata"], "finalizers": ["lethe.dev/job"]}})
    client.create(kinds.TENANT_KEY, {"metadata": {"name": "default", "namespace": "acme"}})
    envelope = {"payloadType": "t", "payload": "cA==", "signatures": [{"keyid": "k", "sig": "cw=="}]}
    receipt = {"node": "gpu-1", "epoch": 3, "sha256": SHA256, "envelope": envelope}
    client.create(kinds.RECEIPT, {"metadata": {"name": "gpu-1-3"}, "spec": receipt})


def _people(client: Client) -> None:
    client.create(kinds.ROLEBINDING, binding("admin", "acme", "admin", user("tess"), role_kind="ClusterRole"))
    for name, namespace in (("default", "acme"), ("lethe-job", "acme")):
        client.create(kinds.SERVICEACCOUNT, {"metadata": {"name": name, "namespace": namespace}})
    everything = [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]
    client.create(kinds.ROLE, role("everything", "acme", everything))
    client.create(kinds.ROLEBINDING, binding("everything", "acme", "everything", user("tess")))
    client.create(kinds.CLUSTERROLE, {"metadata": {"name": "rogue"}, "rules": ROGUE_RULES})
    client.create(kinds.CLUSTERROLEBINDING, binding("rogue", "", "rogue", user("rogue"), role_kind="ClusterRole"))


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
        client.write_status(kinds.NODE, name, {"capacity": allocatable, "allocatable": allocatable})
    client.create(kinds.ROLE, build_open_role(["cpu-1"]))
    client.create(kinds.ROLEBINDING, build_open_binding())


def _pods(client: Client) -> None:
    granted = client.create(kinds.POD, training_pod("lethe-digits-0"))
    client.create(kinds.POD, training_pod("lethe-digits-1", schedulingGates=[{"name": "lethe.dev/hold"}]))
    client.create(kinds.POD, training_pod("lethe-digits-2"))
    client.create(kinds.POD, training_pod("lethe-running", nodeName="gpu-1"))
    client.create(kinds.POD, pod("mine", "acme"))
    client.create(kinds.POD, pod("on-gpu", "acme", nodeName="gpu-2"))
    client.create(kinds.POD, pod("on-cpu", "acme", nodeName="cpu-1"))
    client.create(kinds.POD, pod("theirs", "globex"))
    client.create(kinds.POD, pod("other", "plain"))
    client.create(kinds.POD, pod("agent", "kube-system"))
    client.create(
        kinds.POD,
        pod(
            "lethe-scrub-gpu-2-4",
            "lethe-system",
            labels={"lethe.dev/role": "scrub"},
            finalizers=CUSTODY,
            nodeName="gpu-2",
        ),
    )
    client.create(kinds.POD, pod("lethe-keyservice-0", "lethe-system"))
    client.create(kinds.ROLE, build_grant_role("gpu-1", "acme"))
    client.create(kinds.ROLEBINDING, build_grant_binding("gpu-1", "acme", [granted["metadata"]["uid"]]))
