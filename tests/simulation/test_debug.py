"""Which pods are open to exec while two jobs run."""

from typing import Any

import pytest

from lethe.adapters import kube
from lethe.model import names
from lethe.specs.fence import parse_names
from tests.simulation.cluster import Cluster


def open_pods(cluster: Cluster, namespace: str) -> set[str]:
    role = cluster.server.find(kube.ROLE, names.DEBUG, namespace)
    binding = cluster.server.find(kube.ROLEBINDING, names.DEBUG, namespace)
    assert (role is None) == (binding is None)
    return set(parse_names(role)) if role is not None else set()


def declare(cluster: Cluster, namespace: str, criticality: str) -> None:
    cluster.server.patch(kube.DATASET, "digits", namespace, {"spec": {"criticality": criticality}})


async def run(cluster: Cluster, criticality: str, **tenant: Any) -> str:
    """Let an endless job train; return its pod's name."""
    cluster.add_node("gpu-1")
    cluster.add_tenant("acme", **tenant)
    declare(cluster, "acme", criticality)
    cluster.behaviour.endless = True
    cluster.add_job("acme")
    await cluster.settle()
    assert cluster.job_status("acme")["phase"] == "Running"
    return str(cluster.job_status("acme")["pods"][0]["name"])


async def test_the_provider_opens_pods_with_standard_data() -> None:
    cluster = Cluster()
    pod = await run(cluster, "standard", debug=True)

    assert open_pods(cluster, "acme") == {pod}


@pytest.mark.parametrize(
    ("criticality", "debug"), [("standard", False), ("sensitive", True), ("critical", True)], ids=str
)
async def test_every_other_pod_stays_closed(criticality: str, debug: bool) -> None:
    cluster = Cluster()
    await run(cluster, criticality, debug=debug)

    assert open_pods(cluster, "acme") == set()


async def test_declaring_it_standard_afterwards_opens_nothing() -> None:
    cluster = Cluster()
    await run(cluster, "sensitive", debug=True)
    declare(cluster, "acme", "standard")
    await cluster.settle()

    assert open_pods(cluster, "acme") == set()


async def test_what_was_open_is_closed_when_the_provider_says_so() -> None:
    cluster = Cluster()
    await run(cluster, "standard", debug=True)
    cluster.server.patch(kube.TENANT, "acme", "", {"spec": {"debug": False}})
    await cluster.settle()

    assert open_pods(cluster, "acme") == set()


async def test_a_pod_that_has_ended_leaves_the_list() -> None:
    cluster = Cluster()
    await run(cluster, "standard", debug=True)
    cluster.behaviour.endless = False
    await cluster.settle()

    assert cluster.job_status("acme")["phase"] == "Succeeded"
    assert open_pods(cluster, "acme") == set()
