from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from lethe.adapters.kube import ADMISSION_BINDING, ADMISSION_POLICY, GPU_NODE, NAMESPACE, NODE, POD, ROLE, ROLEBINDING
from lethe.controller.setup import policies
from lethe.controller.setup.policies import CANARY, apply_policies, read_policies, strangers, unlisted_nodes
from lethe.model.errors import InputError
from lethe.specs.fence import build_open_binding, build_open_role
from tests.common.fake_kube import FakeKube

Object = dict[str, Any]
SYSTEM = ("kube-system", "lethe-system")
GPU = "nvidia.com/gpu.present=true"


def policy(name: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": name},
        "spec": {"variables": []},
    }


def binding(name: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": name},
        "spec": {"policyName": name},
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("lethe-b", "lethe-a"):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump_all([policy(name), binding(name)]))
    return tmp_path


@pytest.fixture
def kube() -> FakeKube:
    """A cluster with one open node and one that is managed."""
    return FakeKube(
        (NODE, {"metadata": {"name": "cpu-1"}}),
        (NODE, {"metadata": {"name": "gpu-1", "labels": {"nvidia.com/gpu.present": "true"}}}),
        (GPU_NODE, {"metadata": {"name": "gpu-1"}, "spec": {"managed": True}}),
        (NAMESPACE, {"metadata": {"name": "acme", "labels": {"lethe.dev/tenant": "acme"}}}),
        (ROLE, build_open_role(["cpu-1"])),
        (ROLEBINDING, build_open_binding()),
    )


async def run(kube: FakeKube, folder: Path, seconds: float = 0.0) -> list[str]:
    said: list[str] = []
    await apply_policies(kube, folder, SYSTEM, GPU, seconds, said.append)  # type: ignore[arg-type]
    return said


async def test_policies_are_applied_before_their_bindings(kube: FakeKube, folder: Path) -> None:
    await run(kube, folder)
    assert kube.writes == [
        ("create", "validatingadmissionpolicies", "lethe-a"),
        ("create", "validatingadmissionpolicies", "lethe-b"),
        ("create", "validatingadmissionpolicybindings", "lethe-a"),
        ("create", "validatingadmissionpolicybindings", "lethe-b"),
    ]


async def test_an_upgrade_replaces_and_prunes(kube: FakeKube, folder: Path) -> None:
    await run(kube, folder)
    (folder / "lethe-b.yaml").unlink()
    kube.put(ADMISSION_POLICY, {**policy("lethe-of-somebody"), "metadata": {"name": "lethe-of-somebody"}})
    kube.writes.clear()
    said = await run(kube, folder)
    assert kube.writes == [
        ("replace", "validatingadmissionpolicies", "lethe-a"),
        ("replace", "validatingadmissionpolicybindings", "lethe-a"),
        ("delete", "validatingadmissionpolicybindings", "lethe-b"),
        ("delete", "validatingadmissionpolicies", "lethe-b"),
    ]
    assert kube.names(ADMISSION_POLICY) == ["lethe-a", "lethe-of-somebody"]
    assert any("lethe-b" in sentence and "older" in sentence for sentence in said)


@pytest.mark.parametrize(
    ("change", "missing"),
    [
        (lambda kube: kube.objects.pop(("roles", "lethe-open", "open-nodes")), "open list"),
        (lambda kube: kube.objects.pop(("rolebindings", "lethe-open", "open-nodes")), "open list"),
        (lambda kube: kube.put(NODE, {"metadata": {"name": "cpu-2"}}), "cpu-2"),
        (lambda kube: kube.put(GPU_NODE, {"metadata": {"name": "gpu-1"}, "spec": {}}), "gpu-1"),
    ],
    ids=["no role", "no binding", "a new node", "a node that is not managed"],
)
async def test_no_policy_before_every_node_is_classified(
    kube: FakeKube, folder: Path, change: Callable[[FakeKube], Any], missing: str
) -> None:
    change(kube)
    with pytest.raises(InputError, match=missing):
        await run(kube, folder)
    assert kube.names(ADMISSION_POLICY) == []


