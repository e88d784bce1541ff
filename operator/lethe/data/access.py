"""How to reach and open one sealed dataset: storage, credentials, pin and keys."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from lethe.adapters.objectstore import open_store
from lethe.crypto.aead import KEY_BYTES, RecordCipher
from lethe.crypto.hpke import PrivateKey
from lethe.data.objects import open_object
from lethe.data.recipients import read_keyring
from lethe.formats.head import HEAD_BYTES, HEAD_NAME, open_head
from lethe.formats.header import HEADER_BYTES
from lethe.formats.index import MAX_INDEX_BYTES, Index, ObjectEntry, check_pin, open_index
from lethe.formats.keyring import open_keyring
from lethe.model.dataset import DatasetSource
from lethe.model.errors import InputError, IntegrityError, UnwrapError
from lethe.model.ports import ObjectStore
from lethe.model.resources import IndexPin, Storage

KEY_FILE_PREFIX = "dek."


@dataclass(frozen=True)
class Place:
    """Where objects lie. It travels to other processes without its connections; secrets do not print."""

    storage: Storage
    credentials: str | Mapping[str, str] | None = field(repr=False)

    @cached_property
    def store(self) -> ObjectStore:
        """Return the objects, opened at the first use in each process."""
        return open_store(self.storage, self.credentials)

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in self.__dict__.items() if name != "store"}


@dataclass(frozen=True)
class Access:
    """Everything that reading needs. Keys do not print."""

    place: Place
    dataset_id: str
    pin: IndexPin
    deks: Mapping[int, bytes] = field(repr=False)
    """By epoch."""

    @classmethod
    def of(cls, source: DatasetSource, deks: Mapping[int, bytes]) -> "Access":
        """Return the access that keyfetch left, or will leave, in a pod."""
        return cls(Place(source.storage, source.credentials or None), source.dataset_id, source.index, deks)

    @classmethod
    def of_identity(cls, place: Place, dataset_id: str, pin: IndexPin, private_key: PrivateKey) -> "Access":
        """Return the access of a recipient, with the keys that the keyring holds for it."""
        check_pin(pin, dataset_id)
        keyring, _ = read_keyring(place.store, dataset_id)
        return cls(place, dataset_id, pin, open_keyring(keyring, private_key))

    @classmethod
    def of_newest(cls, place: Place, dataset_id: str, private_key: PrivateKey) -> "Access":
        """Return the access of a recipient to the newest state that the storage shows of a dataset that grows.

        Without a pin, storage can show an older state that is as genuine (`lethe.formats.head`). Raise
        ObjectMissingError where there is no head.
        """
        keyring, _ = read_keyring(place.store, dataset_id)
        deks = open_keyring(keyring, private_key)
        return cls(place, dataset_id, open_head(place.store.get(HEAD_NAME, HEAD_BYTES), dataset_id, deks), deks)

    @property
    def store(self) -> ObjectStore:
        """Return the dataset's objects."""
        return self.place.store

    def load_index(self) -> Index:
        """Fetch, check and open the pinned index."""
        check_pin(self.pin, self.dataset_id)
        return open_index(self.store.get(self.pin.object, MAX_INDEX_BYTES), self.pin, self.dataset_id, self.deks)

    def open(self, header: bytes | memoryview, entry: ObjectEntry, record_bits: int) -> RecordCipher:
        """Return the cipher of a data object whose header is genuine."""
        if entry.epoch not in self.deks:
            raise UnwrapError(f"object {entry.id} needs the key of epoch {entry.epoch}, at hand: {sorted(self.deks)}")
        return open_object(header, entry, self.deks[entry.epoch], dataset_id=self.dataset_id, record_bits=record_bits)

    def fetch(self, entry: ObjectEntry, record_bits: int) -> tuple[RecordCipher, memoryview]:
        """Return a whole data object, its header and length checked."""
        data = self.store.view(entry.id)
        if data is None:
            data = memoryview(self.store.get(entry.id, entry.length))
        return self.open_whole(data, entry, record_bits), data

    def open_whole(self, data: memoryview, entry: ObjectEntry, record_bits: int) -> RecordCipher:
        """Return the cipher of a data object whose header is genuine and whose length is right."""
        if len(data) != entry.length:
            raise IntegrityError(f"object {entry.id} has {len(data)} bytes, expected {entry.length}: it was cut off")
        return self.open(data[:HEADER_BYTES], entry, record_bits)


def read_keys(folder: Path) -> dict[int, bytes]:
    """Return the keys that keyfetch left in a folder as `dek.<epoch>`; raise InputError."""
    deks = {}
    for path in sorted(folder.glob(f"{KEY_FILE_PREFIX}*")):
        epoch, dek = path.name.removeprefix(KEY_FILE_PREFIX), path.read_bytes()
        if not epoch.isdecimal() or len(dek) != KEY_BYTES:
            raise InputError(f"{path} is not a key: expected the name {KEY_FILE_PREFIX}<epoch> and {KEY_BYTES} bytes")
        deks[int(epoch)] = dek
    if not deks:
        raise InputError(
            f"{folder} has no key ({KEY_FILE_PREFIX}<epoch>): it is not a dataset that was released to this pod"
        )
    return deks
