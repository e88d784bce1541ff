"""Requests that must be refused once the policies are in, and that work without them; and honest ones that must pass.

Every request is a dry run: it goes through authorization, admission and validation, and changes nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lethe.adapters import kube as kinds
from lethe.adapters.kube import Kind
from tests.apiserver.cluster import TAINT, account, binding, group, job, pod, role, training_pod, user
from tests.apiserver.server import Answer, Client, Object

DRY = "dryRun=All"
JOB = Kind("batch", "v1", "jobs", True, "Job")
DAEMONSET = Kind("apps", "v1", "daemonsets", True, "DaemonSet")

OPERATOR = ("system:serviceaccount:lethe-system:lethe-operator", "system:serviceaccounts", "system:authenticated")
KEYSERVICE = ("system:serviceaccount:lethe-system:lethe-keyservice", "system:serviceaccounts", "system:authenticated")
SCHEDULER = ("system:kube-scheduler", "system:authenticated")
TENANT = ("tess", "system:authenticated")
ROGUE = ("rogue", "system:authenticated")
COLLECTOR = (
    "system:serviceaccount:kube-system:generic-garbage-collector",
    "system:serviceaccounts",
    "system:authenticated",
)
NODE_CONTROLLER = (
    "system:serviceaccount:kube-system:node-controller",
    "system:serviceaccounts",
    "system:authenticated",
)
POD_COLLECTOR = (
    "system:serviceaccount:kube-system:pod-garbage-collector",
    "system:serviceaccounts",
    "system:authenticated",
)
NAMESPACE_CONTROLLER = (
    "system:serviceaccount:kube-system:namespace-controller",
    "system:serviceaccounts",
    "system:authenticated",
)
CLUSTER_ADMIN: tuple[str, ...] = ()
"""The administrator's own certificate."""


def kubelet(node: str) -> tuple[str, ...]:
    """Return the identity of a kubelet."""
    return (f"system:node:{node}", "system:nodes", "system:authenticated")


@dataclass(frozen=True)
class Row:
    """One request by somebody. `says` is what the refusal must say."""

    name: str
    who: tuple[str, ...]
    request: Callable[[Client], Answer]
    says: str = ""

    def attempt(self, admin: Client) -> Answer:
        """Send the request."""
        return self.request(admin.acting(*self.who) if self.who else admin)


def create(kind: Kind, body: Object) -> Callable[[Client], Answer]:
    """Return a request that creates."""
    namespace = body["metadata"].get("namespace", "")
    typed = {"apiVersion": kind.api_version, "kind": kind.kind, **body}
    return lambda client: client.send("POST", f"{kind.path(namespace=namespace)}?{DRY}", typed)


def patch(kind: Kind, name: str, namespace: str, change: Object, subresource: str = "") -> Callable[[Client], Answer]:
    """Return a request that changes, by merge patch."""
    path = f"{kind.path(name, namespace, subresource)}?{DRY}"
    return lambda client: client.send("PATCH", path, change, "application/merge-patch+json")


def strategic(
    kind: Kind, name: str, namespace: str, change: Object, subresource: str = ""
) -> Callable[[Client], Answer]:
    """Return a request that changes lists by key, by strategic merge patch."""
    path = f"{kind.path(name, namespace, subresource)}?{DRY}"
    return lambda client: client.send("PATCH", path, change, "application/strategic-merge-patch+json")


def edit(kind: Kind, name: str, namespace: str, change: list[Object]) -> Callable[[Client], Answer]:
    """Return a request that changes by JSON patch."""
    path = f"{kind.path(name, namespace)}?{DRY}"
    return lambda client: client.send("PATCH", path, change, "application/json-patch+json")


def delete(kind: Kind, name: str, namespace: str = "") -> Callable[[Client], Answer]:
    """Return a request that deletes; without a name, the whole collection."""
    return lambda client: client.send("DELETE", f"{kind.path(name, namespace)}?{DRY}")


def bind(
    name: str, node: str, namespace: str = "acme", uid: str | None = "own", **metadata: Any
) -> Callable[[Client], Answer]:
    """Return a request that binds a pod. `uid` is its own, another pod's (namespace/name), or none."""

    def request(client: Client) -> Answer:
        return client.send("POST", f"{kinds.POD.path(name, namespace, 'binding')}?{DRY}", _binding(client))

    def _binding(client: Client) -> Object:
        found: Object = {"name": name, "namespace": namespace, **metadata}
        if uid is not None:
            home, _, other = f"{namespace}/{name}".partition("/") if uid == "own" else uid.partition("/")
            found["uid"] = client.acting("").get(kinds.POD, other, home)["metadata"]["uid"]
        return {"apiVersion": "v1", "kind": "Binding", "metadata": found, "target": {"kind": "Node", "name": node}}

    return request


