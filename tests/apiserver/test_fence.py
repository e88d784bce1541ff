"""The admission policies on a real API server: every attack works without them and is refused with them, and nothing
that is honest is disturbed."""

import pytest

from lethe.adapters import kube as kinds
from tests.apiserver.cluster import Scene
from tests.apiserver.requests import CLUSTER_ADMIN, NODE_CONTROLLER, SCHEDULER, Row, bind, is_refusal
from tests.apiserver.server import Answer, Client
from tests.attacks.broad import everybody_is_admin
from tests.attacks.honest import denied_rights, honest
from tests.attacks.table import attacks, entries, refused_anyway

SCENE = Scene()


def name_of(row: Row) -> str:
    return row.name


@pytest.mark.parametrize("row", attacks(SCENE), ids=name_of)
def test_attack(row: Row, without: dict[str, Answer], fenced: Client) -> None:
    before = without[row.name]
    assert before.ok, f"the attack must work without the policies: {before.status} {before.message}"
    after = row.attempt(fenced)
    assert is_refusal(row, after), f"{after.status} {after.message}"


@pytest.mark.parametrize("row", entries(SCENE), ids=name_of)
def test_entry(row: Row, without: dict[str, Answer], fenced: Client) -> None:
    before = without[row.name]
    assert before.status not in (401, 403), f"without the policies it gets further: {before.status} {before.message}"
    after = row.attempt(fenced)
    assert is_refusal(row, after), f"{after.status} {after.message}"


@pytest.mark.parametrize("row", refused_anyway(SCENE), ids=name_of)
def test_refused_by_kubernetes_itself(row: Row, without: dict[str, Answer], fenced: Client) -> None:
    for answer in (without[row.name], row.attempt(fenced)):
        assert answer.status in (403, 409, 422), f"{answer.status} {answer.message}"


@pytest.mark.parametrize("row", honest(SCENE), ids=name_of)
def test_honest(row: Row, fenced: Client) -> None:
    answer = row.attempt(fenced)
    assert answer.ok, f"{answer.status} {answer.message}"


@pytest.mark.parametrize(
    ("name", "who", "method", "path"), denied_rights(SCENE), ids=[row[0] for row in denied_rights(SCENE)]
)
def test_rights_are_least(name: str, who: tuple[str, ...], method: str, path: str, fenced: Client) -> None:
    answer = fenced.acting(*who).send(method, path, {} if method == "POST" else None)
    assert answer.status == 403, f"{name}: {answer.status} {answer.message}"
    assert "cannot" in answer.message, answer.message


def test_every_policy_refuses_something(fenced: Client) -> None:
    """A policy that is taken out of the chart, or never matches, is missed here by name."""
    refusals = " ".join(row.attempt(fenced).message for row in (*attacks(SCENE), *entries(SCENE)))
    installed = {item["metadata"]["name"] for item in fenced.send("GET", kinds.ADMISSION_POLICY.path()).body["items"]}
    assert len(installed) == 17
    assert {name for name in installed if f"ValidatingAdmissionPolicy '{name}'" not in refusals} == set()


def test_a_node_that_was_deleted_and_made_again_stays_closed(fenced: Client) -> None:
    """The fence knows nodes by their names, so a new object without label and taint changes nothing."""
    name = "gpu-lost"
    old = {"metadata": {"name": name, "labels": {"node-restriction.kubernetes.io/lethe": "managed"}}}
    fenced.create(kinds.NODE, old)
    try:
        assert fenced.acting(*NODE_CONTROLLER).send("DELETE", kinds.NODE.path(name)).ok
        fenced.create(kinds.NODE, {"metadata": {"name": name}})
        for row in (
            Row("scheduler", SCHEDULER, bind("mine", name), "is closed to pod"),
            Row("administrator", CLUSTER_ADMIN, bind("other", name, "plain"), "is closed to pod"),
        ):
            answer = row.attempt(fenced)
            assert is_refusal(row, answer), f"{row.name}: {answer.status} {answer.message}"
    finally:
        fenced.delete(kinds.NODE, name)


def test_rights_that_are_too_broad_close_every_node(fenced: Client) -> None:
    with everybody_is_admin(fenced, SCENE) as refusal:
        assert "is closed to pod" in refusal.message
