"""Names and addresses of an embedded cluster.

Slot 0 is the usual one. LETHE_CLUSTER_SLOT=1..9 gives a second cluster on the same machine other names and ranges,
so that neither disturbs the other; its state must lie elsewhere too (LETHE_STATE).
"""

import os
from dataclasses import dataclass

from .errors import ClusterError

CLUSTER_DOMAIN = "cluster.local"


@dataclass(frozen=True, kw_only=True)
class Addresses:
    """One cluster's prefix of names and its three /16 ranges, each given by its first two bytes."""

    prefix: str
    lan: str
    pods: str
    services: str

    @property
    def host(self) -> str:
        """The machine's own address on the cluster's network: the control plane listens there."""
        return f"{self.lan}.0.254"

    def node(self, index: int) -> str:
        """The address of a node; nodes are counted from 1."""
        return f"{self.lan}.0.{index}"

    def pod_range(self, index: int) -> str:
        """The range of a node's pods."""
        return f"{self.pods}.{index}.0/24"

    @property
    def service_range(self) -> str:
        return f"{self.services}.0.0/16"

    @property
    def pods_range(self) -> str:
        return f"{self.pods}.0.0/16"

    @property
    def api_service(self) -> str:
        """The address of the Service `kubernetes`, the first of the range."""
        return f"{self.services}.0.1"

    @property
    def dns_service(self) -> str:
        return f"{self.services}.0.10"

    @property
    def api_url(self) -> str:
        return f"https://{self.host}:6443"


def addresses(slot: int = 0) -> Addresses:
    """Return the names and ranges of a slot."""
    if not 0 <= slot <= 9:
        raise ClusterError(f"LETHE_CLUSTER_SLOT is {slot}; expected a number from 0 to 9.")
    if slot == 0:
        return Addresses(prefix="lethe", lan="10.245", pods="10.244", services="10.96")
    return Addresses(
        prefix=f"lethe{slot}", lan=f"10.{225 + slot}", pods=f"10.{215 + slot}", services=f"10.{105 + slot}"
    )


def addresses_from_environment() -> Addresses:
    """Return the names and ranges of the slot that LETHE_CLUSTER_SLOT names."""
    value = os.environ.get("LETHE_CLUSTER_SLOT", "0")
    if not value.isdecimal():
        raise ClusterError(f"LETHE_CLUSTER_SLOT is {value!r}; expected a number from 0 to 9.")
    return addresses(int(value))
