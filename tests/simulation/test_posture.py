"""A job whose datasets demand a posture waits for a node that has it."""

from typing import Any

import msgspec

from lethe.adapters import kube
from lethe.formats.receipt import verify_receipt
from lethe.model.config import Criticalities
from lethe.model.resources import Envelope
from tests.common.scrubs import build_posture, trusted_keys
from tests.simulation.cluster import Cluster
from tests.simulation.operators import SIGNER

RULES = {"sensitive": {"posture": ["swapOff", "eccOn"]}}


def build_cluster(**nodes: Any) -> Cluster:
    """Return a cluster with nodes of these postures, and a job with a sensitive dataset."""
    cluster = Cluster(criticalities=msgspec.convert(RULES, Criticalities))
    for name, posture in nodes.items():
        cluster.add_node(name).posture = posture
    cluster.add_tenant("acme")
    cluster.add_job("acme")
    return cluster


async def test_a_job_waits_beside_a_node_whose_posture_fails_and_runs_once_it_was_mended() -> None:
    cluster = build_cluster(gpu1=build_posture(swap="/dev/sda2"))
    await cluster.settle()

    assert cluster.node_status("gpu1")["phase"] == "Free"
    status = cluster.job_status("acme")
    assert (status["phase"], status["reason"]) == ("Queued", "PostureUnmet")
    assert "gpu1 does not pass swapOff (found /dev/sda2, expected off: run `swapoff -a`" in status["message"]
    assert cluster.ran == []

    # What was mended counts once a scrub has seen it, and not before.
    cluster.hosts.machines["gpu1"].posture = build_posture()
    await cluster.settle()
    assert cluster.job_status("acme")["reason"] == "PostureUnmet"
    cluster.reboot("gpu1")
    await cluster.settle()
    assert cluster.job_status("acme")["phase"] == "Succeeded"
    assert [node for _, node in cluster.ran] == ["gpu1"]


async def test_a_job_runs_on_the_node_that_passes() -> None:
    cluster = build_cluster(gpu1=build_posture(ecc=None), gpu2=build_posture())
    await cluster.settle()

    assert cluster.job_status("acme")["phase"] == "Succeeded"
    assert [node for _, node in cluster.ran] == ["gpu2"]


async def test_the_ledger_says_what_the_signed_receipt_says() -> None:
    cluster = build_cluster(gpu1=build_posture(swap="/dev/sda2", lockdown=None))
    await cluster.settle()

    (receipt,) = cluster.server.all(kube.RECEIPT)
    envelope = msgspec.convert(receipt["spec"]["envelope"], Envelope)
    signed = verify_receipt(envelope, trusted_keys(SIGNER)).report.posture
    assert signed == build_posture(swap="/dev/sda2", lockdown=None)
    assert cluster.node_status("gpu1")["posture"] == msgspec.to_builtins(signed)


async def test_a_later_scrub_takes_away_what_it_could_not_read() -> None:
    cluster = build_cluster(gpu1=build_posture())
    await cluster.settle()
    assert cluster.node_status("gpu1")["posture"]["ecc"] is True

    cluster.hosts.machines["gpu1"].posture = build_posture(ecc=None)
    cluster.reboot("gpu1")
    cluster.add_job("acme", "second")
    await cluster.settle()
    assert "ecc" not in cluster.node_status("gpu1")["posture"]
    assert cluster.job_status("acme", "second")["reason"] == "PostureUnmet"
