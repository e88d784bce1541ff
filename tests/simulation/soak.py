"""Plays the custody machine for long: `python -m tests.simulation.soak --steps 2000000 [--seed N]`.

1. The steps are cut into chunks of a seed each, counted up from the one that is printed or given; a chunk that fails is
   repeated alone by its own seed.
2. It ends at the first violation, with the smallest example that Hypothesis finds, and a status that is not zero.
3. Seed, counts of every rule, and every transition of a node that was seen go to docs/measurements/soak.md.
"""

import argparse
import os
import random
import sys
import traceback
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed
from time import monotonic
from typing import Final

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.common.measurements import report
from tests.simulation.machine import SEEN, CustodyMachine
from tests.simulation.quiet import quiet

EXAMPLE_STEPS: Final = 200
"""Long enough for a node to go through several tenants, short enough to shrink."""
CHUNK_STEPS: Final = 20_000


def play(number: int, steps: int) -> Counter[str]:
    """Play so many steps, or a few more, from one seed; return what was seen. A violation is raised."""
    SEEN.clear()
    while SEEN["steps"] < steps:
        examples = max((steps - SEEN["steps"]) // EXAMPLE_STEPS, 10)
        options = settings(
            max_examples=examples,
            stateful_step_count=EXAMPLE_STEPS,
            database=None,
            derandomize=False,
            deadline=None,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
            report_multiple_bugs=False,
        )
        # Each round goes on from another seed that follows from the first.
        with quiet():
            run_state_machine_as_test(seed(number * 1_000_003 + SEEN["steps"])(CustodyMachine), settings=options)
    return Counter(SEEN)


def _chunk(number: int, steps: int) -> tuple[int, Counter[str], str]:
    try:
        return number, play(number, steps), ""
    except Exception:
        return number, Counter(SEEN), traceback.format_exc()


def main() -> int:
    """Soak, and write down what was seen."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=2_000_000)
    parser.add_argument("--seed", type=int, default=None)
    arguments = parser.parse_args()
    first = random.SystemRandom().randrange(1_000_000) if arguments.seed is None else arguments.seed
    processes = os.cpu_count() or 1
    print(f"seed {first}, {arguments.steps} steps in {processes} processes", flush=True)
    began, seen, failures = monotonic(), Counter[str](), []
    chunks = range(first, first + max(1, -(-arguments.steps // CHUNK_STEPS)))
    size = min(arguments.steps, CHUNK_STEPS)
    with ProcessPoolExecutor(processes) as pool:
        for future in as_completed([pool.submit(_chunk, number, size) for number in chunks]):
            number, found, failure = future.result()
            seen += found
            pace = seen["steps"] / (monotonic() - began)
            print(f"seed {number}: {seen['steps']} steps, {pace:.0f} steps/s", flush=True)
            if failure:
                failures.append(f"seed {number}:\n{failure}")
                pool.shutdown(wait=False, cancel_futures=True)
                break
    lines = _lines(first, arguments.steps, processes, monotonic() - began, seen, failures)
    report("soak", f"{arguments.steps} steps", "Soak of the custody machine", lines)
    print("\n".join([*lines, *failures]))
    return 1 if failures else 0


def _lines(
    first: int, steps: int, processes: int, seconds: float, seen: Counter[str], failures: list[str]
) -> list[str]:
    moves = {name: count for name, count in seen.items() if " → " in name}
    rules = {name: count for name, count in seen.items() if name not in (*moves, "steps", "examples")}
    return [
        f"seed {first}, {steps} steps asked, {seen['steps']} played in {seen['examples']} examples, "
        f"{seconds:.0f} s in {processes} processes ({seen['steps'] / seconds:.0f} steps/s), {len(failures)} violations",
        "",
        "| transition | times |",
        "|---|---|",
        *(f"| {name} | {count} |" for name, count in sorted(moves.items())),
        "",
        "| rule | times |",
        "|---|---|",
        *(f"| {name} | {count} |" for name, count in sorted(rules.items())),
    ]


if __name__ == "__main__":
    sys.exit(main())
