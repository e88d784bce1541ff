"""What the operator expects of an API server, held against a real one and against the simulation's.

A difference between the two would make the simulation prove something else than it says.
"""

import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lethe.adapters import kube as kinds
from lethe.adapters.kube import Kind, Kube, Object
from lethe.model.errors import AlreadyExistsError, ConflictError, RefusedError, UnavailableError
from lethe.specs.scheduling import required_node
from tests.apiserver.chart import program
from tests.apiserver.server import Client, serve
from tests.cluster.waiting import until
from tests.simulation.api_server import ApiServer, ManualClock

SPACE = "contract"
THING = Kind("lethe.dev", "v1", "contractthings", True, "ContractThing")
"""A custom resource with a status subresource, like Lethe's own, that no policy guards."""
_ANYTHING: Object = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
_SCHEMA: Object = {"type": "object", "properties": {"spec": _ANYTHING, "status": _ANYTHING}}
KEEP = "example.dev/keep"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Client, Path]]:
    """Run a server without policies: the other tests' one refuses pods on nodes that nobody has opened."""
    with serve(program("lethe-kube"), tmp_path_factory.mktemp("contract")) as served:
        yield served


@pytest.fixture(scope="module")
def things(server: tuple[Client, Path]) -> tuple[Client, Path]:
    """Define the custom resource on the real server."""
    client, _ = server
    version = {
        "name": THING.version,
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "schema": {"openAPIV3Schema": _SCHEMA},
    }
    names = {"plural": THING.plural, "singular": "contractthing", "kind": THING.kind}
    spec = {"group": THING.group, "scope": "Namespaced", "names": names, "versions": [version]}
    client.create(kinds.CRD, {"metadata": {"name": f"{THING.plural}.{THING.group}"}, "spec": spec})
    until(lambda: client.send("GET", THING.path(namespace=SPACE)).ok, what="the kind to be served", seconds=20)
    return server


