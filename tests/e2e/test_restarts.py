"""The operator may be killed at any moment: the job ends right all the same."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.cluster.current import Current
from tests.cluster.kubectl import Kubectl
from tests.common.installation import SYSTEM
from tests.common.objects import Object, find, find_all, message, phase, wait_until
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


def test_another_replica_takes_over(world: World, acme: TrialTenant) -> None:
    kubectl = world.provider.kubectl()
    name = start(acme, acme.job("taken-over", gpus=1))
    reach(acme, name, "Admitted")
    before = lease(kubectl)
    kubectl(
        "delete", "pod", leader(kubectl)["metadata"]["name"], f"--namespace={SYSTEM}", "--grace-period=0", "--force"
    )
    job = end(acme, name)
    assert phase(job) == "Succeeded", message(job)
    assert job["status"]["attempt"] == 1
    after = lease(kubectl)
    assert after["holderIdentity"] != before["holderIdentity"]
    assert after["leaseTransitions"] > before["leaseTransitions"]


def test_an_old_leader_that_wakes_up_writes_nothing(world: World, acme: TrialTenant) -> None:
    kubectl = world.provider.kubectl()
    if isinstance(world.provider, Current):
        pytest.skip("the processes of this cluster's nodes are not this machine's")
    old = leader(kubectl)
    name = start(acme, acme.job("two-leaders", gpus=1))
    reach(acme, name, "Admitted")
    with stopped(operator_process(old)):
        wait_until(
            kubectl,
            "lease",
            "lethe-operator",
            lambda found: not found["spec"]["holderIdentity"].startswith(old["metadata"]["name"]),
            SYSTEM,
            what="another replica to take the Lease",
            seconds=60,
        )
    ended = wait_until(
        kubectl,
        "pod",
        old["metadata"]["name"],
        lambda pod: bool(pod["status"]["containerStatuses"][0]["restartCount"]),
        SYSTEM,
        what="the old leader to end when it wakes up",
        seconds=60,
    )
    last = ended["status"]["containerStatuses"][0]["lastState"]["terminated"]
    assert last["exitCode"] == 1
    log = kubectl("logs", old["metadata"]["name"], f"--namespace={SYSTEM}", "--previous")
    assert "does not hold the Lease" in log
    job = end(acme, name)
    assert phase(job) == "Succeeded", message(job)
    assert job["status"]["attempt"] == 1


def lease(kubectl: Kubectl) -> Object:
    """Return the Lease's contents."""
    found = find(kubectl, "lease", "lethe-operator", SYSTEM)
    assert found is not None
    spec: Object = found["spec"]
    return spec


def leader(kubectl: Kubectl) -> Object:
    """Wait until one of two replicas holds the Lease and both are ready, and return its pod."""
    kubectl.rolled_out(SYSTEM, "deployment/lethe-operator", seconds=120)
    pods = {pod["metadata"]["name"]: pod for pod in find_all(kubectl, "pods", SYSTEM)}
    found = wait_until(
        kubectl,
        "lease",
        "lethe-operator",
        lambda lease: any(lease["spec"]["holderIdentity"].startswith(f"{name}-") for name in pods),
        SYSTEM,
        what="a replica to hold the Lease",
        seconds=60,
    )
    return next(pod for name, pod in pods.items() if found["spec"]["holderIdentity"].startswith(f"{name}-"))


def operator_process(pod: Object) -> int:
    """Return the process of an operator's pod: the nodes' processes are this machine's too."""
    uid = pod["metadata"]["uid"]
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(FileNotFoundError, ProcessLookupError):
            words, group = (folder / "cmdline").read_bytes(), (folder / "cgroup").read_text().replace("_", "-")
            if b"lethe.operator_main" in words and uid in group:
                return int(folder.name)
    raise AssertionError(f"no process belongs to pod {pod['metadata']['name']}")


@contextmanager
def stopped(process: int) -> Iterator[None]:
    """Let a process stand still, as a machine that is paused does."""
    os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process, signal.SIGCONT)


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
