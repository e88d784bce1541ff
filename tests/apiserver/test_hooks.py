"""The chart's hooks on a real API server, one after the other as Helm runs them, each with its own rights only."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from lethe.adapters import kube as kinds
from lethe.adapters.kube import Kube
from lethe.controller.setup.keys import make_keys
from lethe.controller.setup.teardown import tear_down
from lethe.model.errors import InputError
from tests.apiserver.chart import install, program, put_policies_in, write_policies
from tests.apiserver.cluster import populate
from tests.apiserver.requests import OPERATOR, SCHEDULER, bind
from tests.apiserver.server import Client, Object, serve
from tests.cluster.waiting import until

SYSTEM = "lethe-system"
RIGHTS = {kind.kind: kind for kind in (kinds.ROLE, kinds.ROLEBINDING, kinds.CLUSTERROLE, kinds.CLUSTERROLEBINDING)}


@dataclass(frozen=True)
class Site:
    """A cluster of its own, since a teardown leaves little of it."""

    admin: Client
    kubeconfig: Path
    """Of the hooks' account."""
    chart: list[Object]
    policies: Path

    @contextmanager
    def rights_of(self, event: str) -> Iterator[None]:
        """Give the hooks' account what the chart gives it during one event, and take it back as Helm does."""
        granted = [item for item in self.chart if item["kind"] in RIGHTS and event in _events(item)]
        assert granted, f"the chart grants nothing for {event}"
        for item in granted:
            self.admin.create(RIGHTS[item["kind"]], item)
        try:
            yield
        finally:
            for item in granted:
                metadata = item["metadata"]
                path = RIGHTS[item["kind"]].path(metadata["name"], metadata.get("namespace", ""))
                assert self.admin.send("DELETE", path).ok

    async def keys(self, version: int = 1) -> list[str]:
        said: list[str] = []
        with self.rights_of("pre-install"):
            async with await Kube.connect(str(self.kubeconfig)) as kube:
                await make_keys(kube, datetime.now(UTC), said.append, version)
        return said

    async def put_policies_in(self) -> list[str]:
        with self.rights_of("post-install"):
            return await put_policies_in(self.kubeconfig, self.policies)

    async def tear_down(self) -> list[str]:
        said: list[str] = []
        with self.rights_of("pre-delete"):
            async with await Kube.connect(str(self.kubeconfig)) as kube:
                await tear_down(kube, 5, said.append)
        return said


@pytest.fixture
def site(chart: list[Object], tmp_path: Path) -> Iterator[Site]:
    with serve(program("lethe-kube"), tmp_path) as (admin, kubeconfig):
        install(admin, chart)
        populate(admin)
        policies = write_policies(chart, tmp_path / "policies")
        admin.create(kinds.DEPLOYMENT, _one(chart, "Deployment", "lethe-operator"))
        yield Site(admin, _account(admin, kubeconfig), chart, policies)


async def test_a_life_from_installation_to_removal(site: Site) -> None:
    assert any("made receipt key" in sentence for sentence in await site.keys())
    assert site.admin.get(kinds.CONFIGMAP, "lethe-trust", SYSTEM)["data"].keys() == {"ca.crt", "receipt-keys.json"}
    assert any("kept receipt key" in sentence for sentence in await site.keys())
    assert any("in the place of" in sentence for sentence in await site.keys(version=2))
    trust = site.admin.get(kinds.CONFIGMAP, "lethe-trust", SYSTEM)["data"]["receipt-keys.json"]
    assert ["retiredAt" in key for key in json.loads(trust)] == [True, False]

    said = await site.put_policies_in()
    assert any("acme/on-gpu" in sentence for sentence in said), said
    rival = bind("mine", "gpu-1")
    await asyncio.to_thread(
        until,
        lambda: rival(site.admin.acting(*SCHEDULER)).status == 403,
        what="the fence to refuse a bind",
        seconds=15,
    )
    # A second run, as after an upgrade, with the policies already there.
    await site.put_policies_in()

    with pytest.raises(InputError, match="gpu-1 is Assigned"):
        await site.tear_down()
    assert rival(site.admin.acting(*SCHEDULER)).status == 403

    site.admin.acting(*OPERATOR).write_status(kinds.GPU_NODE, "gpu-1", {"phase": "Free"})
    said = await site.tear_down()
    assert not [sentence for sentence in said if "NOT CLEAN" in sentence], said
    assert site.admin.send("GET", kinds.ADMISSION_POLICY.path()).body["items"] == []
    await asyncio.to_thread(
        until,
        lambda: rival(site.admin.acting(*SCHEDULER)).ok,
        what="pods to be bound again",
        seconds=15,
    )
    _assert_nothing_is_left(site.admin)


def _assert_nothing_is_left(admin: Client) -> None:
    node = admin.get(kinds.NODE, "gpu-1")
    assert "node-restriction.kubernetes.io/lethe" not in node["metadata"]["labels"]
    assert "lethe.dev/gpu" not in [taint["key"] for taint in node["spec"].get("taints", [])]
    assert "finalizers" not in admin.get(kinds.POD, "lethe-digits-0", "acme")["metadata"]
    assert "finalizers" not in admin.get(kinds.JOB_CR, "digits", "acme")["metadata"]
    assert "lethe.dev/tenant" not in admin.get(kinds.NAMESPACE, "acme")["metadata"]["labels"]
    assert admin.send("GET", kinds.ROLEBINDING.path("lethe-gpu-1", "acme")).status == 404
    assert admin.send("GET", kinds.ROLE.path("everything", "acme")).ok
    assert admin.get(kinds.DEPLOYMENT, "lethe-operator", SYSTEM)["spec"]["replicas"] == 0
    for name in ("gpu-1", "gpu-2"):
        ledger = admin.get(kinds.GPU_NODE, name)
        assert (ledger["spec"]["managed"], ledger["status"]["phase"]) == (False, "Unmanaged")
        assert ledger["status"]["epoch"] == 3


def _events(item: Object) -> list[str]:
    events: str = item["metadata"].get("annotations", {}).get("helm.sh/hook", "")
    return events.split(",") if events else []


def _one(chart: list[Object], kind: str, name: str) -> Object:
    return next(item for item in chart if item["kind"] == kind and item["metadata"]["name"] == name)


def _account(admin: Client, administrators: Path) -> Path:
    """Write a kubeconfig for the hooks' account. Once the policies are in, only kubelets get such a token."""
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 3600}}
    answer = admin.send("POST", f"/api/v1/namespaces/{SYSTEM}/serviceaccounts/lethe-setup/token", body)
    assert answer.ok, answer.message
    document = yaml.safe_load(administrators.read_text())
    document["users"][0]["user"] = {"token": answer.body["status"]["token"]}
    file = administrators.with_name("setup.kubeconfig")
    file.write_text(yaml.safe_dump(document))
    return file