@pytest.fixture(params=["real", "simulated"])
async def api(request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    """Connect to either server, and leave its namespace as it was."""
    if request.param == "simulated":
        simulated = ApiServer(ManualClock()).client()
        await simulated.create(kinds.NAMESPACE, {"metadata": {"name": SPACE}})
        yield simulated
        return
    server: tuple[Client, Path] = request.getfixturevalue("things")
    async with await Kube.connect(str(server[1])) as connected:
        if not await connected.exists(kinds.NAMESPACE, SPACE):
            await connected.create(kinds.NAMESPACE, {"metadata": {"name": SPACE}})
            await connected.create(kinds.SERVICEACCOUNT, {"metadata": {"name": "default", "namespace": SPACE}})
        yield connected
        for pod in await connected.list(kinds.POD, SPACE):
            if pod["metadata"].get("finalizers"):
                await connected.patch(kinds.POD, pod["metadata"]["name"], SPACE, {"metadata": {"finalizers": None}})
            await connected.delete(kinds.POD, pod["metadata"]["name"], SPACE, grace_seconds=0)
        for kind in (THING, kinds.CONFIGMAP):
            for item in await connected.list(kind, SPACE):
                name = item["metadata"]["name"]
                if item["metadata"].get("finalizers"):
                    await connected.patch(kind, name, SPACE, {"metadata": {"finalizers": None}})
                await connected.delete(kind, name, SPACE)


def config_map(**changes: Any) -> Object:
    return {"metadata": {"name": "thing", "namespace": SPACE, **changes}, "data": {"a": "1"}}


def pod(**spec: Any) -> Object:
    metadata = {"name": "gated", "namespace": SPACE, "labels": {"role": "train"}, "finalizers": ["example.dev/keep"]}
    containers = [{"name": "main", "image": "image"}]
    return {
        "metadata": metadata,
        "spec": {"containers": containers, "schedulingGates": [{"name": "example.dev/hold"}], **spec},
    }


def conditions_of(item: Object, **changes: str) -> list[Object]:
    found = {**item["metadata"], **changes}
    return [{"op": "test", "path": f"/metadata/{name}", "value": found[name]} for name in ("uid", "resourceVersion")]


async def test_create_get_list(api: Any) -> None:
    created = await api.create(kinds.CONFIGMAP, config_map(labels={"role": "x"}))

    assert created["metadata"]["uid"] and created["metadata"]["resourceVersion"]
    assert (await api.get(kinds.CONFIGMAP, "thing", SPACE))["data"] == {"a": "1"}
    assert await api.get(kinds.CONFIGMAP, "other", SPACE) is None
    assert await api.exists(kinds.CONFIGMAP, "thing", SPACE)
    assert not await api.exists(kinds.CONFIGMAP, "other", SPACE)
    for selector, count in (("role=x", 1), ("role=y", 0), ("role in (x,y)", 1), ("role in (x,y),!role", 0), ("!a", 1)):
        assert len(await api.list(kinds.CONFIGMAP, SPACE, labels=selector)) == count
    assert len(await api.list(kinds.CONFIGMAP, fields="metadata.name=thing")) == 1
    raw = await api.list_raw(kinds.CONFIGMAP, SPACE, labels="role=x")
    assert [msgspec.json.decode(item)["metadata"]["name"] for item in raw] == ["thing"]
    assert await api.list_raw(kinds.CONFIGMAP, SPACE, labels="role=y") == []


async def test_create_twice(api: Any) -> None:
    await api.create(kinds.CONFIGMAP, config_map())
    with pytest.raises(AlreadyExistsError):
        await api.create(kinds.CONFIGMAP, config_map())


async def test_create_in_a_namespace_that_is_not_there(api: Any) -> None:
    with pytest.raises(ConflictError):
        await api.create(kinds.CONFIGMAP, config_map(namespace="nowhere"))


async def test_replace_is_a_compare_and_swap(api: Any) -> None:
    first = await api.create(kinds.CONFIGMAP, config_map())
    second = await api.replace(kinds.CONFIGMAP, {**first, "data": {"a": "2"}})

    assert second["data"] == {"a": "2"}
    with pytest.raises(ConflictError):
        await api.replace(kinds.CONFIGMAP, {**first, "data": {"a": "3"}})


@pytest.mark.parametrize("changes", [{"uid": "another"}, {"resourceVersion": "1"}], ids=["uid", "version"])
async def test_a_patch_with_a_failed_test_does_nothing(api: Any, changes: dict[str, str]) -> None:
    created = await api.create(kinds.CONFIGMAP, config_map())
    change = {"op": "add", "path": "/data", "value": {"a": "2"}}

    with pytest.raises(ConflictError):
        await api.patch(kinds.CONFIGMAP, "thing", SPACE, [*conditions_of(created, **changes), change])
    assert (await api.get(kinds.CONFIGMAP, "thing", SPACE))["data"] == {"a": "1"}
    changed = await api.patch(kinds.CONFIGMAP, "thing", SPACE, [*conditions_of(created), change])
    assert changed["data"] == {"a": "2"}


async def test_a_patch_of_a_missing_object(api: Any) -> None:
    with pytest.raises(ConflictError):
        await api.patch(kinds.CONFIGMAP, "other", SPACE, {"data": {"a": "2"}})


async def test_a_merge_patch_removes_with_null(api: Any) -> None:
    await api.create(kinds.CONFIGMAP, config_map(labels={"a": "1", "b": "2"}))
    changed = await api.patch(kinds.CONFIGMAP, "thing", SPACE, {"metadata": {"labels": {"a": None}}})

    assert changed["metadata"]["labels"] == {"b": "2"}


async def test_delete_checks_the_uid(api: Any) -> None:
    created = await api.create(kinds.CONFIGMAP, config_map())
    with pytest.raises(ConflictError):
        await api.delete(kinds.CONFIGMAP, "thing", SPACE, uid="another")
    await api.delete(kinds.CONFIGMAP, "thing", SPACE, uid=created["metadata"]["uid"])
    await api.delete(kinds.CONFIGMAP, "thing", SPACE)

    assert await api.get(kinds.CONFIGMAP, "thing", SPACE) is None


async def test_the_gate_is_lifted_with_the_affinity(api: Any) -> None:
    created = await api.create(kinds.POD, pod())
    lifted = await api.patch(
        kinds.POD,
        "gated",
        SPACE,
        [
            *conditions_of(created),
            {"op": "add", "path": "/spec/affinity", "value": required_node("gpu-1")},
            {"op": "replace", "path": "/spec/schedulingGates", "value": []},
        ],
    )

    assert not lifted["spec"].get("schedulingGates")
    assert lifted["spec"]["affinity"] == required_node("gpu-1")


async def test_a_finalizer_keeps_an_unbound_pod_and_none_is_added_then(api: Any) -> None:
    created = await api.create(kinds.POD, pod())
    await api.delete(kinds.POD, "gated", SPACE, uid=created["metadata"]["uid"])

    kept = await api.get(kinds.POD, "gated", SPACE)
    assert kept["metadata"]["deletionTimestamp"]
    with pytest.raises((RefusedError, ConflictError)):
        await api.patch(kinds.POD, "gated", SPACE, {"metadata": {"finalizers": ["example.dev/keep", "example.dev/b"]}})
    change = {"op": "replace", "path": "/metadata/finalizers", "value": []}
    await api.patch(kinds.POD, "gated", SPACE, [*conditions_of(kept), change])
    assert await api.get(kinds.POD, "gated", SPACE) is None


def thing(**metadata: Any) -> Object:
    return {"metadata": {"name": "thing", "namespace": SPACE, **metadata}, "spec": {"wish": 1}}


async def bound_pod(api: Any, **metadata: Any) -> Object:
    """Create a pod that a scheduler has bound already."""
    containers = [{"name": "main", "image": "image"}]
    body = {"metadata": {"name": "bound", "namespace": SPACE, **metadata}, "spec": {"containers": containers}}
    body["spec"] |= {"nodeName": "contract-node", "terminationGracePeriodSeconds": 40}
    created: Object = await api.create(kinds.POD, body)
    return created


async def end(api: Any, phase: str) -> None:
    """Write the phase of the bound pod, as its kubelet."""
    await api.patch(kinds.POD, "bound", SPACE, {"status": {"phase": phase}}, "status")


async def test_a_status_at_creation_is_dropped(api: Any) -> None:
    created = await api.create(THING, {**thing(), "status": {"done": 1}})
    assert "status" not in created
    created = await api.create(kinds.POD, {**pod(), "status": {"phase": "Running"}})
    assert created["status"]["phase"] == "Pending"


async def test_status_and_the_rest_are_written_apart(api: Any) -> None:
    await api.create(THING, thing())
    answer = await api.patch(THING, "thing", SPACE, {"spec": {"wish": 2}, "status": {"done": 1}}, "status")
    assert (answer["spec"], answer["status"], answer["metadata"]["generation"]) == ({"wish": 1}, {"done": 1}, 1)
    answer = await api.patch(THING, "thing", SPACE, {"spec": {"wish": 2}, "status": {"done": 9}})
    assert (answer["spec"], answer["status"], answer["metadata"]["generation"]) == ({"wish": 2}, {"done": 1}, 2)


async def test_the_status_of_a_pod_is_written_apart(api: Any) -> None:
    await bound_pod(api)
    answer = await api.patch(kinds.POD, "bound", SPACE, {"status": {"phase": "Running"}})
    assert answer["status"]["phase"] == "Pending"
    await end(api, "Running")
    assert (await api.get(kinds.POD, "bound", SPACE))["status"]["phase"] == "Running"


async def test_a_generation_counts_wishes_only(api: Any) -> None:
    created = await api.create(THING, thing())
    change = {"metadata": {"labels": {"a": "1"}, "finalizers": [KEEP]}}
    changed = await api.patch(THING, "thing", SPACE, change)
    assert created["metadata"]["generation"] == changed["metadata"]["generation"] == 1
    assert changed["metadata"]["resourceVersion"] != created["metadata"]["resourceVersion"]


@pytest.mark.parametrize("subresource", ["", "status"])
async def test_a_write_that_changes_nothing_keeps_the_version(api: Any, subresource: str) -> None:
    await api.create(THING, thing())
    change = {"status": {"done": 1}} if subresource else {"metadata": {"labels": {"a": "1"}}}
    first = await api.patch(THING, "thing", SPACE, change, subresource)
    second = await api.patch(THING, "thing", SPACE, change, subresource)
    assert first["metadata"]["resourceVersion"] == second["metadata"]["resourceVersion"]


async def test_a_status_write_is_a_compare_and_swap(api: Any) -> None:
    created = await api.create(THING, thing())
    write = [*conditions_of(created), {"op": "add", "path": "/status", "value": {"done": 1}}]
    await api.patch(THING, "thing", SPACE, write, "status")
    with pytest.raises(ConflictError):
        await api.patch(THING, "thing", SPACE, write, "status")


@pytest.mark.parametrize(
    "test", [("/metadata/labels/b", "1"), ("/metadata/labels/a", "2"), ("/metadata/uid", "")], ids=lambda test: test[0]
)
async def test_a_json_patch_whose_test_does_not_hold(api: Any, test: tuple[str, str]) -> None:
    await api.create(THING, thing(labels={"a": "1"}))
    operations = [
        {"op": "test", "path": test[0], "value": test[1]},
        {"op": "add", "path": "/spec", "value": {"wish": 7}},
    ]
    with pytest.raises(ConflictError):
        await api.patch(THING, "thing", SPACE, operations)
    assert (await api.get(THING, "thing", SPACE))["spec"] == {"wish": 1}


async def test_a_json_patch_replaces_what_is_not_there_yet(api: Any) -> None:
    """RFC 6902 would have it fail; API servers add it."""
    await api.create(THING, thing())
    changed = await api.patch(THING, "thing", SPACE, [{"op": "replace", "path": "/spec/none", "value": 1}])
    assert changed["spec"] == {"wish": 1, "none": 1}


async def test_pods_are_listed_by_node_and_label(api: Any) -> None:
    await bound_pod(api, labels={"role": "train"})
    await api.create(kinds.POD, pod())
    by_node = await api.list(kinds.POD, fields="spec.nodeName=contract-node")
    assert [item["metadata"]["name"] for item in by_node] == ["bound"]
    by_label = await api.list(kinds.POD, SPACE, labels="role in (train,scrub)")
    assert sorted(item["metadata"]["name"] for item in by_label) == ["bound", "gated"]
    assert await api.list(kinds.POD, fields="spec.nodeName=another") == []


async def test_a_bound_pod_goes_gracefully_and_a_finalizer_keeps_it(api: Any) -> None:
    created = await bound_pod(api, finalizers=[KEEP])
    await api.delete(kinds.POD, "bound", SPACE, uid=created["metadata"]["uid"])
    leaving = await api.get(kinds.POD, "bound", SPACE)
    assert leaving["metadata"]["deletionGracePeriodSeconds"] == 40

    await api.delete(kinds.POD, "bound", SPACE, grace_seconds=10)
    assert (await api.get(kinds.POD, "bound", SPACE))["metadata"]["deletionGracePeriodSeconds"] == 10
    await api.delete(kinds.POD, "bound", SPACE, grace_seconds=0)
    kept = await api.get(kinds.POD, "bound", SPACE)
    assert kept["metadata"]["deletionGracePeriodSeconds"] == 0
    await api.patch(kinds.POD, "bound", SPACE, [{"op": "replace", "path": "/metadata/finalizers", "value": []}])
    assert await api.get(kinds.POD, "bound", SPACE) is None


async def test_a_finalizer_that_goes_first_leaves_the_grace(api: Any) -> None:
    await bound_pod(api, finalizers=[KEEP])
    await api.delete(kinds.POD, "bound", SPACE)
    await api.patch(kinds.POD, "bound", SPACE, {"metadata": {"finalizers": None}})
    assert (await api.get(kinds.POD, "bound", SPACE))["metadata"]["deletionTimestamp"]
    await api.delete(kinds.POD, "bound", SPACE, grace_seconds=0)
    assert await api.get(kinds.POD, "bound", SPACE) is None


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
async def test_a_pod_that_has_ended_is_deleted_at_once(api: Any, phase: str) -> None:
    await bound_pod(api)
    await end(api, phase)
    await api.delete(kinds.POD, "bound", SPACE)
    assert await api.get(kinds.POD, "bound", SPACE) is None


async def test_a_bound_pod_without_finalizer_waits_for_its_kubelet(api: Any) -> None:
    created = await bound_pod(api)
    await api.delete(kinds.POD, "bound", SPACE)
    assert await api.exists(kinds.POD, "bound", SPACE)
    with pytest.raises(ConflictError):
        await api.delete(kinds.POD, "bound", SPACE, uid="another", grace_seconds=0)
    await api.delete(kinds.POD, "bound", SPACE, uid=created["metadata"]["uid"], grace_seconds=0)
    assert await api.get(kinds.POD, "bound", SPACE) is None


async def test_a_name_is_taken_until_its_object_is_gone(api: Any) -> None:
    created = await api.create(THING, thing(finalizers=[KEEP]))
    await api.delete(THING, "thing", SPACE)
    with pytest.raises(AlreadyExistsError):
        await api.create(THING, thing())
    with pytest.raises((RefusedError, ConflictError)):
        await api.patch(THING, "thing", SPACE, {"metadata": {"finalizers": [KEEP, "example.dev/more"]}})
    await api.patch(THING, "thing", SPACE, {"metadata": {"finalizers": None}})
    again = await api.create(THING, thing())
    assert again["metadata"]["uid"] != created["metadata"]["uid"]


async def test_a_write_to_an_object_of_the_same_name_fails(api: Any) -> None:
    created = await api.create(THING, thing())
    await api.delete(THING, "thing", SPACE)
    await api.create(THING, thing())
    with pytest.raises((ConflictError, RefusedError)):
        change = {"metadata": {"uid": created["metadata"]["uid"]}, "spec": {"wish": 2}}
        await api.patch(THING, "thing", SPACE, change)
    assert (await api.get(THING, "thing", SPACE))["spec"] == {"wish": 1}


async def test_deletion_is_asked_for_once(api: Any) -> None:
    await api.create(THING, thing(finalizers=[KEEP]))
    await api.delete(THING, "thing", SPACE)
    first = await api.get(THING, "thing", SPACE)
    await api.delete(THING, "thing", SPACE)
    second = await api.get(THING, "thing", SPACE)
    assert first["metadata"]["deletionTimestamp"] == second["metadata"]["deletionTimestamp"]


async def test_an_api_server_that_is_away(tmp_path: Path, server: tuple[Client, Path]) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(re.sub(r"(https://[^:]+):\d+", r"\1:1", server[1].read_text()))
    async with await Kube.connect(str(kubeconfig)) as api:
        with pytest.raises(UnavailableError, match="does not answer GET"):
            await api.list(kinds.POD)
