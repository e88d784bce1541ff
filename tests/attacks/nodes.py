"""Attacks on nodes: getting a pod onto a node that somebody else holds, or changing what the node says of itself."""

from lethe.adapters import kube as kinds
from tests.apiserver.cluster import TAINT, Scene, pod
from tests.apiserver.requests import (
    ADMIN,
    CLOSED,
    CLUSTER_ADMIN,
    DAEMONSET_CONTROLLER,
    EVERYTHING,
    LABELS,
    MINE,
    OPERATOR,
    OURS,
    ROGUE,
    SCHEDULER,
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
)


def bind_attacks(s: Scene) -> list[Row]:
    """Return attempts to bind a pod to a node that is closed to it."""
    return [
        Row("bind: a tenant's pod to a held node", SCHEDULER, bind("mine", s.held), CLOSED),
        Row("bind: by cluster-admin", CLUSTER_ADMIN, bind("mine", s.held), CLOSED),
        Row("bind: another tenant's pod", SCHEDULER, bind("theirs", s.held, "globex"), CLOSED),
        Row("bind: a pod of no tenant", SCHEDULER, bind("other", s.held, "plain"), CLOSED),
        Row("bind: to a free node", SCHEDULER, bind("mine", s.free), CLOSED),
        Row("bind: to a node that nobody knows", SCHEDULER, bind("mine", "nobody-knows"), CLOSED),
        Row("bind: the holder's second pod", SCHEDULER, bind("lethe-digits-2", s.held), CLOSED),
        Row("bind: the holder's pod to another node", SCHEDULER, bind("lethe-digits-0", s.free), CLOSED),
        Row("bind: without uid", SCHEDULER, bind("lethe-digits-0", s.held, uid=None), CLOSED),
        Row("bind: by the legacy path", SCHEDULER, bind_old_way("lethe-digits-0", s.held), CLOSED),
        Row(
            "bind: with a label for the pod", SCHEDULER, bind("mine", s.open, labels=LABELS), "set by the operator only"
        ),
        Row("bind: by a tenant", ADMIN, bind("mine", s.held), CLOSED),
        Row("bind: by the operator itself", OPERATOR, bind("mine", s.held), CLOSED),
    ]


def placement_attacks(s: Scene) -> list[Row]:
    """Return attempts to be on a closed node without being bound to it."""
    return [
        Row(
            "place: nodeName of a held node",
            TENANT,
            create(kinds.POD, pod("new", "acme", nodeName=s.held)),
            "is closed",
        ),
        Row(
            "place: nodeName of an unknown node",
            TENANT,
            create(kinds.POD, pod("new", "acme", nodeName="x")),
            "is closed",
        ),
        Row(
            "place: mirror annotation by a tenant",
            TENANT,
            create(kinds.POD, pod("new", "acme", nodeName=s.held, annotations={"kubernetes.io/config.mirror": "x"})),
            "is closed",
        ),
        Row("place: ephemeral container on a closed node", ADMIN, debug("on-gpu", "acme"), "is closed"),
        Row("place: resize on a closed node", ADMIN, resize("on-gpu", "acme"), "is closed"),
        Row(
            "place: by the controller of a tenant's DaemonSet",
            DAEMONSET_CONTROLLER,
            create(kinds.POD, pod("new", "globex", nodeName=s.held)),
            "is closed",
        ),
        Row(
            "place: by cluster-admin",
            CLUSTER_ADMIN,
            create(kinds.POD, pod("new", "plain", nodeName=s.held)),
            "is closed",
        ),
        Row("place: on a free node", TENANT, create(kinds.POD, pod("new", "acme", nodeName=s.free)), "is closed"),
    ]


