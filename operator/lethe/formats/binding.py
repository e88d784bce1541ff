"""What a sealed key share is bound to (keys.md, Binding of a stanza).

The releaser rebuilds the binding from live objects, never from a request: a stanza that was sealed for another dataset,
tenant, key or criticality does not open.
"""

from lethe.crypto.derive import length_prefixed, sha512
from lethe.model.resources import Criticality, Resource, Scheme

_LABEL = b"lethe/v1 stanza"


class Binding(Resource, frozen=True, kw_only=True):
    """One recipient of one dataset's key epoch. `key` is empty and `version` 0 for an offline recovery key."""

    dataset_id: str
    """32 hex digits."""
    epoch: int
    tenant: str
    namespace: str
    key: str = ""
    version: int = 0
    criticality: Criticality = "standard"
    scheme: Scheme = "provider"

    def info(self) -> bytes:
        """Return the HPKE `info`: SHA-512 of the length-prefixed fields, 64 bytes."""
        return sha512(
            length_prefixed(
                _LABEL,
                bytes.fromhex(self.dataset_id),
                self.epoch.to_bytes(4, "big"),
                self.tenant.encode(),
                self.namespace.encode(),
                self.key.encode(),
                self.version.to_bytes(4, "big"),
                self.criticality.encode(),
                self.scheme.encode(),
            )
        )
