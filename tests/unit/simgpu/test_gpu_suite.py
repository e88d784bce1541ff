"""The suite for real GPUs does what it says: here it meets the simulated driver, and its absence."""

import subprocess
import sys
from collections.abc import Callable

from tests.simgpu.fixtures import Machine
from tests.simgpu.libraries import ROOT


def run_suite(environment: dict[str, str]) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-m", "gpu", "tests/gpu", "-p", "no:cacheprovider"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout.splitlines()[-1]


def test_the_suite_passes_where_the_driver_keeps_its_promises(make_machine: Callable[..., Machine]) -> None:
    status, summary = run_suite(make_machine(count=1, mib=64).environment)
    assert status == 0, summary
    assert " passed" in summary and "skipped" not in summary


def test_the_suite_is_skipped_with_its_reason_where_there_is_no_gpu(machine: Machine) -> None:
    status, summary = run_suite({**machine.environment, "LD_LIBRARY_PATH": ""})
    assert status == 0, summary
    assert " skipped" in summary and "passed" not in summary
