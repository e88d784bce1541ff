"""Stories of custody: a node is lost, renamed, drained, overridden, and nobody gets another tenant's memory."""

from collections.abc import Callable
from typing import Any

import pytest

from lethe.adapters import kube
from lethe.adapters.kube import Object
from lethe.model import names
from tests.simulation.cluster import Cluster
from tests.simulation.containers import Behaviour
from tests.simulation.hosts import GPUS
from tests.simulation.scheduler import schedule
from tests.simulation.test_ends import convert_rules

NODE = "gpu-1"


async def held_node(**config: Any) -> Cluster:
    """Return a cluster in which acme trains on its only GPU node, and globex waits for it."""
    cluster = Cluster(proof_timeout_seconds=20, **config)
    cluster.add_node(NODE)
    cluster.add_tenant("acme")
    cluster.add_tenant("globex")
    cluster.behaviour = Behaviour(endless=True)
    cluster.add_job("acme")
    await cluster.settle()
    cluster.clock.move(2)
    cluster.add_job("globex")
    await cluster.settle()
    assert cluster.job_status("acme")["phase"] == "Running"
    return cluster


async def finish(cluster: Cluster) -> None:
    """Let the machines work again, and every job run to its end."""
    cluster.behaviour = Behaviour()
    await cluster.settle()


def pod_of(cluster: Cluster, namespace: str = "acme") -> dict[str, Any]:
    pods = cluster.server.all(kube.POD, namespace, labels=f"{names.LABEL_ROLE}={names.ROLE_TRAIN}")
    assert len(pods) == 1
    return pods[0]


def set_spec(cluster: Cluster, node: str = NODE, **spec: Any) -> None:
    cluster.server.patch(kube.GPU_NODE, node, "", {"spec": spec})


def override(cluster: Cluster, reason: str = "nothing runs there any more") -> None:
    set_spec(cluster, override={"reason": reason, "by": "jo"})


# ---- how a node is lost


def collect(cluster: Cluster) -> None:
    """What the pod garbage collector does when the Node is gone: mark the pod failed, and delete it by force."""
    disruption = {"type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC"}
    end_unheard(cluster, disruption)


def end_unheard(cluster: Cluster, *conditions: Object) -> None:
    """End a pod without its kubelet."""
    pod = pod_of(cluster)
    conditions_before = pod["status"].get("conditions") or []
    status = {**pod["status"], "phase": "Failed", "conditions": [*conditions_before, *conditions]}
    cluster.server.update(kube.POD, {**pod, "status": status}, "status")
    cluster.server.delete(kube.POD, pod["metadata"]["name"], "acme", grace=0)


def not_ready(cluster: Cluster) -> None:
    status = {"conditions": [{"type": "Ready", "status": "Unknown"}]}
    cluster.server.patch(kube.NODE, NODE, "", {"status": status}, "status")
    cluster.server.delete(kube.POD, pod_of(cluster)["metadata"]["name"], "acme", grace=30)
    cluster.clock.move(60)


def deleted_node(cluster: Cluster) -> None:
    cluster.server.delete(kube.NODE, NODE)
    collect(cluster)


def forced_deletion(cluster: Cluster) -> None:
    """Delete the pod by force, its finalizer too, as cluster-admin can without the policies."""
    name = pod_of(cluster)["metadata"]["name"]
    cluster.server.patch(kube.POD, name, "acme", {"metadata": {"finalizers": None}})
    cluster.server.delete(kube.POD, name, "acme", grace=0)


def out_of_service(cluster: Cluster) -> None:
    status = {"conditions": [{"type": "Ready", "status": "Unknown"}]}
    cluster.server.patch(kube.NODE, NODE, "", {"status": status}, "status")
    end_unheard(cluster)


def out_of_service_unreported(cluster: Cluster) -> None:
    """The kubelet fell silent before it reported that the training container had started."""
    pod = pod_of(cluster)
    statuses = [{**entry, "state": {"waiting": {}}} for entry in pod["status"]["containerStatuses"]]
    cluster.server.update(kube.POD, {**pod, "status": {**pod["status"], "containerStatuses": statuses}}, "status")
    out_of_service(cluster)


