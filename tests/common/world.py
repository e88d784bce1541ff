"""Everything that a run needs on a cluster: simulated GPUs, S3 server, Lethe, tenants."""

from dataclasses import dataclass
from pathlib import Path

from tests.cluster import folders, gpus
from tests.cluster.current import Current
from tests.cluster.progress import step
from tests.cluster.provider import Provider
from tests.cluster.s3 import ObjectStore
from tests.common.installation import SYSTEM, Installation
from tests.common.objects import find_all, phase, remove, wait_until
from tests.common.tenants import TrialTenant


@dataclass(frozen=True)
class World:
    """A cluster that is up, with what the tests and the demo have on it."""

    provider: Provider

    @property
    def store(self) -> ObjectStore:
        """Return the S3 server."""
        return ObjectStore(self.provider)

    @property
    def installation(self) -> Installation:
        """Return Lethe, which may not be installed yet."""
        return Installation(self.provider)

    @property
    def folder(self) -> Path:
        """Return the folder in which the tenants' own machines lie."""
        return folders.state(self.provider.name) / "tenants"

    def tenant(self, name: str) -> TrialTenant:
        """Return a tenant, who is not set up yet."""
        return TrialTenant(name, self.installation, self.store, self.folder / name)

    def remove(self) -> None:
        """Leave nothing of Lethe, its tenants and the simulated GPUs on a cluster that outlives the tests."""
        if not isinstance(self.provider, Current):
            return
        kubectl = self.provider.kubectl()
        if self.installation.is_installed():
            with step("Uninstalling Lethe"):
                for job in find_all(kubectl, "stj"):
                    remove(kubectl, "stj", job["metadata"]["name"], job["metadata"]["namespace"])
                namespaces = [name for tenant in find_all(kubectl, "tenants") for name in tenant["spec"]["namespaces"]]
                self.installation.uninstall()
                for namespace in (*namespaces, SYSTEM, "lethe-open"):
                    remove(kubectl, "namespace", namespace)
                kubectl("delete", "crd", "--selector=app.kubernetes.io/name=lethe")
        gpus.remove(self.provider)


def enrol(world: World) -> None:
    """Put every GPU node under custody and wait until each was scrubbed and is Free."""
    kubectl = world.provider.kubectl()
    for node in world.installation.gpu_nodes():
        wait_until(kubectl, "gpunode", node.name, lambda _: True, what=f"GPUNode {node.name}", seconds=60)
        world.installation.cli("node", "enrol", node.name)
    for node in world.installation.gpu_nodes():
        wait_until(
            kubectl,
            "gpunode",
            node.name,
            lambda found: phase(found) in ("Free", "Assigned", "Quarantined"),
            what=f"node {node.name} to be scrubbed",
            seconds=180,
        )
