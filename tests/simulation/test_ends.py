"""How a job can end, and what its node does then."""

from typing import Any

import msgspec
import pytest

from lethe.adapters import kube
from lethe.model import names
from lethe.model.config import Criticalities
from tests.simulation.cluster import Cluster
from tests.simulation.containers import Behaviour


async def start(behaviour: Behaviour, *, config: dict[str, Any] | None = None, **job: Any) -> Cluster:
    """Bring one node and one tenant up, and let its job run as far as it goes."""
    cluster = Cluster(**(config or {}))
    cluster.add_node("gpu-1")
    cluster.add_tenant("acme")
    cluster.behaviour = behaviour
    cluster.add_job("acme", **job)
    await cluster.settle()
    return cluster


def training_pod(cluster: Cluster) -> dict[str, Any]:
    pods = cluster.server.all(kube.POD, labels=f"{names.LABEL_ROLE}={names.ROLE_TRAIN}")
    assert len(pods) == 1
    return pods[0]


@pytest.mark.parametrize(
    ("behaviour", "reason", "words"),
    [
        (Behaviour(train=3), "ContainerFailed", "container train ended with 3"),
        (Behaviour(keyfetch=4, keyfetch_message="no valid receipt"), "KeysRefused", "no valid receipt"),
        (Behaviour(outputs=2, outputs_message="storage is full"), "OutputsLost", "storage is full"),
        (Behaviour(outputs_message="{}"), "OutputsLost", "does not name the outputs' index"),
    ],
    ids=["container", "keys", "outputs", "no index"],
)
async def test_a_failure_is_named_and_the_node_is_scrubbed(behaviour: Behaviour, reason: str, words: str) -> None:
    cluster = await start(behaviour)

    status = cluster.job_status("acme")
    assert (status["phase"], status["reason"]) == ("Failed", reason)
    assert words in status["message"]
    assert cluster.node_status("gpu-1")["phase"] == "Free"
    assert cluster.node_status("gpu-1")["epoch"] == 2
    assert names.JOB_FINALIZER not in cluster.job("acme")["metadata"].get("finalizers", [])


async def test_what_is_over_is_not_read_again() -> None:
    cluster = await start(Behaviour())
    assert training_pod(cluster)["metadata"]["labels"][names.LABEL_RELEASED] == "true"
    assert cluster.job("acme")["metadata"]["labels"] == {names.LABEL_RELEASED: "true"}

    cluster.add_job("acme", "second", template={"spec": {"containers": []}})
    snapshot = await cluster.observe()

    assert [name for _, name in snapshot.jobs] == ["second"]
    assert {pod.role for pod in snapshot.pods.values()} == {names.ROLE_SCRUB}


async def test_a_reboot_loses_the_pod_and_dirties_the_node() -> None:
    cluster = await start(Behaviour(endless=True))
    assert cluster.job_status("acme")["phase"] == "Running"

    cluster.behaviour.kubelets = False
    cluster.reboot("gpu-1")
    await cluster.settle()

    assert cluster.job_status("acme")["reason"] == "PodLost"
    status = cluster.node_status("gpu-1")
    assert (status["phase"], status["reason"], status["bootId"]) == ("Dirty", "NodeNotEmpty", "boot-gpu-1-2")
    assert status["previousHolder"]["jobs"] == ["digits"]

    cluster.behaviour.kubelets = True
    await cluster.settle()
    assert cluster.node_status("gpu-1")["phase"] == "Free"
    assert cluster.server.all(kube.POD, "acme") == []


async def test_a_pod_without_proof_quarantines_the_node_until_a_reboot() -> None:
    cluster = await start(Behaviour(endless=True), config={"proof_timeout_seconds": 20})
    pod = training_pod(cluster)
    cluster.behaviour.kubelets = False
    cluster.server.patch(kube.POD, pod["metadata"]["name"], "acme", {"metadata": {"finalizers": None}})
    cluster.server.delete(kube.POD, pod["metadata"]["name"], "acme")
    cluster.server.delete(kube.POD, pod["metadata"]["name"], "acme", grace=0)
    await cluster.settle()

    assert cluster.job_status("acme")["reason"] == "PodLost"
    status = cluster.node_status("gpu-1")
    assert (status["phase"], status["reason"]) == ("Quarantined", "ProofTimedOut")
    assert "reboot" in status["message"]

    cluster.behaviour.kubelets = True
    cluster.reboot("gpu-1")
    await cluster.settle()
    assert cluster.node_status("gpu-1")["phase"] == "Free"


