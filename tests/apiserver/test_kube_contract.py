"""What the operator expects of an API server, held against a real one and against the simulation's.

A difference between the two would make the simulation prove something else than it says.
"""

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lethe.adapters import kube as kinds
from lethe.adapters.kube import Kube, Object
from lethe.model.errors import AlreadyExistsError, ConflictError, RefusedError, UnavailableError
from lethe.specs.scheduling import required_node
from tests.apiserver.server import Client
from tests.simulation.api_server import ApiServer, ManualClock

SPACE = "contract"


@pytest.fixture(params=["real", "simulated"])
async def api(request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    """Connect to either server, and leave its namespace as it was."""
    if request.param == "simulated":
        simulated = ApiServer(ManualClock()).client()
        await simulated.create(kinds.NAMESPACE, {"metadata": {"name": SPACE}})
        yield simulated
        return
    server: tuple[Client, Path] = request.getfixturevalue("server")
    async with await Kube.connect(str(server[1])) as connected:
        if not await connected.exists(kinds.NAMESPACE, SPACE):
            await connected.create(kinds.NAMESPACE, {"metadata": {"name": SPACE}})
            await connected.create(kinds.SERVICEACCOUNT, {"metadata": {"name": "default", "namespace": SPACE}})
        yield connected
        for pod in await connected.list(kinds.POD, SPACE):
            if pod["metadata"].get("finalizers"):
                await connected.patch(kinds.POD, pod["metadata"]["name"], SPACE, {"metadata": {"finalizers": None}})
            await connected.delete(kinds.POD, pod["metadata"]["name"], SPACE, grace_seconds=0)
        for item in await connected.list(kinds.CONFIGMAP, SPACE):
            await connected.delete(kinds.CONFIGMAP, item["metadata"]["name"], SPACE)


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


async def test_an_api_server_that_is_away(tmp_path: Path, server: tuple[Client, Path]) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(re.sub(r"(https://[^:]+):\d+", r"\1:1", server[1].read_text()))
    async with await Kube.connect(str(kubeconfig)) as api:
        with pytest.raises(UnavailableError, match="does not answer GET"):
            await api.list(kinds.POD)