def bind_old_way(name: str, node: str, namespace: str = "acme") -> Callable[[Client], Answer]:
    """Return a request that binds through the legacy path, which drops the uid."""
    body = {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": name, "namespace": namespace},
        "target": {"kind": "Node", "name": node},
    }
    return lambda client: client.send("POST", f"/api/v1/namespaces/{namespace}/bindings?{DRY}", body)


def debug(name: str, namespace: str) -> Callable[[Client], Answer]:
    """Return a request that adds an ephemeral container."""
    container = {"name": "debug", "image": "image", "targetContainerName": "train"}
    return strategic(kinds.POD, name, namespace, {"spec": {"ephemeralContainers": [container]}}, "ephemeralcontainers")


def resize(name: str, namespace: str) -> Callable[[Client], Answer]:
    """Return a request that resizes a container."""
    change = {"spec": {"containers": [{"name": "train", "resources": {"requests": {"cpu": "1"}}}]}}
    return strategic(kinds.POD, name, namespace, change, "resize")


def mirror(node: str) -> Callable[[Client], Answer]:
    """Return a request by which a kubelet shows a static pod."""

    def request(client: Client) -> Answer:
        uid = client.acting("").get(kinds.NODE, node)["metadata"]["uid"]
        owner = {"apiVersion": "v1", "kind": "Node", "name": node, "uid": uid, "controller": True}
        mark = {"kubernetes.io/config.mirror": "x"}
        return create(kinds.POD, pod(f"static-{node}", "plain", nodeName=node, annotations=mark, owners=[owner]))(
            client
        )

    return request


def token(name: str, namespace: str, *audiences: str) -> Callable[[Client], Answer]:
    """Return a request for a token."""
    body = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {"audiences": list(audiences), "expirationSeconds": 600},
    }
    path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token?{DRY}"
    return lambda client: client.send("POST", path, body)


def connect(path: str, method: str = "POST") -> Callable[[Client], Answer]:
    """Return a CONNECT request; without a policy it fails later, at a kubelet that is not there."""
    return lambda client: client.send(method, path)


def workload(kind: Kind, name: str, namespace: str, pod_labels: Object, **metadata: Any) -> Callable[[Client], Answer]:
    """Return a request that creates a Job or DaemonSet."""
    labels = {"app": "x", **pod_labels}
    spec: Object = {"template": {"metadata": {"labels": labels}, "spec": pod("x", namespace)["spec"]}}
    if kind is JOB:
        spec["template"]["spec"]["restartPolicy"] = "Never"
    else:
        spec["selector"] = {"matchLabels": {"app": "x"}}
    return create(kind, {"metadata": {"name": name, "namespace": namespace, **metadata}, "spec": spec})


NAMED_NODE = [{"apiGroups": ["lethe.dev"], "resources": ["gpunodes"], "resourceNames": ["gpu-2"], "verbs": ["occupy"]}]
STAR_NODE = [{"apiGroups": ["*"], "resources": ["*"], "resourceNames": ["gpu-2"], "verbs": ["*"]}]
LABELS = {"lethe.dev/role": "train"}
EVERYTHING = [{"operator": "Exists"}]
MINE = ("mine", "acme")
OURS = ("lethe-digits-0", "acme")
CLOSED = "is closed to pod"

