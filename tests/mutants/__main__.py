"""`make mutants`: do the tests notice when a decision goes wrong?

1. Each mutant is put into a copy of the package, and the tests that should catch it run against that copy. The copy
   goes before the real package on the path of imports; that it does is checked first, with the package as it is.
2. A mutant that no test catches fails the run, and so does one whose text no longer stands in the code.

    python -m tests.mutants [NAME…]     all mutants, or those whose names contain one of these words
"""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.mutants import custody, dataset, posture, receipts, scrub
from tests.mutants.mutant import Mutant, StaleMutantError

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "operator"
MUTANTS: list[Mutant] = [*custody.MUTANTS, *dataset.MUTANTS, *posture.MUTANTS, *receipts.MUTANTS, *scrub.MUTANTS]


def main() -> int:
    """Run the mutants; return the exit status."""
    words = sys.argv[1:]
    chosen = [mutant for mutant in MUTANTS if not words or any(word in mutant.name for word in words)]
    stale = [error for mutant in chosen if (error := _staleness(mutant)) is not None]
    if stale:
        print("\n".join(stale), file=sys.stderr)
        return 1
    survivors = []
    with TemporaryDirectory() as folder:
        copy = Path(folder) / "operator"
        shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        _require_copy(copy)
        print(f"{'mutant':<44} | {'seconds':>7} | caught by")
        for mutant in chosen:
            began = time.monotonic()
            caught = _run(copy, mutant)
            survivors += [mutant.name] if caught is None else []
            print(f"{mutant.name:<44} | {time.monotonic() - began:7.1f} | {caught or 'NOBODY'}", flush=True)
    print(f"{len(chosen) - len(survivors)} of {len(chosen)} mutants caught")
    return 1 if survivors else 0


def _staleness(mutant: Mutant) -> str | None:
    try:
        mutant.apply((PACKAGE / "lethe" / mutant.module).read_text())
    except StaleMutantError as error:
        return str(error)
    return None


def _run(copy: Path, mutant: Mutant) -> str | None:
    """Return the test that catches a mutant, or None."""
    path = copy / "lethe" / mutant.module
    original = path.read_text()
    path.write_text(mutant.apply(original))
    try:
        for tests in mutant.tests:
            done = _pytest(copy, tests)
            if done.returncode == 0:
                continue
            found = re.search(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
            if done.returncode != 1 or found is None:
                raise RuntimeError(f"mutant '{mutant.name}' broke the run of {tests}:\n{done.stdout}{done.stderr}")
            return found[1]
    finally:
        path.write_text(original)
    return None


def _pytest(copy: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--tb=no", "-p", "no:cacheprovider"]
    paths = f"pythonpath={copy} {ROOT}"
    return subprocess.run(
        [*command, "-o", paths, *arguments],
        cwd=ROOT,
        env=_environment(copy),
        capture_output=True,
        text=True,
        check=False,
    )


def _require_copy(copy: Path) -> None:
    """Make sure that tests import the copy, and not the package beside them."""
    done = subprocess.run(
        [sys.executable, "-c", "import lethe; print(lethe.__file__ or list(lethe.__path__)[0])"],
        cwd=copy.parent,
        env=_environment(copy),
        capture_output=True,
        text=True,
        check=True,
    )
    if not done.stdout.startswith(str(copy)):
        raise RuntimeError(f"the tests would import {done.stdout.strip()}, not the copy in {copy}")


def _environment(copy: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": f"{copy}{os.pathsep}{ROOT}", "PYTHONDONTWRITEBYTECODE": "1"}


if __name__ == "__main__":
    sys.exit(main())
