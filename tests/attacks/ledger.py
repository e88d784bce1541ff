"""Attacks on what the fence believes: the ledger, its copy in RBAC, namespaces, the definitions of Lethe's kinds."""

from collections.abc import Callable

from lethe.adapters import kube as kinds
from tests.apiserver.cluster import Scene, account, binding, group, role, user
from tests.apiserver.requests import (
    ADMIN,
    CLUSTER_ADMIN,
    OPERATOR,
    ROGUE,
    Row,
    create,
    delete,
    named_node,
    patch,
    star_node,
)
from tests.apiserver.server import Answer, Client


def namespace_attacks(s: Scene) -> list[Row]:
    """Return attempts to move a namespace between tenants, or out of the fence."""
    return [
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
    ]


def ledger_attacks(s: Scene) -> list[Row]:
    """Return attempts to write what only the operator and the key service write."""
    return [
        Row(
            "ledger: status edited by cluster-admin",
            CLUSTER_ADMIN,
            patch(kinds.GPU_NODE, s.held, "", {"status": {"phase": "Free"}}, "status"),
            "only the operator",
        ),
        Row("ledger: deleted", ROGUE, delete(kinds.GPU_NODE, s.held), "only the operator"),
        Row("ledger: all deleted", ROGUE, delete(kinds.GPU_NODE, ""), "only the operator"),
        Row(
            "ledger: status of a job",
            ROGUE,
            patch(kinds.JOB_CR, s.job, "acme", {"status": {"phase": "Succeeded"}}, "status"),
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
            forge_receipt(),
            "only the operator",
        ),
        Row(
            "receipt: labelled",
            ROGUE,
            patch(kinds.RECEIPT, s.receipt, "", {"metadata": {"labels": {"a": "b"}}}),
            "only the operator",
        ),
        Row("receipt: deleted", ROGUE, delete(kinds.RECEIPT, s.receipt), "only the operator"),
        Row("definition: deleted", ROGUE, delete(kinds.CRD, "gpunodes.lethe.dev"), "helm upgrade"),
        Row("definition: all deleted", ROGUE, delete(kinds.CRD, ""), "helm upgrade"),
        Row(
            "definition: changed",
            ROGUE,
            patch(kinds.CRD, "gpunodes.lethe.dev", "", {"metadata": {"labels": {"a": "b"}}}),
            "helm upgrade",
        ),
        Row("receipt: all deleted", ROGUE, delete(kinds.RECEIPT, ""), "only the operator"),
        Row(
            "ledger: a quarantine overridden in somebody else's name",
            ROGUE,
            patch(kinds.GPU_NODE, s.held, "", {"spec": {"override": {"reason": "x", "by": "admin"}}}),
            "name of who writes it",
        ),
        Row(
            "ledger: an override kept for the next quarantine",
            ROGUE,
            patch(kinds.GPU_NODE, s.held, "", {"spec": {"override": {"reason": "x", "by": "rogue"}}}),
            "is not quarantined",
        ),
        Row(
            "ledger: status of a tenant",
            ROGUE,
            patch(kinds.TENANT, "acme", "", {"status": {"observedGeneration": 900}}, "status"),
            "only the operator",
        ),
    ]


def forge_receipt() -> Callable[[Client], Answer]:
    """Return a request for a receipt that nobody has signed."""
    signature = {"keyid": "k", "sig": "cw=="}
    envelope = {"payloadType": "t", "payload": "cA==", "signatures": [signature]}
    spec = {"node": "x", "epoch": 900, "sha256": "0" * 64, "envelope": envelope}
    return create(kinds.RECEIPT, {"metadata": {"name": "x-900"}, "spec": spec})


def right_attacks(s: Scene) -> list[Row]:
    """Return attempts to write the RBAC that the fence reads."""
    return [
        Row(
            "right: a role that names a node",
            ADMIN,
            create(kinds.ROLE, role("x", "acme", named_node(s.free))),
            "who may be on a node",
        ),
        Row(
            "right: a role that opens a pod to exec",
            ADMIN,
            create(kinds.ROLE, role("x", "acme", [{**named_node(s.running)[0], "verbs": ["debug"]}])),
            "who may be on a node",
        ),
        Row(
            "right: a star role that names a node",
            ADMIN,
            create(kinds.ROLE, role("x", "acme", star_node(s.free))),
            "who may be on a node",
        ),
        Row(
            "right: a cluster role that names a node",
            ROGUE,
            create(kinds.CLUSTERROLE, {"metadata": {"name": "x"}, "rules": named_node(s.free)}),
            "who may be on a node",
        ),
        Row(
            "right: a role of ours edited",
            ADMIN,
            patch(kinds.ROLE, s.grant, "acme", {"metadata": {"labels": {"a": "b"}}}),
            "copy of the ledger",
        ),
        Row("right: the grant deleted", ADMIN, delete(kinds.ROLEBINDING, s.grant, "acme"), "copy of the ledger"),
        Row(
            "right: the grant for another pod",
            ADMIN,
            patch(kinds.ROLEBINDING, s.grant, "acme", {"subjects": [account("lethe-pod-x", "acme")]}),
            "copy of the ledger",
        ),
        Row(
            "right: the grant's role bound to every account",
            ADMIN,
            create(kinds.ROLEBINDING, binding("x", "acme", s.grant, group("system:serviceaccounts:acme"))),
            "only the operator binds them",
        ),
        Row(
            "right: a virtual account bound",
            ADMIN,
            create(kinds.ROLEBINDING, binding("x", "acme", "everything", account("lethe-pod-x", "acme"))),
            "accounts of the fence",
        ),
        Row(
            "right: a virtual account bound as a user",
            ADMIN,
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
            patch(kinds.ROLE, "open-nodes", "lethe-open", {"rules": named_node(s.free)}),
            "copy of the ledger",
        ),
        Row(
            "right: the open list deleted", ROGUE, delete(kinds.ROLE, "open-nodes", "lethe-open"), "copy of the ledger"
        ),
        Row(
            "right: every grant deleted",
            ADMIN,
            delete(kinds.ROLEBINDING, "", "acme"),
            "copy of the ledger",
        ),
        Row(
            "right: the name of a grant, for a role of one's own",
            ADMIN,
            create(kinds.ROLEBINDING, binding("lethe-x", "acme", "everything", user("tess"))),
            "copy of the ledger",
        ),
        Row(
            "right: a virtual account bound cluster-wide, as a user",
            ROGUE,
            create(
                kinds.CLUSTERROLEBINDING,
                binding("x", "", "rogue", user("system:serviceaccount:acme:lethe-pod-x"), role_kind="ClusterRole"),
            ),
            "accounts of the fence",
        ),
    ]
