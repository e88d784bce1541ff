"""Two tenants and one GPU node, through the whole life of their jobs; and the same with an operator that is killed."""

from typing import Any

import msgspec
import pytest

from lethe.adapters import kube
from lethe.formats.receipt import verify_chain
from lethe.model import names
from lethe.model.resources import Envelope
from tests.simulation.cluster import Cluster
from tests.simulation.faults import Fault, Faults, at_write
from tests.simulation.operators import KEYS
from tests.simulation.sweep import run_two_tenants, summary


async def test_jobs_of_two_tenants_follow_each_other_with_a_scrub_between() -> None:
    cluster = await run_two_tenants()

    assert cluster.job_status("acme")["phase"] == "Succeeded"
    assert cluster.job_status("globex")["phase"] == "Succeeded"
    assert [node for _, node in cluster.ran] == ["gpu-1", "gpu-1"]
    assert cluster.ran[0][0].startswith("acme/")
    assert cluster.node_status("gpu-1")["phase"] == "Free"
    assert cluster.node_status("gpu-1")["epoch"] == 3
    assert cluster.memory == {}
    receipts = cluster.server.all(kube.RECEIPT)
    assert [receipt["spec"].get("tenant", "") for receipt in receipts] == ["", "acme", "globex"]
    assert [receipt["spec"]["residueBytes"] for receipt in receipts] == [0, 8192, 8192]
    verify_chain(
        [msgspec.convert(receipt["spec"]["envelope"], Envelope) for receipt in receipts],
        KEYS,
    )


async def test_the_status_tells_the_story() -> None:
    cluster = await run_two_tenants()

    status = cluster.job_status("acme")
    assert {entry["type"]: entry["status"] for entry in status["conditions"]} == {
        "Accepted": "True",
        "Admitted": "True",
        "KeysReleased": "True",
        "OutputsSealed": "True",
        "Complete": "True",
    }
    assert status["outputs"]["criticality"] == "sensitive"
    assert status["outputs"]["url"] == "s3://results/digits/" + "ab" * 16
    assert "sealed at s3://results/digits/" + "ab" * 16 in status["message"]
    story = cluster.events("digits")
    for reason in ("WaitingForNode", "Admitted", "Granted", "Training", "Complete"):
        assert reason in story
    assert cluster.events("gpu-1").count("ScrubVerified") == 3
    assert "ResidueFound" in cluster.events("gpu-1")


async def test_nothing_is_written_at_rest() -> None:
    cluster = await run_two_tenants()
    version = cluster.server.version

    cluster.clock.move(3600)
    await cluster.settle()

    assert cluster.server.version == version


async def test_a_job_takes_few_writes() -> None:
    cluster = Cluster()
    cluster.add_node("gpu-1")
    cluster.add_tenant("acme")
    await cluster.settle()
    before = len(cluster.faults.writes)

    cluster.add_job("acme")
    await cluster.settle()

    assert len(cluster.faults.writes) - before <= 30, [str(request) for request in cluster.faults.writes[before:]]


@pytest.mark.parametrize(
    ("fault", "step"),
    [(Fault.KILLED_BEFORE, 2), (Fault.KILLED_AFTER, 2), (Fault.CONFLICT, 6), (Fault.LOST_REPLY, 6), (Fault.GONE, 9)],
)
async def test_disturbed_at_any_write_the_end_is_the_same(fault: Fault, step: int) -> None:
    undisturbed = await run_two_tenants()
    expected = summary(undisturbed)
    writes = undisturbed.faults.writes

    assert len(writes) > 60
    for number in range(1, len(writes) + 1, step):
        cluster = await run_two_tenants(Faults(at_write(number, fault)))
        assert summary(cluster) == expected, f"{fault} at write {number}: {writes[number - 1]}"


@pytest.mark.parametrize("config", [{"enrolment": "automatic"}, {}], ids=["automatic", "manual"])
async def test_a_gpu_node_is_open_until_it_is_enrolled(config: dict[str, Any]) -> None:
    cluster = Cluster(**config)
    cluster.add_node("cpu-1", gpus=0)
    cluster.add_node("gpu-1", managed=False)
    await cluster.settle()

    automatic = config.get("enrolment") == "automatic"
    role = cluster.server.get(kube.ROLE, names.OPEN_NODES_ACCOUNT, names.OPEN_NAMESPACE)
    open_nodes = role["rules"][0]["resourceNames"]
    assert cluster.node_status("gpu-1")["phase"] == ("Free" if automatic else "Unmanaged")
    assert open_nodes == ["cpu-1"] if automatic else ["cpu-1", "gpu-1"]
    taints = cluster.server.get(kube.NODE, "gpu-1")["spec"].get("taints", [])
    assert [taint["key"] for taint in taints] == ([names.TAINT] if automatic else [])