def kubelet_restart(cluster: Cluster) -> None:
    """The kubelet does not know how the containers ended."""
    pod = pod_of(cluster)
    unknown = {"state": {"terminated": {"exitCode": 137, "reason": "ContainerStatusUnknown"}}}
    statuses = [{**entry, **unknown} for entry in pod["status"]["containerStatuses"]]
    status = {**pod["status"], "phase": "Failed", "containerStatuses": statuses}
    cluster.server.update(kube.POD, {**pod, "status": status}, "status")


LOSSES = [not_ready, deleted_node, forced_deletion, collect, out_of_service, out_of_service_unreported, kubelet_restart]


def restore(cluster: Cluster, boot: int) -> None:
    """Bring the node back: the Node that there is, or a new one of the same name."""
    if cluster.server.find(kube.NODE, NODE) is None:
        cluster.add_node(NODE, managed=False)
    host = cluster.hosts.machines[NODE]
    while host.boot < boot:
        cluster.hosts.reboot(NODE)
    cluster.server.patch(kube.NODE, NODE, "", {"status": host.status()}, "status")


@pytest.mark.parametrize("lose", LOSSES, ids=lambda lose: lose.__name__)
@pytest.mark.parametrize("way_out", ["reboot", "override"])
async def test_a_lost_node_is_never_free_without_proof_and_a_scrub(
    lose: Callable[[Cluster], None], way_out: str
) -> None:
    cluster = await held_node()
    cluster.behaviour.kubelets = False
    lose(cluster)
    await cluster.settle()

    status = cluster.node_status(NODE)
    assert (status["phase"], status["reason"], status["epoch"]) == ("Quarantined", "ProofTimedOut", 1)
    assert status["holder"]["tenant"] == "acme"
    uid = status["holder"]["podUids"][0]
    assert any(uid in line for line in status["quarantine"]["evidence"])
    assert "reboot" in status["quarantine"]["advice"]
    guarded = cluster.server.all(kube.POD, "acme")
    assert all(names.POD_FINALIZER in pod["metadata"]["finalizers"] for pod in guarded)
    assert (guarded == []) is (lose is forced_deletion)
    assert cluster.job_status("globex")["phase"] == "Queued"

    # Coming back in the same boot is no proof.
    restore(cluster, boot=1)
    await cluster.settle()
    assert cluster.node_status(NODE)["phase"] == "Quarantined"

    if way_out == "reboot":
        restore(cluster, boot=2)
    else:
        override(cluster)
    await finish(cluster)
    assert cluster.job_status("globex")["phase"] == "Succeeded"
    assert cluster.node_status(NODE)["phase"] == "Free"
    newest = [receipt["spec"].get("tenant") for receipt in cluster.server.all(kube.RECEIPT)]
    assert newest[1:] == ["acme", "globex"]
    assert all(not pod["metadata"].get("finalizers") for pod in cluster.server.all(kube.POD, "acme"))
    assert names.JOB_FINALIZER not in cluster.job("acme")["metadata"].get("finalizers", [])


# ---- overrides


async def test_an_overridden_node_is_not_free_until_its_scrub_is_verified() -> None:
    cluster = await held_node()
    cluster.behaviour.kubelets = False
    collect(cluster)
    await cluster.settle()
    override(cluster)
    await cluster.settle(limit=1000)

    # No kubelet runs the scrub: nothing is released, and nobody gets the node.
    status = cluster.node_status(NODE)
    assert (status["phase"], status["reason"]) in (("Scrubbing", "ScrubStarted"), ("Quarantined", "ScrubTimedOut"))
    assert status["override"]["by"] == "jo" and status["override"]["over"] == "ProofTimedOut"
    assert names.POD_FINALIZER in pod_of(cluster)["metadata"]["finalizers"]
    assert "Overridden" in cluster.events(NODE)


async def test_an_override_counts_again_when_it_is_set_again() -> None:
    cluster = Cluster()
    cluster.add_node(NODE)
    cluster.behaviour = Behaviour(scrub_changes={"nonce": "00" * 32})
    await cluster.settle()
    assert cluster.node_status(NODE)["phase"] == "Quarantined"
    for epoch in (2, 3):
        override(cluster)
        await cluster.settle()
        assert (cluster.node_status(NODE)["phase"], cluster.node_status(NODE)["epoch"]) == ("Quarantined", epoch)
        set_spec(cluster, override=None)
        await cluster.settle()
        assert cluster.node_status(NODE)["epoch"] == epoch


# ---- drains


