"""Requests that the admission policies must not disturb, and rights that nobody of Lethe's has."""

from lethe.adapters import kube as kinds
from tests.apiserver.cluster import TAINT, Scene, account, binding, job, pod, role, training_pod, user
from tests.apiserver.requests import (
    ADMIN,
    CLUSTER_ADMIN,
    DAEMONSET,
    DAEMONSET_CONTROLLER,
    EVERYTHING,
    JOB,
    KEYSERVICE,
    LABELS,
    MINE,
    NAMESPACE_CONTROLLER,
    NODE_CONTROLLER,
    OPERATOR,
    OURS,
    POD_COLLECTOR,
    ROGUE,
    SCHEDULER,
    TENANT,
    Row,
    bind,
    bind_old_way,
    create,
    debug,
    delete,
    evict,
    kubelet,
    mirror,
    named_node,
    patch,
    resize,
    token,
    workload,
)


def honest(s: Scene) -> list[Row]:
    """Return all that must go on."""
    return [*cluster_paths(s), *tenant_paths(s), *own_paths(s)]


def cluster_paths(s: Scene) -> list[Row]:
    """Return what Kubernetes itself and administrators do."""
    return [
        Row("scheduler: the named pod to its node", SCHEDULER, bind("lethe-digits-0", s.held)),
        Row("scheduler: a pod to an open node", SCHEDULER, bind("mine", s.open)),
        Row("scheduler: a pod of no tenant to an open node", SCHEDULER, bind("other", s.open, "plain")),
        Row("scheduler: the legacy path to an open node", SCHEDULER, bind_old_way("other", s.open, "plain")),
        Row("scheduler: a system pod to a held node", SCHEDULER, bind("agent", s.held, "kube-system")),
        Row(
            "scheduler: a condition of a training pod",
            SCHEDULER,
            patch(
                kinds.POD, *OURS, {"status": {"conditions": [{"type": "PodScheduled", "status": "False"}]}}, "status"
            ),
        ),
        Row("scheduler: preempt another pod", SCHEDULER, delete(kinds.POD, *MINE)),
        Row(
            "kubelet: status of a training pod",
            kubelet(s.held),
            patch(kinds.POD, s.running, "acme", {"status": {"phase": "Running"}}, "status"),
        ),
        Row(
            "kubelet: status of a scrub",
            kubelet(s.free),
            patch(kinds.POD, s.scrub, "lethe-system", {"status": {"phase": "Succeeded"}}, "status"),
        ),
        Row("kubelet: delete a pod that has ended", kubelet(s.held), delete(kinds.POD, s.running, "acme")),
        Row("kubelet: a static pod", kubelet(s.held), mirror(s.held)),
        Row(
            "kubelet: GPUs appear",
            kubelet(s.held),
            patch(kinds.NODE, s.held, "", {"status": {"capacity": {"nvidia.com/gpu": "2"}}}, "status"),
        ),
        Row(
            "kubelet: GPUs appear on an open node",
            kubelet(s.open),
            patch(kinds.NODE, s.open, "", {"status": {"capacity": {"nvidia.com/gpu": "2"}}}, "status"),
        ),
        Row(
            "node controller: another taint",
            NODE_CONTROLLER,
            patch(
                kinds.NODE,
                s.held,
                "",
                {"spec": {"taints": [TAINT, {"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"}]}},
            ),
        ),
        Row("node controller: delete a lost node", NODE_CONTROLLER, delete(kinds.NODE, s.held)),
        Row("administrator: cordon", ROGUE, patch(kinds.NODE, s.held, "", {"spec": {"unschedulable": True}})),
        Row("administrator: another label", ROGUE, patch(kinds.NODE, s.held, "", {"metadata": {"labels": {"a": "b"}}})),
        Row("administrator: delete an open node", ROGUE, delete(kinds.NODE, s.open)),
        Row("administrator: enrol a node", ROGUE, patch(kinds.GPU_NODE, s.free, "", {"spec": {"managed": False}})),
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
            create(kinds.ROLE, role("lethe-new", "lethe-system", [])),
        ),
        Row(
            "pod collector: a lost pod",
            POD_COLLECTOR,
            patch(kinds.POD, s.running, "acme", {"status": {"phase": "Failed"}}, "status"),
        ),
        Row("pod collector: delete a lost pod", POD_COLLECTOR, delete(kinds.POD, s.running, "acme")),
        Row(
            "namespace controller: delete the grant",
            NAMESPACE_CONTROLLER,
            delete(kinds.ROLEBINDING, s.grant, "acme"),
        ),
        Row("namespace controller: delete all pods", NAMESPACE_CONTROLLER, delete(kinds.POD, "", "acme")),
        Row("kubelet: a heartbeat", kubelet(s.held), patch(kinds.NODE, s.held, "", READY, "status")),
        Row(
            "kubelet: GPUs disappear",
            kubelet(s.held),
            patch(kinds.NODE, s.held, "", {"status": {"capacity": {"nvidia.com/gpu": "0"}}}, "status"),
        ),
        Row(
            "kubelet: a new boot id",
            kubelet(s.held),
            patch(kinds.NODE, s.held, "", {"status": {"nodeInfo": {"bootID": "new"}}}, "status"),
        ),
        Row(
            "kubelet: a label that it may set",
            kubelet(s.held),
            patch(kinds.NODE, s.held, "", {"metadata": {"labels": {"topology.kubernetes.io/zone": "z"}}}),
        ),
        Row(
            "node controller: a condition",
            NODE_CONTROLLER,
            patch(kinds.NODE, s.held, "", READY, "status"),
        ),
        Row(
            "DaemonSet controller: a pod of a system namespace",
            DAEMONSET_CONTROLLER,
            create(kinds.POD, pod("new", "kube-system", tolerations=EVERYTHING)),
        ),
        Row(
            "DaemonSet controller: a tolerant pod of a namespace of no tenant",
            DAEMONSET_CONTROLLER,
            create(kinds.POD, pod("new", "plain", tolerations=EVERYTHING)),
        ),
        Row("administrator: uncordon", ROGUE, patch(kinds.NODE, s.held, "", {"spec": {"unschedulable": None}})),
        Row("administrator: drain evicts a training pod", ROGUE, evict(s.running, "acme")),
    ]


