"""The admission policies on a real API server: every attack works without them and is refused with them, and nothing
that is honest is disturbed."""

import pytest

from lethe.adapters.kube import ADMISSION_POLICY
from tests.apiserver.attacks import ATTACKS, CONNECTS
from tests.apiserver.honest import DENIED_RIGHTS, HONEST
from tests.apiserver.requests import Row
from tests.apiserver.server import Answer, Client


@pytest.mark.parametrize("row", ATTACKS, ids=lambda row: row.name)
def test_attack(row: Row, without: dict[str, Answer], fenced: Client) -> None:
    before = without[row.name]
    assert before.ok, f"the attack must work without the policies: {before.status} {before.message}"
    after = row.attempt(fenced)
    assert after.status in (403, 422), f"{after.status} {after.message}"
    assert "lethe:" in after.message and row.says in after.message, after.message


@pytest.mark.parametrize("row", CONNECTS, ids=lambda row: row.name)
def test_connection(row: Row, without: dict[str, Answer], fenced: Client) -> None:
    before = without[row.name]
    assert before.status not in (401, 403), f"without the policies it gets further: {before.status} {before.message}"
    after = row.attempt(fenced)
    assert after.status == 403, f"{after.status} {after.message}"
    assert row.says in after.message, after.message


@pytest.mark.parametrize("row", HONEST, ids=lambda row: row.name)
def test_honest(row: Row, fenced: Client) -> None:
    answer = row.attempt(fenced)
    assert answer.ok, f"{answer.status} {answer.message}"


@pytest.mark.parametrize(("name", "who", "method", "path"), DENIED_RIGHTS, ids=[row[0] for row in DENIED_RIGHTS])
def test_rights_are_least(name: str, who: tuple[str, ...], method: str, path: str, fenced: Client) -> None:
    answer = fenced.acting(*who).send(method, path, {} if method == "POST" else None)
    assert answer.status == 403, f"{name}: {answer.status} {answer.message}"
    assert "cannot" in answer.message, answer.message


def test_every_policy_refuses_something(fenced: Client) -> None:
    """A policy that is taken out of the chart, or never matches, is missed here by name."""
    refusals = " ".join(row.attempt(fenced).message for row in (*ATTACKS, *CONNECTS))
    installed = {item["metadata"]["name"] for item in fenced.send("GET", ADMISSION_POLICY.path()).body["items"]}
    assert len(installed) == 17
    assert {name for name in installed if f"ValidatingAdmissionPolicy '{name}'" not in refusals} == set()
