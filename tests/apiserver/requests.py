"""Requests to the API server, by whom they are sent, and the rows of the tables that are made of them.

Every request is a dry run: it goes through authorization, admission and validation, and changes nothing.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from lethe.adapters import kube as kinds
from lethe.adapters.kube import Kind
from tests.apiserver.cluster import pod
from tests.apiserver.server import Answer, Client, Object
from tests.cluster.errors import ClusterError
from tests.cluster.waiting import until

DRY = "dryRun=All"
JOB = Kind("batch", "v1", "jobs", True, "Job")
DAEMONSET = Kind("apps", "v1", "daemonsets", True, "DaemonSet")

OPERATOR = ("system:serviceaccount:lethe-system:lethe-operator", "system:serviceaccounts", "system:authenticated")
KEYSERVICE = ("system:serviceaccount:lethe-system:lethe-keyservice", "system:serviceaccounts", "system:authenticated")
SCHEDULER = ("system:kube-scheduler", "system:authenticated")
TENANT = ("ed", "system:authenticated")
"""Has the role `edit` in its namespace, as tenants usually have."""
ADMIN = ("tess", "system:authenticated")
"""A tenant with the role `admin` and a Role of its own that may do everything in its namespace."""
ROGUE = ("rogue", "system:authenticated")
"""Has a cluster role that may do nearly everything but install Lethe."""
COLLECTOR = (
    "system:serviceaccount:kube-system:generic-garbage-collector",
    "system:serviceaccounts",
    "system:authenticated",
)
DAEMONSET_CONTROLLER = (
    "system:serviceaccount:kube-system:daemon-set-controller",
    "system:serviceaccounts",
    "system:authenticated",
)
CRONJOB_CONTROLLER = (
    "system:serviceaccount:kube-system:cronjob-controller",
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


def is_refusal(row: Row, answer: Answer) -> bool:
    """Say whether an answer is a refusal by the fence, in the words that the row expects."""
    return answer.status in (403, 422) and "lethe:" in answer.message and row.says in answer.message


def wait_until_refused(rows: Sequence[Row], admin: Client) -> None:
    """Wait until new policies act; rows that stay open are left to the tests, which tell each by its name."""
    open_rows = list(rows)

    def refused() -> bool:
        open_rows[:] = [row for row in open_rows if not is_refusal(row, row.attempt(admin))]
        return not open_rows

    with suppress(ClusterError):
        until(refused, what="every policy to take effect", seconds=15)


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


def evict(name: str, namespace: str) -> Callable[[Client], Answer]:
    """Return a request that evicts a pod."""
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": namespace}}
    return lambda client: client.send("POST", f"{kinds.POD.path(name, namespace, 'eviction')}?{DRY}", body)


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


def named_node(node: str) -> list[Object]:
    """Return rules that let somebody occupy a node."""
    return [{"apiGroups": ["lethe.dev"], "resources": ["gpunodes"], "resourceNames": [node], "verbs": ["occupy"]}]


def star_node(node: str) -> list[Object]:
    """Return rules that let somebody do everything with what has the name of a node."""
    return [{"apiGroups": ["*"], "resources": ["*"], "resourceNames": [node], "verbs": ["*"]}]


def workload(kind: Kind, name: str, namespace: str, pod_labels: Object, **metadata: Any) -> Callable[[Client], Answer]:
    """Return a request that creates a Job or DaemonSet."""
    labels = {"app": "x", **pod_labels}
    spec: Object = {"template": {"metadata": {"labels": labels}, "spec": pod("x", namespace)["spec"]}}
    if kind is JOB:
        spec["template"]["spec"]["restartPolicy"] = "Never"
    else:
        spec["selector"] = {"matchLabels": {"app": "x"}}
    return create(kind, {"metadata": {"name": name, "namespace": namespace, **metadata}, "spec": spec})


LABELS = {"lethe.dev/role": "train"}
EVERYTHING = [{"operator": "Exists"}]
MINE = ("mine", "acme")
OURS = ("lethe-digits-0", "acme")
CLOSED = "is closed to pod"
