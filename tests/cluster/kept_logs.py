"""Keep what tells why a run failed, before its cluster goes: process logs, pod logs, objects and events."""

import shutil
from pathlib import Path

from . import folders
from .errors import ClusterError
from .progress import say
from .provider import Provider


def keep(provider: Provider) -> Path:
    """Copy the cluster's logs to `<state>/logs/<provider>` and return it; what an earlier call left is replaced."""
    target = folders.empty(folders.kept_logs(provider.name))
    try:
        shutil.copytree(provider.logs(), target / "processes")
        provider.kubectl()(
            "cluster-info", "dump", "--all-namespaces", f"--output-directory={target / 'objects'}", timeout=120
        )
    except (ClusterError, OSError) as error:
        # What is there is kept all the same: a cluster that is half up cannot tell more.
        say(f"Not all logs could be kept: {error}")
    say(f"The logs of the failed run are in {target}.")
    return target
