"""The main promise: one tenant trains, the node is scrubbed with evidence, the next tenant finds nothing."""

import json
from pathlib import Path

import pytest

from tests.common.objects import condition, find, find_all, message, phase
from tests.common.tenants import INSPECT, TrialTenant, train
from tests.common.world import World
from tests.e2e.jobs import end, reach, start, training_log


def test_every_node_was_scrubbed_before_anybody_got_it(world: World) -> None:
    for node in find_all(world.provider.kubectl(), "gpunodes"):
        assert node["status"]["epoch"] >= 1
        assert node["status"]["lastReceipt"]["bootId"] == node["status"]["bootId"]


def test_storage_holds_no_plaintext(acme: TrialTenant, canary: str) -> None:
    held = acme.stored_objects()
    assert held
    for key, data in held.items():
        assert canary not in key and canary.encode() not in data
        assert ".png" not in key and b"\x89PNG" not in data


def test_two_tenants_one_after_the_other(world: World, acme: TrialTenant, globex: TrialTenant, tmp_path: Path) -> None:
    installation = world.installation
    names = [f"first-{number}" for number in range(len(installation.gpu_nodes()))]
    for name in names:
        start(acme, acme.job(name))
    for name in names:
        reach(acme, name, "Admitted", "Running")
    start(globex, globex.job("second", INSPECT, train()))
    waiting = reach(globex, "second", "Queued", "Admitted", "Running")
    if phase(waiting) == "Queued":
        assert "acme" not in message(waiting), "a tenant is not told who the others are"
        assert condition(waiting, "Admitted").get("status") != "True"

    for name in names:
        job = end(acme, name)
        assert phase(job) == "Succeeded", message(job)
        assert "accuracy on" in training_log(acme, name)
    acme.unseal_outputs(names[0], tmp_path / "model")
    metrics = json.loads((tmp_path / "model" / "metrics.json").read_text())
    assert metrics["accuracy"] >= 0.9
    assert (tmp_path / "model" / "model.npz").stat().st_size > 0

    job = end(globex, "second")
    assert phase(job) == "Succeeded", message(job)
    assert " 0 of them not zero" in training_log(globex, "second")
    receipt = find(world.provider.kubectl(), "scrubreceipt", _receipt_before(world, job))
    assert receipt is not None
    assert receipt["spec"]["tenant"] == "acme"
    assert receipt["spec"]["residueBytes"] > 0

    for node in installation.gpu_nodes():
        installation.wait_for_node(node.name, "Free")
    assert "acme" in installation.cli("receipt", "timeline")
    installation.cli("receipt", "verify", "--all")


def test_a_forged_receipt_is_found_out(world: World, tmp_path: Path) -> None:
    receipt = find_all(world.provider.kubectl(), "scrubreceipts")[0]
    envelope = receipt["spec"]["envelope"]
    envelope["payload"] = envelope["payload"][:-8] + "AAAAAAA="
    forged = tmp_path / "forged.json"
    forged.write_text(json.dumps(receipt))
    with pytest.raises(Exception, match=r"(?i)signature|payload|base64|verify"):
        world.installation.cli("receipt", "verify", forged)


def _receipt_before(world: World, job: dict) -> str:
    """Return the receipt under which a job's pod got its node."""
    pod = job["status"]["pods"][0]
    return f"{pod['node']}-{pod['epoch']}"
