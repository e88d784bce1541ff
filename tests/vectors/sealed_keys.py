"""Keys sealed with HPKE, kept between runs of the generator.

HPKE takes fresh randomness for each sealing, and no library lets a caller choose it. So what was sealed once is kept in
`sealed_keys.json`, under a hash of all that went into it, and only what is not there is sealed anew. Thus the generator
gives the same vectors each time, and a vector whose keyring changes in meaning gets another sealed key.
"""

from pathlib import Path

import msgspec

from lethe.crypto.derive import length_prefixed, sha256
from lethe.crypto.hpke import PublicKey

FILE = Path(__file__).parent / "sealed_keys.json"


class SealedKeys:
    """What is kept, and which of it this run has asked for."""

    def __init__(self, kept: dict[str, bytes]) -> None:
        self._kept = kept
        self.used: dict[str, bytes] = {}

    @classmethod
    def load(cls) -> "SealedKeys":
        """Return what the file holds; nothing when there is none."""
        return cls(msgspec.json.decode(FILE.read_bytes(), type=dict[str, bytes]) if FILE.exists() else {})

    def seal(self, public_key: PublicKey, plaintext: bytes, info: bytes) -> bytes:
        """Return what was sealed for these inputs, now or earlier."""
        name = sha256(length_prefixed(public_key.encode().encode(), plaintext, info)).hex()
        self.used[name] = self._kept.get(name) or public_key.seal(plaintext, info)
        self._kept[name] = self.used[name]
        return self.used[name]

    def encode(self) -> bytes:
        """Return the file's bytes: what this run used, and nothing else."""
        return msgspec.json.format(msgspec.json.encode(dict(sorted(self.used.items()))), indent=1) + b"\n"