ATTACKS: list[Row] = [
    # the fence
    Row("bind: a tenant's pod to a held node", SCHEDULER, bind("mine", "gpu-1"), CLOSED),
    Row("bind: by cluster-admin", CLUSTER_ADMIN, bind("mine", "gpu-1"), CLOSED),
    Row("bind: by a tenant", TENANT, bind("mine", "gpu-1"), CLOSED),
    Row("bind: another tenant's pod", SCHEDULER, bind("theirs", "gpu-1", "globex"), CLOSED),
    Row("bind: a pod of no tenant", SCHEDULER, bind("other", "gpu-1", "plain"), CLOSED),
    Row("bind: to a free node", SCHEDULER, bind("mine", "gpu-2"), CLOSED),
    Row("bind: to a node that nobody knows", SCHEDULER, bind("mine", "gpu-9"), CLOSED),
    Row("bind: the holder's second pod", SCHEDULER, bind("lethe-digits-2", "gpu-1"), CLOSED),
    Row("bind: the holder's pod to another node", SCHEDULER, bind("lethe-digits-0", "gpu-2"), CLOSED),
    Row("bind: without uid", SCHEDULER, bind("lethe-digits-0", "gpu-1", uid=None), CLOSED),
    Row("bind: by the legacy path", SCHEDULER, bind_old_way("lethe-digits-0", "gpu-1"), CLOSED),
    Row("bind: with a label for the pod", SCHEDULER, bind("mine", "cpu-1", labels=LABELS), "set by the operator only"),
    # placement
    Row("place: nodeName of a held node", TENANT, create(kinds.POD, pod("new", "acme", nodeName="gpu-1")), "is closed"),
    Row("place: nodeName of an unknown node", TENANT, create(kinds.POD, pod("new", "acme", nodeName="x")), "is closed"),
    Row(
        "place: mirror annotation by a tenant",
        TENANT,
        create(kinds.POD, pod("new", "acme", nodeName="gpu-1", annotations={"kubernetes.io/config.mirror": "x"})),
        "is closed",
    ),
    Row("place: ephemeral container on a closed node", TENANT, debug("on-gpu", "acme"), "is closed"),
    Row("place: resize on a closed node", TENANT, resize("on-gpu", "acme"), "is closed"),
    # pods of ours
    Row("pod: our prefix", TENANT, create(kinds.POD, pod("lethe-mine", "acme")), "choose another name"),
    Row(
        "pod: our prefix, generated",
        TENANT,
        create(kinds.POD, {**pod("", "acme"), "metadata": {"generateName": "lethe-", "namespace": "acme"}}),
        "choose another name",
    ),
    Row("pod: a forged scrub", ROGUE, create(kinds.POD, pod("lethe-scrub-gpu-1-9", "lethe-system")), "another name"),
    Row("pod: our label", TENANT, create(kinds.POD, pod("new", "acme", labels=LABELS)), "by the operator only"),
    Row("pod: label added", TENANT, patch(kinds.POD, *MINE, {"metadata": {"labels": LABELS}}), "by the operator only"),
    Row(
        "pod: label stripped",
        TENANT,
        patch(kinds.POD, *OURS, {"metadata": {"labels": {"lethe.dev/job": None}}}),
        "by the operator only",
    ),
    Row(
        "pod: label through status",
        ROGUE,
        patch(kinds.POD, *MINE, {"metadata": {"labels": LABELS}}, "status"),
        "by the operator only",
    ),
    Row(
        "pod: grant annotation forged",
        TENANT,
        patch(kinds.POD, *OURS, {"metadata": {"annotations": {"lethe.dev/grant": "x"}}}),
        "by the operator only",
    ),
    Row(
        "pod: image changed",
        TENANT,
        strategic(kinds.POD, "lethe-running", "acme", {"spec": {"containers": [{"name": "train", "image": "evil"}]}}),
        "does not change",
    ),
    Row(
        "pod: gate removed",
        TENANT,
        patch(kinds.POD, "lethe-digits-1", "acme", {"spec": {"schedulingGates": None}}),
        "does not change",
    ),
    Row(
        "pod: deadline set",
        TENANT,
        patch(kinds.POD, *OURS, {"spec": {"activeDeadlineSeconds": 1}}),
        "does not change",
    ),
    Row("pod: finalizer removed", TENANT, patch(kinds.POD, *OURS, {"metadata": {"finalizers": None}}), "finalizers"),
    Row(
        "pod: finalizer removed by the garbage collector",
        COLLECTOR,
        patch(kinds.POD, *OURS, {"metadata": {"finalizers": None}}),
        "finalizers",
    ),
    Row(
        "pod: finalizer removed through status",
        ROGUE,
        patch(kinds.POD, *OURS, {"metadata": {"finalizers": None}}, "status"),
        "status",
    ),
    Row(
        "pod: finalizer of ours on another",
        TENANT,
        patch(kinds.POD, *MINE, {"metadata": {"finalizers": ["lethe.dev/custody"]}}),
        "by the operator only",
    ),
    Row(
        "pod: owner forged",
        TENANT,
        patch(
            kinds.POD,
            *OURS,
            {"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "x", "uid": "x"}]}},
        ),
        "owners",
    ),
    Row(
        "pod: end forged through status",
        ROGUE,
        patch(kinds.POD, "lethe-running", "acme", {"status": {"phase": "Succeeded"}}, "status"),
        "written by kubelets",
    ),
    Row("pod: ephemeral container", ROGUE, debug("lethe-running", "acme"), "lethe:"),
    Row("pod: ephemeral container in a scrub", ROGUE, debug("lethe-scrub-gpu-2-4", "lethe-system"), "ephemeral"),
    Row("pod: resize", ROGUE, resize("lethe-running", "acme"), "lethe:"),
    # workloads
    Row("workload: label on a Job", TENANT, workload(JOB, "new", "acme", {}, labels=LABELS), "labels"),
    Row("workload: label in a Job's template", TENANT, workload(JOB, "new", "acme", LABELS), "labels"),
    Row("workload: our prefix", TENANT, workload(JOB, "lethe-new", "acme", {}), "choose another name"),
    Row("workload: label in a DaemonSet", TENANT, workload(DAEMONSET, "new", "acme", LABELS), "labels"),
    # tolerations and preemption
    Row(
        "toleration: of our taint",
        TENANT,
        create(kinds.POD, pod("new", "acme", tolerations=[{"key": "lethe.dev/gpu", "operator": "Exists"}])),
        "tolerate",
    ),
    Row("toleration: of everything", TENANT, create(kinds.POD, pod("new", "acme", tolerations=EVERYTHING)), "tolerate"),
    Row(
        "toleration: of every NoSchedule",
        TENANT,
        create(kinds.POD, pod("new", "acme", tolerations=[{"operator": "Exists", "effect": "NoSchedule"}])),
        "tolerate",
    ),
    Row(
        "toleration: added later",
        TENANT,
        edit(kinds.POD, *MINE, [{"op": "add", "path": "/spec/tolerations/-", "value": EVERYTHING[0]}]),
        "tolerate",
    ),
    Row("preemption: delete a training pod", SCHEDULER, delete(kinds.POD, *OURS), "not preempted"),
    Row(
        "preemption: delete a scrub",
        SCHEDULER,
        delete(kinds.POD, "lethe-scrub-gpu-2-4", "lethe-system"),
        "not preempted",
    ),
    Row(
        "preemption: mark a training pod",
        SCHEDULER,
        patch(kinds.POD, *OURS, {"status": {"conditions": [{"type": "DisruptionTarget", "status": "True"}]}}, "status"),
        "not preempted",
    ),
    # nodes
    Row(
        "node: label removed",
        ROGUE,
        patch(kinds.NODE, "gpu-1", "", {"metadata": {"labels": {"node-restriction.kubernetes.io/lethe": None}}}),
        "operator only",
    ),
    Row(
        "node: label removed through status",
        ROGUE,
        patch(
            kinds.NODE, "gpu-1", "", {"metadata": {"labels": {"node-restriction.kubernetes.io/lethe": None}}}, "status"
        ),
        "operator only",
    ),
    Row("node: taint removed", ROGUE, patch(kinds.NODE, "gpu-1", "", {"spec": {"taints": None}}), "operator only"),
    Row("node: taint forged", ROGUE, patch(kinds.NODE, "cpu-1", "", {"spec": {"taints": [TAINT]}}), "operator only"),
    Row("node: deleted", ROGUE, delete(kinds.NODE, "gpu-1"), "is managed"),
    Row("node: all deleted", ROGUE, delete(kinds.NODE, ""), "is managed"),
    # namespaces
    Row(
        "namespace: label forged",
        ROGUE,
        patch(kinds.NAMESPACE, "plain", "", {"metadata": {"labels": {"lethe.dev/tenant": "acme"}}}),
        "name the namespace in a Tenant",
    ),
    Row(
        "namespace: created with the label",
        ROGUE,
        create(kinds.NAMESPACE, {"metadata": {"name": "new", "labels": {"lethe.dev/tenant": "acme"}}}),
        "name the namespace in a Tenant",
    ),
    Row(
        "namespace: label removed through status",
        ROGUE,
        patch(kinds.NAMESPACE, "acme", "", {"metadata": {"labels": {"lethe.dev/tenant": None}}}, "status"),
        "name the namespace in a Tenant",
    ),
    Row("namespace: of the open list deleted", ROGUE, delete(kinds.NAMESPACE, "lethe-open"), "holds the fence"),
    Row("namespace: of Lethe deleted", ROGUE, delete(kinds.NAMESPACE, "lethe-system"), "holds the fence"),
    # ledger
    Row(
        "ledger: status edited by cluster-admin",
        CLUSTER_ADMIN,
        patch(kinds.GPU_NODE, "gpu-1", "", {"status": {"phase": "Free"}}, "status"),
        "only the operator",
    ),
    Row("ledger: deleted", ROGUE, delete(kinds.GPU_NODE, "gpu-1"), "only the operator"),
    Row("ledger: all deleted", ROGUE, delete(kinds.GPU_NODE, ""), "only the operator"),
    Row(
        "ledger: status of a job",
        TENANT,
        patch(kinds.JOB_CR, "digits", "acme", {"status": {"phase": "Succeeded"}}, "status"),
        "only the operator",
    ),
    Row(
        "ledger: public key forged",
        (*OPERATOR[:1], "system:masters"),
        patch(kinds.TENANT_KEY, "default", "acme", {"status": {"publicKey": "x"}}, "status"),
        "key service only",
    ),
    Row(
        "receipt: forged",
        ROGUE,
        create(
            kinds.RECEIPT,
            {
                "metadata": {"name": "gpu-2-4"},
                "spec": {
                    "node": "gpu-2",
                    "epoch": 4,
                    "sha256": "0" * 64,
                    "envelope": {"payloadType": "t", "payload": "cA==", "signatures": [{"keyid": "k", "sig": "cw=="}]},
                },
            },
        ),
        "only the operator",
    ),
    Row(
        "receipt: labelled",
        ROGUE,
        patch(kinds.RECEIPT, "gpu-1-3", "", {"metadata": {"labels": {"a": "b"}}}),
        "only the operator",
    ),
    Row("receipt: deleted", ROGUE, delete(kinds.RECEIPT, "gpu-1-3"), "only the operator"),
    # definitions
    Row("definition: deleted", ROGUE, delete(kinds.CRD, "gpunodes.lethe.dev"), "helm upgrade"),
    Row("definition: all deleted", ROGUE, delete(kinds.CRD, ""), "helm upgrade"),
    Row(
        "definition: changed",
        ROGUE,
        patch(kinds.CRD, "gpunodes.lethe.dev", "", {"metadata": {"labels": {"a": "b"}}}),
        "helm upgrade",
    ),
    # rights
    Row(
        "right: a role that names a node",
        TENANT,
        create(kinds.ROLE, role("x", "acme", NAMED_NODE)),
        "who may be on a node",
    ),
    Row(
        "right: a star role that names a node",
        TENANT,
        create(kinds.ROLE, role("x", "acme", STAR_NODE)),
        "who may be on a node",
    ),
    Row(
        "right: a cluster role that names a node",
        ROGUE,
        create(kinds.CLUSTERROLE, {"metadata": {"name": "x"}, "rules": NAMED_NODE}),
        "who may be on a node",
    ),
    Row(
        "right: a role of ours edited",
        TENANT,
        patch(kinds.ROLE, "lethe-gpu-1", "acme", {"metadata": {"labels": {"a": "b"}}}),
        "copy of the ledger",
    ),
    Row("right: the grant deleted", TENANT, delete(kinds.ROLEBINDING, "lethe-gpu-1", "acme"), "copy of the ledger"),
    Row(
        "right: the grant for another pod",
        TENANT,
        patch(kinds.ROLEBINDING, "lethe-gpu-1", "acme", {"subjects": [account("lethe-pod-x", "acme")]}),
        "copy of the ledger",
    ),
    Row(
        "right: the grant's role bound to every account",
        TENANT,
        create(kinds.ROLEBINDING, binding("x", "acme", "lethe-gpu-1", group("system:serviceaccounts:acme"))),
        "only the operator binds them",
    ),
    Row(
        "right: a virtual account bound",
        TENANT,
        create(kinds.ROLEBINDING, binding("x", "acme", "everything", account("lethe-pod-x", "acme"))),
        "accounts of the fence",
    ),
    Row(
        "right: a virtual account bound as a user",
        TENANT,
        create(
            kinds.ROLEBINDING,
            binding("x", "acme", "everything", user("system:serviceaccount:acme:lethe-pod-x")),
        ),
        "accounts of the fence",
    ),
    Row(
        "right: open-nodes bound cluster-wide",
        ROGUE,
        create(
            kinds.CLUSTERROLEBINDING,
            binding("x", "", "rogue", account("open-nodes", "lethe-system"), role_kind="ClusterRole"),
        ),
        "accounts of the fence",
    ),
    Row(
        "right: the open list edited",
        ROGUE,
        patch(kinds.ROLE, "open-nodes", "lethe-open", {"rules": NAMED_NODE}),
        "copy of the ledger",
    ),
    Row("right: the open list deleted", ROGUE, delete(kinds.ROLE, "open-nodes", "lethe-open"), "copy of the ledger"),
    # accounts
    Row(
        "account: named like a pod's",
        TENANT,
        create(kinds.SERVICEACCOUNT, {"metadata": {"name": "lethe-pod-x", "namespace": "acme"}}),
        "stands for a pod",
    ),
    Row(
        "account: named like the open list's",
        ROGUE,
        create(kinds.SERVICEACCOUNT, {"metadata": {"name": "open-nodes", "namespace": "lethe-system"}}),
        "stands for a pod",
    ),
    Row(
        "account: a lasting token",
        ROGUE,
        create(
            kinds.SECRET,
            {
                "metadata": {
                    "name": "x",
                    "namespace": "lethe-system",
                    "annotations": {"kubernetes.io/service-account.name": "lethe-operator"},
                },
                "type": "kubernetes.io/service-account-token",
            },
        ),
        "no lasting tokens",
    ),
    # tokens
    Row(
        "token: audience of the key service",
        TENANT,
        token("default", "acme", "lethe.dev/keys/lethe-keyservice/x"),
        "kubelets only",
    ),
    Row("token: of the operator", ROGUE, token("lethe-operator", "lethe-system"), "kubelets only"),
    Row("token: of a scrub", ROGUE, token("lethe-scrub", "lethe-system"), "kubelets only"),
    Row("token: of a job", TENANT, token("lethe-job", "acme"), "kubelets only"),
    # jobs
    Row(
        "job: finalizer removed",
        TENANT,
        patch(kinds.JOB_CR, "digits", "acme", {"metadata": {"finalizers": None}}),
        "finalizer",
    ),
]

CONNECTS: list[Row] = [
    Row(
        f"connect: {verb} into {name}",
        ROGUE,
        connect(f"/api/v1/namespaces/{space}/pods/{name}/{verb}{query}"),
        "lethe:",
    )
    for space, name in (("acme", "lethe-running"), ("lethe-system", "lethe-scrub-gpu-2-4"))
    for verb, query in (
        ("exec", "?command=sh&stdout=true"),
        ("attach", "?stdout=true"),
        ("portforward", ""),
        ("proxy", ""),
    )
] + [
    Row("connect: nodes/proxy", ROGUE, connect("/api/v1/nodes/gpu-1/proxy/pods", "GET"), "nodes/proxy"),
]
"""Without policies these are not refused, but there is nothing behind them either."""

HONEST: list[Row] = [
    Row("scheduler: the named pod to its node", SCHEDULER, bind("lethe-digits-0", "gpu-1")),
    Row("scheduler: a pod to an open node", SCHEDULER, bind("mine", "cpu-1")),
    Row("scheduler: a pod of no tenant to an open node", SCHEDULER, bind("other", "cpu-1", "plain")),
    Row("scheduler: the legacy path to an open node", SCHEDULER, bind_old_way("other", "cpu-1", "plain")),
    Row("scheduler: a system pod to a held node", SCHEDULER, bind("agent", "gpu-1", "kube-system")),
    Row(
        "scheduler: a condition of a training pod",
        SCHEDULER,
        patch(kinds.POD, *OURS, {"status": {"conditions": [{"type": "PodScheduled", "status": "False"}]}}, "status"),
    ),
    Row("scheduler: preempt another pod", SCHEDULER, delete(kinds.POD, *MINE)),
    Row(
        "kubelet: status of a training pod",
        kubelet("gpu-1"),
        patch(kinds.POD, "lethe-running", "acme", {"status": {"phase": "Running"}}, "status"),
    ),
    Row(
        "kubelet: status of a scrub",
        kubelet("gpu-2"),
        patch(kinds.POD, "lethe-scrub-gpu-2-4", "lethe-system", {"status": {"phase": "Succeeded"}}, "status"),
    ),
    Row("kubelet: delete a pod that has ended", kubelet("gpu-1"), delete(kinds.POD, "lethe-running", "acme")),
    Row("kubelet: a static pod", kubelet("gpu-1"), mirror("gpu-1")),
    Row(
        "kubelet: GPUs appear",
        kubelet("gpu-1"),
        patch(kinds.NODE, "gpu-1", "", {"status": {"capacity": {"nvidia.com/gpu": "2"}}}, "status"),
    ),
    Row(
        "kubelet: GPUs appear on an open node",
        kubelet("cpu-1"),
        patch(kinds.NODE, "cpu-1", "", {"status": {"capacity": {"nvidia.com/gpu": "2"}}}, "status"),
    ),
    Row(
        "node controller: another taint",
        NODE_CONTROLLER,
        patch(
            kinds.NODE,
            "gpu-1",
            "",
            {"spec": {"taints": [TAINT, {"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"}]}},
        ),
    ),
    Row("node controller: delete a lost node", NODE_CONTROLLER, delete(kinds.NODE, "gpu-1")),
    Row("administrator: cordon", ROGUE, patch(kinds.NODE, "gpu-1", "", {"spec": {"unschedulable": True}})),
    Row("administrator: another label", ROGUE, patch(kinds.NODE, "gpu-1", "", {"metadata": {"labels": {"a": "b"}}})),
    Row("administrator: delete an open node", ROGUE, delete(kinds.NODE, "cpu-1")),
    Row("administrator: enrol a node", ROGUE, patch(kinds.GPU_NODE, "gpu-2", "", {"spec": {"managed": False}})),
    Row("administrator: evict", ROGUE, delete(kinds.POD, *OURS)),
    Row("administrator: delete a namespace", ROGUE, delete(kinds.NAMESPACE, "acme")),
    Row(
        "administrator: label a namespace",
        ROGUE,
        patch(kinds.NAMESPACE, "acme", "", {"metadata": {"labels": {"a": "b"}}}),
    ),
    Row(
        "administrator: a broad role that names nothing",
        ROGUE,
        create(
            kinds.CLUSTERROLE,
            {"metadata": {"name": "x"}, "rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["get"]}]},
        ),
    ),
    Row(
        "helm upgrade: a definition",
        CLUSTER_ADMIN,
        patch(kinds.CRD, "gpunodes.lethe.dev", "", {"metadata": {"labels": {"a": "b"}}}),
    ),
    Row(
        "helm upgrade: the operator's rights",
        CLUSTER_ADMIN,
        patch(kinds.CLUSTERROLE, "lethe-operator", "", {"metadata": {"labels": {"a": "b"}}}),
    ),
    Row(
        "helm upgrade: a role in lethe-system",
        CLUSTER_ADMIN,
        create(kinds.ROLE, role("lethe-setup", "lethe-system", [])),
    ),
    Row("tenant: a pod", TENANT, create(kinds.POD, pod("new", "acme"))),
    Row("tenant: a pod on an open node", TENANT, create(kinds.POD, pod("new", "acme", nodeName="cpu-1"))),
    Row(
        "tenant: other tolerations",
        TENANT,
        create(kinds.POD, pod("new", "acme", tolerations=[{"key": "a", "operator": "Exists"}])),
    ),
    Row("tenant: debug its own pod", TENANT, debug("on-cpu", "acme")),
    Row("tenant: resize its own pod", TENANT, resize("on-cpu", "acme")),
    Row("tenant: delete its training pod", TENANT, delete(kinds.POD, *OURS)),
    Row("tenant: label its training pod", TENANT, patch(kinds.POD, *OURS, {"metadata": {"labels": {"mine": "yes"}}})),
    Row("tenant: a Job", TENANT, workload(JOB, "new", "acme", {})),
    Row(
        "tenant: a role",
        TENANT,
        create(kinds.ROLE, role("x", "acme", [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}])),
    ),
    Row(
        "tenant: a role that may do everything with nothing named",
        TENANT,
        create(kinds.ROLE, role("x", "acme", [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}])),
    ),
    Row(
        "tenant: bind a role of its own",
        TENANT,
        create(kinds.ROLEBINDING, binding("x", "acme", "everything", user("tom"))),
    ),
    Row(
        "tenant: an account",
        TENANT,
        create(kinds.SERVICEACCOUNT, {"metadata": {"name": "builder", "namespace": "acme"}}),
    ),
    Row("tenant: a job", TENANT, create(kinds.JOB_CR, job("new"))),
    Row("tenant: suspend a job", TENANT, patch(kinds.JOB_CR, "digits", "acme", {"spec": {"suspend": True}})),
    Row("tenant: change a job's priority", TENANT, patch(kinds.JOB_CR, "digits", "acme", {"spec": {"priority": 5}})),
    Row("tenant: delete a job", TENANT, delete(kinds.JOB_CR, "digits", "acme")),
    Row("tenant: a key", TENANT, create(kinds.TENANT_KEY, {"metadata": {"name": "new", "namespace": "acme"}})),
    Row(
        "somebody: tolerate everything elsewhere", ROGUE, create(kinds.POD, pod("new", "plain", tolerations=EVERYTHING))
    ),
    Row("somebody: our prefix elsewhere", ROGUE, create(kinds.POD, pod("lethe-new", "plain"))),
    Row(
        "pod collector: a lost pod",
        POD_COLLECTOR,
        patch(kinds.POD, "lethe-running", "acme", {"status": {"phase": "Failed"}}, "status"),
    ),
    Row("pod collector: delete a lost pod", POD_COLLECTOR, delete(kinds.POD, "lethe-running", "acme")),
    Row(
        "namespace controller: delete the grant",
        NAMESPACE_CONTROLLER,
        delete(kinds.ROLEBINDING, "lethe-gpu-1", "acme"),
    ),
    Row("namespace controller: delete all pods", NAMESPACE_CONTROLLER, delete(kinds.POD, "", "acme")),
    # the operator, with the rights that the chart gives it
    Row("operator: a training pod", OPERATOR, create(kinds.POD, training_pod("lethe-new"))),
    Row("operator: a scrub", OPERATOR, create(kinds.POD, pod("lethe-scrub-gpu-1-4", "lethe-system", labels=LABELS))),
    Row(
        "operator: lift the gate",
        OPERATOR,
        patch(kinds.POD, "lethe-digits-1", "acme", {"spec": {"schedulingGates": None}}),
    ),
    Row("operator: take its finalizer off", OPERATOR, patch(kinds.POD, *OURS, {"metadata": {"finalizers": None}})),
    Row("operator: delete a pod", OPERATOR, delete(kinds.POD, *OURS)),
    Row("operator: a grant's role", OPERATOR, create(kinds.ROLE, role("lethe-gpu-2", "acme", NAMED_NODE))),
    Row(
        "operator: a grant",
        OPERATOR,
        create(kinds.ROLEBINDING, binding("lethe-new", "acme", "lethe-gpu-1", account("lethe-pod-x", "acme"))),
    ),
    Row("operator: close a grant", OPERATOR, delete(kinds.ROLEBINDING, "lethe-gpu-1", "acme")),
    Row(
        "operator: the open list",
        OPERATOR,
        patch(
            kinds.ROLE,
            "open-nodes",
            "lethe-open",
            {
                "rules": [
                    {
                        "apiGroups": ["lethe.dev"],
                        "resources": ["gpunodes"],
                        "resourceNames": ["cpu-1", "cpu-2"],
                        "verbs": ["host"],
                    }
                ]
            },
        ),
    ),
    Row("operator: taint and label", OPERATOR, patch(kinds.NODE, "gpu-1", "", {"spec": {"taints": None}})),
    Row(
        "operator: the ledger",
        OPERATOR,
        patch(kinds.GPU_NODE, "gpu-1", "", {"status": {"phase": "Draining"}}, "status"),
    ),
    Row(
        "operator: a job's status",
        OPERATOR,
        patch(kinds.JOB_CR, "digits", "acme", {"status": {"phase": "Running"}}, "status"),
    ),
    Row(
        "operator: a job's finalizer",
        OPERATOR,
        patch(kinds.JOB_CR, "digits", "acme", {"metadata": {"finalizers": None}}),
    ),
    Row(
        "operator: label of a namespace",
        OPERATOR,
        patch(kinds.NAMESPACE, "plain", "", {"metadata": {"labels": {"lethe.dev/tenant": "acme"}}}),
    ),
    Row(
        "operator: the account of training pods",
        OPERATOR,
        create(kinds.SERVICEACCOUNT, {"metadata": {"name": "lethe-job", "namespace": "globex"}}),
    ),
    Row(
        "operator: a dry run of a bind",
        OPERATOR,
        bind("lethe-digits-0", "gpu-1"),
    ),
    Row(
        "key service: a public key",
        KEYSERVICE,
        patch(kinds.TENANT_KEY, "default", "acme", {"status": {"publicKey": "x", "version": 1}}, "status"),
    ),
]

