"""kubectl of one cluster."""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import yaml

from .commands import attempt, run


class Kubectl:
    """Runs kubectl with a fixed kubeconfig, and a fixed context where one is given."""

    def __init__(self, program: Path, kubeconfig: Path, context: str = "") -> None:
        self._start: list[str | Path] = [program, f"--kubeconfig={kubeconfig}"]
        if context:
            self._start.append(f"--context={context}")

    def __call__(self, *words: str | Path, stdin: str | None = None, timeout: float | None = None) -> str:
        """Run kubectl and return what it prints; a failure is a ClusterError."""
        return run(self.command(*words), stdin=stdin, timeout=timeout)

    def command(self, *words: str | Path) -> list[str | Path]:
        """Return the command line, for a process that goes on beside this one."""
        return [*self._start, *words]

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start kubectl and return the process; output and errors come through one pipe."""
        return subprocess.Popen(
            [*self._start, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def answers(self, *words: str) -> bool:
        """Say whether the command succeeds."""
        return attempt(self.command(*words)).returncode == 0

    def attempt(self, *words: str, stdin: str | None = None) -> CompletedProcess[str]:
        """Run kubectl and return what came of it: its warnings, or why it failed."""
        return attempt([*self._start, *words], stdin=stdin)

    def read(self, *words: str) -> Any:
        """Return the JSON that a command prints."""
        return json.loads(self(*words, "--output=json"))

    def apply(self, objects: Sequence[dict[str, Any]]) -> None:
        """Apply the objects as one set, the server's way."""
        documents = yaml.safe_dump_all(objects, sort_keys=False)
        self("apply", "--server-side", "--force-conflicts", "--filename=-", stdin=documents)

    def rolled_out(self, namespace: str, workload: str, *, seconds: int) -> None:
        """Wait until a Deployment or DaemonSet is complete."""
        self("--namespace", namespace, "rollout", "status", workload, f"--timeout={seconds}s")