def tenant_paths(s: Scene) -> list[Row]:
    """Return what tenants and other people do in their namespaces."""
    return [
        Row("tenant: a pod", TENANT, create(kinds.POD, pod("new", "acme"))),
        Row("tenant: a pod on an open node", TENANT, create(kinds.POD, pod("new", "acme", nodeName=s.open))),
        Row(
            "tenant: other tolerations",
            TENANT,
            create(kinds.POD, pod("new", "acme", tolerations=[{"key": "a", "operator": "Exists"}])),
        ),
        Row("tenant: debug its own pod", ADMIN, debug("on-cpu", "acme")),
        Row("tenant: resize its own pod", ADMIN, resize("on-cpu", "acme")),
        Row("tenant: delete its training pod", TENANT, delete(kinds.POD, *OURS)),
        Row(
            "tenant: label its training pod", TENANT, patch(kinds.POD, *OURS, {"metadata": {"labels": {"mine": "yes"}}})
        ),
        Row("tenant: a Job", TENANT, workload(JOB, "new", "acme", {})),
        Row(
            "tenant: a role",
            ADMIN,
            create(kinds.ROLE, role("x", "acme", [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}])),
        ),
        Row(
            "tenant: a role that may do everything with nothing named",
            ADMIN,
            create(kinds.ROLE, role("x", "acme", [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}])),
        ),
        Row(
            "tenant: bind a role of its own",
            ADMIN,
            create(kinds.ROLEBINDING, binding("x", "acme", "everything", user("tom"))),
        ),
        Row(
            "tenant: an account",
            TENANT,
            create(kinds.SERVICEACCOUNT, {"metadata": {"name": "builder", "namespace": "acme"}}),
        ),
        Row("tenant: a job", TENANT, create(kinds.JOB_CR, job("new"))),
        Row("tenant: suspend a job", TENANT, patch(kinds.JOB_CR, s.job, "acme", {"spec": {"suspend": True}})),
        Row("tenant: change a job's priority", TENANT, patch(kinds.JOB_CR, s.job, "acme", {"spec": {"priority": 5}})),
        Row("tenant: delete a job", TENANT, delete(kinds.JOB_CR, s.job, "acme")),
        Row("tenant: a key", ADMIN, create(kinds.TENANT_KEY, {"metadata": {"name": "new", "namespace": "acme"}})),
        Row(
            "somebody: tolerate everything elsewhere",
            ROGUE,
            create(kinds.POD, pod("new", "plain", tolerations=EVERYTHING)),
        ),
        Row("somebody: our prefix elsewhere", ROGUE, create(kinds.POD, pod("lethe-new", "plain"))),
        Row("tenant: evict its training pod", TENANT, evict(*OURS)),
        Row("tenant: a DaemonSet", TENANT, workload(DAEMONSET, "new", "acme", {})),
        Row("tenant: a token of an account of its own", TENANT, token("default", "acme", "vault")),
    ]


