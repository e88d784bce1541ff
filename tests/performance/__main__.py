"""`python -m tests.performance control [PART ...]`: measure the control plane; write docs/measurements/control.*."""

import argparse
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.cluster.errors import ClusterError
from tests.cluster.folders import PROJECT
from tests.performance import bind, closing, custody, decisions, restart
from tests.performance.report import Part, Report

_MEASUREMENTS = PROJECT / "docs" / "measurements"
_PARTS: dict[str, tuple[str, Callable[[Path, Part], None]]] = {
    "bind": ("What the fence adds to a bind", bind.measure),
    "closing": ("How soon a closed fence refuses", closing.measure),
    "custody": ("A job's node until it is Free again, and the operator's writes", custody.measure),
    "decisions": ("One decision of the operator", decisions.measure),
    "restart": ("The operator after a restart", restart.measure),
}


def main() -> int:
    """Run the chosen parts of a benchmark, all when none is named."""
    parser = argparse.ArgumentParser(prog="tests.performance", description="Benchmarks of Lethe.")
    parser.add_argument("benchmark", choices=["control"])
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(_PARTS)}; all when none is named")
    chosen = parser.parse_args()
    if unknown := set(chosen.parts) - set(_PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    # Ended from outside, it still ends the servers that it has started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    report = Report(_MEASUREMENTS, "control", "The control plane: measured")
    for name in chosen.parts or _PARTS:
        what, measure = _PARTS[name]
        try:
            with TemporaryDirectory(prefix="lethe-bench-") as folder, report.part(name, what) as part:
                measure(Path(folder), part)
        except ClusterError as error:
            print(f"performance: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
