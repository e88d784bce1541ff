from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from lethe.keyservice.store import Store
from tests.common.certificates import Authority
from tests.common.keyservice import Running, run_keyservice
from tests.common.release import Cluster, FakeKube


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "keyservice.sqlite")
    yield store
    store.close()


@pytest.fixture
def kube() -> FakeKube:
    return FakeKube(Cluster())


@pytest.fixture(scope="session")
def authority() -> Authority:
    return Authority()


@pytest.fixture
async def running(tmp_path: Path, kube: FakeKube, authority: Authority) -> AsyncIterator[Running]:
    async with run_keyservice(tmp_path, kube, authority) as running:
        yield running