async def test_what_the_garbage_collector_says_is_no_proof() -> None:
    cluster = await start(Behaviour(endless=True), config={"proof_timeout_seconds": 20})
    pod = training_pod(cluster)
    cluster.behaviour.kubelets = False
    disruption = {"type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC"}
    status = {**pod["status"], "phase": "Failed", "conditions": [disruption]}
    cluster.server.update(kube.POD, {**pod, "status": status}, "status")
    await cluster.settle()

    assert cluster.job_status("acme")["reason"] == "PodLost"
    assert cluster.node_status("gpu-1")["phase"] == "Quarantined"
    assert names.POD_FINALIZER in training_pod(cluster)["metadata"]["finalizers"]


async def test_a_tenant_deletes_the_running_pod() -> None:
    cluster = await start(Behaviour(endless=True))
    cluster.server.delete(kube.POD, training_pod(cluster)["metadata"]["name"], "acme")
    await cluster.settle()

    assert cluster.job_status("acme")["reason"] == "PodLost"
    assert cluster.node_status("gpu-1")["phase"] == "Free"
    assert cluster.server.all(kube.POD, "acme") == []


async def test_a_tenant_deletes_a_granted_pod_before_it_is_bound() -> None:
    cluster = Cluster()
    cluster.add_node("gpu-1")
    cluster.add_tenant("acme")
    await cluster.settle()
    cluster.add_job("acme")
    while not cluster.job_status("acme").get("pods"):
        await cluster.operate()
    cluster.server.delete(kube.POD, training_pod(cluster)["metadata"]["name"], "acme")
    await cluster.settle()

    status = cluster.job_status("acme")
    assert (status["phase"], status["reason"]) == ("Failed", "PodLost")
    assert "before it was bound" in status["message"]
    assert cluster.server.all(kube.POD, "acme") == []
    assert cluster.node_status("gpu-1")["phase"] == "Free"


async def test_a_deleted_job_goes_once_its_pod_has_ended() -> None:
    cluster = await start(Behaviour(endless=True))
    cluster.behaviour.kubelets = False
    cluster.server.delete(kube.JOB_CR, "digits", "acme")
    await cluster.settle()
    assert "is being deleted" in cluster.job_status("acme")["message"]
    assert cluster.node_status("gpu-1")["phase"] in ("Assigned", "Quarantined")

    cluster.behaviour.kubelets = True
    await cluster.settle()
    assert cluster.server.all(kube.JOB_CR) == []
    assert cluster.server.all(kube.POD, "acme") == []
    assert cluster.node_status("gpu-1")["phase"] == "Free"


async def test_a_pod_that_has_not_trained_is_not_given_the_time_of_an_upload() -> None:
    cluster = Cluster()
    cluster.add_node("gpu-1")
    cluster.add_tenant("acme")
    await cluster.settle()
    cluster.behaviour.kubelets = False
    cluster.add_job("acme")
    await cluster.settle()

    assert training_pod(cluster)["spec"]["terminationGracePeriodSeconds"] == 3600
    cluster.server.delete(kube.JOB_CR, "digits", "acme")
    await cluster.operate()

    assert training_pod(cluster)["metadata"]["deletionGracePeriodSeconds"] == 10


async def test_suspend_and_resume() -> None:
    cluster = await start(Behaviour(endless=True))
    cluster.server.patch(kube.JOB_CR, "digits", "acme", {"spec": {"suspend": True}})
    await cluster.settle()
    assert cluster.job_status("acme")["phase"] == "Suspended"
    assert cluster.node_status("gpu-1")["phase"] == "Free"

    cluster.behaviour.endless = False
    cluster.server.patch(kube.JOB_CR, "digits", "acme", {"spec": {"suspend": False}})
    await cluster.settle()
    status = cluster.job_status("acme")
    assert (status["phase"], status["attempt"]) == ("Succeeded", 2)


async def test_the_deadline_ends_a_job() -> None:
    cluster = await start(Behaviour(endless=True), activeDeadlineSeconds=30)

    assert cluster.job_status("acme")["reason"] == "DeadlineExceeded"
    assert cluster.node_status("gpu-1")["phase"] == "Free"


@pytest.mark.parametrize(
    ("isolation", "fresh", "epochs"),
    [("tenant", False, 2), ("job", False, 3), ("tenant", True, 3)],
    ids=["the tenant keeps the node", "each job is alone", "the dataset demands a fresh scrub"],
)
async def test_a_second_job_of_the_same_tenant(isolation: str, fresh: bool, epochs: int) -> None:
    rule = {"sensitive": {"freshScrub": True}} if fresh else {}
    cluster = Cluster(criticalities=convert_rules(rule))
    cluster.add_node("gpu-1")
    cluster.add_tenant("acme", isolation=isolation)
    cluster.add_job("acme", "first")
    cluster.clock.move(2)
    cluster.add_job("acme", "second")
    await cluster.settle()

    assert [cluster.job_status("acme", name)["phase"] for name in ("first", "second")] == ["Succeeded"] * 2
    assert cluster.node_status("gpu-1")["epoch"] == epochs
    last = cluster.node_status("gpu-1")["previousHolder"]["jobs"]
    assert last == (["first", "second"] if epochs == 2 else ["second"])


