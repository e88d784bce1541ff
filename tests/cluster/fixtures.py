"""Fixtures of end-to-end tests: a conftest.py imports them by name.

The cluster is brought up once in a session. One that was up before is left up; any other is removed.
"""

from collections.abc import Iterator

import pytest

from tests.cluster import kept_logs
from tests.cluster.bring_up import bring_up, is_up
from tests.cluster.choice import choose
from tests.cluster.provider import Provider
from tests.cluster.s3 import ObjectStore


@pytest.fixture(scope="session")
def provider(request: pytest.FixtureRequest) -> Iterator[Provider]:
    """The cluster that CLUSTER names or the machine offers, up and complete; logs are kept when a test has failed."""
    chosen = choose()
    was_up = is_up(chosen)
    try:
        bring_up(chosen)
        failed_before = request.session.testsfailed
        yield chosen
        if request.session.testsfailed > failed_before:
            kept_logs.keep(chosen)
    finally:
        if not was_up:
            chosen.down()


@pytest.fixture(scope="session")
def object_store(provider: Provider) -> ObjectStore:
    """The cluster's S3 server."""
    return ObjectStore(provider)