DENIED_RIGHTS: list[tuple[str, tuple[str, ...], str, str]] = [
    ("operator lists Secrets", OPERATOR, "GET", "/api/v1/secrets"),
    ("operator reads nodes through their proxy", OPERATOR, "GET", "/api/v1/nodes/gpu-1/proxy/pods"),
    (
        "operator writes policies",
        OPERATOR,
        "DELETE",
        "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies/x",
    ),
    ("operator asks for tokens", OPERATOR, "POST", "/api/v1/namespaces/acme/serviceaccounts/default/token"),
    ("operator enters pods", OPERATOR, "POST", "/api/v1/namespaces/acme/pods/mine/exec?command=sh"),
    ("key service reads Secrets", KEYSERVICE, "GET", "/api/v1/namespaces/lethe-system/secrets/lethe-ca"),
    ("key service lists pods", KEYSERVICE, "GET", "/api/v1/pods"),
    ("key service writes the ledger", KEYSERVICE, "DELETE", "/apis/lethe.dev/v1alpha1/gpunodes/gpu-1"),
    ("key service deletes keys", KEYSERVICE, "DELETE", "/apis/lethe.dev/v1alpha1/namespaces/acme/tenantkeys/default"),
    (
        "scrub reads its node",
        ("system:serviceaccount:lethe-system:lethe-scrub", "system:serviceaccounts", "system:authenticated"),
        "GET",
        "/api/v1/nodes/gpu-2",
    ),
]
