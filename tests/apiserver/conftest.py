"""One API server for the session, with Lethe's CRDs and rights, at first without its policies."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from lethe.adapters.kube import Kube
from lethe.controller.setup.policies import apply_policies
from tests.apiserver.attacks import ATTACKS, CONNECTS
from tests.apiserver.chart import install, policy_files, program, render
from tests.apiserver.cluster import populate
from tests.apiserver.requests import Row
from tests.apiserver.server import Answer, Client, Object, serve
from tests.cluster.errors import ClusterError
from tests.cluster.waiting import until


@pytest.fixture(scope="session")
def chart() -> list[Object]:
    """Return every object of the chart with its default values."""
    return render()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Client, Path]]:
    """Run an API server; yield an administrator's client and kubeconfig."""
    with serve(program("lethe-kube"), tmp_path_factory.mktemp("apiserver")) as served:
        yield served


@pytest.fixture(scope="session")
def admin(server: tuple[Client, Path], chart: list[Object]) -> Client:
    """Return an administrator of a cluster with Lethe's kinds, rights and a little life in it, but without policies."""
    client, _ = server
    install(client, chart)
    populate(client)
    return client


@pytest.fixture(scope="session")
def without(admin: Client) -> dict[str, Answer]:
    """Return what each attack came to before there were policies."""
    return {row.name: row.attempt(admin) for row in (*ATTACKS, *CONNECTS)}


@pytest.fixture(scope="session")
def fenced(
    server: tuple[Client, Path],
    admin: Client,
    without: dict[str, Answer],
    chart: list[Object],
    tmp_path_factory: pytest.TempPathFactory,
) -> Client:
    """Return an administrator of the same cluster after the hook has put the policies in."""
    folder = tmp_path_factory.mktemp("policies")
    for name, text in policy_files(chart).items():
        (folder / name).write_text(text)

    async def install() -> None:
        async with await Kube.connect(str(server[1])) as kube:
            await apply_policies(kube, folder, ("kube-system", "lethe-system"), "nvidia.com/gpu.present=true", 5, print)

    asyncio.run(install())
    rows: list[Row] = [*ATTACKS, *CONNECTS]

    def refused() -> bool:
        rows[:] = [row for row in rows if row.attempt(admin).status not in (403, 422)]
        return not rows

    try:
        until(refused, what="every policy to take effect", seconds=15)
    except ClusterError as error:
        # The rows that are still open fail one by one, each with its name.
        print(f"{error} Open: {[row.name for row in rows]}")
    return admin
