"""The simulation prints what the operator logs only from warnings on."""

import logging
from collections.abc import Iterator

import pytest

from tests.simulation.quiet import quiet


@pytest.fixture(autouse=True)
def fewer_words() -> Iterator[None]:
    with quiet(logging.WARNING):
        yield
