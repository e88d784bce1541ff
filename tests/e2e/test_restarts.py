"""The operator may be killed at any moment: the job ends right all the same."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.cluster.kubectl import Kubectl
from tests.common.installation import SYSTEM
from tests.common.objects import find, find_all, message, phase, wait_until
from tests.common.tenants import TrialTenant
from tests.common.world import World
from tests.e2e.jobs import end, reach, start

OPERATOR = "app.kubernetes.io/component=operator"


def kill_operator(kubectl: Kubectl) -> None:
    """Kill the operator's pod without grace; its Deployment makes another."""
    kubectl("delete", "pod", "--namespace", SYSTEM, "--selector", OPERATOR, "--grace-period=0", "--force")


@contextmanager
def killing_at_every_change(kubectl: Kubectl, node: str) -> Iterator[list[str]]:
    """Kill the operator once in each phase that a node goes through, and collect the phases."""
    phases: list[str] = []
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.1):
            found = find(kubectl, "gpunode", node)
            if found and phase(found) not in phases:
                phases.append(phase(found))
                kill_operator(kubectl)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield phases
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize("wanted", ["Queued", "Admitted", "Running"])
def test_killed_while_the_job_is(wanted: str, world: World, acme: TrialTenant) -> None:
    name = start(acme, acme.job(f"killed-{wanted.lower()}", gpus=1))
    reach(acme, name, wanted)
    kill_operator(world.provider.kubectl())
    job = end(acme, name)
    assert phase(job) == "Succeeded", message(job)


def test_killed_in_every_phase_of_the_node(world: World, acme: TrialTenant) -> None:
    name = start(acme, acme.job("killed-often"))
    job = reach(acme, name, "Admitted", "Running")
    node = job["status"]["node"]
    with killing_at_every_change(world.provider.kubectl(), node) as phases:
        job = end(acme, name)
        assert phase(job) == "Succeeded", message(job)
        world.installation.wait_for_node(node, "Free")
    assert {"Assigned", "Scrubbing", "Free"} <= set(phases), phases
    world.installation.cli("receipt", "verify", "--node", node)


def test_the_key_service_comes_back(world: World, acme: TrialTenant) -> None:
    kubectl = world.provider.kubectl()
    kubectl("scale", "deployment/lethe-keyservice", "--namespace", SYSTEM, "--replicas=0")
    try:
        name = start(acme, acme.job("no-key-service"))
        waiting = wait_until(
            kubectl,
            "stj",
            name,
            lambda job: "key service" in message(job),
            acme.name,
            what="the job to say that the key service is away",
            seconds=120,
        )
        assert phase(waiting) == "Admitted"
    finally:
        kubectl("scale", "deployment/lethe-keyservice", "--namespace", SYSTEM, "--replicas=1")
    job = end(acme, name)
    assert phase(job) == "Succeeded", message(job)


def test_nothing_is_written_at_rest(world: World) -> None:
    kubectl = world.provider.kubectl()
    for node in world.installation.gpu_nodes():
        world.installation.wait_for_node(node.name, "Free")
    before = {
        found["metadata"]["name"]: found["metadata"]["resourceVersion"] for found in find_all(kubectl, "gpunodes")
    }
    kill_operator(kubectl)
    kubectl.rolled_out(SYSTEM, "deployment/lethe-operator", seconds=120)
    after = {found["metadata"]["name"]: found["metadata"]["resourceVersion"] for found in find_all(kubectl, "gpunodes")}
    assert after == before
