"""Everything that a run needs, up and ready: cluster, images, simulated GPUs, S3 server, Lethe."""

from dataclasses import dataclass
from pathlib import Path

from tests.cluster import folders
from tests.cluster.images import build_images
from tests.cluster.progress import step
from tests.cluster.provider import Provider
from tests.cluster.s3 import ObjectStore
from tests.common.installation import Installation
from tests.common.objects import phase, wait_until
from tests.common.tenants import TrialTenant
from tests.simgpu.manifest import deploy as deploy_simulated_gpus


@dataclass(frozen=True)
class World:
    """A cluster with Lethe, an S3 server and simulated GPUs."""

    provider: Provider
    store: ObjectStore
    installation: Installation

    def tenant(self, name: str) -> TrialTenant:
        """Return a tenant, who is not set up yet."""
        return TrialTenant(name, self.installation, self.store, self.folder / name)

    @property
    def folder(self) -> Path:
        """Return the folder in which the tenants' own machines lie."""
        return folders.state(self.provider.name) / "tenants"


def build_world(provider: Provider) -> World:
    """Bring the cluster up with images, simulated GPUs and the S3 server; Lethe is not installed yet."""
    provider.up()
    for archive in build_images():
        provider.load_image(archive)
    with step("Giving the GPU nodes their simulated GPUs"):
        deploy_simulated_gpus(provider)
    store = ObjectStore(provider)
    store.deploy()
    return World(provider, store, Installation(provider))


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
