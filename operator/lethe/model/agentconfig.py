"""What the operator tells the processes inside pods, one JSON document each as the argument `--config`, and what the
output sidecar answers. Nothing secret is in them.
"""

import msgspec

from lethe.model.names import outputs_url
from lethe.model.resources import Criticality, DatasetUse, EncryptedDataset, IndexPin, Resource, Scheme, Storage


class KeyfetchDataset(Resource, frozen=True, kw_only=True):
    """A dataset that the job uses, with the object it names, as admitted."""

    use: DatasetUse
    dataset: EncryptedDataset


class KeyfetchConfig(Resource, frozen=True, kw_only=True):
    """For `lethe.keyfetch_main`."""

    namespace: str
    job: str
    job_uid: str
    service_url: str
    """https://lethe-keyservice.lethe-system.svc:8443"""
    ca_bundle: str
    """PEM of the CA that vouches for the key service."""
    wait_seconds: int = 900
    """How long keyfetch waits, all in all, for a key service, a storage or a cluster that is away."""
    datasets: list[KeyfetchDataset]


class OutputRecipient(Resource, frozen=True, kw_only=True):
    """A public key that the outputs are sealed to; `key` is empty for an offline recovery key."""

    key: str = ""
    version: int = 0
    public_key: str
    """Encoded as `lethe.crypto.hpke.PublicKey.encode` writes it."""


class OutputsConfig(Resource, frozen=True, kw_only=True):
    """For `lethe.outputs_main`."""

    tenant: str
    namespace: str
    dataset_id: str
    """32 hex digits, of this attempt of this job alone."""
    storage: Storage
    recipients: list[OutputRecipient]
    criticality: Criticality = "standard"
    """The strictest criticality of the job's datasets."""
    scheme: Scheme = "provider"
    timeout_seconds: int = 3600
    """How long the pod may go on after training: its terminationGracePeriodSeconds, from outputs.uploadTimeout."""
    snapshot_seconds: int = 60
    """How long from one look for complete files to the next, while the job runs."""

    @property
    def url(self) -> str:
        """Return the prefix of the dataset."""
        return outputs_url(self.storage.url, self.dataset_id)


class OutputsMessage(Resource, frozen=True, kw_only=True):
    """What `lethe.outputs_main` leaves in its termination message; the operator copies it into the job's status."""

    dataset_id: str
    index: IndexPin
    files: int
    bytes: int
    url: str
    """The prefix of this dataset."""


class ScrubConfig(Resource, frozen=True, kw_only=True):
    """For `lethe.scrub_main`."""

    node: str
    node_uid: str
    boot_id: str
    epoch: int
    nonce: str
    gpu_count: int
    gpus: list[str] = []
    """UUIDs of the last verified scrub; empty before the first."""
    coverage_floor: float = 0.98
    """Smallest share of each GPU's total memory that must be held and verified; the simulated GPU has its own."""
    timeout_seconds: int = 300
    """After this a GPU's worker is killed and the GPU reported hung."""


def encode(config: Resource) -> str:
    """Return the argument that carries this configuration."""
    return msgspec.json.encode(config).decode()
