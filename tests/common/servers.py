"""Servers that a test starts as programs of their own."""

import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.cluster.waiting import until

START_SECONDS = 60.0


def free_port() -> int:
    """Return a port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running_server(
    command: Sequence[str], port: int, log: Path, environment: Mapping[str, str] | None = None
) -> Iterator[None]:
    """Run a program until the end of the block; wait until it listens."""
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, cwd=log.parent, env=environment)
    try:
        until(
            lambda: _listens(port) or process.poll() is not None,
            what=f"{Path(command[0]).name} to start",
            seconds=START_SECONDS,
            hint=f"Its log is {log}.",
        )
        if process.poll() is not None:
            raise RuntimeError(f"{command[0]} did not start: {log.read_text(errors='replace')}")
        yield
    finally:
        process.terminate()
        process.wait()


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