async def test_an_idle_node_is_kept_for_as_long_as_the_tenant_may() -> None:
    cluster = Cluster()
    cluster.add_node("gpu-1")
    cluster.add_tenant("acme", idleRetention="10m")
    cluster.add_job("acme", "first")
    began = cluster.clock.now()
    await cluster.settle()

    assert cluster.node_status("gpu-1")["phase"] in ("Assigned", "Free")
    while cluster.node_status("gpu-1")["phase"] == "Assigned":
        cluster.clock.move(30)
        await cluster.settle()
    assert (cluster.clock.now() - began).total_seconds() >= 600
    assert cluster.node_status("gpu-1")["epoch"] == 2


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"nonce": "00" * 32}, "NonceMismatch"),
        ({"verdict": "Failed", "reason": "GPULost", "message": "a GPU fell off the bus"}, "GPULost"),
        ({"boot_id": "another"}, "BootMismatch"),
        ({"gpus": []}, "GPUSetMismatch"),
    ],
    ids=["nonce", "verdict", "boot", "gpus"],
)
async def test_a_scrub_that_does_not_clear_quarantines(changes: dict[str, Any], reason: str) -> None:
    cluster = await start(Behaviour(scrub_changes=changes))

    status = cluster.node_status("gpu-1")
    assert (status["phase"], status["reason"]) == ("Quarantined", reason)
    assert cluster.server.all(kube.RECEIPT) == []
    job = cluster.job_status("acme")
    assert job["phase"] == "Queued"
    assert job["message"] == "waits for a GPU node: gpu-1 is quarantined; position 1"
    assert cluster.ran == []


async def test_a_quarantined_node_is_released_and_enrolled_again() -> None:
    cluster = await start(Behaviour(scrub_changes={"nonce": "00" * 32}))
    cluster.behaviour.scrub_changes = {}
    cluster.server.patch(kube.GPU_NODE, "gpu-1", "", {"spec": {"managed": False}})
    await cluster.settle()
    assert cluster.node_status("gpu-1")["phase"] == "Unmanaged"

    cluster.server.patch(kube.GPU_NODE, "gpu-1", "", {"spec": {"managed": True}})
    await cluster.settle()
    assert cluster.job_status("acme")["phase"] == "Succeeded"


async def test_a_receipt_after_an_enrolment_names_nobody_who_was_scrubbed_before() -> None:
    cluster = await start(Behaviour())
    assert cluster.node_status("gpu-1")["previousHolder"]["tenant"] == "acme"
    for managed in (False, True):
        cluster.server.patch(kube.GPU_NODE, "gpu-1", "", {"spec": {"managed": managed}})
        await cluster.settle()

    status = cluster.node_status("gpu-1")
    assert (status["phase"], status["epoch"]) == ("Free", 3)
    assert "previousHolder" not in status
    newest = max(cluster.server.all(kube.RECEIPT), key=lambda receipt: receipt["spec"]["epoch"])
    assert not newest["spec"].get("tenant")


async def test_a_foreign_pod_keeps_the_node_dirty() -> None:
    cluster = Cluster()
    cluster.add_node("gpu-1")
    foreign: dict[str, Any] = {
        "metadata": {"name": "old", "namespace": "default", "labels": {}},
        "spec": {"nodeName": "gpu-1"},
    }
    foreign["spec"]["containers"] = []
    cluster.server.create(kube.POD, foreign)
    cluster.behaviour.kubelets = False
    await cluster.settle()

    status = cluster.node_status("gpu-1")
    assert (status["phase"], status["reason"]) == ("Dirty", "NodeNotEmpty")
    assert "default/old" in status["message"]


async def test_a_node_whose_fence_does_not_refuse_is_not_scrubbed() -> None:
    cluster = Cluster()
    cluster.add_node("gpu-1")
    cluster.server.may_occupy = lambda namespace, uid, node: True  # type: ignore[method-assign]
    for _ in range(60):
        await cluster.operate()
        cluster.clock.move(5)

    status = cluster.node_status("gpu-1")
    assert (status["phase"], status["reason"]) == ("Dirty", "Settling")
    assert "trial bind" in status["message"]


def convert_rules(rules: dict[str, dict[str, bool]]) -> Any:
    return msgspec.convert(rules, Criticalities)
