"""One replica acts at a time: taking, keeping, losing and giving back the Lease."""

import asyncio
from typing import Any

import pytest

from lethe.adapters import kube
from lethe.controller.leader import Leadership
from lethe.model import names
from lethe.model.errors import LeadershipError, UnavailableError
from tests.common.clocks import Stopwatch
from tests.common.fake_kube import FakeKube

DURATION = 12.0


@pytest.fixture
def watch() -> Stopwatch:
    return Stopwatch()


@pytest.fixture
def server() -> FakeKube:
    return FakeKube()


def replica(server: Any, identity: str, watch: Stopwatch) -> Leadership:
    return Leadership(server, identity, DURATION, watch)


async def spec(server: FakeKube) -> dict[str, Any]:
    lease = await server.get(kube.LEASE, names.OPERATOR_LEASE, names.SYSTEM_NAMESPACE)
    assert lease is not None
    found: dict[str, Any] = lease["spec"]
    return found


async def takes(leadership: Leadership) -> bool:
    """Try once."""
    return await leadership._attempt()


async def test_the_first_gets_it_and_the_second_waits(server: FakeKube, watch: Stopwatch) -> None:
    a, b = replica(server, "a", watch), replica(server, "b", watch)

    await a.acquire()

    assert a.is_held
    a.require()
    assert not await takes(b)
    with pytest.raises(LeadershipError):
        b.require()
    assert (await spec(server))["holderIdentity"] == "a"
    assert (await spec(server))["leaseTransitions"] == 1


async def test_a_holder_stops_before_another_begins(server: FakeKube, watch: Stopwatch) -> None:
    a, b = replica(server, "a", watch), replica(server, "b", watch)
    await a.acquire()
    assert not await takes(b)

    watch.seconds += DURATION * 2 / 3
    assert not a.is_held
    assert not await takes(b)
    watch.seconds += DURATION / 3
    assert await takes(b)

    assert (await spec(server))["leaseTransitions"] == 2
    assert not await takes(a)


async def test_renewals_keep_others_waiting(server: FakeKube, watch: Stopwatch) -> None:
    a, b = replica(server, "a", watch), replica(server, "b", watch)
    await a.acquire()
    acquired = (await spec(server))["acquireTime"]
    for _ in range(10):
        watch.seconds += DURATION / 2
        assert await takes(a)
        assert not await takes(b)

    assert a.is_held
    assert (await spec(server))["acquireTime"] == acquired
    assert (await spec(server))["leaseTransitions"] == 1


async def test_the_time_counts_from_before_the_renewal_was_sent(server: FakeKube, watch: Stopwatch) -> None:
    leadership = replica(server, "a", watch)
    replace = server.replace
    await leadership.acquire()

    async def slow(*arguments: Any) -> Any:
        watch.seconds += DURATION / 2
        return await replace(*arguments)

    server.replace = slow  # type: ignore[method-assign]
    assert await takes(leadership)
    watch.seconds += DURATION / 6
    assert not leadership.is_held


async def test_a_holder_that_gets_no_answer_gives_up(server: FakeKube, watch: Stopwatch) -> None:
    leadership = replica(server, "a", watch)
    await leadership.acquire()

    async def away(*arguments: Any) -> Any:
        watch.seconds += DURATION
        raise UnavailableError("the API server does not answer")

    server.get = away  # type: ignore[method-assign]
    with pytest.raises(LeadershipError):
        await asyncio.wait_for(leadership.keep(), 10)


async def test_of_two_that_take_it_at_once_one_gets_it(server: FakeKube, watch: Stopwatch) -> None:
    a, b = replica(server, "a", watch), replica(server, "b", watch)
    await a.acquire()
    await a.release()
    read = server.get

    async def both_read_first(*arguments: Any) -> Any:
        found = await read(*arguments)
        server.get = read  # type: ignore[method-assign]
        assert await takes(b)
        return found

    server.get = both_read_first  # type: ignore[method-assign]
    assert not await takes(a)
    assert not a.is_held
    assert b.is_held


async def test_given_back_it_is_free_at_once(server: FakeKube, watch: Stopwatch) -> None:
    a, b = replica(server, "a", watch), replica(server, "b", watch)
    await a.acquire()
    await a.release()

    with pytest.raises(LeadershipError):
        a.require()
    assert await takes(b)


async def test_what_is_another_s_is_not_given_back(server: FakeKube, watch: Stopwatch) -> None:
    a, b = replica(server, "a", watch), replica(server, "b", watch)
    await a.acquire()
    await takes(b)
    watch.seconds += DURATION
    assert await takes(b)
    await a.release()

    assert (await spec(server))["holderIdentity"] == "b"


async def test_a_lease_without_contents_is_taken(server: FakeKube, watch: Stopwatch) -> None:
    server.put(kube.LEASE, {"metadata": {"name": names.OPERATOR_LEASE, "namespace": names.SYSTEM_NAMESPACE}})
    await replica(server, "a", watch).acquire()

    assert (await spec(server))["holderIdentity"] == "a"
