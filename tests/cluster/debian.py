"""Debian packages that the cluster and the images need: installed once where they are missing.

1. Nothing is asked of apt when every package is there. What goes into an image is unpacked, not installed.
2. Without root, or where the system is not Debian's kind, the error names the packages.
"""

import os
import shutil
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .commands import attempt, run
from .errors import ClusterError
from .progress import step

NODES = ("runc", "containernetworking-plugins", "iproute2", "nftables", "iptables", "conntrack")
IMAGES = ("buildah", "mmdebstrap", "gcc", "libc6-dev", "make")


def missing(packages: Iterable[str]) -> list[str]:
    """Return those of the packages that are not installed."""
    wanted = list(packages)
    printed = attempt(["dpkg-query", "-W", "-f", "${Package} ${db:Status-Abbrev}\n", *wanted]).stdout
    there = {line.split()[0] for line in printed.splitlines() if line.split()[1:2] == ["ii"]}
    return [package for package in wanted if package not in there]


def require(packages: Iterable[str]) -> None:
    """Install what is missing of the packages."""
    wanted = tuple(packages)
    if shutil.which("dpkg-query") is None or shutil.which("apt-get") is None:
        raise ClusterError(
            "The embedded cluster installs what it needs with apt, which this system does not have; use "
            "a Debian machine, or CLUSTER=kind."
        )
    lacking = missing(wanted)
    if not lacking:
        return
    if os.geteuid() != 0:
        raise ClusterError(
            f"These Debian packages are missing and only root can install them: {' '.join(lacking)}. "
            f"Run `apt-get install {' '.join(lacking)}` as root and try again."
        )
    with step(f"Installing Debian packages: {' '.join(lacking)}"):
        quiet = {"DEBIAN_FRONTEND": "noninteractive"}
        run(["apt-get", "update", "-q"], env=quiet)
        run(["apt-get", "install", "-y", "-q", "--no-install-recommends", *lacking], env=quiet)


def unpack(package: str, target: Path, *, there: Iterable[str], without: Iterable[str]) -> None:
    """Unpack a package and what it depends on into a folder, but for what other packages bring, and some by name.

    Nothing is installed, and no script of a package is run.
    """
    if os.geteuid() == 0:
        # What an old list names may not be there any more.
        run(["apt-get", "update", "-q"])
    wanted = _with_dependencies([package]) - _with_dependencies(there) - set(without)
    with tempfile.TemporaryDirectory() as scratch:
        # Root's folder is closed to the user as whom apt downloads; it says so on every call.
        run(["apt-get", "download", "-q", "-o", "APT::Sandbox::User=root", *sorted(wanted)], cwd=Path(scratch))
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            files = sorted(Path(scratch).glob("*.deb"))
            list(pool.map(lambda file: run(["dpkg-deb", "--extract", file, target]), files))


def _with_dependencies(packages: Iterable[str]) -> set[str]:
    """Return the packages that a system without any would install."""
    nothing = ("-o", "Dir::State::status=/dev/null")
    printed = run(["apt-get", "install", "--simulate", "--no-install-recommends", *nothing, *packages])
    return {line.split()[1] for line in printed.splitlines() if line.startswith("Inst ")}
