"""What a node is like is read by its scrub, shown, and demanded: no node that lacks it is given to a job."""

from collections.abc import Callable, Iterator

import msgspec
import pytest

from lethe.decisions.posture import judge
from lethe.model.resources import NodeStatus
from tests.common.objects import find_all, message, phase
from tests.common.tenants import TrialTenant
from tests.common.world import World
from tests.e2e.jobs import end, say_reason, start

Demand = Callable[[list[str], list[str]], None]


@pytest.fixture
def demand(world: World) -> Iterator[Demand]:
    """Return a function that says what sensitive and what critical datasets demand; afterwards they demand nothing."""

    def set_demands(sensitive: list[str], critical: list[str]) -> None:
        levels = {"sensitive": {"posture": sensitive}, "critical": {"posture": critical}}
        world.installation.install(criticality=levels)

    yield set_demands
    world.installation.install()


def checks_of(world: World, *, passed: bool) -> list[str]:
    """Return the checks that every GPU node passes, or that none does."""
    found: list[set[str]] = []
    for node in world.installation.gpu_nodes():
        ledger = world.installation.wait_for_node(node.name, "Free")
        posture = msgspec.convert(ledger["status"], NodeStatus).posture
        assert posture is not None, f"the scrub of {node.name} recorded no posture"
        found.append({one.check for one in judge(posture) if one.passed is passed})
    return sorted(set.intersection(*found))


def test_scrub_posture_is_shown(world: World) -> None:
    wide = world.provider.kubectl()("get", "gpunodes", "--output=wide").splitlines()
    for column in ("KERNEL", "SWAP", "COREDUMPS", "KSM", "PTRACE", "LOCKDOWN", "IOMMU", "ECC", "SCRUBONFREE"):
        assert column in wide[0].split()
    for node in find_all(world.provider.kubectl(), "gpunodes"):
        (row,) = [line for line in wide[1:] if line.split()[0] == node["metadata"]["name"]]
        assert node["status"]["posture"]["kernel"] in row
        told = world.installation.cli("node", "show", node["metadata"]["name"])
        assert all(f"{one}: " in told for one in ("swapOff", "coreDumpsOff", "iommuOn", "eccOn"))


def test_scrub_posture_that_is_demanded_and_missing_refuses_the_node(
    world: World, acme: TrialTenant, demand: Demand
) -> None:
    held, lacking = checks_of(world, passed=True), checks_of(world, passed=False)
    assert lacking, "simulated GPUs sit on no bus and their driver does not clear memory: some check must fail"
    acme.apply_dataset(acme.seal(acme.images, "guarded", criticality="critical"))
    demand(held, lacking[:1])

    start(acme, acme.job("demanding", dataset="guarded"))
    waiting = say_reason(acme, "demanding", "PostureUnmet")
    assert phase(waiting) == "Queued"
    assert f"not pass {lacking[0]} (found " in message(waiting)
    assert all(node.name in message(waiting) for node in world.installation.gpu_nodes())

    start(acme, acme.job("content"))
    assert phase(end(acme, "content")) == "Succeeded"
    assert phase(say_reason(acme, "demanding", "PostureUnmet")) == "Queued"
