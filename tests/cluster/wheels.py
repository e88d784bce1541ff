"""Wheels that images install offline: third-party ones downloaded once, Lethe's own built from the tree.

The images' Python is 3.11 whatever runs this, so wheels are asked for by that version.
"""

import functools
import json
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from . import folders
from .commands import run
from .folders import PROJECT
from .hashing import content_files, content_hash
from .progress import step

LETHE = "lethe-operator"
IMAGE_PYTHON = "3.11"
# What Debian 12 (glibc 2.36) can load, newest first: pip takes the first that a project offers.
PLATFORMS = (*(f"manylinux_2_{minor}_x86_64" for minor in range(36, 4, -1)), "manylinux2014_x86_64")
PROJECT_FILES = ("pyproject.toml", "README.md", "LICENSE", "operator")


def third_party(requirements: Sequence[str]) -> Path:
    """Return a folder with the wheels of the requirements and of all they need, without Lethe's own.

    `lethe-operator[extra]` stands for what this tree's pyproject.toml lists.
    """
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    named = json.dumps([project["dependencies"], project["optional-dependencies"]])
    folder = folders.cache() / "wheels" / content_hash(IMAGE_PYTHON, named, *requirements)
    if not requirements:
        folder.mkdir(parents=True, exist_ok=True)
    # Lethe's own wheel is built before the lock is taken, as it takes the same.
    ours: list[str | Path] = ["--find-links", own().parent] if any(LETHE in each for each in requirements) else []
    with _locked():
        if not folder.exists():
            with step(f"Downloading wheels for {', '.join(requirements)}"), _part(folder) as part:
                run([*_pip("download"), *_target(), *ours, "--dest", part, *requirements])
                for wheel in part.glob("lethe_operator-*.whl"):
                    wheel.unlink()
    return folder


@functools.cache
def own() -> Path:
    """Return Lethe's own wheel, built from the tree as it was at the first call."""
    sources = [PROJECT / name for name in PROJECT_FILES]
    folder = folders.cache() / "wheels" / f"own-{content_hash(paths=sources)}"
    with _locked():
        if not folder.exists():
            # A copy, because setuptools leaves files of its own in the tree that it builds.
            with step("Building Lethe's wheel"), _part(folder) as part, tempfile.TemporaryDirectory() as copy:
                _copy(sources, Path(copy))
                run([*_pip("wheel"), "--no-deps", "--wheel-dir", part, copy])
    return next(folder.glob("lethe_operator-*.whl"))


def _locked() -> AbstractContextManager[None]:
    return folders.exclusive(folders.cache() / "wheels" / "lock")


@contextmanager
def _part(folder: Path) -> Iterator[Path]:
    """Give a fresh folder that takes the name of `folder` when it is complete."""
    part = folders.empty(folder.with_name(f"{folder.name}.part"))
    yield part
    part.rename(folder)


def _pip(command: str) -> list[str]:
    return [sys.executable, "-m", "pip", command, "--quiet", "--disable-pip-version-check"]


def _target() -> list[str]:
    if sys.version_info[:2] == (3, 11):
        return ["--only-binary=:all:"]
    platforms = [word for name in PLATFORMS for word in ("--platform", name)]
    abis = [word for name in ("cp311", "abi3", "none") for word in ("--abi", name)]
    return ["--only-binary=:all:", "--implementation=cp", f"--python-version={IMAGE_PYTHON}", *abis, *platforms]


def _copy(sources: Sequence[Path], target: Path) -> None:
    for source in sources:
        for file in content_files(source):
            place = target / file.relative_to(PROJECT)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, place)
