"""What both ends of a release agree on, and what is derived from it.

1. `Transcript.digest` is the HPKE `info` of the answer: shares that were sealed for another pod, node, epoch, nonce,
   dataset or key version do not open.
2. Shares travel as one plaintext: epoch in 4 big-endian bytes and key of 32 bytes, for each epoch in rising order.
3. The confirmation is an HMAC over the digest, keyed from the shares: only who opened them can make it.
"""

from typing import Final

from lethe.crypto.derive import hkdf, length_prefixed, mac, sha512
from lethe.formats.protocol import PROTOCOL
from lethe.model.errors import ProtocolError
from lethe.model.resources import Resource

DEK_BYTES: Final = 32
_SHARE_BYTES: Final = 4 + DEK_BYTES
_CONFIRM: Final = b"lethe/v1 confirm"


class Transcript(Resource, frozen=True, kw_only=True):
    """One release. Every field is known to both ends when the shares are opened."""

    releaser: str
    namespace: str
    job: str
    job_uid: str
    pod_uid: str
    node_uid: str
    node_epoch: int
    dataset_id: str
    key: str
    versions: tuple[tuple[int, int], ...]
    """Key epoch of the dataset and version of the tenant's key, for each share, by rising epoch."""
    nonce: str
    public_key: str

    def digest(self) -> bytes:
        """Return SHA-512 of the length-prefixed fields, 64 bytes."""
        return sha512(
            length_prefixed(
                PROTOCOL.encode(),
                self.releaser.encode(),
                self.namespace.encode(),
                self.job.encode(),
                self.job_uid.encode(),
                self.pod_uid.encode(),
                self.node_uid.encode(),
                self.node_epoch.to_bytes(8, "big"),
                bytes.fromhex(self.dataset_id),
                self.key.encode(),
                length_prefixed(
                    *(epoch.to_bytes(4, "big") + version.to_bytes(4, "big") for epoch, version in self.versions)
                ),
                bytes.fromhex(self.nonce),
                self.public_key.encode(),
            )
        )


def encode_shares(shares: dict[int, bytes]) -> bytes:
    """Join the shares of a release; raise ProtocolError for one that is not a dataset key."""
    for epoch, share in shares.items():
        if len(share) != DEK_BYTES:
            raise ProtocolError(
                f"the share of epoch {epoch} has {len(share)} bytes, expected {DEK_BYTES}: seal the dataset again"
            )
    return b"".join(epoch.to_bytes(4, "big") + shares[epoch] for epoch in sorted(shares))


def parse_shares(plaintext: bytes, epochs: tuple[int, ...]) -> dict[int, bytes]:
    """Split what `encode_shares` joined; raise ProtocolError unless it holds exactly these epochs."""
    if len(plaintext) % _SHARE_BYTES:
        raise ProtocolError(f"the released shares have {len(plaintext)} bytes, expected a multiple of {_SHARE_BYTES}")
    shares: dict[int, bytes] = {}
    for start in range(0, len(plaintext), _SHARE_BYTES):
        epoch = int.from_bytes(plaintext[start : start + 4], "big")
        shares[epoch] = plaintext[start + 4 : start + _SHARE_BYTES]
    if sorted(shares) != sorted(epochs) or len(plaintext) != _SHARE_BYTES * len(epochs):
        raise ProtocolError(f"the key service released epochs {sorted(shares)}, asked were {sorted(epochs)}")
    return shares


def confirmation(shares: bytes, digest: bytes) -> bytes:
    """Return the proof that whoever sends it has opened these shares of this transcript, 64 bytes."""
    return mac(hkdf(shares, salt=digest, info=_CONFIRM, length=32), digest)
