"""From objects of the API server to facts: what is read, and what is not mistaken for something else."""

from typing import Any

import pytest

from lethe.controller.facts import is_occupant, parse_node, parse_pod
from lethe.formats.podhash import pod_hash


def pod(status: dict[str, Any] | None = None, spec: dict[str, Any] | None = None, **metadata: Any) -> dict[str, Any]:
    return {
        "metadata": {
            "name": "lethe-x",
            "namespace": "acme",
            "uid": "u",
            "resourceVersion": "7",
            "labels": {"lethe.dev/role": "train", "lethe.dev/job-uid": "j"},
            **metadata,
        },
        "spec": {"containers": [{"name": "train"}, {"name": "watch"}], **(spec or {})},
        "status": {"phase": "Pending", **(status or {})},
    }


def test_a_gated_pod() -> None:
    raw = pod(spec={"schedulingGates": [{"name": "lethe.dev/hold"}]}, finalizers=["lethe.dev/custody"])
    facts = parse_pod(raw)

    assert facts.is_gated and facts.is_guarded and not facts.deleting and not facts.has_ended
    assert (facts.job_uid, facts.node, facts.main) == ("j", "", ("train", "watch"))
    assert facts.hash == pod_hash(raw)


def test_containers_of_every_kind() -> None:
    facts = parse_pod(
        pod(
            {
                "phase": "Failed",
                "initContainerStatuses": [
                    {
                        "name": "lethe-keyfetch",
                        "state": {"terminated": {"exitCode": 3, "message": "no", "finishedAt": "2030-01-01T00:00:09Z"}},
                    }
                ],
                "containerStatuses": [
                    {"name": "train", "state": {"running": {"startedAt": "2030-01-01T00:00:00Z"}}},
                    {"name": "watch", "state": {"waiting": {"reason": "ImagePullBackOff", "message": "a\nb"}}},
                ],
            }
        )
    )

    assert (facts.containers["lethe-keyfetch"].exit_code, facts.containers["lethe-keyfetch"].message) == (3, "no")
    assert facts.containers["lethe-keyfetch"].since == "2030-01-01T00:00:09Z"
    assert facts.containers["train"].since == "2030-01-01T00:00:00Z"
    assert (facts.containers["watch"].reason, facts.containers["watch"].message) == ("ImagePullBackOff", "a")


@pytest.mark.parametrize(
    ("status", "by_kubelet"),
    [
        ({"phase": "Succeeded", "conditions": [{"type": "Ready", "status": "False", "reason": "PodCompleted"}]}, True),
        ({"phase": "Failed", "conditions": [{"type": "Ready", "status": "False", "reason": "PodFailed"}]}, True),
        ({"phase": "Failed", "reason": "UnexpectedAdmissionError"}, True),
        ({"phase": "Failed", "reason": "Evicted"}, True),
        ({"phase": "Running", "conditions": [{"type": "Ready", "status": "False", "reason": "PodFailed"}]}, False),
        ({"phase": "Failed"}, False),
        ({"phase": "Failed", "reason": "NodeLost"}, False),
        (
            {"phase": "Failed", "conditions": [{"type": "Ready", "status": "False", "reason": "ContainersNotReady"}]},
            False,
        ),
    ],
    ids=[
        "completed",
        "failed",
        "refused",
        "evicted",
        "not over",
        "by the garbage collector, on a node out of service",
        "by the garbage collector, on a lost node",
        "by the garbage collector, before the containers were ready",
    ],
)
def test_whether_a_kubelet_ended_it(status: dict[str, Any], by_kubelet: bool) -> None:
    assert parse_pod(pod(status)).ended_by_kubelet is by_kubelet


@pytest.mark.parametrize(
    ("manager", "subresource", "phase", "by_kubelet"),
    [
        ("kubelet", "status", "Failed", True),
        ("kubelet", "status", "Pending", False),
        ("kubelet", None, "Failed", False),
        ("kube-controller-manager", "status", "Failed", False),
    ],
)
def test_who_wrote_the_phase_of_a_pod_that_ended_before_its_first_container_began(
    manager: str, subresource: str | None, phase: str, by_kubelet: bool
) -> None:
    ended = pod({"phase": phase, "conditions": [{"type": "Ready", "status": "False", "reason": "ContainersNotReady"}]})
    others = {"manager": "kubelet", "subresource": "status", "fieldsV1": {"f:status": {"f:podIP": {}}}}
    last = {"manager": manager, "subresource": subresource, "fieldsV1": {"f:status": {"f:phase": {}}}}
    ended["metadata"]["managedFields"] = [others, last]

    assert parse_pod(ended).ended_by_kubelet is by_kubelet


@pytest.mark.parametrize(
    ("reason", "collected"), [("DeletionByPodGC", True), ("EvictionByEvictionAPI", False)], ids=["gc", "eviction"]
)
def test_who_declared_it_ended(reason: str, collected: bool) -> None:
    condition = {"type": "DisruptionTarget", "status": "True", "reason": reason}

    assert parse_pod(pod({"phase": "Failed", "conditions": [condition]})).collected is collected


def test_a_gate_is_not_a_scheduling_problem() -> None:
    gated = {"type": "PodScheduled", "status": "False", "reason": "SchedulingGated", "message": "gated"}
    stuck = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no GPU"}

    assert parse_pod(pod({"conditions": [gated]})).unschedulable == ""
    assert parse_pod(pod({"conditions": [stuck]})).unschedulable == "no GPU"


@pytest.mark.parametrize("annotation", [None, "strange"], ids=["absent", "unknown"])
def test_an_unknown_criticality_is_the_strictest(annotation: str | None) -> None:
    annotations = {} if annotation is None else {"lethe.dev/outputs-criticality": annotation}

    assert parse_pod(pod(annotations=annotations)).criticality == "critical"


@pytest.mark.parametrize(
    ("labels", "capacity", "is_gpu_node"),
    [
        ({"nvidia.com/gpu.present": "true"}, {}, True),
        ({}, {"nvidia.com/gpu": "8"}, True),
        ({}, {"nvidia.com/gpu": "0"}, False),
        ({"nvidia.com/gpu.present": "false"}, {}, False),
        ({}, {}, False),
    ],
)
def test_what_a_gpu_node_is(labels: dict[str, str], capacity: dict[str, str], is_gpu_node: bool) -> None:
    node = {"metadata": {"name": "n", "uid": "u", "labels": labels}, "status": {"capacity": capacity}}

    assert parse_node(node, "nvidia.com/gpu.present=true").is_gpu_node is is_gpu_node


def test_a_node_is_marked_by_taint_and_label_together() -> None:
    taint = {"key": "lethe.dev/gpu", "value": "managed", "effect": "NoSchedule"}
    label = {"node-restriction.kubernetes.io/lethe": "managed"}
    for labels, taints, marked in ((label, [taint], True), ({}, [taint], False), (label, [], False)):
        node = {"metadata": {"name": "n", "uid": "u", "labels": labels}, "spec": {"taints": taints}}
        assert parse_node(node, "a=b").is_marked is marked


@pytest.mark.parametrize(
    ("namespace", "phase", "occupies"),
    [
        ("default", "Running", True),
        ("default", "Pending", True),
        ("default", "Unknown", True),
        ("default", "Succeeded", False),
        ("default", "Failed", False),
        ("kube-system", "Running", False),
    ],
)
def test_who_keeps_a_node_from_being_empty(namespace: str, phase: str, occupies: bool) -> None:
    found = pod({"phase": phase}, namespace=namespace)

    assert is_occupant(found, ("kube-system", "lethe-system")) is occupies