def scheduling_attacks(s: Scene) -> list[Row]:
    """Return attempts to get past the taint, or to have the scheduler make room."""
    return [
        Row(
            "toleration: of our taint",
            TENANT,
            create(kinds.POD, pod("new", "acme", tolerations=[{"key": "lethe.dev/gpu", "operator": "Exists"}])),
            "tolerate",
        ),
        Row(
            "toleration: of everything",
            TENANT,
            create(kinds.POD, pod("new", "acme", tolerations=EVERYTHING)),
            "tolerate",
        ),
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
            delete(kinds.POD, s.scrub, "lethe-system"),
            "not preempted",
        ),
        Row(
            "preemption: mark a training pod",
            SCHEDULER,
            patch(
                kinds.POD, *OURS, {"status": {"conditions": [{"type": "DisruptionTarget", "status": "True"}]}}, "status"
            ),
            "not preempted",
        ),
        Row(
            "toleration: by the controller of a tenant's DaemonSet",
            DAEMONSET_CONTROLLER,
            create(kinds.POD, pod("new", "globex", tolerations=EVERYTHING)),
            "tolerate",
        ),
        Row(
            "toleration: of our taint, added later",
            TENANT,
            edit(
                kinds.POD,
                *MINE,
                [{"op": "add", "path": "/spec/tolerations/-", "value": {"key": "lethe.dev/gpu", "operator": "Exists"}}],
            ),
            "tolerate",
        ),
    ]


def node_attacks(s: Scene) -> list[Row]:
    """Return attempts to change what marks a node, or what proves that it was started anew."""
    return [
        Row(
            "node: label removed",
            ROGUE,
            patch(kinds.NODE, s.held, "", {"metadata": {"labels": {"node-restriction.kubernetes.io/lethe": None}}}),
            "operator only",
        ),
        Row(
            "node: label removed through status",
            ROGUE,
            patch(
                kinds.NODE,
                s.held,
                "",
                {"metadata": {"labels": {"node-restriction.kubernetes.io/lethe": None}}},
                "status",
            ),
            "operator only",
        ),
        Row("node: taint removed", ROGUE, patch(kinds.NODE, s.held, "", {"spec": {"taints": None}}), "operator only"),
        Row("node: taint forged", ROGUE, patch(kinds.NODE, s.open, "", {"spec": {"taints": [TAINT]}}), "operator only"),
        Row("node: deleted", ROGUE, delete(kinds.NODE, s.held), "is managed"),
        Row("node: all deleted", ROGUE, delete(kinds.NODE, ""), "is managed"),
        Row(
            "node: label changed through status",
            ROGUE,
            patch(
                kinds.NODE,
                s.held,
                "",
                {"metadata": {"labels": {"node-restriction.kubernetes.io/lethe": "x"}}},
                "status",
            ),
            "operator only",
        ),
        Row(
            "node: a new boot id forged",
            ROGUE,
            patch(kinds.NODE, s.held, "", {"status": {"nodeInfo": {"bootID": "forged"}}}, "status"),
            "by its kubelet",
        ),
        Row(
            "node: another machine's identity forged",
            ROGUE,
            patch(kinds.NODE, s.held, "", {"status": {"nodeInfo": {"systemUUID": "forged"}}}, "status"),
            "by its kubelet",
        ),
    ]


def connect_attacks(s: Scene) -> list[Row]:
    """Return attempts to enter. Without policies some get an answer other than yes: they ask for no connection."""
    pods = [
        Row(
            f"connect: {verb} into a {what}",
            who,
            connect(f"/api/v1/namespaces/{space}/pods/{name}/{verb}{query}"),
            "lethe:",
        )
        for what, who, space, name in (
            ("training pod", TENANT, "acme", s.running),
            ("scrub", ROGUE, "lethe-system", s.scrub),
        )
        for verb, query in (
            ("exec", "?command=sh&stdout=true"),
            ("attach", "?stdout=true"),
            ("portforward", ""),
            ("proxy", ""),
        )
    ]
    path = f"/api/v1/nodes/{s.held}/proxy"
    return [
        *pods,
        Row("connect: nodes/proxy", ROGUE, connect(f"{path}/pods", "GET"), "nodes/proxy"),
        Row(
            "connect: exec through nodes/proxy",
            ROGUE,
            connect(f"{path}/run/acme/{s.running}/train?cmd=id"),
            "nodes/proxy",
        ),
        Row(
            "connect: nodes/proxy of a free node",
            ROGUE,
            connect(f"/api/v1/nodes/{s.free}/proxy/pods", "GET"),
            "nodes/proxy",
        ),
    ]