async def test_it_waits_for_the_operator(kube: FakeKube, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kube.put(NODE, {"metadata": {"name": "cpu-2"}})

    async def operator_works(seconds: float) -> None:
        kube.put(ROLE, build_open_role(["cpu-1", "cpu-2"]))

    monkeypatch.setattr(policies.asyncio, "sleep", operator_works)
    said = await run(kube, folder, 60)
    assert "waiting for the operator to classify cpu-2" in said
    assert kube.names(ADMISSION_BINDING) == ["lethe-a", "lethe-b"]


@pytest.mark.parametrize(
    ("namespace", "verb"), [("lethe-open", "host"), ("acme", "occupy")], ids=["open list", "a tenant's namespace"]
)
async def test_rbac_that_is_too_broad_stops_the_installation(
    kube: FakeKube, folder: Path, namespace: str, verb: str
) -> None:
    kube.allows = lambda spec: spec["resourceAttributes"]["namespace"] == namespace
    with pytest.raises(InputError, match=f"may {verb} every node in namespace {namespace}"):
        await run(kube, folder)
    assert kube.names(ADMISSION_POLICY) == []


async def test_the_canary_asks_what_the_fence_asks(kube: FakeKube, folder: Path) -> None:
    await run(kube, folder)
    asked = [(review["user"], review["resourceAttributes"]["verb"]) for review in kube.reviews]
    assert asked == [
        ("system:serviceaccount:lethe-system:open-nodes", "host"),
        ("system:serviceaccount:acme:lethe-pod-canary", "occupy"),
    ]
    assert {review["resourceAttributes"]["name"] for review in kube.reviews} == {CANARY}
    assert all("system:serviceaccounts" in review["groups"] for review in kube.reviews)


def test_an_empty_rule_of_the_open_list_lists_nothing() -> None:
    nodes = [{"metadata": {"name": "a"}}]
    assert unlisted_nodes(nodes, [], {"rules": [{"verbs": ["host"]}]}) == ["a"]
    assert unlisted_nodes(nodes, [], {"rules": None}) == ["a"]


def guest(name: str, node: str, namespace: str = "lab", phase: str = "Running") -> Object:
    return {
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"nodeName": node},
        "status": {"phase": phase},
    }


def test_strangers_are_named() -> None:
    nodes = [
        {"metadata": {"name": "labelled", "labels": {"nvidia.com/gpu.present": "true"}}},
        {"metadata": {"name": "capable"}, "status": {"capacity": {"nvidia.com/gpu": "8"}}},
        {"metadata": {"name": "cpu"}, "status": {"capacity": {"nvidia.com/gpu": "0"}}},
    ]
    pods = [
        guest("b", "labelled"),
        guest("a", "labelled"),
        guest("c", "capable"),
        guest("ended", "labelled", phase="Succeeded"),
        guest("agent", "labelled", "kube-system"),
        guest("elsewhere", "cpu"),
        guest("waiting", ""),
    ]
    said = list(strangers(pods, nodes, SYSTEM, GPU))
    assert [sentence.split()[2] for sentence in said] == ["capable", "labelled"]
    assert said[0].endswith("lab/c")
    assert said[1].endswith("lab/a, lab/b")


async def test_strangers_do_not_stop_the_installation(kube: FakeKube, folder: Path) -> None:
    kube.put(POD, guest("notebook", "gpu-1"))
    said = await run(kube, folder)
    assert any("lab/notebook" in sentence for sentence in said)
    assert kube.names(ADMISSION_POLICY) == ["lethe-a", "lethe-b"]


@pytest.mark.parametrize(
    ("documents", "sentence"),
    [
        ([], "no policies"),
        ([{"kind": "ClusterRole", "metadata": {"name": "lethe-x"}}], "ClusterRole"),
        ([policy("other")], "other"),
        ([policy("lethe-x")], "no binding"),
    ],
    ids=["nothing", "another kind", "another name", "unbound"],
)
def test_a_folder_of_something_else_is_refused(tmp_path: Path, documents: list[Object], sentence: str) -> None:
    if documents:
        (tmp_path / "x.yaml").write_text(yaml.safe_dump_all(documents))
    with pytest.raises(InputError, match=sentence):
        read_policies(tmp_path)


def test_broken_yaml_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("a: [")
    with pytest.raises(InputError, match="not YAML"):
        read_policies(tmp_path)
