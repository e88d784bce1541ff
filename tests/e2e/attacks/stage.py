"""A scene on a real cluster: a job that holds a node, the objects of the attack table, an operator that stands still.

1. The operator is scaled to zero while the table is tried, so that nothing moves, and objects that it alone may make
   can be prepared.
2. The policies are taken out, the objects made and every attack tried; then they are put back, and tried again.
3. All is undone in reverse, also after a failure, and what an earlier run has left is removed first. The objects are
   removed in the operator's name, since nobody else may.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from lethe.adapters import kube as kinds
from lethe.adapters.kube import Kind
from lethe.model.names import virtual_pod_account
from tests.apiserver.cluster import CUSTODY, Scene, account, people, pods, running_pod
from tests.apiserver.requests import OPERATOR
from tests.apiserver.server import Client, Object
from tests.cluster.kubectl import Kubectl
from tests.cluster.waiting import until
from tests.common.installation import EXAMPLE_IMAGE, SYSTEM
from tests.common.objects import find_all, remove
from tests.common.world import World

STAND_IN = "lethe-stand-in"
OPERATOR_PODS = "app.kubernetes.io/component=operator"
PLANTED = "key-of-the-stand-in"


@dataclass(frozen=True)
class Stage:
    """A cluster on which the table is tried."""

    world: World
    admin: Client
    scene: Scene

    @property
    def kubectl(self) -> Kubectl:
        """Return the administrator's kubectl."""
        return self.world.provider.kubectl()


class Policies:
    """The admission policies of Lethe on a cluster, which can be taken out and put back."""

    def __init__(self, admin: Client) -> None:
        self._admin = admin
        self._saved = {kind: _ours(admin, kind) for kind in (kinds.ADMISSION_POLICY, kinds.ADMISSION_BINDING)}

    @property
    def names(self) -> set[str]:
        """Return the names of the policies."""
        return {item["metadata"]["name"] for item in self._saved[kinds.ADMISSION_POLICY]}

    @contextmanager
    def away(self) -> Iterator[None]:
        """Take the policies out until the end of the block."""
        try:
            for kind in (kinds.ADMISSION_BINDING, kinds.ADMISSION_POLICY):
                for item in self._saved[kind]:
                    self._admin.delete(kind, item["metadata"]["name"])
            yield
        finally:
            for kind in (kinds.ADMISSION_POLICY, kinds.ADMISSION_BINDING):
                for item in self._saved[kind]:
                    answer = self._admin.send("POST", kind.path(), {**item, **_type_of(kind)})
                    assert answer.ok or answer.status == 409, answer.message


@contextmanager
def operator_away(kubectl: Kubectl) -> Iterator[None]:
    """Scale the operator to zero until the end of the block."""
    where = (f"--namespace={SYSTEM}", "deployment/lethe-operator")
    replicas = kubectl.read("get", *where)["spec"]["replicas"]
    try:
        kubectl("scale", *where, "--replicas=0")
        until(lambda: not find_all(kubectl, "pods", SYSTEM, OPERATOR_PODS), what="the operator to be gone", seconds=60)
        yield
    finally:
        kubectl("scale", *where, f"--replicas={replicas}")
        kubectl.rolled_out(SYSTEM, "deployment/lethe-operator", seconds=120)


@contextmanager
def furnished(stage: Stage) -> Iterator[None]:
    """Make the objects of the scene, while the policies are away, and remove them at the end of the block."""
    admin, scene = stage.admin, stage.scene
    objects = [*people(), *pods(scene), (kinds.POD, stand_in(scene))]
    with ExitStack() as undo:
        _remove(stage, objects)
        undo.callback(_remove, stage, objects)
        stage.kubectl.apply([{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "plain"}}])
        undo.callback(remove, stage.kubectl, "namespace", "plain")
        until(
            lambda: admin.send("GET", kinds.SERVICEACCOUNT.path("default", "plain")).ok,
            what="the account of namespace plain",
            seconds=30,
        )
        for kind, body in objects:
            admin.create(kind, body)
        granted = admin.get(kinds.POD, "lethe-digits-0", "acme")["metadata"]["uid"]
        subjects = admin.get(kinds.ROLEBINDING, scene.grant, "acme")["subjects"]
        undo.callback(_grant, admin, scene, subjects)
        _grant(admin, scene, [*subjects, account(virtual_pod_account(granted), "acme")])
        running = ("on-gpu", "acme"), ("on-cpu", "acme"), (scene.scrub, SYSTEM), (STAND_IN, "acme")
        until(
            lambda: all(admin.get(kinds.POD, *each)["status"]["phase"] == "Running" for each in running),
            what="the pods of the scene to run",
            seconds=60,
        )
        yield


