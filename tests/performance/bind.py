"""What the fence adds to a bind: the same binds, in turn, on two API servers of one etcd; one admits without policies.

1. Nothing but the admission plugin of policies differs between the two. Which of them gets a pair's first bind
   alternates.
2. For N nodes the open list names N, and a tenth as many are granted to pods of tenants, as the operator writes it.
3. Binds are real ones of real pods: to open nodes, and to granted nodes of the pod that each grant names. Refused ones
   are told too; what is compared there is the time of the refusal with the time of the bind that would have happened.
4. Pods are made well before they are bound, so that both servers have heard of them.
"""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from lethe.adapters import kube as kinds
from lethe.adapters.kube import Object
from lethe.specs.fence import build_grant_binding, build_grant_role, build_open_binding, build_open_role
from tests.apiserver.chart import install, program, put_policies_in, render, write_policies
from tests.apiserver.cluster import pod
from tests.apiserver.requests import OPERATOR
from tests.apiserver.server import Client, serve_side_by_side
from tests.cluster.waiting import until
from tests.performance.report import Part, Row, quantile, spread
from tests.performance.session import Session

NODES = (1, 100, 1_000, 5_000)
OPEN_BINDS, GRANTED_BINDS, REFUSED_BINDS, WARM_UP = 500, 200, 200, 50
GOAL = 2.5
_TENANTS = 10
_GRANTED_SHARE = 10
_NO_POLICIES = ["--disable-admission-plugins=ValidatingAdmissionPolicy"]


@contextmanager
def fenced_servers(folder: Path, **more: Sequence[str]) -> Iterator[dict[str, tuple[Client, Path]]]:
    """Run an API server `fenced` with Lethe's policies in force, and others with these flags on the same etcd."""
    with serve_side_by_side(program("lethe-kube"), folder, {"fenced": [], **more}) as servers:
        client, kubeconfig = servers["fenced"]
        chart = render()
        install(client, chart)
        for number in range(_TENANTS):
            name = tenant(number)
            client.create(kinds.NAMESPACE, {"metadata": {"name": name, "labels": {"lethe.dev/tenant": name}}})
        client.create(kinds.ROLE, build_open_role(["warm-up"]))
        client.create(kinds.ROLEBINDING, build_open_binding())
        asyncio.run(put_policies_in(kubeconfig, write_policies(chart, folder / "policies")))
        yield servers


def tenant(number: int) -> str:
    """Return the namespace of a tenant."""
    return f"tenant-{number % _TENANTS}"


def measure(folder: Path, part: Part) -> None:
    """Measure it for each number of nodes."""
    with fenced_servers(folder, plain=_NO_POLICIES) as servers:
        admin = servers["fenced"][0].acting(OPERATOR[0], "system:masters")
        with Session(servers["fenced"][0]) as fenced, Session(servers["plain"][0]) as plain:
            for nodes in NODES:
                _Round(admin, fenced, plain, nodes).measure(part)
    part.notes.append(
        "Times are what a client sees on one kept connection, one request after the other, so the client's own time "
        "is in both figures. Beside: an API server of the same etcd without admission policies, in turn."
    )


