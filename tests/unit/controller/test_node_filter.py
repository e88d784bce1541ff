"""Which events of Nodes ask for a cycle: kubelets write all day."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from lethe.controller.watch import NodeFilter

Node = dict[str, Any]


def node() -> Node:
    return {
        "metadata": {"name": "gpu-1", "uid": "u", "resourceVersion": "1", "labels": {"nvidia.com/gpu.present": "true"}},
        "spec": {},
        "status": {
            "nodeInfo": {"bootID": "b", "systemUUID": "s"},
            "capacity": {"nvidia.com/gpu": "2"},
            "conditions": [{"type": "Ready", "status": "True", "lastHeartbeatTime": "2030-01-01T00:00:00Z"}],
            "images": [],
        },
    }


@pytest.fixture
def nodes() -> NodeFilter:
    known = NodeFilter("nvidia.com/gpu.present=true")
    assert known.is_news(None, node())
    return known


CHANGES: dict[str, Callable[[Node], Any]] = {
    "not ready": lambda found: found["status"]["conditions"][0].update(status="Unknown"),
    "another boot": lambda found: found["status"]["nodeInfo"].update(bootID="c"),
    "another machine": lambda found: found["status"]["nodeInfo"].update(systemUUID="t"),
    "fewer GPUs": lambda found: found["status"]["capacity"].update({"nvidia.com/gpu": "1"}),
    "an unhealthy GPU": lambda found: found["status"].update(allocatable={"nvidia.com/gpu": "1"}),
    "cordoned": lambda found: found["spec"].update(unschedulable=True),
    "a taint": lambda found: found["spec"].update(taints=[{"key": "a", "effect": "NoSchedule"}]),
    "a label": lambda found: found["metadata"]["labels"].update(zone="1"),
    "made anew": lambda found: found["metadata"].update(uid="v"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_news(nodes: NodeFilter, change: str) -> None:
    changed = node()
    CHANGES[change](changed)

    assert nodes.is_news("MODIFIED", changed)
    assert not nodes.is_news("MODIFIED", copy.deepcopy(changed))
    assert nodes.is_news("MODIFIED", node())


def test_a_heartbeat_is_no_news(nodes: NodeFilter) -> None:
    beating = node()
    beating["metadata"]["resourceVersion"] = "2"
    beating["status"]["conditions"][0]["lastHeartbeatTime"] = "2030-01-01T00:05:00Z"
    beating["status"]["images"] = [{"names": ["one"]}]

    assert not nodes.is_news("MODIFIED", beating)


def test_a_node_that_goes_and_comes_back_is_news(nodes: NodeFilter) -> None:
    assert nodes.is_news("DELETED", node())
    assert nodes.is_news("ADDED", node())
