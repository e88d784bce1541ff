"""The chart as Helm renders it, and the built programs that these tests need."""

import os
from pathlib import Path

import pytest
import yaml

from lethe.adapters import kube as kinds
from lethe.adapters.kube import Kube
from lethe.controller.setup.policies import apply_policies
from lethe.model.names import GPU_PRESENT_LABEL, SYSTEM_NAMESPACE
from tests.apiserver.server import Client, Object
from tests.cluster import tools
from tests.cluster.commands import run
from tests.cluster.waiting import until

CHART = Path(__file__).parents[2] / "charts" / "lethe"
INSTALLED = {
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


def render(*values: str) -> list[Object]:
    """Return every object of the chart; a value is written as `name=value`."""
    settings = [f"--set={value}" for value in ("image.repository=lethe", *values)]
    text = run([program("helm"), "template", "lethe", CHART, "--namespace=lethe-system", *settings])
    return [document for document in yaml.safe_load_all(text) if document is not None]


def policy_files(chart: list[Object]) -> dict[str, str]:
    """Return what the chart hands to the hook that applies the policies, by file name."""
    wanted = (item for item in chart if item["kind"] == "ConfigMap" and item["metadata"]["name"] == "lethe-policies")
    return next(wanted)["data"]


def write_policies(chart: list[Object], folder: Path) -> Path:
    """Write the policies into a new folder, as the hook finds them, and return it."""
    folder.mkdir()
    for name, text in policy_files(chart).items():
        (folder / name).write_text(text)
    return folder


async def put_policies_in(kubeconfig: Path, policies: Path) -> list[str]:
    """Do what the hook does with a folder of policies, and return what it says."""
    said: list[str] = []
    namespaces = ("kube-system", SYSTEM_NAMESPACE)
    async with await Kube.connect(str(kubeconfig)) as kube:
        await apply_policies(kube, policies, namespaces, f"{GPU_PRESENT_LABEL}=true", 5, said.append)
    return said


def install(client: Client, chart: list[Object]) -> None:
    """Create the chart's kinds, accounts and rights, without policies and without the rights of hooks."""
    client.create(kinds.NAMESPACE, {"metadata": {"name": "lethe-system"}})
    for document in chart:
        kind = INSTALLED.get(document["kind"])
        is_hook = "helm.sh/hook" in document["metadata"].get("annotations", {})
        if kind is not None and (kind == kinds.SERVICEACCOUNT or not is_hook):
            client.create(kind, document)
    paths = [_path(document) for document in chart if document["kind"] == "CustomResourceDefinition"]
    until(lambda: all(client.send("GET", path).ok for path in paths), what="the CRDs to be served", seconds=30)


def _path(definition: Object) -> str:
    spec = definition["spec"]
    return f"/apis/{spec['group']}/{spec['versions'][0]['name']}/{spec['names']['plural']}"
