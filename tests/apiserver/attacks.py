"""Requests that work without the admission policies and must be refused with them."""

from lethe.adapters import kube as kinds
from tests.apiserver.cluster import TAINT, account, binding, group, pod, role, user
from tests.apiserver.requests import (
    CLOSED,
    CLUSTER_ADMIN,
    COLLECTOR,
    DAEMONSET,
    EVERYTHING,
    JOB,
    LABELS,
    MINE,
    NAMED_NODE,
    OPERATOR,
    OURS,
    ROGUE,
    SCHEDULER,
    STAR_NODE,
    TENANT,
    Row,
    bind,
    bind_old_way,
    connect,
    create,
    debug,
    delete,
    edit,
    patch,
    resize,
    strategic,
    token,
    workload,
)

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
