"""A job that holds a node for all tests here, and the table that is printed at the end."""

from collections.abc import Iterator

import pytest

from tests.common.objects import Object, message, phase, remove
from tests.common.tenants import TrialTenant
from tests.common.world import World
from tests.e2e.attacks.deeds import SAY_ALIVE, SERVE_KEYS
from tests.e2e.jobs import reach, start

TRAINING = ("python3", "/app/train.py", "--dataset", "digits", "--epochs", "100000")
TABLE = pytest.StashKey[dict[str, tuple[str, str]]]()
WIDTHS = (62, 44, 92)


@pytest.fixture(autouse=True)
def no_jobs_left() -> None:
    """Leave the job that holds a node where it is; `held` removes it."""


@pytest.fixture(scope="session")
def held(world: World, acme: TrialTenant) -> Iterator[Object]:
    """Return a job of acme that runs, and holds a node."""
    for node in world.installation.gpu_nodes():
        world.installation.wait_for_node(node.name, "Free")
    remove(acme.kubectl, "stj", "holder", acme.name)
    wanted = acme.job("holder", SERVE_KEYS, SAY_ALIVE, TRAINING)
    wanted["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = 5
    name = start(acme, wanted)
    try:
        job = reach(acme, name, "Running")
        assert phase(job) == "Running", message(job)
        yield job
    finally:
        remove(acme.kubectl, "stj", name, acme.name)
    world.installation.wait_for_node(job["status"]["node"], "Free")


@pytest.fixture(scope="session")
def table(pytestconfig: pytest.Config) -> dict[str, tuple[str, str]]:
    """Return the table that is printed at the end: attack, what came of it without the policies and with them."""
    return pytestconfig.stash.setdefault(TABLE, {})


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the attack table, also when every test has passed."""
    rows = terminalreporter.config.stash.get(TABLE, {})
    if rows:
        terminalreporter.section("attack table")
        for row in [("attack", "without", "with"), *((name, *both) for name, both in rows.items())]:
            cells = (cell[:width].ljust(width) for cell, width in zip(row, WIDTHS, strict=True))
            terminalreporter.write_line(" | ".join(cells).rstrip())
