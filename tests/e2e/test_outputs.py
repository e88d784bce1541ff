"""Outputs are sealed while the job runs: what was complete outlives a lost machine, and the next job goes on there."""

from pathlib import Path

import pytest
import yaml

from tests.cluster.errors import NotSupported
from tests.cluster.waiting import until
from tests.common.objects import condition, message, phase
from tests.common.tenants import TrialTenant
from tests.common.world import World
from tests.e2e.jobs import end, held_job, reach, start

STEP_1 = "echo one > /outputs/step-1"
UNFINISHED = "echo half > /outputs/.step-2.partial; exec 3> /outputs/open; echo growing >&3"


def test_a_job_goes_on_from_the_last_checkpoint_of_one_whose_node_was_lost(
    world: World, acme: TrialTenant, tmp_path: Path
) -> None:
    lost = held_job(acme, "lost-halfway")
    lost["spec"]["outputs"]["snapshotInterval"] = "1s"
    container = lost["spec"]["template"]["spec"]["containers"][0]
    container["command"][-1] = "\n".join((STEP_1, UNFINISHED, container["command"][-1]))
    node = reach(acme, start(acme, lost), "Running")["status"]["node"]
    what = "the outputs' first snapshot to be readable while the job runs"
    until(lambda: has_snapshot(acme, "lost-halfway"), what=what, seconds=60)
    assert outputs(acme, "lost-halfway") == ["step-1"]
    try:
        world.provider.reboot(node)
    except NotSupported as reason:
        pytest.skip(str(reason))
    ended = end(acme, "lost-halfway")
    assert (phase(ended), ended["status"]["reason"]) == ("Failed", "PodLost"), message(ended)
    sealed = condition(ended, "OutputsSealed")
    assert sealed["status"] == "False" and "lethe dataset ls --job acme/lost-halfway" in sealed["message"]

    manifest = tmp_path / "previous.yaml"
    acme.cli("dataset", "manifest", *whose(acme, "lost-halfway"), "--name", "previous", "--output", manifest)
    acme.kubectl.apply([yaml.safe_load(manifest.read_text())])
    following = acme.job("goes-on", ("cp", "/previous/step-1", "/outputs/"), ("echo two > /outputs/step-2",), gpus=1)
    following["spec"]["datasets"] = [{"name": "previous", "mode": "unpack", "path": "/previous", "unpackSize": "1Mi"}]
    ended = end(acme, start(acme, following))
    assert phase(ended) == "Succeeded", message(ended)
    acme.unseal_outputs("goes-on", tmp_path / "back")
    found = {path.name: path.read_text() for path in (tmp_path / "back").iterdir()}
    assert found == {"step-1": "one\n", "step-2": "two\n"}
    world.installation.wait_for_node(node, "Free")


def whose(tenant: TrialTenant, job: str) -> tuple[str | Path, ...]:
    """Return the options for a job's outputs, as their owner has them."""
    return ("--job", f"{tenant.name}/{job}", "--identity", tenant.recovery_key, "--ca-file", tenant.store.ca)


def outputs(tenant: TrialTenant, job: str) -> list[str]:
    """Return the names of a job's outputs, as their owner sees them."""
    lines = tenant.cli("dataset", "ls", *whose(tenant, job)).splitlines()
    return [words[-1] for line in lines if len(words := line.split()) == 3 and words[0].startswith("0")]


def has_snapshot(tenant: TrialTenant, job: str) -> bool:
    """Say whether a job that runs has sealed anything."""
    return any("/head" in key for key in tenant.stored_objects(f"models/{job}/"))
