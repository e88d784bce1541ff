"""Configuration of the long-running processes: one YAML file each, which the chart writes from its values."""

from typing import Literal

from lethe.model.names import GPU_PRESENT_LABEL, SYSTEM_NAMESPACE
from lethe.model.posture import POSTURE_CHECKS
from lethe.model.resources import Criticality, Resource, Scheme


class CriticalityRule(Resource, frozen=True, kw_only=True):
    """What a release demands for datasets of one criticality."""

    schemes: tuple[Scheme, ...] = ("provider",)
    max_releases: int = 3
    """Releases to one pod, counted per dataset: 1 is the first, the others are reruns of its init container."""
    fresh_scrub: bool = False
    """The node must have been scrubbed after its last holder of any job, the same tenant's included."""
    posture: tuple[str, ...] = ()
    """Names of POSTURE_CHECKS: what the node's last scrub must have found good."""

    def __post_init__(self) -> None:
        """Refuse a check that does not exist: it would be demanded, and hold of no node."""
        for name in self.posture:
            if name not in POSTURE_CHECKS:
                raise ValueError(f"there is no posture check {name!r}, expected one of {', '.join(POSTURE_CHECKS)}")


Criticalities = dict[Criticality, CriticalityRule]


class ImagePolicy(Resource, frozen=True, kw_only=True):
    require_digest: bool = False


class OperatorConfig(Resource, frozen=True, kw_only=True):
    """For `lethe.operator_main --config FILE`."""

    image: str
    """Image of keyfetch, output sidecar and scrub."""
    image_pull_policy: str = "IfNotPresent"
    image_pull_secrets: list[str] = []
    system_namespaces: tuple[str, ...] = ("kube-system", SYSTEM_NAMESPACE)
    gpu_node_label: str = f"{GPU_PRESENT_LABEL}=true"
    """A node with this label, or with capacity nvidia.com/gpu, is a GPU node."""
    enrolment: Literal["manual", "automatic"] = "manual"
    """automatic: every GPU node is managed as soon as it is seen."""
    tolerations: list[dict[str, str]] = []
    """Added to training and scrub pods, for taints that the provider's GPU nodes carry anyway."""
    runtime_class_name: str | None = None
    image_policy: ImagePolicy = ImagePolicy()
    keyservice_url: str = "https://lethe-keyservice.lethe-system.svc:8443"
    criticalities: Criticalities = {}
    fence: Literal["enforce", "audit"] = "enforce"
    """audit: the admission policies only warn, so a node is not kept back until they refuse a trial bind."""
    coverage_floor: float = 0.98
    scrub_timeout_seconds: int = 300
    receipt_keep_days: int = 0
    """After how many days a node's old receipts are deleted; 0 keeps all."""
    settle_seconds: float = 2.0
    proof_timeout_seconds: int = 600
    resync_seconds: int = 60
    lease_seconds: int = 15
    """A replica whose Lease was not renewed for so long is replaced by another."""
    health_port: int = 8080


class KeyserviceConfig(Resource, frozen=True, kw_only=True):
    """For `lethe.keyservice_main --config FILE`."""

    listen_port: int = 8443
    tls_folder: str = "/etc/lethe/tls"
    """`tls.crt` and `tls.key`."""
    trust_folder: str = "/etc/lethe/trust"
    """`receipt-keys.json`, read anew when it changes."""
    data_folder: str = "/var/lib/lethe"
    """SQLite database, file vault and audit log."""
    vault: Literal["file"] = "file"
    criticalities: Criticalities = {}
    nonce_seconds: int = 60
    health_port: int = 8080
