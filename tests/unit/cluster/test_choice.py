"""Which cluster is taken, and which is never touched."""

from typing import Any

import pytest

from tests.cluster import borrowed
from tests.cluster.choice import choose_name
from tests.cluster.current import check_allowed
from tests.cluster.errors import ClusterError
from tests.cluster.provider import GPU_LABEL

NOTHING = {"kubeconfig": "", "docker": False, "root_on_linux": False}


@pytest.mark.parametrize(
    ("machine", "taken"),
    [
        pytest.param({"kubeconfig": "/k", "docker": True, "root_on_linux": True}, "current", id="explicit kubeconfig"),
        pytest.param({"docker": True, "root_on_linux": True}, "kind", id="docker before embedded"),
        pytest.param({"root_on_linux": True}, "embedded", id="root on Linux"),
    ],
)
@pytest.mark.parametrize("wanted", ["", "auto"])
def test_the_first_that_the_machine_offers_is_taken(wanted: str, machine: dict[str, Any], taken: str) -> None:
    assert choose_name(wanted, **(NOTHING | machine)) == taken


@pytest.mark.parametrize("wanted", ["embedded", "kind", "current"])
def test_a_name_is_taken_whatever_the_machine_offers(wanted: str) -> None:
    assert choose_name(wanted, kubeconfig="/k", docker=True, root_on_linux=True) == wanted
    assert choose_name(wanted, **NOTHING) == wanted


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ClusterError, match="no cluster 'minikube'; expected one of embedded, kind, current"):
        choose_name("minikube", **NOTHING)


def test_a_machine_that_offers_nothing_is_told_what_is_missing() -> None:
    with pytest.raises(ClusterError) as refused:
        choose_name("", **NOTHING)
    for missing in ("KUBECONFIG", "Docker", "root"):
        assert missing in str(refused.value)


@pytest.mark.parametrize(
    ("context", "allowed"),
    [("kind-anything", ""), ("staging", "staging"), ("staging", "other, staging"), ("kind-x", "other")],
)
def test_contexts_of_kind_and_of_the_list_are_allowed(context: str, allowed: str) -> None:
    check_allowed(context, allowed)


@pytest.mark.parametrize(
    ("context", "allowed"),
    [("production", ""), ("production", "prod"), ("prod", "production"), ("my-kind-cluster", ""), ("a", ","), ("", "")],
)
def test_every_other_context_is_refused(context: str, allowed: str) -> None:
    with pytest.raises(ClusterError, match="LETHE_ALLOW_CONTEXTS"):
        check_allowed(context, allowed)


def node(name: str, *, control_plane: bool = False, gpu: bool = False, tainted: bool | None = None) -> dict[str, Any]:
    labels = {borrowed.CONTROL_PLANE: ""} if control_plane else {}
    if gpu:
        labels[GPU_LABEL] = "true"
    taint = {"key": borrowed.CONTROL_PLANE, "effect": "NoSchedule"}
    blocked = control_plane if tainted is None else tainted
    return {"metadata": {"name": name, "labels": labels}, "spec": {"taints": [taint]} if blocked else {}}


CONTROL = node("control", control_plane=True)


@pytest.mark.parametrize(
    ("nodes", "to_label", "to_free"),
    [
        pytest.param(
            [CONTROL, node("a"), node("b")], ["a", "b"], ["control"], id="two workers: both, opened control plane"
        ),
        pytest.param([CONTROL, node("a"), node("b"), node("c")], ["b", "c"], [], id="three workers: one is left free"),
        pytest.param([CONTROL, node("a", gpu=True), node("b", gpu=True)], [], ["control"], id="labelled already"),
        pytest.param(
            [CONTROL, node("a"), node("b", gpu=True), node("c", gpu=True)], [], [], id="labelled, and a worker besides"
        ),
        pytest.param(
            [node("open", control_plane=True, tainted=False), node("a"), node("b")],
            ["a", "b"],
            [],
            id="open control plane",
        ),
    ],
)
def test_nodes_of_a_borrowed_cluster_get_their_roles(
    nodes: list[dict[str, Any]], to_label: list[str], to_free: list[str]
) -> None:
    assert borrowed.plan(nodes) == (to_label, to_free)


@pytest.mark.parametrize(
    "nodes",
    [
        pytest.param([CONTROL], id="one node"),
        pytest.param([CONTROL, node("a")], id="one worker"),
        pytest.param([node("a", gpu=True), node("b", gpu=True)], id="no node without GPUs"),
    ],
)
def test_a_cluster_that_is_too_small_is_refused(nodes: list[dict[str, Any]]) -> None:
    with pytest.raises(ClusterError, match="needs"):
        borrowed.plan(nodes)
