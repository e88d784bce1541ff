"""RBAC objects that the admission policies read through their authorizer (custody.md, Fence).

The virtual accounts in them need not exist: the policies ask what such an account may do.
"""

from typing import Any, Final

from lethe.model.names import (
    DEBUG,
    GROUP,
    LABEL_NODE,
    LABEL_ROLE,
    OPEN_NAMESPACE,
    OPEN_NODES_ACCOUNT,
    SYSTEM_NAMESPACE,
    PodUid,
    grant,
    virtual_pod_account,
)

_RBAC: Final = "rbac.authorization.k8s.io"
_GPU_NODES: Final = "gpunodes"
ROLE_GRANT: Final = "grant"
ROLE_DEBUG: Final = "debug"
RBAC_COPY: Final = f"{LABEL_ROLE} in ({ROLE_GRANT},{ROLE_DEBUG})"
"""Selector of the Roles and RoleBindings in tenants' namespaces."""


def build_open_role(nodes: list[str]) -> dict[str, Any]:
    """Build the open list: the nodes on which everybody may run. Without nodes there is no rule: it would mean all."""
    return {
        "metadata": {"name": OPEN_NODES_ACCOUNT, "namespace": OPEN_NAMESPACE},
        "rules": [_rule("host", nodes)] if nodes else [],
    }


def build_open_binding() -> dict[str, Any]:
    """Build the binding of the open list to its virtual account."""
    return {
        "metadata": {"name": OPEN_NODES_ACCOUNT, "namespace": OPEN_NAMESPACE},
        "roleRef": _role_ref(OPEN_NODES_ACCOUNT),
        "subjects": [_account(SYSTEM_NAMESPACE, OPEN_NODES_ACCOUNT)],
    }


def build_grant_role(node: str, namespace: str) -> dict[str, Any]:
    """Build the Role that lets a pod of a namespace occupy a node."""
    return {"metadata": _grant_metadata(node, namespace), "rules": [_rule("occupy", [node])]}


def build_grant_binding(node: str, namespace: str, pod_uids: list[str]) -> dict[str, Any]:
    """Build the binding that names the pods."""
    return {
        "metadata": _grant_metadata(node, namespace),
        "roleRef": _role_ref(grant(node)),
        "subjects": [_account(namespace, virtual_pod_account(PodUid(uid))) for uid in pod_uids],
    }


def build_debug_role(namespace: str, pods: list[str]) -> dict[str, Any]:
    """Build the Role that names the pods which are open to exec; there is at least one, for none would mean all."""
    return {"metadata": _debug_metadata(namespace), "rules": [_rule("debug", pods)]}


def build_debug_binding(namespace: str) -> dict[str, Any]:
    """Build the binding of that Role to its virtual account."""
    return {
        "metadata": _debug_metadata(namespace),
        "roleRef": _role_ref(DEBUG),
        "subjects": [_account(namespace, virtual_pod_account(PodUid("debug")))],
    }


def is_grant_role(role: dict[str, Any]) -> bool:
    """Say whether a Role says what the Role of its node must say."""
    metadata = role["metadata"]
    wanted = build_grant_role(metadata["labels"][LABEL_NODE], metadata["namespace"])
    return bool(metadata["name"] == wanted["metadata"]["name"] and role.get("rules") == wanted["rules"])


def parse_pod_uids(binding: dict[str, Any]) -> tuple[str, ...]:
    """Return the pods that a grant's binding names."""
    prefix = virtual_pod_account(PodUid(""))
    return tuple(
        subject["name"].removeprefix(prefix)
        for subject in binding.get("subjects") or []
        if subject.get("name", "").startswith(prefix)
    )


def parse_names(role: dict[str, Any]) -> frozenset[str]:
    """Return what the open list, or the list of pods that are open to exec, names."""
    return frozenset(name for rule in role.get("rules") or [] for name in rule.get("resourceNames") or [])


def _grant_metadata(node: str, namespace: str) -> dict[str, Any]:
    return {"name": grant(node), "namespace": namespace, "labels": {LABEL_ROLE: ROLE_GRANT, LABEL_NODE: node}}


def _debug_metadata(namespace: str) -> dict[str, Any]:
    return {"name": DEBUG, "namespace": namespace, "labels": {LABEL_ROLE: ROLE_DEBUG}}


def _rule(verb: str, names: list[str]) -> dict[str, Any]:
    return {"apiGroups": [GROUP], "resources": [_GPU_NODES], "resourceNames": names, "verbs": [verb]}


def _role_ref(name: str) -> dict[str, Any]:
    return {"apiGroup": _RBAC, "kind": "Role", "name": name}


def _account(namespace: str, name: str) -> dict[str, Any]:
    return {"kind": "ServiceAccount", "namespace": namespace, "name": name}
