"""pytest fixtures for tests that run clients of the simulated driver; import them in a conftest.py."""

import json
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.simgpu import faults
from tests.simgpu.gpus import Gpu, make_gpus
from tests.simgpu.libraries import build_libraries, client_environment, missing_build_tools

PRELUDE = "import sys\nfrom cuda.bindings import driver\nfrom tests.simgpu.client import *\n"


class Client:
    """A running client program; it says what it found by answer(), and may wait for `sys.stdin.readline()`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def next_answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"the client ended without an answer, with exit status {self.process.wait()}"
        return dict(json.loads(line))

    def go_on(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


class Machine:
    """A machine with GPUs, on which client programs run as processes of their own, with this environment."""

    def __init__(self, gpus: list[Gpu], environment: dict[str, str]) -> None:
        self.gpus, self.environment = gpus, environment

    def set_faults(self, number: int = 0, /, **values: int | str) -> None:
        faults.write_faults(self.gpus[number].folder, **values)

    @contextmanager
    def start(self, program: str, *arguments: object, prefix: tuple[str, ...] = ()) -> Iterator[Client]:
        """Run a program beside the test; it is killed when the block ends, if it still runs."""
        with subprocess.Popen(
            [*prefix, sys.executable, "-c", PRELUDE + textwrap.dedent(program), *map(str, arguments)],
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                yield Client(process)
            finally:
                process.kill()

    def run(self, program: str, *arguments: object) -> dict[str, Any]:
        """Run a program to its end and return its answer."""
        with self.start(program, *arguments) as client:
            found = client.next_answer()
            assert client.process.wait(timeout=60) == 0
            return found


@pytest.fixture(scope="session")
def simgpu_libraries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The simulated driver, compiled once a session."""
    if missing := missing_build_tools():
        pytest.skip(f"the simulated driver needs {' and '.join(missing)} to be compiled")
    return build_libraries(tmp_path_factory.mktemp("simgpu-libraries"))


@pytest.fixture
def make_machine(simgpu_libraries: Path, tmp_path: Path) -> Callable[..., Machine]:
    """Make machines with fresh GPUs: make_machine(count=2, mib=64, node="node")."""

    def make(count: int = 1, mib: int = 16, node: str = "node") -> Machine:
        root = tmp_path / node
        return Machine(make_gpus(root, node, count, mib), client_environment(simgpu_libraries, root))

    return make


@pytest.fixture
def machine(make_machine: Callable[..., Machine]) -> Machine:
    """A machine with one small GPU."""
    return make_machine()