async def test_a_drained_node_lets_its_job_end_is_scrubbed_and_is_given_to_nobody() -> None:
    cluster = await held_node()
    set_spec(cluster, drain=True)
    await cluster.settle()
    assert cluster.node_status(NODE)["reason"] == "Drained"
    assert cluster.job_status("acme")["phase"] == "Running"
    assert "gpu-1 is drained" in cluster.job_status("globex")["message"]

    await finish(cluster)
    status = cluster.node_status(NODE)
    assert (status["phase"], status["reason"], status["epoch"]) == ("Free", "Drained", 2)
    assert cluster.job_status("acme")["phase"] == "Succeeded"
    assert cluster.job_status("globex")["phase"] == "Queued"

    set_spec(cluster, drain=False)
    await cluster.settle()
    assert cluster.job_status("globex")["phase"] == "Succeeded"


async def test_a_drain_ends_idle_retention_at_once() -> None:
    cluster = Cluster()
    cluster.add_node(NODE)
    cluster.add_tenant("acme", idleRetention="24h")
    cluster.add_job("acme")
    while cluster.job_status("acme").get("phase") != "Succeeded":
        await cluster.operate()
        schedule(cluster.server)
        cluster.hosts.run()
        cluster.clock.move(0.5)
    assert cluster.node_status(NODE)["phase"] == "Assigned"
    began = cluster.clock.now()
    set_spec(cluster, drain=True)
    await cluster.settle()

    assert cluster.node_status(NODE)["phase"] == "Free"
    assert (cluster.clock.now() - began).total_seconds() < 600


async def test_a_drain_between_admission_and_grant_sends_the_job_back() -> None:
    cluster = Cluster()
    cluster.add_node(NODE)
    cluster.add_tenant("acme")
    await cluster.settle()
    cluster.add_job("acme")
    while cluster.job_status("acme").get("phase") != "Admitted":
        await cluster.operate()
    set_spec(cluster, drain=True)
    await cluster.settle()
    assert cluster.job_status("acme")["phase"] == "Queued"
    assert cluster.ran == []


# ---- names, ledgers, GPUs


async def test_a_machine_that_comes_back_under_another_name_is_scrubbed_first() -> None:
    cluster = await held_node()
    cluster.behaviour.kubelets = False
    deleted_node(cluster)
    for number in range(GPUS):
        cluster.memory["gpu-9", number] = cluster.memory.pop((NODE, number))
    cluster.add_node("gpu-9", managed=False, system=NODE)
    for _ in range(20):
        await cluster.operate()
        assert not cluster.server.may_occupy("default", "anybody", "gpu-9")
        cluster.clock.move(1)

    await finish(cluster)
    status = cluster.node_status("gpu-9")
    assert (status["phase"], status["formerName"]) == ("Free", NODE)
    assert cluster.job_status("globex")["phase"] == "Succeeded"
    tenants = {
        receipt["spec"].get("tenant") for receipt in cluster.server.all(kube.RECEIPT, labels="lethe.dev/node=gpu-9")
    }
    assert tenants == {"acme", "globex"}
    old = cluster.node_status(NODE)
    assert (old["phase"], old["reason"]) == ("Dirty", "NodeRenamed")
    assert all(not pod["metadata"].get("finalizers") for pod in cluster.server.all(kube.POD, "acme"))

    set_spec(cluster, managed=False)
    await cluster.settle()
    assert cluster.node_status(NODE)["phase"] == "Unmanaged"
    assert cluster.node_status("gpu-9")["phase"] == "Free"


async def test_a_deleted_ledger_comes_back_dirty_and_its_receipts_go_on() -> None:
    cluster = await held_node()
    cluster.server.delete(kube.GPU_NODE, NODE)
    for _ in range(20):
        await cluster.operate()
        assert not cluster.server.may_occupy("default", "anybody", NODE)
        taints = cluster.server.get(kube.NODE, NODE)["spec"]["taints"]
        assert names.TAINT in [taint["key"] for taint in taints]
    assert cluster.node_status(NODE)["phase"] == "Dirty"

    await finish(cluster)
    assert cluster.job_status("globex")["phase"] == "Succeeded"
    assert [receipt["spec"]["epoch"] for receipt in cluster.server.all(kube.RECEIPT)] == [1, 2, 3]
    assert cluster.node_status(NODE)["phase"] == "Free"
    assert "conditions" not in cluster.node_status(NODE)


