"""How long after a node's grant is deleted a bind is still let through, on the same API server and on another.

1. One thread for each API server tries dry-run binds without a pause, before, while and after the grant is deleted.
2. Time counts from the answer to the deletion: the operator can know nothing earlier.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from time import perf_counter

from lethe.adapters import kube as kinds
from lethe.adapters.kube import Object
from lethe.model.config import OperatorConfig
from lethe.specs.fence import build_grant_binding, build_grant_role
from tests.apiserver.cluster import pod
from tests.apiserver.requests import OPERATOR
from tests.apiserver.server import Client
from tests.cluster.waiting import until
from tests.performance.bind import fenced_servers, tenant
from tests.performance.report import Part, Row, quantile, spread
from tests.performance.session import Session

TRIALS = 200
OTHER_GRANTS = 1_000
_NODE = "closing"
_ALLOWED, _REFUSED = 201, 403


@dataclass(frozen=True)
class _Seen:
    """What one server did, in milliseconds after the deletion was answered."""

    first_refused: float
    last_allowed: float


def measure(folder: Path, part: Part) -> None:
    """Close a grant again and again."""
    with fenced_servers(folder, second=[]) as servers:
        admin = servers["fenced"][0].acting(OPERATOR[0], "system:masters")
        for number in range(OTHER_GRANTS):
            name, space = f"gpu-{number}", tenant(number)
            admin.create(kinds.ROLE, build_grant_role(name, space))
            admin.create(kinds.ROLEBINDING, build_grant_binding(name, space, [f"pod-{number}"]))
        admin.create(kinds.ROLE, build_grant_role(_NODE, tenant(0)))
        waiting = admin.create(kinds.POD, pod("waiting", tenant(0)))
        with Session(servers["fenced"][0]) as same, Session(servers["second"][0]) as other:
            seen = [_trial(admin, waiting, (same, other)) for _ in range(TRIALS)]
    settle = OperatorConfig(image="").settle_seconds * 1000
    for index, server in enumerate(("the same API server", "another API server")):
        refused = [trial[index].first_refused for trial in seen]
        late = [trial[index].last_allowed for trial in seen]
        for name, share in (("p50", 0.5), ("p99", 0.99)):
            part.rows.append(
                _row(f"closing to first refused bind, {server}, {name}", quantile(refused, share), refused)
            )
        part.rows.append(_row(f"latest bind begun after closing and let through, {server}", max(late), late, settle))
    part.notes.append(
        f"{OTHER_GRANTS:,} other grants exist. A negative time is one before the deletion was answered. The goal is "
        "how long the operator lets a closed fence settle before it believes it."
    )


def _row(measure: str, value: float, values: list[float], goal: float | None = None) -> Row:
    return Row(measure=measure, value=value, unit="ms", n=len(values), spread=spread(values, "ms"), goal=goal)


def _trial(admin: Client, waiting: Object, sessions: tuple[Session, ...]) -> list[_Seen]:
    grant = build_grant_binding(_NODE, tenant(0), [waiting["metadata"]["uid"]])
    admin.create(kinds.ROLEBINDING, grant)
    for session in sessions:
        until(_allowing(session, waiting), what="the grant to be seen", seconds=30)
    with ThreadPoolExecutor(len(sessions)) as threads:
        running = [Event() for _ in sessions]
        tries = [
            threads.submit(_try_until_refused, session, waiting, event)
            for session, event in zip(sessions, running, strict=True)
        ]
        for event in running:
            event.wait()
        answer = admin.send("DELETE", kinds.ROLEBINDING.path(grant["metadata"]["name"], tenant(0)))
        closed = perf_counter()
        assert answer.ok, answer.message
        return [_Seen(*((moment - closed) * 1000 for moment in each.result())) for each in tries]


def _allowing(session: Session, waiting: Object) -> Callable[[], bool]:
    return lambda: session.bind(waiting, _NODE, dry_run=True)[0] == _ALLOWED


def _try_until_refused(session: Session, waiting: Object, running: Event) -> tuple[float, float]:
    """Try binds; return when the first refusal came, and when the last one that was let through began."""
    last_allowed = perf_counter()
    while True:
        began = perf_counter()
        status, seconds = session.bind(waiting, _NODE, dry_run=True)
        if status == _REFUSED:
            return began + seconds, last_allowed
        assert status == _ALLOWED, f"a dry-run bind was answered with {status}"
        last_allowed = began
        running.set()
