"""`lethe-setup policies`: the admission policies, which close nodes, go in last.

1. Before: the canary. RBAC so broad that it lets the fence's virtual accounts onto a node that does not exist would
   make the fence close every node to everybody; the installation stops and says where to look.
2. Before: the open list. Every node that is not managed must be on it, or pods could no longer be bound there.
3. Pods that the fence would refuse, were they bound now, are named; they are left alone.
4. Policies first, then their bindings; what an older version left behind goes.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import yaml

from lethe.adapters.kube import (
    ADMISSION_BINDING,
    ADMISSION_POLICY,
    GPU_NODE,
    NAMESPACE,
    NODE,
    POD,
    ROLE,
    ROLEBINDING,
    Kind,
    Kube,
)
from lethe.model.errors import ConflictError, InputError, RefusedError, UnavailableError
from lethe.model.names import (
    GPU_RESOURCE,
    GROUP,
    LABEL_TENANT,
    OPEN_NAMESPACE,
    OPEN_NODES_ACCOUNT,
    SYSTEM_NAMESPACE,
    PodUid,
    virtual_pod_account,
)

Say = Callable[[str], None]
Object = dict[str, Any]

SUBJECT_ACCESS_REVIEW: Final = Kind("authorization.k8s.io", "v1", "subjectaccessreviews", False, "SubjectAccessReview")
CANARY: Final = "canary.never-granted"
PART_OF: Final = "app.kubernetes.io/part-of"
OURS: Final = f"{PART_OF}=lethe"
PREFIX: Final = "lethe-"

_POLL_SECONDS: Final = 1.0
_KINDS: Final = {kind.kind: kind for kind in (ADMISSION_POLICY, ADMISSION_BINDING)}


async def apply_policies(
    kube: Kube, folder: Path, system_namespaces: tuple[str, ...], gpu_nodes: str, timeout_seconds: float, say: Say
) -> None:
    """Check, wait for the open list, and apply what the folder holds. `gpu_nodes` is the label KEY=VALUE."""
    policies = read_policies(folder)
    await _check_canary(kube, say)
    await _wait_for_open_list(kube, timeout_seconds, say)
    for sentence in strangers(await kube.list(POD), await kube.list(NODE), system_namespaces, gpu_nodes):
        say(sentence)
    for policy in policies:
        await _apply(kube, policy)
    gone = await _prune(kube, {(policy["kind"], policy["metadata"]["name"]) for policy in policies})
    names = [policy["metadata"]["name"] for policy in policies if policy["kind"] == ADMISSION_POLICY.kind]
    say(f"{len(names)} admission policies are in place: {', '.join(sorted(names))}")
    if gone:
        say(f"removed what an older version had left: {', '.join(gone)}")


async def remove_policies(kube: Kube) -> list[str]:
    """Remove every policy of ours, bindings first, and return their names."""
    return await _prune(kube, set())


def read_policies(folder: Path) -> list[Object]:
    """Return the policies of a folder, then their bindings, marked as ours; raise InputError."""
    files = sorted(folder.glob("*.yaml"))
    if not files:
        raise InputError(f"{folder} holds no policies: expected the files of ConfigMap lethe-policies")
    found: list[Object] = []
    for file in files:
        try:
            text = file.read_text(encoding="utf-8")
            documents = [document for document in yaml.safe_load_all(text) if document is not None]
        except yaml.YAMLError as error:
            raise InputError(f"{file} is not YAML: {error}") from error
        found += (_checked(file, document) for document in documents)
    bound = {document["spec"]["policyName"] for document in found if document["kind"] == ADMISSION_BINDING.kind}
    for document in found:
        if document["kind"] == ADMISSION_POLICY.kind and document["metadata"]["name"] not in bound:
            raise InputError(f"policy {document['metadata']['name']} has no binding: it would refuse nothing")
    return sorted(found, key=lambda document: (document["kind"], document["metadata"]["name"]))


def _checked(file: Path, document: Object) -> Object:
    kind, name = document.get("kind", ""), document.get("metadata", {}).get("name", "")
    if kind not in _KINDS or not name.startswith(PREFIX):
        raise InputError(
            f"{file} holds {kind or 'no kind'} {name!r}: expected only {' and '.join(_KINDS)} named {PREFIX}…"
        )
    metadata = document["metadata"]
    return {**document, "metadata": {**metadata, "labels": {**metadata.get("labels", {}), PART_OF: "lethe"}}}


async def _check_canary(kube: Kube, say: Say) -> None:
    namespaces = [item["metadata"]["name"] for item in await kube.list(NAMESPACE, labels=LABEL_TENANT)]
    accounts = [(OPEN_NAMESPACE, SYSTEM_NAMESPACE, OPEN_NODES_ACCOUNT, "host")]
    accounts += [(name, name, virtual_pod_account(PodUid("canary")), "occupy") for name in namespaces]
    for namespace, home, account, verb in accounts:
        reason = await _why_allowed(kube, namespace, home, account, verb)
        if reason is not None:
            raise InputError(
                f"RBAC is too broad for the fence: any account of namespace {home} may {verb} every node in namespace "
                f"{namespace} ({reason}). With the policies in place every node would be closed to all pods. Take back "
                "the role that is bound to all service accounts, or to those of this namespace, and upgrade again"
            )
    say("no role is so broad that it would open or close every node")


async def _why_allowed(kube: Kube, namespace: str, home: str, account: str, verb: str) -> str | None:
    review = {
        "metadata": {},
        "spec": {
            "user": f"system:serviceaccount:{home}:{account}",
            "groups": ["system:serviceaccounts", f"system:serviceaccounts:{home}", "system:authenticated"],
            "resourceAttributes": {
                "group": GROUP,
                "resource": "gpunodes",
                "namespace": namespace,
                "name": CANARY,
                "verb": verb,
            },
        },
    }
    status = (await kube.create(SUBJECT_ACCESS_REVIEW, review)).get("status", {})
    return status.get("reason") or "without a reason" if status.get("allowed") else None


async def _wait_for_open_list(kube: Kube, timeout_seconds: float, say: Say) -> None:
    deadline = time.monotonic() + timeout_seconds
    told = None
    while True:
        lacking = await _unlisted(kube)
        if lacking == []:
            say("the operator has classified every node")
            return
        what = "the open list itself" if lacking is None else ", ".join(lacking)
        if time.monotonic() > deadline:
            raise InputError(
                f"the operator has not classified every node in {timeout_seconds:.0f} s; missing: {what}. No policy "
                "was applied, so that no node is closed by mistake. See `kubectl -n lethe-system logs "
                "deployment/lethe-operator`, then upgrade again"
            )
        if what != told:
            say(f"waiting for the operator to classify {what}")
            told = what
        await asyncio.sleep(_POLL_SECONDS)


async def _unlisted(kube: Kube) -> list[str] | None:
    """Return the nodes that are neither managed nor on the open list; None while there is no list."""
    role = await kube.get(ROLE, OPEN_NODES_ACCOUNT, OPEN_NAMESPACE)
    binding = await kube.get(ROLEBINDING, OPEN_NODES_ACCOUNT, OPEN_NAMESPACE)
    if role is None or binding is None:
        return None
    return unlisted_nodes(await kube.list(NODE), await kube.list(GPU_NODE), role)


def unlisted_nodes(nodes: Iterable[Object], gpu_nodes: Iterable[Object], role: Object) -> list[str]:
    """Return the names of the nodes that are neither managed nor named by the role of open nodes."""
    listed = {name for rule in role.get("rules") or [] for name in rule.get("resourceNames") or []}
    managed = {item["metadata"]["name"] for item in gpu_nodes if item.get("spec", {}).get("managed")}
    return sorted({node["metadata"]["name"] for node in nodes} - listed - managed)


def strangers(
    pods: Iterable[Object], nodes: Iterable[Object], system_namespaces: tuple[str, ...], gpu_nodes: str
) -> Iterator[str]:
    """Yield a sentence for each GPU node on which pods run that it would refuse once it is managed."""
    key, _, value = gpu_nodes.partition("=")
    candidates = {
        node["metadata"]["name"]
        for node in nodes
        if node["metadata"].get("labels", {}).get(key) == value
        or node.get("status", {}).get("capacity", {}).get(GPU_RESOURCE, "0") != "0"
    }
    guests: dict[str, list[str]] = {}
    for pod in pods:
        metadata, node = pod["metadata"], pod.get("spec", {}).get("nodeName", "")
        ended = pod.get("status", {}).get("phase") in ("Succeeded", "Failed")
        if node in candidates and not ended and metadata["namespace"] not in system_namespaces:
            guests.setdefault(node, []).append(f"{metadata['namespace']}/{metadata['name']}")
    for node, names in sorted(guests.items()):
        yield (
            f"GPU node {node} runs pods that may stay until it is enrolled; it is scrubbed when they are gone: "
            f"{', '.join(sorted(names))}"
        )


async def _apply(kube: Kube, wanted: Object) -> None:
    kind, name = _KINDS[wanted["kind"]], wanted["metadata"]["name"]
    found = await kube.get(kind, name)
    if found is None:
        await kube.create(kind, wanted)
        return
    metadata = {**wanted["metadata"], "resourceVersion": found["metadata"]["resourceVersion"]}
    await kube.replace(kind, {**wanted, "metadata": metadata})


async def _prune(kube: Kube, wanted: set[tuple[str, str]]) -> list[str]:
    gone: list[str] = []
    for kind in (ADMISSION_BINDING, ADMISSION_POLICY):
        for item in await kube.list(kind, labels=OURS):
            name = item["metadata"]["name"]
            if name.startswith(PREFIX) and (kind.kind, name) not in wanted:
                await kube.delete(kind, name)
                if kind is ADMISSION_POLICY:
                    gone.append(name)
    return gone


TRANSIENT: Final = (ConflictError, RefusedError, UnavailableError)
"""What a write may meet while the API servers notice that the policies are gone."""
