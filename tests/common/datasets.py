"""Small sealed datasets for tests: X25519 keys and 4 KiB records keep them quick and their objects small."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from lethe.crypto.derive import sha256
from lethe.crypto.hpke import PrivateKey
from lethe.data.access import Access, Place
from lethe.data.seal import KeyPolicy, Sealed, seal_folder
from lethe.formats.header import MIN_RECORD_BITS
from lethe.model.agentconfig import OutputRecipient
from lethe.model.dataset import DatasetSource
from lethe.model.resources import Storage

RECORD = 1 << MIN_RECORD_BITS
OBJECT = 5 * (RECORD + 16) + 128 + 40


def seeded_random(seed: bytes) -> Callable[[int], bytes]:
    """Return a source of bytes that always gives the same sequence."""
    count = 0

    def draw(length: int) -> bytes:
        nonlocal count
        parts = []
        while sum(map(len, parts)) < length:
            count += 1
            parts.append(sha256(seed + count.to_bytes(8, "big")))
        return b"".join(parts)[:length]

    return draw


def content(size: int) -> bytes:
    """Return bytes that differ from record to record."""
    return (b"".join(number.to_bytes(4, "big") for number in range(size // 4 + 1)))[:size]


def write_tree(root: Path, files: Mapping[str, bytes]) -> Path:
    """Write files below a folder."""
    root.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


def read_tree(root: Path) -> dict[str, bytes]:
    """Return what `write_tree` was given."""
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@dataclass(frozen=True)
class Dataset:
    """A sealed dataset in a folder, and all that opens it."""

    root: Path
    storage: Storage
    sealed: Sealed
    identity: PrivateKey
    files: dict[str, bytes]

    @property
    def access(self) -> Access:
        """Return a fresh access, with keys from the keyring."""
        return Access.of_identity(Place(self.storage, None), self.sealed.dataset_id, self.sealed.index, self.identity)

    @property
    def source(self) -> DatasetSource:
        return DatasetSource(
            name="digits", dataset_id=self.sealed.dataset_id, index=self.sealed.index, storage=self.storage
        )

    @property
    def objects(self) -> list[Path]:
        """Return the files of the data objects, in the order of the index."""
        return [self.root / entry.id for entry in self.access.load_index().objects]


def release(dataset: Dataset, root: Path, name: str = "digits") -> Path:
    """Leave below `root` what keyfetch leaves in a pod, and return the dataset's folder."""
    source = msgspec.structs.replace(dataset.source, name=name)
    folder = root / source.name
    folder.mkdir(parents=True)
    (folder / "source.json").write_bytes(msgspec.json.encode(source))
    for epoch, dek in dataset.access.deks.items():
        (folder / f"dek.{epoch}").write_bytes(dek)
    return folder


def policy_for(identity: PrivateKey, **changes: str) -> KeyPolicy:
    """Return a policy with one recovery key."""
    fields = {"tenant": "acme", "namespace": "acme", **changes}
    return KeyPolicy(recipients=(OutputRecipient(public_key=identity.public_key().encode()),), **fields)  # type: ignore[arg-type]


def seal_files(
    folder: Path,
    files: Mapping[str, bytes],
    *,
    identity: PrivateKey | None = None,
    random: Callable[[int], bytes] | None = None,
    workers: int = 1,
) -> Dataset:
    """Seal files with small records and objects."""
    identity = identity or PrivateKey.generate("X25519")
    plain = write_tree(folder / "plain", files)
    storage = Storage(url=f"file://{folder}/sealed")
    sealed = seal_folder(
        plain,
        storage,
        None,
        policy_for(identity),
        record_bits=MIN_RECORD_BITS,
        object_bytes=OBJECT,
        workers=workers,
        random=random or seeded_random(bytes(str(folder), "utf-8")),
    )
    return Dataset(folder / "sealed", storage, sealed, identity, dict(files))
