"""What Kopf does badly as an operator's framework must not reach Lethe: one test for each.

The watches run as they do in the operator, against a real API server, through a proxy that notes and spoils. Kopf ends
every task of its event loop when it stops, so it has a loop of its own.
"""

import ast
import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from kubernetes.config import kube_config

import lethe
from lethe.adapters import kube as kinds
from lethe.adapters.metrics import OperatorMetrics
from lethe.controller.queue import Wakeups
from lethe.controller.watch import NodeFilter, WatchProbe, watch
from tests.apiserver.cluster import binding, pod
from tests.apiserver.proxy import Background, Proxy, proxied
from tests.apiserver.requests import OPERATOR
from tests.apiserver.server import Client, Object
from tests.cluster.waiting import until

PLURALS = {
    "securetrainingjobs",
    "encrypteddatasets",
    "tenants",
    "tenantkeys",
    "gpunodes",
    "nodes",
    "pods",
    "rolebindings",
}
GPU_LABEL = "nvidia.com/gpu.present=true"
SECONDS = 30


class Told(WatchProbe):
    """A probe that lets the test see what was told, and whose clock the test moves."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.versions: dict[kinds.Kind, int] = {}
        super().__init__(lambda: self.seconds)

    def told(self, kind: kinds.Kind, version: str) -> None:
        super().told(kind, version)
        self.versions[kind] = max(int(version), self.versions.get(kind, 0))


class Woken(Wakeups):
    """Wake-ups that another thread can count."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def wake(self) -> None:
        super().wake()
        self.count += 1


class Watching:
    """The operator's watches, running."""

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self.probe = Told()
        self.wakeups = Woken()
        self._stop: Callable[[], object] = lambda: None
        started = threading.Event()

        async def run() -> None:
            stop = asyncio.Event()
            loop = asyncio.get_running_loop()
            self._stop = lambda: loop.call_soon_threadsafe(stop.set)
            started.set()
            await watch(self.wakeups, OperatorMetrics(), self.probe, NodeFilter(GPU_LABEL), stop)

        self.background = Background(run())
        assert started.wait(SECONDS)

    def has_told(self, kind: kinds.Kind, item: Object) -> bool:
        """Say whether a watch has told this version of an object, or a later one of its kind."""
        return self.probe.versions.get(kind, 0) >= int(item["metadata"]["resourceVersion"])

    def stop(self) -> None:
        if not self.background.has_ended:
            self._stop()
        self.background.join(SECONDS)


@contextmanager
def running(proxy: Proxy) -> Iterator[Watching]:
    """Run the watches; every one is open at the beginning."""
    watching = Watching(proxy)
    try:
        until(lambda: proxy.watches() == PLURALS, what="every watch to be open", seconds=SECONDS)
        yield watching
    finally:
        watching.stop()


@pytest.fixture
def proxy(admin: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """Put a proxy between Kopf and the API server."""
    with proxied(f"https://127.0.0.1:{admin.port}", admin.context) as proxy:
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "proxy",
            "clusters": [{"name": "proxy", "cluster": {"server": proxy.url}}],
            "users": [{"name": "proxy", "user": {}}],
            "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "proxy"}}],
        }
        path = tmp_path / "kubeconfig"
        path.write_text(yaml.safe_dump(config))
        monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(path))
        yield proxy


@pytest.fixture
def watching(proxy: Proxy) -> Iterator[Watching]:
    """Run the watches until the test ends."""
    with running(proxy) as watching:
        yield watching


@pytest.fixture
def tenants(admin: Client) -> Iterator[Callable[[str], Object]]:
    """Make Tenants, and remove them afterwards."""
    made: list[str] = []

    def make(name: str) -> Object:
        made.append(name)
        return admin.create(kinds.TENANT, {"metadata": {"name": name}, "spec": {"namespaces": [name]}})

    yield make
    for name in made:
        remove(admin, kinds.TENANT, name)


Tenants = Callable[[str], Object]


def remove(admin: Client, kind: kinds.Kind, name: str, namespace: str = "") -> None:
    answer = admin.send("DELETE", kind.path(name, namespace))
    assert answer.ok or answer.status == 404, answer.message


def test_kopf_writes_nothing(watching: Watching, admin: Client, tenants: Tenants) -> None:
    """No finalizer, annotation, status, event, peering object or webhook: timers, daemons and progress have none."""
    made = tenants("written")
    until(lambda: watching.has_told(kinds.TENANT, made), what="the Tenant to be told", seconds=SECONDS)
    remove(admin, kinds.TENANT, "written")
    assert not admin.send("GET", kinds.TENANT.path("written")).ok, "something keeps the Tenant"

    assert {method for method, _ in watching.proxy.requests} == {"GET"}