def stand_in(scene: Scene) -> Object:
    """Return a pod like a training pod, with something to steal, that may be broken: a changed image restarts it."""
    labels = {"lethe.dev/role": "train", "lethe.dev/tenant": "acme"}
    made: dict[str, Any] = running_pod(
        STAND_IN, "acme", scene.held, scene.image, labels=labels, finalizers=CUSTODY, restartPolicy="Never"
    )
    mounts = [{"name": "keys", "mountPath": "/keys"}]
    [container] = made["spec"]["containers"]
    container["command"] = ["sh", "-c", "cat /keys/key; test -e /app/train.py || echo other image; exec sleep 86400"]
    container["volumeMounts"] = mounts
    plant = {"name": "plant", "command": ["sh", "-c", f"echo {PLANTED} > /keys/key"], "volumeMounts": mounts}
    made["spec"]["initContainers"] = [{**plant, "image": scene.image, "imagePullPolicy": "IfNotPresent"}]
    made["spec"]["volumes"] = [{"name": "keys", "emptyDir": {"medium": "Memory"}}]
    return made


def scene_of(world: World, job: Object) -> Scene:
    """Return the scene around a job of acme that runs."""
    kubectl = world.provider.kubectl()
    held = job["status"]["node"]
    free = next(node.name for node in world.installation.gpu_nodes() if node.name != held)
    opened = next(node.name for node in world.provider.nodes() if not node.gpu)
    return Scene(
        held=held,
        free=free,
        open=opened,
        job=job["metadata"]["name"],
        running=job["status"]["pods"][0]["name"],
        scrub=f"lethe-scrub-{free}-900",
        receipt=find_all(kubectl, "scrubreceipts")[0]["metadata"]["name"],
        image=EXAMPLE_IMAGE,
    )


def _grant(admin: Client, scene: Scene, subjects: list[Object]) -> None:
    path = kinds.ROLEBINDING.path(scene.grant, "acme")
    answer = admin.acting(*OPERATOR).send("PATCH", path, {"subjects": subjects}, "application/merge-patch+json")
    assert answer.ok, answer.message


def _remove(stage: Stage, objects: list[tuple[Kind, Object]]) -> None:
    """Remove objects and wait until kubelets have ended what ran."""
    operator = stage.admin.acting(*OPERATOR)
    released = {"metadata": {"finalizers": None}}
    for kind, body in objects:
        name, namespace = body["metadata"]["name"], body["metadata"].get("namespace", "")
        if body["metadata"].get("finalizers"):
            operator.send("PATCH", kind.path(name, namespace), released, "application/merge-patch+json")
        stage.admin.delete(kind, name, namespace)
    for kind, body in objects:
        path = kind.path(body["metadata"]["name"], body["metadata"].get("namespace", ""))
        until(lambda path=path: stage.admin.send("GET", path).status == 404, what=f"{path} to be gone", seconds=60)


def _type_of(kind: Kind) -> Object:
    return {"apiVersion": kind.api_version, "kind": kind.kind}


def _ours(admin: Client, kind: Kind) -> list[Object]:
    found = admin.send("GET", f"{kind.path()}?labelSelector=app.kubernetes.io/part-of%3Dlethe").body["items"]
    kept = ("name", "labels")
    return [{"metadata": {field: item["metadata"][field] for field in kept}, "spec": item["spec"]} for item in found]
