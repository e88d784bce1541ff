"""Which test cluster is taken.

1. What was asked for by name (`--provider`, or the variable CLUSTER), if anything.
2. Else the cluster of an explicit kubeconfig (the variable KUBECONFIG is set).
3. Else kind, where a Docker engine answers.
4. Else the embedded cluster, as root on Linux.
5. Else nothing, with one sentence that says what is missing.
"""

import os
import sys

from . import builders
from .current import Current
from .embedded import Embedded
from .errors import ClusterError
from .kind import Kind
from .provider import Provider

NAMES = ("embedded", "kind", "current")


def choose_name(wanted: str, *, kubeconfig: str, docker: bool, root_on_linux: bool) -> str:
    """Return the name of the provider to take; the arguments say what the machine offers."""
    if wanted not in ("", "auto"):
        if wanted not in NAMES:
            raise ClusterError(f"There is no cluster {wanted!r}; expected one of {', '.join(NAMES)}, or auto.")
        return wanted
    if kubeconfig:
        return "current"
    if docker:
        return "kind"
    if root_on_linux:
        return "embedded"
    raise ClusterError(
        "No cluster can be had: KUBECONFIG is not set, no Docker engine answers `docker info` (for kind), and the "
        "embedded cluster needs root on Linux."
    )


def choose(wanted: str = "") -> Provider:
    """Return the provider for this machine, or the one that was asked for."""
    wanted = wanted or os.environ.get("CLUSTER", "")
    kubeconfig = os.environ.get("KUBECONFIG", "")
    undecided = wanted in ("", "auto") and not kubeconfig
    name = choose_name(
        wanted,
        kubeconfig=kubeconfig,
        docker=undecided and builders.docker_answers(),
        root_on_linux=sys.platform == "linux" and os.geteuid() == 0,
    )
    providers: dict[str, type[Embedded] | type[Kind] | type[Current]] = {
        "embedded": Embedded,
        "kind": Kind,
        "current": Current,
    }
    return providers[name]()
