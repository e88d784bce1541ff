"""`make fuzz`: every target of the dataset format's parsers, for a bounded time each.

1. Each target runs in a process of its own, with the vectors as seeds. Memory is bounded: a process that takes more
   than RSS_MB, or longer than INPUT_SECONDS for one input, has found something too.
2. What fails is kept in build/fuzz, and the line that tries it again is printed.

    python -m tests.fuzz [--seconds N] [TARGET…]
"""

import argparse
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.fuzz.seeds import seeds
from tests.fuzz.targets import TARGETS

ROOT = Path(__file__).parents[2]
FOUND = ROOT / "build" / "fuzz"
RSS_MB = 512
INPUT_SECONDS = 20
INPUT_BYTES = 1 << 16


def main() -> int:
    """Run the targets; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--seconds", type=int, default=5, help="for each target")
    parser.add_argument("targets", nargs="*", choices=[*TARGETS, []], metavar="TARGET", help=", ".join(TARGETS))
    arguments = parser.parse_args()
    FOUND.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as executor:
        passed = list(executor.map(lambda name: run(name, arguments.seconds), arguments.targets or TARGETS))
    return 0 if all(passed) else 1


def run(target: str, seconds: int) -> bool:
    """Fuzz one target; say what came of it."""
    with TemporaryDirectory() as corpus:
        for number, seed in enumerate(seeds(target)):
            Path(corpus, str(number)).write_bytes(seed)
        command = [
            sys.executable,
            "-m",
            "tests.fuzz.harness",
            target,
            f"-max_total_time={seconds}",
            f"-rss_limit_mb={RSS_MB}",
            f"-timeout={INPUT_SECONDS}",
            f"-max_len={INPUT_BYTES}",
            f"-artifact_prefix={FOUND}/{target}-",
            "-print_final_stats=1",
            "-use_value_profile=1",
            corpus,
        ]
        path = os.pathsep.join([str(ROOT / "operator"), str(ROOT)])
        done = subprocess.run(
            command, cwd=ROOT, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, errors="replace"
        )
    stats = dict(
        line.removeprefix("stat::").split(":") for line in done.stderr.splitlines() if line.startswith("stat::")
    )
    if done.returncode == 0:
        tried, memory = stats["number_of_executed_units"].strip(), stats["peak_rss_mb"].strip()
        print(f"{target:<14} {tried:>9} inputs in {seconds} s, at most {memory} MB", flush=True)
        return True
    print(f"{target}: failed\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}", flush=True)
    print(f"try again: .venv/bin/python -m tests.fuzz.harness {target} FILE, one of {FOUND}/{target}-*", flush=True)
    return False


if __name__ == "__main__":
    sys.exit(main())