async def test_a_node_whose_gpus_are_away_is_given_to_nobody_meanwhile() -> None:
    cluster = Cluster()
    cluster.add_node(NODE)
    cluster.add_tenant("acme")
    await cluster.settle()
    cluster.server.patch(kube.NODE, NODE, "", {"status": {"capacity": {names.GPU_RESOURCE: "0"}}}, "status")
    cluster.add_job("acme")
    await cluster.settle()
    assert cluster.node_status(NODE)["reason"] == "GPUsChanged"
    assert "offers other GPUs than were scrubbed" in cluster.job_status("acme")["message"]

    cluster.server.patch(kube.NODE, NODE, "", {"status": {"capacity": {names.GPU_RESOURCE: "2"}}}, "status")
    await cluster.settle()
    assert cluster.job_status("acme")["phase"] == "Succeeded"


async def test_a_scrub_whose_node_is_gone_quarantines_with_evidence() -> None:
    cluster = Cluster()
    cluster.add_node(NODE)
    cluster.behaviour.kubelets = False
    while cluster.node_status(NODE).get("phase") != "Scrubbing":
        await cluster.operate()
        cluster.clock.move(1)
    await cluster.operate()
    cluster.server.delete(kube.NODE, NODE)
    cluster.clock.move(3600)
    await cluster.settle()

    status = cluster.node_status(NODE)
    assert (status["phase"], status["reason"]) == ("Quarantined", "ScrubTimedOut")
    assert f"there is no Node {NODE}" in status["quarantine"]["evidence"]
    assert any("lethe-scrub-gpu-1-1" in line for line in status["quarantine"]["evidence"])


# ---- the fence's copy, and idle nodes


async def test_the_role_of_a_grant_opens_nothing_and_goes_with_the_node() -> None:
    cluster = Cluster()
    cluster.add_node(NODE)
    cluster.add_tenant("acme")
    cluster.add_job("acme")
    await cluster.settle()
    role = cluster.server.get(kube.ROLE, "lethe-gpu-1", "acme")
    assert cluster.server.find(kube.ROLEBINDING, "lethe-gpu-1", "acme") is None
    assert cluster.ran and not cluster.server.may_occupy("acme", pod_of(cluster)["metadata"]["uid"], NODE)

    # A Role that says something else is made right before it is bound.
    cluster.server.update(kube.ROLE, {**role, "rules": [{**role["rules"][0], "resourceNames": ["gpu-7"]}]})
    cluster.add_job("acme", "second")
    await cluster.settle()
    assert cluster.job_status("acme", "second")["phase"] == "Succeeded"
    assert cluster.server.get(kube.ROLE, "lethe-gpu-1", "acme")["rules"] == role["rules"]

    set_spec(cluster, managed=False)
    await cluster.settle()
    assert cluster.server.find(kube.ROLE, "lethe-gpu-1", "acme") is None


async def test_a_demanded_fresh_scrub_does_not_wait_for_idle_retention() -> None:
    cluster = Cluster(criticalities=convert_rules({"sensitive": {"freshScrub": True}}))
    cluster.add_node(NODE)
    cluster.add_tenant("acme", idleRetention="24h")
    cluster.add_job("acme", "first")
    cluster.clock.move(2)
    cluster.add_job("acme", "second")
    began = cluster.clock.now()
    await cluster.settle()

    assert cluster.job_status("acme", "second")["phase"] == "Succeeded"
    finished = cluster.job_status("acme", "second")["finishedAt"]
    assert finished < f"{began.replace(hour=began.hour + 1):%Y-%m-%dT%H:%M:%SZ}"
    receipts = cluster.server.all(kube.RECEIPT)
    assert len(receipts) >= 2 and receipts[1]["spec"]["tenant"] == "acme"


async def test_other_tenants_get_no_node_that_is_kept_idle() -> None:
    cluster = Cluster()
    cluster.add_node(NODE)
    cluster.add_tenant("acme", idleRetention="10m")
    cluster.add_tenant("globex")
    cluster.add_job("acme")
    cluster.clock.move(2)
    cluster.add_job("globex")
    await cluster.settle()
    assert cluster.job_status("globex")["phase"] == "Queued"
    cluster.clock.move(600)
    await cluster.settle()

    receipts = cluster.server.all(kube.RECEIPT)
    assert [receipt["spec"].get("tenant", "") for receipt in receipts] == ["", "acme", "globex"]
    assert cluster.job_status("globex")["startedAt"] > cluster.job_status("acme")["finishedAt"]
