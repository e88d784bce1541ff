"""The cluster's network: a switch, the machine's own plug in it, and one plug for each node.

1. The switch is a bridge in a network namespace of its own. The machine forwards nothing for the cluster: its packet
   filter (a Docker engine sets FORWARD to DROP) and its `ip_forward` neither matter nor change.
2. A node is a namespace with one address; routes to the other nodes' pods are static.
3. The machine has routes to pods and to Services (through the first node, whose kube-proxy translates them).
4. All that is made here has the cluster's prefix in its name, and goes when the namespaces go.
"""

from .addresses import Addresses
from .commands import attempt, run


class Network:
    """The switch of one cluster and what is plugged into it."""

    def __init__(self, addresses: Addresses) -> None:
        self.addresses = addresses
        self.switch = f"{addresses.prefix}-switch"

    def namespace(self, node: str) -> str:
        """Return the name of a node's network namespace."""
        return f"{self.addresses.prefix}-{node}"

    def up(self) -> None:
        """Make the switch and plug the machine in, where that is missing."""
        if self.switch not in namespaces():
            run(["ip", "netns", "add", self.switch])
            run(["ip", "-n", self.switch, "link", "add", "lan", "type", "bridge"])
            run(["ip", "-n", self.switch, "link", "set", "lan", "up"])
        plug = f"{self.addresses.prefix}-host"
        if attempt(["ip", "link", "show", plug]).returncode != 0:
            run(["ip", "link", "add", plug, "type", "veth", "peer", "name", "host", "netns", self.switch])
            run(["ip", "-n", self.switch, "link", "set", "host", "master", "lan", "up"])
            run(["ip", "address", "add", f"{self.addresses.host}/16", "dev", plug])
            run(["ip", "link", "set", plug, "up"])

    def plug_in(self, node: str, index: int, others: list[int]) -> None:
        """Make a node's namespace, with routes to the pods of the others; a namespace of that name is replaced."""
        self.unplug(node)
        name, me = self.namespace(node), self.addresses.node(index)
        run(["ip", "netns", "add", name])
        run(["ip", "-n", name, "link", "add", "eth0", "type", "veth", "peer", "name", node, "netns", self.switch])
        run(["ip", "-n", self.switch, "link", "set", node, "master", "lan", "up"])
        run(["ip", "-n", name, "link", "set", "lo", "up"])
        run(["ip", "-n", name, "address", "add", f"{me}/16", "dev", "eth0"])
        run(["ip", "-n", name, "link", "set", "eth0", "up"])
        run(["ip", "-n", name, "route", "add", "default", "via", self.addresses.host])
        for other in others:
            run(["ip", "-n", name, "route", "add", self.addresses.pod_range(other), "via", self.addresses.node(other)])
        run(["ip", "netns", "exec", name, "sysctl", "-qw", "net.ipv4.ip_forward=1"])
        run(["ip", "route", "replace", self.addresses.pod_range(index), "via", me])
        if index == 1:
            run(["ip", "route", "replace", self.addresses.service_range, "via", me])

    def unplug(self, node: str) -> None:
        """Remove a node's namespace and with it both ends of its cable."""
        if self.namespace(node) in namespaces():
            # The cable goes first: a namespace that a dying process still holds would keep the switch's end.
            attempt(["ip", "-n", self.switch, "link", "delete", node])
            run(["ip", "netns", "delete", self.namespace(node)])

    def down(self) -> None:
        """Remove the switch, every node's namespace and the machine's plug; its routes go with it."""
        attempt(["ip", "link", "delete", f"{self.addresses.prefix}-host"])
        for name in namespaces():
            if name.startswith(f"{self.addresses.prefix}-"):
                run(["ip", "netns", "delete", name])


def clusters() -> list[str]:
    """Return the switches of all embedded clusters on this machine."""
    return [name for name in namespaces() if name.startswith("lethe") and name.endswith("-switch")]


def namespaces() -> list[str]:
    """Return the names of all network namespaces that have one."""
    return [line.split()[0] for line in run(["ip", "netns", "list"]).splitlines() if line.strip()]
