"""What the operator's metrics say after stories of custody: only what was written."""

import re

from lethe.adapters import kube
from tests.simulation.cluster import Cluster
from tests.simulation.containers import Behaviour
from tests.simulation.faults import Fault, Faults, Request, at_first

NODE = "gpu-1"


def values(cluster: Cluster) -> dict[str, float]:
    """Return what the operator's page of metrics says, by metric with labels."""
    lines = re.findall(r"^(lethe_\S+) (\S+)$", cluster.operator.metrics.render().decode(), re.MULTILINE)
    return {name: float(value) for name, value in lines}


async def scrubbed(faults: Faults | None = None, behaviour: Behaviour | None = None) -> Cluster:
    """Return a node that was scrubbed once, then used by somebody, and scrubbed again."""
    cluster = Cluster(faults)
    cluster.add_node(NODE)
    await cluster.settle()
    cluster.memory.update({(NODE, number): "acme" for number in range(2)})
    cluster.reboot(NODE)
    cluster.behaviour = behaviour or Behaviour()
    await cluster.settle()
    return cluster


async def test_a_scrub_is_counted_with_its_receipt() -> None:
    cluster = await scrubbed()
    said = values(cluster)
    assert cluster.node_status(NODE)["phase"] == "Free"
    assert said['lethe_residue_bytes_total{node="gpu-1"}'] == 8192
    assert said['lethe_leaks_total{node="gpu-1"}'] == 0
    assert said['lethe_scrub_coverage_ratio{node="gpu-1"}'] == 63 / 64
    assert said["lethe_scrub_coverage_floor_ratio"] == 0.98
    assert said["lethe_scrub_seconds_count"] == 2
    assert said["lethe_scrub_seconds_sum"] > 0
    for step in ("hold", "probe", "fill", "verify", "zero", "verify_zero"):
        assert said[f'lethe_scrub_step_seconds_count{{step="{step}"}}'] == 4
    assert not [name for name in said if name.startswith("lethe_scrub_failures")]
    assert said["lethe_unclassified_nodes"] == 0


async def test_a_leak_is_counted() -> None:
    cluster = await scrubbed()
    cluster.memory[NODE, 0] = "acme"
    cluster.reboot(NODE)
    cluster.behaviour = Behaviour(driver_scrubs=True)
    await cluster.settle()
    assert values(cluster)['lethe_leaks_total{node="gpu-1"}'] == 1


async def test_a_failure_is_counted_by_reason_and_no_scrub() -> None:
    said = values(await scrubbed(behaviour=Behaviour(scrub_changes={"boot_id": "another"})))
    assert said['lethe_scrub_failures_total{node="gpu-1",reason="BootMismatch"}'] == 1
    assert said["lethe_scrub_seconds_count"] == 1
    assert said['lethe_residue_bytes_total{node="gpu-1"}'] == 0


def _is_receipt(request: Request) -> bool:
    return (request.verb, request.plural) == ("create", kube.RECEIPT.plural)


def _is_quarantine(request: Request) -> bool:
    return request.plural == kube.GPU_NODE.plural and request.phase == "Quarantined"


async def test_a_refused_write_is_counted_only_when_it_has_succeeded() -> None:
    receipts = await scrubbed(Faults(at_first([_is_receipt], Fault.CONFLICT)))
    assert values(receipts)["lethe_scrub_seconds_count"] == 2
    quarantine = await scrubbed(
        Faults(at_first([_is_quarantine], Fault.CONFLICT)), Behaviour(scrub_changes={"boot_id": "another"})
    )
    assert values(quarantine)['lethe_scrub_failures_total{node="gpu-1",reason="BootMismatch"}'] == 1


async def test_a_node_that_is_gone_leaves_the_gauges() -> None:
    cluster = await scrubbed()
    cluster.server.delete(kube.NODE, NODE)
    cluster.server.delete(kube.GPU_NODE, NODE)
    await cluster.settle()
    said = values(cluster)
    assert 'lethe_scrub_coverage_ratio{node="gpu-1"}' not in said
    assert said['lethe_residue_bytes_total{node="gpu-1"}'] == 8192


async def test_a_node_whose_ledger_cannot_be_read_is_unclassified() -> None:
    cluster = await scrubbed()
    cluster.server.patch(kube.GPU_NODE, NODE, "", {"status": {"epoch": "many"}}, "status")
    await cluster.settle()
    assert values(cluster)["lethe_unclassified_nodes"] == 1
