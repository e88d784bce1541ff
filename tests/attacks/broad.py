"""Rights so broad that they would open every node: the canary makes the fence close them all instead."""

from collections.abc import Iterator
from contextlib import contextmanager

from lethe.adapters import kube as kinds
from tests.apiserver.cluster import Scene, binding, group
from tests.apiserver.requests import CLOSED, SCHEDULER, bind
from tests.apiserver.server import Answer, Client
from tests.cluster.waiting import until

NAME = "everybody"


@contextmanager
def everybody_is_admin(admin: Client, s: Scene) -> Iterator[Answer]:
    """Make every account cluster-admin, check that only system namespaces get onto nodes, and take it back.

    Yields the refusal of a bind to an open node.
    """
    scheduler = admin.acting(*SCHEDULER)
    opened = bind("mine", s.open)
    body = binding(NAME, "", "cluster-admin", group("system:serviceaccounts"), role_kind="ClusterRole")
    admin.delete(kinds.CLUSTERROLEBINDING, NAME)
    admin.create(kinds.CLUSTERROLEBINDING, body)
    try:
        until(lambda: opened(scheduler).status == 403, what="the canary to close the open node", seconds=15)
        for request in (bind("mine", s.held), bind("lethe-digits-0", s.held), bind("other", s.open, "plain")):
            answer = request(scheduler)
            assert answer.status == 403 and CLOSED in answer.message, f"{answer.status} {answer.message}"
        assert bind("agent", s.held, "kube-system")(scheduler).ok, "system namespaces go on"
        yield opened(scheduler)
    finally:
        admin.delete(kinds.CLUSTERROLEBINDING, NAME)
        until(lambda: opened(scheduler).ok, what="the open node to be open again", seconds=15)
