"""Who gets a node, who waits, and what they are told."""

from typing import Any

import pytest

from lethe.adapters import kube
from tests.simulation.cluster import Cluster, job_spec


async def test_priority_goes_before_age() -> None:
    cluster = Cluster()
    cluster.add_node("gpu-1")
    cluster.add_tenant("acme")
    for name, priority in (("old", 0), ("urgent", 10)):
        cluster.add_job("acme", name, priority=priority)
        cluster.clock.move(5)
    await cluster.settle()

    assert [pod.split("/lethe-")[1].split("-")[0] for pod, _ in cluster.ran] == ["urgent", "old"]


async def test_a_waiting_job_is_told_why_without_names_of_others() -> None:
    cluster = Cluster()
    cluster.add_node("gpu-1")
    cluster.add_node("gpu-2", gpus=1)
    cluster.add_tenant("acme")
    cluster.add_tenant("globex")
    cluster.behaviour.endless = True
    cluster.add_job("acme")
    cluster.clock.move(5)
    cluster.add_job("globex")
    await cluster.settle()

    message = cluster.job_status("globex")["message"]
    assert message == "waits for a GPU node: gpu-1 is held by another tenant; position 1"


async def test_a_step_of_a_long_queue_rewrites_only_its_head() -> None:
    cluster = Cluster()
    cluster.add_node("gpu-1")
    cluster.add_tenant("acme")
    cluster.behaviour.endless = True
    for number in range(26):
        cluster.add_job("acme", f"job-{number}")
        cluster.clock.move(1)
    await cluster.settle()
    tail = [cluster.job("acme", f"job-{number}") for number in range(22, 26)]
    assert {job["status"]["message"] for job in tail} == {"waits behind 20 jobs or more"}

    cluster.server.delete(kube.JOB_CR, "job-0", "acme")
    await cluster.settle()

    assert cluster.job_status("acme", "job-1")["phase"] == "Running"
    assert [cluster.job("acme", f"job-{number}") for number in range(22, 26)] == tail


async def test_the_smallest_sufficient_node_is_taken() -> None:
    cluster = Cluster()
    cluster.add_node("gpu-1", gpus=8)
    cluster.add_node("gpu-2", gpus=2)
    cluster.add_tenant("acme")
    await cluster.settle()
    cluster.add_job("acme")
    await cluster.settle()

    assert cluster.ran[0][1] == "gpu-2"


async def test_a_quota_makes_wait() -> None:
    cluster = Cluster()
    cluster.add_node("gpu-1")
    cluster.add_node("gpu-2")
    cluster.add_tenant("acme", gpus={"quota": 2})
    cluster.behaviour.endless = True
    cluster.add_job("acme", "first")
    cluster.clock.move(5)
    cluster.add_job("acme", "second")
    await cluster.settle()

    assert cluster.job_status("acme", "first")["phase"] == "Running"
    assert cluster.job_status("acme", "second")["reason"] == "QuotaExceeded"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"datasets": [{"name": "other"}]}, "DatasetNotFound"),
        ({"gpusPerReplica": 9}, "TooManyGPUs"),
        ({"outputs": {**job_spec()["outputs"], "recipients": [{"tenantKey": "default"}]}}, "RecipientInvalid"),
        ({"outputs": {**job_spec()["outputs"], "recipients": [{"publicKey": "x"}]}}, "RecipientInvalid"),
        (
            {
                "outputs": {
                    **job_spec()["outputs"],
                    "recipients": [*job_spec()["outputs"]["recipients"], {"tenantKey": "default"}],
                }
            },
            "TenantKeyNotFound",
        ),
        ({"outputs": {**job_spec()["outputs"], "size": "much"}}, "SpecInvalid"),
        (
            {"outputs": {**job_spec()["outputs"], "storage": {"url": "s3://x", "secretRef": {"name": "gone"}}}},
            "SecretNotFound",
        ),
        (
            {"template": {"spec": {"hostPID": True, "containers": [{"name": "t", "image": "i"}]}}},
            "TemplateFieldRefused",
        ),
    ],
)
async def test_a_refused_job_waits_with_its_reason(change: dict[str, Any], reason: str) -> None:
    cluster = Cluster()
    cluster.add_node("gpu-1")
    cluster.add_tenant("acme")
    cluster.add_job("acme", **change)
    await cluster.settle()

    status = cluster.job_status("acme")
    assert (status["phase"], status["reason"]) == ("Queued", reason)
    accepted = next(entry for entry in status["conditions"] if entry["type"] == "Accepted")
    assert (accepted["status"], accepted["reason"]) == ("False", reason)
    assert cluster.server.all(kube.POD, "acme") == []


async def test_a_job_without_tenant_waits_until_somebody_claims_its_namespace() -> None:
    cluster = Cluster()
    cluster.add_node("gpu-1")
    cluster.add_tenant("acme")
    cluster.server.patch(kube.TENANT, "acme", "", {"spec": {"namespaces": ["elsewhere"]}})
    cluster.add_job("acme")
    await cluster.settle()
    assert cluster.job_status("acme")["reason"] == "NamespaceWithoutTenant"

    cluster.server.patch(kube.TENANT, "acme", "", {"spec": {"namespaces": ["acme"]}})
    await cluster.settle()
    assert cluster.job_status("acme")["phase"] == "Succeeded"


async def test_a_namespace_of_two_tenants_belongs_to_nobody() -> None:
    cluster = Cluster()
    cluster.add_node("gpu-1")
    cluster.add_tenant("acme")
    cluster.server.create(kube.TENANT, {"metadata": {"name": "rival"}, "spec": {"namespaces": ["acme"]}})
    cluster.add_job("acme")
    await cluster.settle()

    assert cluster.job_status("acme")["reason"] == "NamespaceClaimedTwice"
    condition = cluster.server.get(kube.TENANT, "rival")["status"]["conditions"][0]
    assert (condition["status"], condition["reason"]) == ("False", "NamespaceClaimedTwice")


async def test_a_node_that_was_lost_before_it_was_granted_sends_the_job_back() -> None:
    cluster = Cluster()
    cluster.add_node("gpu-1")
    cluster.add_tenant("acme")
    await cluster.settle()
    cluster.add_job("acme")
    while cluster.job_status("acme").get("phase") != "Admitted":
        await cluster.operate()
    cluster.reboot("gpu-1")
    await cluster.settle()

    status = cluster.job_status("acme")
    assert (status["phase"], status["attempt"]) == ("Succeeded", 2)
    assert cluster.node_status("gpu-1")["epoch"] == 3
