"""Lethe on a test cluster: the chart, installed by Helm as a user installs it, and the command `lethe`."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster import images, tools
from tests.cluster.commands import attempt, failure, run
from tests.cluster.errors import ClusterError
from tests.cluster.folders import PROJECT
from tests.cluster.provider import ClusterNode, Provider
from tests.common.objects import find, find_all, phase, wait_until

SYSTEM = "lethe-system"
RELEASE = "lethe"
CHART = PROJECT / "charts" / "lethe"
LETHE_IMAGE = "localhost/lethe"
EXAMPLE_IMAGE = "localhost/lethe-example-train:dev"
LEASE_SECONDS = 6
NO_SCHEDULE = "node-role.kubernetes.io/control-plane"


@dataclass(frozen=True)
class Installation:
    """Lethe on one cluster."""

    provider: Provider

    def install(self, *flags: str, **values: Any) -> str:
        """Install or upgrade the chart, wait until its workloads are ready and run today's image.

        Values are added to those of `values`, and flags to Helm's. What Helm prints is returned.
        """
        self.forget_interrupted()
        return _helm_says(self.install_command(*flags), stdin=json.dumps({**self.values(), **values}))

    def install_command(self, *flags: str) -> list[str | Path]:
        """Return Helm's command that installs or upgrades the chart; values are read from its standard input."""
        words = ("upgrade", "--install", RELEASE, CHART, "--create-namespace", "--wait", "--timeout=5m", "--values=-")
        return [*self._helm(), *words, *flags]

    def uninstall(self) -> str:
        """Uninstall the chart, also where a node is still held, and return what Helm prints; absence is no error."""
        if self.helm("status", RELEASE).returncode != 0:
            return ""
        self.provider.kubectl()("annotate", "namespace", SYSTEM, "lethe.dev/uninstall=force", "--overwrite")
        return _helm_says([*self._helm(), "uninstall", RELEASE, "--wait", "--timeout=5m"])

    def helm(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run Helm in Lethe's namespace and return what came of it."""
        return attempt([*self._helm(), *words])

    def is_installed(self) -> bool:
        """Say whether the operator is deployed."""
        return find(self.provider.kubectl(), "deployment", "lethe-operator", SYSTEM) is not None

    def cli(self, *words: str | Path, cwd: Path | None = None, **environment: str) -> str:
        """Run the command `lethe` against this cluster and return what it prints."""
        program = Path(sys.executable).with_name("lethe")
        return run(
            [program, *words],
            cwd=cwd,
            env={"KUBECONFIG": str(self.provider.kubeconfig()), "COLUMNS": "140", **environment},
        )

    def gpu_nodes(self) -> list[ClusterNode]:
        """Return the nodes with simulated GPUs."""
        return [node for node in self.provider.nodes() if node.gpu]

    def wait_for_node(self, name: str, wanted: str, *, seconds: float = 120) -> dict[str, Any]:
        """Wait until a GPU node is in a phase."""
        return wait_until(
            self.provider.kubectl(),
            "gpunode",
            name,
            lambda node: phase(node) == wanted,
            what=f"node {name} to be {wanted}",
            seconds=seconds,
        )

    def forget_interrupted(self) -> None:
        """Remove what a helm that was killed has left: it would refuse to go on."""
        states = "owner=helm,status in (pending-install,pending-upgrade,pending-rollback)"
        self.provider.kubectl()("delete", "secrets", f"--namespace={SYSTEM}", f"--selector={states}")

    def _helm(self) -> list[str | Path]:
        helm = tools.require(["helm"]) / "helm"
        return [helm, f"--kubeconfig={self.provider.kubeconfig()}", f"--namespace={SYSTEM}"]

    def values(self) -> dict[str, Any]:
        """Return what a provider sets who has no registry and nodes that are only just big enough.

        The tag stays the same when the image changes, so an annotation replaces the pods. A cluster of others has
        DaemonSets, which never leave a node: their namespaces are the system's.
        """
        agents = {each["metadata"]["namespace"] for each in find_all(self.provider.kubectl(), "daemonsets")}
        control_plane = [{"key": NO_SCHEDULE, "operator": "Exists", "effect": "NoSchedule"}]
        return {
            "image": {"repository": LETHE_IMAGE, "tag": "dev", "pullPolicy": "IfNotPresent"},
            "systemNamespaces": sorted({"kube-system", *agents}),
            "tolerations": control_plane,
            "podAnnotations": {"checksum/image": images.build(images.recipe("lethe")).stem},
            "keyservice": {"persistence": {"storageClassName": self.provider.storage_class()}},
            # The machine under the nodes is whoever's it is; what it lacks, one test demands.
            "criticality": {level: {"posture": []} for level in ("sensitive", "critical")},
            # Replicas are killed often here.
            "operator": {"leaseSeconds": LEASE_SECONDS},
        }


def _helm_says(argv: list[str | Path], stdin: str = "") -> str:
    """Run Helm and return what it prints; what hooks say comes on standard error."""
    done = attempt(argv, stdin=stdin)
    if done.returncode != 0:
        raise ClusterError(failure(argv, done))
    return done.stdout + done.stderr