def test_an_object_whose_label_is_taken_off_keeps_its_finalizer(watching: Watching, admin: Client) -> None:
    """Kopf releases its own finalizers when a filter stops to match; ours are not Kopf's."""
    operator = admin.acting(*OPERATOR)
    name, finalizers = "lethe-relabelled-0", ["lethe.dev/custody"]
    body = pod(name, "acme", labels={"lethe.dev/role": "train"}, finalizers=finalizers)
    path = kinds.POD.path(name, "acme")
    made = operator.create(kinds.POD, body)
    try:
        until(lambda: watching.has_told(kinds.POD, made), what="the pod to be told", seconds=SECONDS)
        patch = {"metadata": {"labels": {"lethe.dev/role": None}}}
        changed = operator.send("PATCH", path, patch, "application/merge-patch+json").body
        until(lambda: watching.has_told(kinds.POD, changed), what="the pod's leaving to be told", seconds=SECONDS)

        assert admin.get(kinds.POD, name, "acme")["metadata"]["finalizers"] == finalizers
    finally:
        operator.send("PATCH", path, {"metadata": {"finalizers": None}}, "application/merge-patch+json")
        remove(operator, kinds.POD, name, "acme")


def test_a_watch_that_kopf_gives_up_ends_the_process(watching: Watching) -> None:
    """Earlier versions of Kopf went on, alive and blind, after one ERROR event."""
    watching.proxy.tell_error("gpunodes", 500)

    until(lambda: watching.background.has_ended, what="the operator to end without a watch", seconds=SECONDS)
    assert "injected" in str(watching.background.error)


def test_a_version_that_is_too_old_is_listed_anew(watching: Watching, admin: Client, tenants: Tenants) -> None:
    """What was deleted while nobody watched stays in Kopf's indices; what is made afterwards is told all the same."""
    tenants("vanishing")
    watching.proxy.mute("tenants")
    remove(admin, kinds.TENANT, "vanishing")
    watching.proxy.unmute("tenants")
    before = len(watching.proxy.requests)
    watching.proxy.tell_error("tenants", 410)
    listed = ("GET", kinds.TENANT.path())
    until(lambda: listed in watching.proxy.requests[before:], what="tenants to be listed anew", seconds=SECONDS)
    made = tenants("after")
    until(lambda: watching.has_told(kinds.TENANT, made), what="the next Tenant to be told", seconds=SECONDS)

    assert not watching.background.has_ended


def test_a_watch_that_is_open_and_tells_nothing_is_found_out(watching: Watching, tenants: Tenants) -> None:
    """A probe of the process says that it lives; a probe of what it sees says that it is blind."""
    until(lambda: watching.wakeups.count > 0, what="the objects of the beginning to be told", seconds=SECONDS)
    watching.proxy.mute("tenants")
    watching.probe.read(kinds.TENANT, int(tenants("unseen")["metadata"]["resourceVersion"]))
    assert watching.probe.blind() == []
    watching.probe.seconds += 1000

    assert watching.probe.blind() == ["Tenant"]


def test_many_objects_at_the_beginning(proxy: Proxy, tenants: Tenants) -> None:
    """A limit of Kopf's workers below the number of objects would block the start."""
    made = [tenants(f"many-{number}") for number in range(200)]
    with running(proxy) as watching:
        until(lambda: watching.has_told(kinds.TENANT, made[-1]), what="all Tenants to be told", seconds=SECONDS)
        until(lambda: watching.wakeups.count >= len(made), what="each to ask for a cycle", seconds=SECONDS)


def test_two_replicas_do_not_pause_each_other(watching: Watching, proxy: Proxy, tenants: Tenants) -> None:
    """Kopf's peering pauses operators of equal priority."""
    with running(proxy) as other:
        until(lambda: other.wakeups.count > 0, what="the second's objects to be told", seconds=SECONDS)
        made = tenants("seen-twice")
        for each in (watching, other):
            until(lambda each=each: each.has_told(kinds.TENANT, made), what="both to be told", seconds=SECONDS)


def test_what_is_not_lethe_s_wakes_nobody(watching: Watching, admin: Client, tenants: Tenants) -> None:
    """Selectors act on the server: what others do all day costs the operator nothing."""
    bound = admin.create(kinds.ROLEBINDING, binding("theirs-2", "plain", "view"))
    made = admin.create(kinds.POD, pod("theirs-2", "plain"))
    try:
        sentinel = tenants("sentinel")
        until(lambda: watching.has_told(kinds.TENANT, sentinel), what="the sentinel to be told", seconds=SECONDS)

        assert not watching.has_told(kinds.ROLEBINDING, bound)
        assert not watching.has_told(kinds.POD, made)
    finally:
        remove(admin, kinds.ROLEBINDING, "theirs-2", "plain")
        remove(admin, kinds.POD, "theirs-2", "plain")


def test_nothing_but_the_watches_knows_kopf() -> None:
    """Its patches go by name and would land on a successor; its indices outlive objects."""
    package = Path(lethe.__file__).parent
    users = set()
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            found = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            found += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            users |= {str(path.relative_to(package)) for name in found if name.split(".")[0] == "kopf"}
    assert users == {"controller/watch.py"}
