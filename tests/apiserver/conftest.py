"""One API server for the session, with Lethe's CRDs and rights, at first without its policies."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from lethe.adapters import kube as kinds
from lethe.adapters.kube import Kube
from lethe.controller.setup.policies import apply_policies
from tests.apiserver.attacks import ATTACKS, CONNECTS
from tests.apiserver.cluster import populate
from tests.apiserver.requests import Row
from tests.apiserver.server import Answer, Client, Object, serve
from tests.cluster import tools
from tests.cluster.commands import run
from tests.cluster.errors import ClusterError
from tests.cluster.waiting import until

CHART = Path(__file__).parents[2] / "charts" / "lethe"
BEFORE_POLICIES = {
    kind.kind: kind
    for kind in (kinds.CRD, kinds.CLUSTERROLE, kinds.CLUSTERROLEBINDING, kinds.NAMESPACE, kinds.SERVICEACCOUNT)
}


def program(name: str) -> Path:
    """Return the path of a built program; skip the test that needs one that is missing."""
    folder = Path(os.environ["LETHE_TOOLS"]) if "LETHE_TOOLS" in os.environ else tools.bin_folder()
    path = folder / name
    if not path.exists():
        pytest.skip(f"{name} is not built; `make cluster` builds it")
    return path


@pytest.fixture(scope="session")
def chart() -> list[Object]:
    """Return every object of the chart with its default values."""
    text = run(
        [program("helm"), "template", "lethe", CHART, "--namespace=lethe-system", "--set=image.repository=lethe"]
    )
    return [document for document in yaml.safe_load_all(text) if document is not None]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Client, Path]]:
    """Run an API server; yield an administrator's client and kubeconfig."""
    with serve(program("lethe-kube"), tmp_path_factory.mktemp("apiserver")) as served:
        yield served


@pytest.fixture(scope="session")
def admin(server: tuple[Client, Path], chart: list[Object]) -> Client:
    """Return an administrator of a cluster with Lethe's kinds, rights and a little life in it, but without policies."""
    client, _ = server
    client.create(kinds.NAMESPACE, {"metadata": {"name": "lethe-system"}})
    for document in chart:
        kind = BEFORE_POLICIES.get(document["kind"])
        if kind is not None and "helm.sh/hook" not in document["metadata"].get("annotations", {}):
            client.create(kind, document)
    crds = [document["metadata"]["name"] for document in chart if document["kind"] == "CustomResourceDefinition"]
    until(lambda: all(is_established(client, name) for name in crds), what="the CRDs to be served", seconds=20)
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
    config = next(
        item for item in chart if item["kind"] == "ConfigMap" and item["metadata"]["name"] == "lethe-policies"
    )
    for name, text in config["data"].items():
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


def is_established(client: Client, name: str) -> bool:
    """Say whether the server serves the kind that a CRD defines."""
    conditions = client.get(kinds.CRD, name).get("status", {}).get("conditions", [])
    return any(c["type"] == "Established" and c["status"] == "True" for c in conditions)
