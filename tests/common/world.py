"""Everything that a run needs, up and ready: cluster, images, simulated GPUs, S3 server, Lethe."""

from dataclasses import dataclass
from pathlib import Path

from tests.cluster import folders
from tests.cluster.__main__ import bring_up
from tests.cluster.progress import step
from tests.cluster.provider import Provider
from tests.cluster.s3 import ObjectStore
from tests.common.installation import Installation
from tests.common.objects import phase, wait_until
from tests.common.tenants import TrialTenant
from tests.simgpu.manifest import OwnNode, SharedHost, build_manifests


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
    bring_up(provider)
    with step("Giving the GPU nodes their simulated GPUs"):
        give_gpus(provider)
    return World(provider, ObjectStore(provider), Installation(provider))


def give_gpus(provider: Provider) -> None:
    """Deploy the simulated GPUs and wait until every GPU node offers them."""
    shared = provider.shared_host_folder()
    kubectl = provider.kubectl()
    kubectl.apply(build_manifests(OwnNode() if shared is None else SharedHost(folder=str(shared))))
    for node in provider.nodes():
        if node.gpu:
            wait_until(
                kubectl,
                "node",
                node.name,
                lambda found: found["status"]["allocatable"].get("nvidia.com/gpu", "0") != "0",
                what=f"node {node.name} to offer GPUs",
                seconds=60,
            )


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
