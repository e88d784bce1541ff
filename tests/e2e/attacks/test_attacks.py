"""The attack table on a real cluster: each attack works without the policies and is refused with them, and what is
honest goes on."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from tests.apiserver.cluster import Scene
from tests.apiserver.requests import SCHEDULER, Row, bind, is_refusal, wait_until_refused
from tests.apiserver.server import Answer, client_of
from tests.attacks.broad import everybody_is_admin
from tests.attacks.honest import denied_rights, honest
from tests.attacks.jobs import job_attacks
from tests.attacks.table import attacks, entries, refused_anyway
from tests.cluster.errors import ClusterError
from tests.cluster.waiting import until
from tests.common.objects import Object
from tests.common.world import World
from tests.e2e.attacks.deeds import DEEDS, Deed
from tests.e2e.attacks.stage import Policies, Stage, furnished, operator_away, scene_of

ANY = Scene()
"""For the names of the rows, which are the same for every scene."""

TOO_BROAD = "right: everybody made cluster-admin, then any pod bound"

Table = dict[str, tuple[str, str]]


@dataclass(frozen=True)
class Trial:
    """A stage on which all has been tried without the policies; they are back, and act."""

    stage: Stage
    answers: dict[str, Answer]
    loot: dict[str, str]
    policies: frozenset[str]


@pytest.fixture(scope="module")
def trial(world: World, held: Object, globex: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trial]:
    """Try everything without the policies, and put them back."""
    admin = client_of(world.provider.kubeconfig(), tmp_path_factory.mktemp("admin"))
    stage = Stage(world, admin, scene_of(world, held))
    scene, policies = stage.scene, Policies(admin)
    rows = [*attacks(scene), *entries(scene)]
    with ExitStack() as undo:
        undo.enter_context(operator_away(stage.kubectl))
        with policies.away():
            _wait_until_open(job_attacks(scene), lambda row: row.request(admin))
            undo.enter_context(furnished(stage))
            _wait_until_open(rows, lambda row: row.attempt(admin))
            answers = {row.name: row.attempt(admin) for row in (*rows, *refused_anyway(scene))}
            answers[TOO_BROAD] = bind("mine", scene.open)(admin.acting(*SCHEDULER))
            loot = {deed.name: _loot(deed, stage) for deed in DEEDS}
        wait_until_refused(rows, admin)
        yield Trial(stage, answers, loot, frozenset(policies.names))


@pytest.mark.parametrize("name", [row.name for row in attacks(ANY)])
def test_attack(name: str, trial: Trial, table: Table) -> None:
    before, after = trial.answers[name], _attempt(trial, attacks(trial.stage.scene), name)
    table[name] = _said(before), _said(after)
    assert before.ok, f"the attack must work without the policies: {before.status} {before.message}"
    assert is_refusal(_row(attacks(trial.stage.scene), name), after), f"{after.status} {after.message}"


@pytest.mark.parametrize("name", [row.name for row in entries(ANY)])
def test_entry(name: str, trial: Trial, table: Table) -> None:
    before, after = trial.answers[name], _attempt(trial, entries(trial.stage.scene), name)
    table[name] = f"let through ({before.status})", _said(after)
    assert before.status not in (401, 403), f"without the policies it gets further: {before.status} {before.message}"
    assert is_refusal(_row(entries(trial.stage.scene), name), after), f"{after.status} {after.message}"


@pytest.mark.parametrize("deed", DEEDS, ids=lambda deed: deed.name)
def test_deed(deed: Deed, trial: Trial, table: Table) -> None:
    before = trial.loot[deed.name]
    with pytest.raises(ClusterError) as refusal:
        deed.act(trial.stage)
    table[deed.name] = before, _sentence(str(refusal.value))
    assert not before.startswith("FAILED"), f"the attack must work without the policies: {before}"
    assert "lethe:" in str(refusal.value) and deed.says in str(refusal.value), str(refusal.value)


@pytest.mark.parametrize("name", [row.name for row in refused_anyway(ANY)])
def test_refused_by_kubernetes_itself(name: str, trial: Trial, table: Table) -> None:
    before, after = trial.answers[name], _attempt(trial, refused_anyway(trial.stage.scene), name)
    table[name] = _said(before), _said(after)
    for answer in (before, after):
        assert answer.status in (403, 409, 422), f"{answer.status} {answer.message}"


@pytest.mark.parametrize("name", [row.name for row in honest(ANY)])
def test_honest(name: str, trial: Trial) -> None:
    answer = _attempt(trial, honest(trial.stage.scene), name)
    assert answer.ok, f"{answer.status} {answer.message}"


@pytest.mark.parametrize("name", [row[0] for row in denied_rights(ANY)])
def test_rights_are_least(name: str, trial: Trial) -> None:
    _, who, method, path = next(row for row in denied_rights(trial.stage.scene) if row[0] == name)
    answer = trial.stage.admin.acting(*who).send(method, path, {} if method == "POST" else None)
    assert answer.status == 403 and "cannot" in answer.message, f"{answer.status} {answer.message}"


def test_every_policy_refuses_something(trial: Trial) -> None:
    """A policy that is taken out of the chart, or never matches, is missed here by name."""
    scene = trial.stage.scene
    refusals = " ".join(row.attempt(trial.stage.admin).message for row in (*attacks(scene), *entries(scene)))
    assert len(trial.policies) == 17
    assert {name for name in trial.policies if f"ValidatingAdmissionPolicy '{name}'" not in refusals} == set()


def test_rights_that_are_too_broad_close_every_node(trial: Trial, table: Table) -> None:
    with everybody_is_admin(trial.stage.admin, trial.stage.scene) as refusal:
        table[TOO_BROAD] = _said(trial.answers[TOO_BROAD]), _said(refusal)


def _attempt(trial: Trial, rows: Sequence[Row], name: str) -> Answer:
    return _row(rows, name).attempt(trial.stage.admin)


def _row(rows: Sequence[Row], name: str) -> Row:
    return next(row for row in rows if row.name == name)


def _loot(deed: Deed, stage: Stage) -> str:
    try:
        return deed.act(stage)
    except ClusterError as error:
        return f"FAILED: {error}"


def _wait_until_open(rows: Sequence[Row], attempt: Callable[[Row], Answer]) -> None:
    """Wait until no policy refuses any more."""
    until(lambda: not any("lethe:" in attempt(row).message for row in rows), what="the policies to be gone", seconds=30)


def _said(answer: Answer) -> str:
    return f"accepted ({answer.status})" if answer.ok else f"refused: {_sentence(answer.message)}"


def _sentence(message: str) -> str:
    """Return the sentence of a refusal, without Kubernetes' words before it."""
    return message[message.index("lethe:") :] if "lethe:" in message else message
