"""A whole test cluster: Kubernetes, images, S3 server and simulated GPUs."""

from . import gpus, images, kept_logs, s3, tools
from .errors import ClusterError
from .progress import say
from .provider import Provider
from .s3 import ObjectStore


def bring_up(provider: Provider, *, with_images: bool = True) -> None:
    """Start the cluster with its images, S3 server and simulated GPUs; keep the logs when that fails."""
    tools.require(tools.EVERYWHERE)
    archives = [s3.image(), *(images.build_all() if with_images else [])]
    try:
        provider.up(archives)
        ObjectStore(provider).deploy()
        if with_images:
            gpus.deploy(provider)
    except ClusterError:
        kept_logs.keep(provider)
        raise
    say(f"The cluster is up: export KUBECONFIG={provider.kubeconfig()}")


def is_up(provider: Provider) -> bool:
    """Say whether the cluster answers."""
    return provider.kubeconfig().exists() and provider.kubectl().answers("get", "--raw=/readyz", "--request-timeout=5s")


def load_images(provider: Provider) -> None:
    """Build the images that have changed; load them if the cluster is up."""
    for archive in images.build_all():
        if provider.kubeconfig().exists():
            provider.load_image(archive)
