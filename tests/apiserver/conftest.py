"""One API server for the session, with Lethe's CRDs and rights, at first without its policies."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.apiserver.chart import install, program, put_policies_in, render, write_policies
from tests.apiserver.cluster import Scene, populate
from tests.apiserver.requests import wait_until_refused
from tests.apiserver.server import Answer, Client, Object, serve
from tests.attacks.table import attacks, entries, refused_anyway


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
    scene = Scene()
    return {row.name: row.attempt(admin) for row in (*attacks(scene), *entries(scene), *refused_anyway(scene))}


@pytest.fixture(scope="session")
def fenced(
    server: tuple[Client, Path],
    admin: Client,
    without: dict[str, Answer],
    chart: list[Object],
    tmp_path_factory: pytest.TempPathFactory,
) -> Client:
    """Return an administrator of the same cluster after the hook has put the policies in."""
    policies = write_policies(chart, tmp_path_factory.mktemp("fence") / "policies")
    print("\n".join(asyncio.run(put_policies_in(server[1], policies))))
    wait_until_refused([*attacks(Scene()), *entries(Scene())], admin)
    return admin
