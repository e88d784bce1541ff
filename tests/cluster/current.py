"""The cluster of the kubeconfig's current context: never without its name being allowed.

1. A context is taken when its name begins with `kind-`, or is listed in LETHE_ALLOW_CONTEXTS (separated by commas).
   The suite makes namespaces, labels nodes and deletes what it finds there: no other cluster is touched.
2. Images: through kind where it is kind's; else by the command in LETHE_LOAD_IMAGE, to which the archive is added.
"""

import os
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path

from . import borrowed, folders, system, tools
from .commands import run
from .errors import ClusterError, NotSupported
from .kind_nodes import KindNodes
from .kubectl import Kubectl
from .progress import say
from .provider import ClusterNode

KIND_PREFIX = "kind-"


def check_allowed(context: str, allowed: str) -> None:
    """Refuse a context that is not kind's and not in the list."""
    names = [name.strip() for name in allowed.split(",") if name.strip()]
    if not context.startswith(KIND_PREFIX) and context not in names:
        raise ClusterError(
            f"The kubeconfig's context {context!r} is not allowed for tests: its name does not begin with `kind-` and "
            f"is not in LETHE_ALLOW_CONTEXTS; set LETHE_ALLOW_CONTEXTS={context} if all in that cluster may be lost."
        )


class Current:
    """The cluster that the user's kubeconfig points at."""

    name = "current"

    def __init__(self) -> None:
        self.folder = folders.state(self.name)

    def up(self, images: Sequence[Path] = ()) -> None:
        tools.require(tools.FOR_KIND)
        context = run([tools.kubectl(), "config", "current-context"]).strip()
        check_allowed(context, os.environ.get("LETHE_ALLOW_CONTEXTS", ""))
        say(f"Using the cluster of the context {context}.")
        self.folder.mkdir(parents=True, exist_ok=True)
        flat = run([tools.kubectl(), "config", "view", "--minify", "--flatten", "--raw"])
        folders.write_private(self.kubeconfig(), flat.encode())
        borrowed.prepare(self.kubectl(), self.folder / "changed.json")
        for archive in images:
            self.load_image(archive)
        kinds = self._kind_nodes()
        # Elsewhere the cluster's own provisioner makes a volume for the claim.
        if kinds and not self.kubectl().answers("get", "persistentvolume", system.KEY_SERVICE_VOLUME):
            kinds.renew_key_volume(self.kubectl(), self.nodes()[0])

    def down(self) -> None:
        if not self.folder.exists():
            return
        if self.kubeconfig().exists():
            kubectl = self.kubectl()
            borrowed.restore(kubectl, self.folder / "changed.json")
            kubectl("delete", "persistentvolume", system.KEY_SERVICE_VOLUME, "--ignore-not-found")
            kubectl("delete", "storageclass", system.STORAGE_CLASS, "--ignore-not-found")
            kubectl("delete", "namespace", "lethe-s3", "--ignore-not-found")
        shutil.rmtree(self.folder)

    def kubeconfig(self) -> Path:
        return self.folder / "kubeconfig"

    def kubectl(self) -> Kubectl:
        return Kubectl(tools.kubectl(), self.kubeconfig())

    def nodes(self) -> list[ClusterNode]:
        return borrowed.cluster_nodes(self.kubectl())

    def load_image(self, archive: Path) -> None:
        kinds = self._kind_nodes()
        command = os.environ.get("LETHE_LOAD_IMAGE", "")
        if kinds:
            kinds.load_image(archive, self.nodes())
        elif command:
            run([*shlex.split(command), archive])
        else:
            raise ClusterError(
                f"This cluster is not kind's, so {archive.name} cannot be put on its nodes; set "
                "LETHE_LOAD_IMAGE to a command that takes an image archive and does it."
            )

    def storage_class(self) -> str:
        return system.STORAGE_CLASS if self._kind_nodes() else ""

    def reboot(self, node: str) -> None:
        raise NotSupported(
            f"Node {node} belongs to a cluster that others made; use the embedded cluster to test reboots."
        )

    def stop_kubelet(self, node: str) -> None:
        raise NotSupported(
            f"Node {node} belongs to a cluster that others made; use the embedded cluster to lose nodes."
        )

    def start_kubelet(self, node: str) -> None:
        raise NotSupported(
            f"Node {node} belongs to a cluster that others made; use the embedded cluster to lose nodes."
        )

    def logs(self) -> Path:
        folder = self.folder / "logs"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def shared_host_folder(self) -> Path | None:
        return None

    def _kind_nodes(self) -> KindNodes | None:
        context = self.kubectl()("config", "current-context").strip()
        return KindNodes(context.removeprefix(KIND_PREFIX)) if context.startswith(KIND_PREFIX) else None
