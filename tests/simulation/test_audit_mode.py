"""fence.mode audit: nothing is protected, and nobody is told otherwise, not even afterwards."""

from lethe.adapters import kube
from tests.simulation.cluster import Cluster


def fenced(cluster: Cluster) -> list[str]:
    conditions = cluster.node_status("gpu-1").get("conditions", [])
    return [condition["status"] for condition in conditions if condition["type"] == "Fenced"]


async def in_audit_mode() -> Cluster:
    cluster = Cluster(fence="audit")
    cluster.add_node("cpu-1", gpus=0)
    cluster.add_node("gpu-1")
    cluster.add_tenant("acme")
    await cluster.settle()
    return cluster


async def test_the_ledger_says_that_nothing_is_protected() -> None:
    cluster = await in_audit_mode()
    assert cluster.node_status("gpu-1")["phase"] == "Free"
    assert fenced(cluster) == ["False"]


async def test_an_enforced_fence_trusts_no_scrub_from_before() -> None:
    cluster = await in_audit_mode()
    cluster.configure(fence="enforce")
    await cluster.settle()
    status = cluster.node_status("gpu-1")
    assert (status["phase"], status["epoch"]) == ("Free", 2)
    assert "AuditOnly" in cluster.events("gpu-1")
    assert fenced(cluster) == []


async def test_a_node_that_was_held_meanwhile_goes_to_nobody_without_a_scrub() -> None:
    cluster = await in_audit_mode()
    cluster.behaviour.endless = True
    cluster.add_job("acme")
    cluster.add_job("acme", "next")
    await cluster.settle()
    cluster.configure(fence="enforce")
    await cluster.settle()
    assert fenced(cluster) == ["False"]
    cluster.behaviour.endless = False
    await cluster.settle()
    assert [receipt["spec"]["epoch"] for receipt in cluster.server.all(kube.RECEIPT)] == [1, 2, 3]
    assert len(cluster.ran) == 2


async def test_a_released_node_says_nothing_of_the_fence() -> None:
    cluster = await in_audit_mode()
    cluster.server.patch(kube.GPU_NODE, "gpu-1", "", {"spec": {"managed": False}})
    await cluster.settle()
    assert cluster.node_status("gpu-1")["phase"] == "Unmanaged"
    assert fenced(cluster) == []