class _Round:
    """Binds with a fence of so many nodes."""

    def __init__(self, admin: Client, fenced: Session, plain: Session, nodes: int) -> None:
        self._admin, self._fenced, self._plain, self._nodes = admin, fenced, plain, nodes
        self._granted = [f"gpu-{nodes}-{number}" for number in range(max(1, nodes // _GRANTED_SHARE))]

    def measure(self, part: Part) -> None:
        opened = [f"node-{number}" for number in range(self._nodes)]
        replace(self._admin, build_open_role(opened))
        for number, node in enumerate(self._granted):
            self._admin.create(kinds.ROLE, build_grant_role(node, tenant(number)))
            self._admin.create(kinds.ROLEBINDING, build_grant_binding(node, tenant(number), ["nobody"]))
        pods = self._pods(2 * (WARM_UP + OPEN_BINDS), "open")
        self._until_allowed(pods[0], opened[-1])
        self._pairs(pods[: 2 * WARM_UP], opened)
        self._rows(part, "an open node", *self._pairs(pods[2 * WARM_UP :], opened), goal=True)
        self._rows(part, "a granted node", *self._granted_pairs(), goal=True)
        pods = self._pods(2 * REFUSED_BINDS, "refused")
        self._rows(part, "a closed node (refused)", *self._pairs(pods, ["closed"], fenced_status=403), goal=False)

    def _pods(self, count: int, what: str) -> list[Object]:
        return [
            self._admin.create(kinds.POD, pod(f"{what}-{self._nodes}-{number}", tenant(number // 2)))
            for number in range(count)
        ]

    def _until_allowed(self, waiting: Object, node: str) -> None:
        what = f"the fence to open {node}"
        until(lambda: self._fenced.bind(waiting, node, dry_run=True)[0] == 201, what=what, seconds=30)

    def _pairs(self, pods: list[Object], nodes: list[str], fenced_status: int = 201) -> tuple[list[float], list[float]]:
        """Bind the pods two by two, one of each pair on either server; return their times."""
        times: tuple[list[float], list[float]] = ([], [])
        sides = ((self._fenced, fenced_status, times[0]), (self._plain, 201, times[1]))
        for number in range(0, len(pods), 2):
            node = nodes[number // 2 * 7919 % len(nodes)]
            order = sides if number % 4 else sides[::-1]
            for waiting, (session, expected, taken) in zip(pods[number : number + 2], order, strict=True):
                status, seconds = session.bind(waiting, node)
                assert status == expected, f"bind to {node}: {status}, expected {expected}"
                taken.append(seconds * 1000)
        return times

    def _granted_pairs(self) -> tuple[list[float], list[float]]:
        """Let each grant name one pod, as an Assigned node does, and bind that one; again until there are enough."""
        times: tuple[list[float], list[float]] = ([], [])
        while len(times[0]) < GRANTED_BINDS:
            nodes = self._granted[: GRANTED_BINDS - len(times[0])]
            name = f"granted-{len(times[0])}"
            pods = self._pods(2 * len(nodes), name)
            for number, node in enumerate(nodes):
                uid = pods[2 * number]["metadata"]["uid"]
                replace(self._admin, build_grant_binding(node, tenant(number), [uid]))
            self._until_allowed(pods[2 * len(nodes) - 2], nodes[-1])
            for number, node in enumerate(nodes):
                mine, other = pods[2 * number : 2 * number + 2]
                order = ((self._fenced, mine, times[0]), (self._plain, other, times[1]))
                for session, waiting, taken in order if number % 2 else order[::-1]:
                    status, seconds = session.bind(waiting, node)
                    assert status == 201, f"bind to {node}: {status}"
                    taken.append(seconds * 1000)
        return times

    def _rows(self, part: Part, where: str, fenced: list[float], plain: list[float], *, goal: bool) -> None:
        for name, share in (("p50", 0.5), ("p99", 0.99)):
            part.rows.append(
                Row(
                    measure=f"bind to {where}, N = {self._nodes:,}, {name}",
                    value=quantile(fenced, share),
                    unit="ms",
                    n=len(fenced),
                    spread=spread(fenced, "ms"),
                    beside=quantile(plain, share),
                    goal=GOAL if goal else None,
                    goal_of="ratio",
                )
            )


def replace(admin: Client, body: Object) -> None:
    """Replace a Role or a RoleBinding of the fence."""
    kind = kinds.ROLEBINDING if "roleRef" in body else kinds.ROLE
    typed = {"apiVersion": kind.api_version, "kind": kind.kind, **body}
    answer = admin.send("PUT", kind.path(body["metadata"]["name"], body["metadata"]["namespace"]), typed)
    assert answer.ok, answer.message
