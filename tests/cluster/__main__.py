"""The test cluster's command line.

    python3 -m tests.cluster up [--no-images]   start the cluster, S3 server and simulated GPUs; may be repeated
    python3 -m tests.cluster tools              build Kubernetes and the other programs, where they are not in the cache
    python3 -m tests.cluster images             build images that have changed, and load them where a cluster is up
    python3 -m tests.cluster status             say which cluster it is, and in what state
    python3 -m tests.cluster reboot NODE        take power from a node and start it again
    python3 -m tests.cluster kubectl ...        kubectl of the cluster
    python3 -m tests.cluster down               remove the cluster and all its traces

`--provider embedded|kind|current` (or CLUSTER) names the cluster; without it choice.py decides.
"""

import argparse
import os
import sys
from collections.abc import Sequence

from . import choice, tools
from .bring_up import bring_up, load_images
from .errors import ClusterError
from .progress import say
from .provider import Provider
from .s3 import ObjectStore


def main(arguments: Sequence[str]) -> int:
    """Run one command and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python3 -m tests.cluster", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--provider", default="", choices=["", "auto", *choice.NAMES])
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up")
    up.add_argument("--no-images", action="store_true", help="without images of Lethe and its tests, and without GPUs")
    for name in ("down", "images", "status", "tools"):
        commands.add_parser(name)
    commands.add_parser("reboot").add_argument("node")
    commands.add_parser("kubectl", add_help=False).add_argument("words", nargs=argparse.REMAINDER)
    # `--provider` is taken before and after the command.
    chosen, rest = parser.parse_known_args(arguments)
    if rest and chosen.command != "kubectl":
        late = argparse.ArgumentParser(prog=parser.prog)
        late.add_argument("--provider", default=chosen.provider, choices=["", "auto", *choice.NAMES])
        chosen.provider = late.parse_args(rest).provider
    try:
        if chosen.command == "tools":
            tools.require(tools.EVERYWHERE)
            return 0
        provider = choice.choose(chosen.provider)
        if chosen.command == "up":
            bring_up(provider, with_images=not chosen.no_images)
        elif chosen.command == "down":
            provider.down()
        elif chosen.command == "images":
            load_images(provider)
        elif chosen.command == "status":
            show(provider)
        elif chosen.command == "reboot":
            provider.reboot(chosen.node)
        else:
            kubectl = tools.kubectl()
            os.execv(kubectl, ["kubectl", f"--kubeconfig={provider.kubeconfig()}", *chosen.words])
    except ClusterError as error:
        say(f"error: {error}")
        return 1
    return 0


def show(provider: Provider) -> None:
    """Print the provider and, when it is up, its nodes and pods."""
    print(f"provider: {provider.name}")
    if not provider.kubeconfig().exists():
        print("The cluster is down.")
        return
    print(f"kubeconfig: {provider.kubeconfig()}\nS3: {ObjectStore(provider).endpoint}")
    print(provider.kubectl()("get", "nodes", "--output=wide"))
    print(provider.kubectl()("get", "pods", "--all-namespaces", "--output=wide"))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