def own_paths(s: Scene) -> list[Row]:
    """Return what Lethe's own processes do, with the rights that the chart gives them."""
    return [
        Row("operator: a training pod", OPERATOR, create(kinds.POD, training_pod("lethe-new"))),
        Row(
            "operator: a scrub", OPERATOR, create(kinds.POD, pod("lethe-scrub-gpu-1-4", "lethe-system", labels=LABELS))
        ),
        Row(
            "operator: lift the gate",
            OPERATOR,
            patch(kinds.POD, "lethe-digits-1", "acme", {"spec": {"schedulingGates": None}}),
        ),
        Row("operator: take its finalizer off", OPERATOR, patch(kinds.POD, *OURS, {"metadata": {"finalizers": None}})),
        Row("operator: delete a pod", OPERATOR, delete(kinds.POD, *OURS)),
        Row("operator: a grant's role", OPERATOR, create(kinds.ROLE, role("lethe-x", "acme", named_node(s.free)))),
        Row(
            "operator: a grant",
            OPERATOR,
            create(kinds.ROLEBINDING, binding("lethe-new", "acme", s.grant, account("lethe-pod-x", "acme"))),
        ),
        Row("operator: close a grant", OPERATOR, delete(kinds.ROLEBINDING, s.grant, "acme")),
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
                            "resourceNames": [s.open, "cpu-2"],
                            "verbs": ["host"],
                        }
                    ]
                },
            ),
        ),
        Row("operator: taint and label", OPERATOR, patch(kinds.NODE, s.held, "", {"spec": {"taints": None}})),
        Row(
            "operator: the ledger",
            OPERATOR,
            patch(kinds.GPU_NODE, s.held, "", {"status": {"phase": "Draining"}}, "status"),
        ),
        Row(
            "operator: a job's status",
            OPERATOR,
            patch(kinds.JOB_CR, s.job, "acme", {"status": {"phase": "Running"}}, "status"),
        ),
        Row(
            "operator: a job's finalizer",
            OPERATOR,
            patch(kinds.JOB_CR, s.job, "acme", {"metadata": {"finalizers": None}}),
        ),
        Row(
            "operator: label of a namespace",
            OPERATOR,
            patch(kinds.NAMESPACE, "plain", "", {"metadata": {"labels": {"lethe.dev/tenant": "acme"}}}),
        ),
        Row(
            "operator: the account of training pods",
            OPERATOR,
            create(kinds.SERVICEACCOUNT, {"metadata": {"name": "lethe-job", "namespace": "plain"}}),
        ),
        Row(
            "operator: a dry run of a bind",
            OPERATOR,
            bind("lethe-digits-0", s.held),
        ),
        Row(
            "key service: a public key",
            KEYSERVICE,
            patch(kinds.TENANT_KEY, "default", "acme", {"status": {"publicKey": "x", "version": 1}}, "status"),
        ),
    ]


def denied_rights(s: Scene) -> list[tuple[str, tuple[str, ...], str, str]]:
    """Return what nobody of Lethe may do: name, who, method, path."""
    return [
        ("operator lists Secrets", OPERATOR, "GET", "/api/v1/secrets"),
        ("operator reads nodes through their proxy", OPERATOR, "GET", f"/api/v1/nodes/{s.held}/proxy/pods"),
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
        ("key service writes the ledger", KEYSERVICE, "DELETE", f"/apis/lethe.dev/v1alpha1/gpunodes/{s.held}"),
        (
            "key service deletes keys",
            KEYSERVICE,
            "DELETE",
            "/apis/lethe.dev/v1alpha1/namespaces/acme/tenantkeys/default",
        ),
        (
            "scrub reads its node",
            ("system:serviceaccount:lethe-system:lethe-scrub", "system:serviceaccounts", "system:authenticated"),
            "GET",
            f"/api/v1/nodes/{s.free}",
        ),
    ]


READY = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}
