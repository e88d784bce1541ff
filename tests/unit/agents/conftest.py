from pathlib import Path

import pytest

from tests.common.scrub_process import count_events
from tests.simgpu.fixtures import machine, make_machine, simgpu_libraries

__all__ = ["events", "machine", "make_machine", "simgpu_libraries"]


@pytest.fixture(scope="session")
def events(simgpu_libraries: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """How many events of each kind a scrub without faults has on a GPU of 16 MiB."""
    return count_events(simgpu_libraries, tmp_path_factory.mktemp("events"), mib=16)
