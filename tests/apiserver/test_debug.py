"""Tenant.spec.debug at the API server: exec into the pods that the operator names, and nothing else."""

from collections.abc import Iterator

import pytest

from lethe.adapters import kube as kinds
from lethe.specs.fence import build_debug_binding, build_debug_role
from tests.apiserver.cluster import account, binding, role
from tests.apiserver.requests import ADMIN, OPERATOR, TENANT, Row, create
from tests.apiserver.server import Answer, Client
from tests.cluster.waiting import until

POD = "lethe-running"


def connect(client: Client, pod: str, verb: str, namespace: str = "acme") -> Answer:
    query = {"exec": "?command=sh&stdout=true", "attach": "?stdout=true"}.get(verb, "")
    return client.acting(*TENANT).send("POST", f"/api/v1/namespaces/{namespace}/pods/{pod}/{verb}{query}")


def is_refused(answer: Answer) -> bool:
    return answer.status == 403 and "lethe:" in answer.message


@pytest.fixture
def opened(fenced: Client) -> Iterator[Client]:
    """Return a cluster in which the operator has opened one pod."""
    operator = fenced.acting(*OPERATOR)
    made = ((kinds.ROLE, build_debug_role("acme", [POD])), (kinds.ROLEBINDING, build_debug_binding("acme")))
    for kind, body in made:
        operator.create(kind, body)
    try:
        until(lambda: not is_refused(connect(fenced, POD, "exec")), what="the pod to be open", seconds=10)
        yield fenced
    finally:
        for kind, body in reversed(made):
            operator.send("DELETE", kind.path(body["metadata"]["name"], "acme"))
        until(lambda: is_refused(connect(fenced, POD, "exec")), what="the pod to be closed again", seconds=10)


@pytest.mark.parametrize("verb", ["attach", "portforward", "proxy"])
def test_only_exec_is_open(verb: str, opened: Client) -> None:
    assert is_refused(connect(opened, POD, verb))


def test_only_the_named_pod_is_open(opened: Client) -> None:
    assert is_refused(connect(opened, "lethe-digits-0", "exec"))


@pytest.mark.parametrize(
    "row",
    [
        Row(
            "a role that opens a pod",
            ADMIN,
            create(
                kinds.ROLE,
                role(
                    "mine",
                    "acme",
                    [
                        {
                            "apiGroups": ["lethe.dev"],
                            "resources": ["gpunodes"],
                            "resourceNames": ["lethe-digits-0"],
                            "verbs": ["debug"],
                        }
                    ],
                ),
            ),
            "only the operator writes it",
        ),
        Row(
            "the virtual account, bound",
            ADMIN,
            create(kinds.ROLEBINDING, binding("mine", "acme", "everything", account("lethe-pod-debug", "acme"))),
            "accounts of the fence",
        ),
        Row(
            "the virtual account, made",
            ADMIN,
            create(kinds.SERVICEACCOUNT, {"metadata": {"name": "lethe-pod-debug", "namespace": "acme"}}),
            "stands for a pod",
        ),
        Row(
            "the operator's own role, bound",
            ADMIN,
            create(kinds.ROLEBINDING, binding("mine", "acme", "lethe-pods:debug", account("default", "acme"))),
            "only the operator binds them",
        ),
    ],
    ids=lambda row: row.name,
)
def test_a_tenant_cannot_open_one_itself(row: Row, opened: Client) -> None:
    answer = row.attempt(opened)
    assert answer.status in (403, 422), answer.message
    assert row.says in answer.message


def test_rights_so_broad_that_they_open_every_pod_open_none(fenced: Client) -> None:
    """The canary, for an administrator who gives every account of the namespace everything."""
    name = "too-broad"
    everybody = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "system:serviceaccounts:acme"}
    admin = fenced
    admin.create(kinds.ROLEBINDING, binding(name, "acme", "everything", everybody))
    try:
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {
                "user": "system:serviceaccount:acme:lethe-pod-debug",
                "groups": ["system:serviceaccounts", "system:serviceaccounts:acme", "system:authenticated"],
                "resourceAttributes": {
                    "group": "lethe.dev",
                    "resource": "gpunodes",
                    "namespace": "acme",
                    "name": POD,
                    "verb": "debug",
                },
            },
        }
        path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
        until(
            lambda: admin.send("POST", path, review).body["status"]["allowed"],
            what="the rights to be as broad as that",
            seconds=10,
        )
        assert is_refused(connect(fenced, POD, "exec"))
    finally:
        admin.send("DELETE", kinds.ROLEBINDING.path(name, "acme"))
