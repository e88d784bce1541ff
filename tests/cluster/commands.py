"""Run a program and read what it prints; a program that fails is an error that quotes its last lines."""

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from .errors import ClusterError

QUOTED_LINES = 20


def run(
    argv: Sequence[str | Path],
    *,
    stdin: str | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float | None = None,
) -> str:
    """Return the standard output of a program that must succeed; `env` is added to the environment."""
    done = attempt(argv, stdin=stdin, env=env, cwd=cwd, timeout=timeout)
    if done.returncode != 0:
        raise ClusterError(failure(argv, done))
    return done.stdout


def attempt(
    argv: Sequence[str | Path],
    *,
    stdin: str | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a program that may fail and return what came of it; a missing program is an error all the same."""
    try:
        return subprocess.run(
            [str(word) for word in argv],
            input=stdin if stdin is not None else "",
            capture_output=True,
            text=True,
            errors="replace",
            env={**os.environ, **env} if env else None,
            cwd=cwd,
            timeout=timeout,
            check=False,
        )
    except FileNotFoundError as error:
        raise ClusterError(f"The program {argv[0]} was not found; install it or put it on PATH.") from error
    except subprocess.TimeoutExpired as error:
        raise ClusterError(f"`{shown(argv)}` did not end within {timeout:.0f} s.") from error


def failure(argv: Sequence[str | Path], done: subprocess.CompletedProcess[str]) -> str:
    """Describe a program that failed: the command, its exit status, the end of what it printed."""
    printed = (done.stderr.strip() or done.stdout.strip()).splitlines()[-QUOTED_LINES:]
    return f"`{shown(argv)}` ended with status {done.returncode}:\n" + "\n".join(f"  {line}" for line in printed)


def shown(argv: Sequence[str | Path]) -> str:
    """Return a command as one readable line, cut where it is long."""
    line = " ".join(str(word) for word in argv)
    return line if len(line) <= 300 else line[:297] + "..."
