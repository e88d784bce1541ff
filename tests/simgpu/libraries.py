"""Compile the simulated driver's libraries, and the environment that puts them under a client."""

import hashlib
import importlib.util
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SCRUB_KERNELS = ROOT / "operator" / "lethe" / "agents" / "kernels" / "scrub.cu"
LIBRARIES = ("libcuda.so.1", "libnvidia-ml.so.1")


def _package_source() -> Path:
    """Return where this process finds Lethe, which need not be beside these tests (tests.mutants)."""
    package = importlib.util.find_spec("lethe")
    locations = [] if package is None else list(package.submodule_search_locations or [])
    return Path(locations[0]).parent if locations else ROOT / "operator"


SOURCES = os.pathsep.join((str(_package_source()), str(ROOT)))
"""Where a client finds Lethe and its tests, as PYTHONPATH says it."""


class BuildError(Exception):
    """The libraries could not be compiled; the message is the compiler's."""


def missing_build_tools() -> list[str]:
    """Return the programs that building needs and this machine lacks."""
    return [tool for tool in ("make", "cc") if shutil.which(tool) is None]


def build_libraries(target: Path) -> Path:
    """Compile the libraries into target (only what changed) and return it."""
    target.mkdir(parents=True, exist_ok=True)
    made = subprocess.run(
        ["make", "--no-print-directory", f"--jobs={os.cpu_count() or 1}", "-C", HERE, f"BUILD={target.resolve()}"],
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode != 0:
        raise BuildError(f"The simulated driver does not compile:\n{made.stderr}")
    return target


def source_digest() -> str:
    """Return a digest of all that the simulated GPUs' image is made of."""
    digest = hashlib.sha256()
    sources = [*HERE.glob("*.py"), *(HERE / "src").iterdir(), HERE / "Makefile", HERE / "Containerfile", SCRUB_KERNELS]
    for source in sorted(sources):
        digest.update(hashlib.sha256(source.read_bytes()).digest())
    return digest.hexdigest()[:16]


def client_environment(libraries: Path, gpus: Path, base: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the environment of a process that is to see the GPUs below `gpus` through these libraries."""
    return {
        **base,
        "LD_LIBRARY_PATH": str(libraries),
        "SIMGPU_DIR": str(gpus),
        "PYTHONPATH": SOURCES,
    }
