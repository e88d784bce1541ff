"""`python -m tests.performance control|data|scrub|gpu [PART ...]`: measure, and write docs/measurements."""

import argparse
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.cluster.errors import ClusterError
from tests.cluster.folders import PROJECT
from tests.performance import (
    bind,
    closing,
    copying,
    custody,
    decisions,
    gpu,
    image,
    manyfiles,
    passes,
    reading,
    restart,
    scrubs,
)
from tests.performance.report import Part, Report

_MEASUREMENTS = PROJECT / "docs" / "measurements"
_Parts = dict[str, tuple[str, Callable[[Path, Part], None]]]
_BENCHMARKS: dict[str, tuple[str, _Parts]] = {
    "control": (
        "The control plane: measured",
        {
            "bind": ("What the fence adds to a bind", bind.measure),
            "closing": ("How soon a closed fence refuses", closing.measure),
            "custody": ("A job's node until it is Free again, and the operator's writes", custody.measure),
            "decisions": ("One decision of the operator", decisions.measure),
            "restart": ("The operator after a restart", restart.measure),
        },
    ),
    "data": (
        "Encrypted data: measured",
        {
            "loader": ("PyTorch's DataLoader", reading.measure_loader),
            "long": ("A long file", reading.measure_long),
            "trees": ("Folders that are sealed and unsealed", copying.measure),
            "peers": ("Folders that others bring back", copying.measure_peers),
            "manyfiles": ("200,000 files of 1 KB", manyfiles.measure),
        },
    ),
    "gpu": (
        "",
        {
            "residue": ("What a process leaves", gpu.measure_residue),
            "coverage": ("How much can be covered", gpu.measure_coverage),
            "shared": ("What a process leaves in shared memory", gpu.measure_shared),
            "times": ("How long it takes", gpu.measure_times),
        },
    ),
    "scrub": (
        "The scrub without a GPU: measured",
        {
            "scrubs": ("A scrub on a cluster", scrubs.measure),
            "passes": ("The passes on this processor", passes.measure),
            "image": ("The image", image.measure),
        },
    ),
}


def main() -> int:
    """Run the chosen parts of a benchmark, all when none is named."""
    parser = argparse.ArgumentParser(prog="tests.performance", description="Benchmarks of Lethe.")
    parser.add_argument("benchmark", choices=_BENCHMARKS)
    parser.add_argument("parts", nargs="*", help="all when none is named")
    chosen = parser.parse_args()
    title, parts = _BENCHMARKS[chosen.benchmark]
    if unknown := set(chosen.parts) - set(parts):
        parser.error(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(parts)}")
    # Ended from outside, it still ends the servers that it has started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        report = _open_report(chosen.benchmark, title)
    except ClusterError as error:
        print(f"performance: {error}", file=sys.stderr)
        return 1
    for name in chosen.parts or parts:
        what, measure = parts[name]
        try:
            with TemporaryDirectory(prefix="lethe-bench-") as folder, report.part(name, what) as part:
                measure(Path(folder), part)
        except ClusterError as error:
            print(f"performance: {error}", file=sys.stderr)
            return 1
    return 0


def _open_report(benchmark: str, title: str) -> Report:
    """Return the report of a benchmark; that of a GPU is named after the GPU."""
    if benchmark != "gpu":
        return Report(_MEASUREMENTS, benchmark, title)
    name = gpu.find_gpu().name
    return Report(_MEASUREMENTS, re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-"), f"The scrub on {name}: measured")


if __name__ == "__main__":
    sys.exit(main())
