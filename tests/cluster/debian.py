"""Debian packages that the cluster and the images need: installed once where they are missing.

1. Nothing is asked of apt when every package is there.
2. Without root, or where the system is not Debian's kind, the error names the packages.
"""

import os
import shutil
from collections.abc import Iterable

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
