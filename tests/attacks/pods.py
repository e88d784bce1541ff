"""Attacks on pods: changing or entering one that holds keys, posing as one, or as the accounts behind them."""

from lethe.adapters import kube as kinds
from tests.apiserver.cluster import Scene, pod
from tests.apiserver.requests import (
    COLLECTOR,
    CRONJOB_CONTROLLER,
    DAEMONSET,
    JOB,
    LABELS,
    MINE,
    OURS,
    ROGUE,
    TENANT,
    Row,
    create,
    debug,
    patch,
    resize,
    strategic,
    token,
    workload,
)


def pod_attacks(s: Scene) -> list[Row]:
    """Return attempts to change a pod of ours, or to make one."""
    return [
        Row("pod: our prefix", TENANT, create(kinds.POD, pod("lethe-mine", "acme")), "choose another name"),
        Row(
            "pod: our prefix, generated",
            TENANT,
            create(kinds.POD, {**pod("", "acme"), "metadata": {"generateName": "lethe-", "namespace": "acme"}}),
            "choose another name",
        ),
        Row(
            "pod: a forged scrub", ROGUE, create(kinds.POD, pod("lethe-scrub-gpu-1-9", "lethe-system")), "another name"
        ),
        Row("pod: our label", TENANT, create(kinds.POD, pod("new", "acme", labels=LABELS)), "by the operator only"),
        Row(
            "pod: label added",
            TENANT,
            patch(kinds.POD, *MINE, {"metadata": {"labels": LABELS}}),
            "by the operator only",
        ),
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
            strategic(kinds.POD, s.running, "acme", {"spec": {"containers": [{"name": "train", "image": "evil"}]}}),
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
        Row(
            "pod: finalizer removed", TENANT, patch(kinds.POD, *OURS, {"metadata": {"finalizers": None}}), "finalizers"
        ),
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
            patch(kinds.POD, s.running, "acme", {"status": {"phase": "Succeeded"}}, "status"),
            "written by kubelets",
        ),
        Row("pod: ephemeral container", ROGUE, debug(s.running, "acme"), "lethe:"),
        Row("pod: ephemeral container in a scrub", ROGUE, debug(s.scrub, "lethe-system"), "ephemeral"),
        Row("pod: resize", ROGUE, resize(s.running, "acme"), "lethe:"),
        Row(
            "pod: image of a scrub changed",
            ROGUE,
            strategic(
                kinds.POD, s.scrub, "lethe-system", {"spec": {"containers": [{"name": "train", "image": "evil"}]}}
            ),
            "does not change",
        ),
        Row(
            "pod: end of a scrub forged through status",
            ROGUE,
            patch(kinds.POD, s.scrub, "lethe-system", {"status": {"phase": "Succeeded"}}, "status"),
            "written by kubelets",
        ),
    ]


def workload_attacks(s: Scene) -> list[Row]:
    """Return attempts to have a controller make pods that look like ours."""
    return [
        Row("workload: label on a Job", TENANT, workload(JOB, "new", "acme", {}, labels=LABELS), "labels"),
        Row("workload: label in a Job's template", TENANT, workload(JOB, "new", "acme", LABELS), "labels"),
        Row("workload: our prefix", TENANT, workload(JOB, "lethe-new", "acme", {}), "choose another name"),
        Row("workload: label in a DaemonSet", TENANT, workload(DAEMONSET, "new", "acme", LABELS), "labels"),
        Row(
            "workload: our prefix, by the controller of a CronJob",
            CRONJOB_CONTROLLER,
            workload(JOB, "lethe-new", "acme", {}),
            "choose another name",
        ),
    ]


def account_attacks(s: Scene) -> list[Row]:
    """Return attempts to be an account of Lethe, or to show its token."""
    return [
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
        Row(
            "token: audience of the key service",
            TENANT,
            token("default", "acme", "lethe.dev/keys/lethe-keyservice/x"),
            "kubelets only",
        ),
        Row("token: of the operator", ROGUE, token("lethe-operator", "lethe-system"), "kubelets only"),
        Row("token: of a scrub", ROGUE, token("lethe-scrub", "lethe-system"), "kubelets only"),
        Row("token: of a job", TENANT, token("lethe-job", "acme"), "kubelets only"),
        Row("token: of the key service", ROGUE, token("lethe-keyservice", "lethe-system"), "kubelets only"),
        Row(
            "token: audience of the key service, in a namespace of no tenant",
            ROGUE,
            token("default", "plain", "lethe.dev/keys/lethe-keyservice/x"),
            "kubelets only",
        ),
        Row(
            "token: audience of the key service, among others",
            TENANT,
            token("default", "acme", "other", "lethe.dev/keys/lethe-keyservice/x"),
            "kubelets only",
        ),
    ]
