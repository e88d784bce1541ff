"""One cluster with Lethe for all end-to-end tests; what was not up before is taken down afterwards."""

import shutil
from collections.abc import Iterator

import pytest

from tests.cluster.fixtures import provider
from tests.cluster.kubectl import Kubectl
from tests.cluster.provider import Provider
from tests.common.digits import make_canary, write_digits
from tests.common.objects import find_all, remove
from tests.common.tenants import TrialTenant
from tests.common.world import World, enrol

__all__ = ["provider"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark everything here as needing a cluster."""
    for item in items:
        if "tests/e2e/" in str(item.path):
            item.add_marker(pytest.mark.e2e)


@pytest.fixture(scope="session")
def world(provider: Provider) -> Iterator[World]:
    """Return a cluster with Lethe whose GPU nodes are Free; a cluster that goes on afterwards is left as it was."""
    made = World(provider)
    try:
        made.installation.install()
        enrol(made)
        yield made
    finally:
        made.remove()


@pytest.fixture(scope="session")
def canary() -> str:
    """Return the secret of this run: it stands in every image, and in the name of one."""
    return make_canary()


@pytest.fixture(scope="session")
def acme(world: World, canary: str) -> TrialTenant:
    """Return a tenant with a sealed dataset `digits`."""
    return _ready(world, "acme", canary)


@pytest.fixture(scope="session")
def globex(world: World) -> TrialTenant:
    """Return another tenant with a sealed dataset `digits`."""
    return _ready(world, "globex", make_canary())


@pytest.fixture(autouse=True)
def no_jobs_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """Remove the jobs that a test has left, and those that outlive their module, so that the next finds free nodes."""
    if "world" not in request.fixturenames:
        yield
        return
    kubectl = request.getfixturevalue("world").provider.kubectl()
    _remove_jobs(kubectl)
    yield
    _remove_jobs(kubectl)


def _remove_jobs(kubectl: Kubectl) -> None:
    for job in find_all(kubectl, "stj"):
        remove(kubectl, "stj", job["metadata"]["name"], job["metadata"]["namespace"])


def _ready(world: World, name: str, canary: str) -> TrialTenant:
    tenant = world.tenant(name)
    tenant.set_up()
    source = tenant.images
    shutil.rmtree(source, ignore_errors=True)
    write_digits(source, canary)
    (source / f"note-{canary}.txt").write_text(f"This file's name and contents are secret: {canary}\n")
    tenant.apply_dataset(tenant.seal(source))
    return tenant
