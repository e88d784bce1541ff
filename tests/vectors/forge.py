"""Datasets of which every part can be wrong, sealed with the right keys: what somebody who has the DEK could write.

`Forged` is a dataset before it is sealed. A scenario takes one, changes what it is about, and seals it; what the
change leaves alone stays consistent: lengths, commitments, MACs and the pin follow. Nothing is random: ids, salts and
keys come from labels.
"""

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import shake_256
from struct import pack

from lethe.crypto.aead import RecordCipher
from lethe.crypto.derive import hkdf_expand, length_prefixed, mac, sha256
from lethe.crypto.hpke import PrivateKey, SuiteName
from lethe.formats.binding import Binding
from lethe.formats.header import HEADER_BYTES, Kind, build_header
from lethe.formats.layout import fill_sizes, plan_objects, record_sizes
from lethe.formats.stream import seal_stream
from lethe.model.resources import IndexPin
from tests.vectors.sealed_keys import SealedKeys
from tests.vectors.vector import Expect, ExpectedFile, Vector

BITS = 12
RECORD = 1 << BITS
FULL = RECORD + 16
MODE = 0o640
CRITICALITIES = ("standard", "sensitive", "critical")


def fixed(label: str, count: int) -> bytes:
    """Return bytes that follow from a label."""
    return shake_256(f"test vectors of the dataset format: {label}".encode()).digest(count)


def identity(name: str, suite: SuiteName = "X25519") -> PrivateKey:
    """Return the private key of somebody."""
    return PrivateKey(suite, fixed(f"identity {name}", 32 if suite == "X25519" else 96))


ACME, SERVICE, GLOBEX = identity("acme"), identity("key service"), identity("globex")
ACME_PQ = identity("acme", "MLKEM768-X25519")


@dataclass
class Stanza:
    """Numbers and bytes as they are written. `sealed` is made from the rest when it is empty."""

    to: PrivateKey
    epoch: int = 1
    kind: int = 1
    suite: int | None = None
    criticality: int = 2
    scheme: int = 1
    version: int = 0
    tenant: bytes = b"acme"
    namespace: bytes = b"acme-train"
    key: bytes = b""
    sealed: bytes = b""

    def seal(self, keys: SealedKeys, dataset_id: bytes, dek: bytes) -> bytes:
        """Seal a key to the recipient, bound to what the stanza says."""
        binding = Binding(
            dataset_id=dataset_id.hex(),
            epoch=self.epoch,
            tenant=self.tenant.decode(),
            namespace=self.namespace.decode(),
            key=self.key.decode(),
            version=self.version,
            criticality=CRITICALITIES[self.criticality - 1],  # type: ignore[arg-type]
        )
        return keys.seal(self.to.public_key(), dek, binding.info())

    def encode(self) -> bytes:
        """Return the bytes, whether they make sense or not."""
        suite = self.to.public_key().suite_byte if self.suite is None else self.suite
        head = pack(">IBBBBI", self.epoch, self.kind, suite, self.criticality, self.scheme, self.version)
        texts = b"".join(bytes([len(text)]) + text for text in (self.tenant, self.namespace, self.key))
        return head + texts + self.sealed


def service_stanza(epoch: int = 1) -> Stanza:
    """Return a stanza for a key that the key service holds."""
    return Stanza(SERVICE, epoch=epoch, key=b"default", version=3)


@dataclass
class DataObject:
    """A data object as plaintext records, the fill among them."""

    id: bytes
    salt: bytes
    records: list[bytes]
    content_records: int
    epoch: int = 1
    record_bits: int = BITS
    kind: Kind = Kind.DATA
    dataset_id: bytes = b""
    """Another one than the dataset's, if not empty."""
    tail: bytes = b""
    """Bytes behind the last record."""


@dataclass
class Entry:
    """A line of the object table."""

    id: bytes
    length: int
    records: int
    epoch: int
    commitment: bytes

    def encode(self) -> bytes:
        return pack(">16sQII32s", self.id, self.length, self.records, self.epoch, self.commitment)


@dataclass
class Forged:
    """A dataset before it is sealed. What is None follows from the rest."""

    label: str
    data: list[DataObject]
    names: list[bytes]
    sizes: list[int]
    object_numbers: list[int]
    offsets: list[int]
    first_records: list[int]
    contents: dict[str, bytes]
    modes: list[int]
    stanzas: list[Stanza] = field(default_factory=lambda: [service_stanza(), Stanza(ACME)])
    deks: dict[int, bytes] = field(default_factory=dict)
    index_epoch: int = 1
    index_bits: int = 16
    index_kind: Kind = Kind.INDEX
    record_bits: int = BITS
    zero: bytes = bytes(3)
    file_count: int | None = None
    object_count: int | None = None
    joined: bytes | None = None
    names_length: int | None = None
    deflated: bytes | None = None
    deflated_length: int | None = None
    padding: bytes | None = None
    change_entries: Callable[[list[Entry]], object] = field(default=lambda entries: None)
    mac_epochs: list[int] | None = None
    change_body: Callable[[bytes], bytes] = field(default=lambda body: body)

    @property
    def dataset_id(self) -> bytes:
        return fixed(f"{self.label} dataset", 16)

    @property
    def index_id(self) -> bytes:
        return fixed(f"{self.label} index", 16)

    def dek(self, epoch: int) -> bytes:
        """Return the key of an epoch."""
        return self.deks.get(epoch) or fixed(f"{self.label} dek {epoch}", 32)

    def seal(self, keys: SealedKeys) -> "Stored":
        """Encrypt everything."""
        objects, entries = {}, []
        for data in self.data:
            header, sealed = self._seal_data(data)
            objects[data.id.hex()] = sealed
            entries.append(Entry(data.id, len(sealed), data.content_records, data.epoch, header.commitment))
        self.change_entries(entries)
        objects[self.index_id.hex()] = self.seal_index(self.plaintext(entries))
        objects["keyring"] = self.seal_keyring(keys)
        return Stored(self, objects, self.index_id.hex())

    def plaintext(self, entries: list[Entry]) -> bytes:
        """Return the index plaintext."""
        joined = b"\0".join(self.names) if self.joined is None else self.joined
        deflated = zlib.compress(joined, 6) if self.deflated is None else self.deflated
        places = (("I", self.object_numbers), ("I", self.offsets), ("I", self.first_records))
        columns = (("Q", self.sizes), ("H", self.modes), *places)
        plain = b"".join(
            [
                pack(
                    ">QIB3sQQ",
                    len(self.names) if self.file_count is None else self.file_count,
                    len(entries) if self.object_count is None else self.object_count,
                    self.record_bits,
                    self.zero,
                    len(joined) if self.names_length is None else self.names_length,
                    len(deflated) if self.deflated_length is None else self.deflated_length,
                ),
                *(entry.encode() for entry in entries),
                *(pack(f">{len(column)}{code}", *column) for code, column in columns),
                deflated,
            ]
        )
        return plain + (bytes(-len(plain) % 64) if self.padding is None else self.padding)

    def seal_index(self, plain: bytes) -> bytes:
        """Return the index object of a plaintext."""
        header, cipher = build_header(
            self.dek(self.index_epoch),
            kind=self.index_kind,
            record_bits=self.index_bits,
            epoch=self.index_epoch,
            dataset_id=self.dataset_id,
            object_id=self.index_id,
            salt=fixed(f"{self.label} index salt", 32),
        )
        return header.encode() + seal_stream(cipher, 1 << self.index_bits, plain)

    def seal_keyring(self, keys: SealedKeys) -> bytes:
        """Return the keyring, its MACs made over whatever it says."""
        for stanza in self.stanzas:
            stanza.sealed = stanza.sealed or stanza.seal(keys, self.dataset_id, self.dek(stanza.epoch))
        epochs = sorted({stanza.epoch for stanza in self.stanzas}) if self.mac_epochs is None else self.mac_epochs
        head = pack(">8s16sHH", b"lethekr\x01", self.dataset_id, len(self.stanzas), len(epochs))
        body = self.change_body(head + b"".join(stanza.encode() for stanza in self.stanzas))
        listed = b"".join(pack(">I", epoch) for epoch in epochs)
        entries = []
        for epoch in epochs:
            info = length_prefixed(b"lethe/v1 keyring", body[8:24], pack(">I", epoch))
            key = hkdf_expand(self.dek(epoch), info, 64)
            entries.append(pack(">I", epoch) + mac(key, length_prefixed(body, listed)))
        return body + b"".join(entries)

    def _seal_data(self, data: DataObject) -> tuple["object", bytes]:
        header, cipher = build_header(
            self.dek(data.epoch),
            kind=data.kind,
            record_bits=data.record_bits,
            epoch=data.epoch,
            dataset_id=data.dataset_id or self.dataset_id,
            object_id=data.id,
            salt=data.salt,
        )
        return header, header.encode() + seal_records(cipher, data.records) + data.tail


def seal_records(cipher: RecordCipher, records: list[bytes]) -> bytes:
    """Return records one after another, whatever their sizes."""
    return b"".join(cipher.seal(number, record) for number, record in enumerate(records))


@dataclass
class Stored:
    """A sealed dataset, before or after storage has done something to it."""

    forged: Forged
    objects: dict[str, bytes]
    index: str
    private_key: PrivateKey = ACME
    sha256: str = ""
    """The pin, once it is set."""

    def data(self, number: int = 0) -> str:
        """Return the name of a data object."""
        return self.forged.data[number].id.hex()

    def pin(self) -> "Stored":
        """Pin the index as it is now."""
        self.sha256 = sha256(self.objects[self.index]).hex()
        return self

    def change(self, name: str, change: Callable[[bytes], bytes]) -> "Stored":
        """Change an object on storage."""
        self.objects[name] = change(self.objects[name])
        return self

    def vector(self, about: str, rule: str, error: str = "") -> Vector:
        """Return the vector. Without an error its files must come back."""
        files = (
            {
                name: ExpectedFile(mode=mode, content=self.forged.contents[name])
                for name, mode in zip((name.decode() for name in self.forged.names), self.forged.modes, strict=True)
            }
            if not error
            else None
        )
        return Vector(
            about=about,
            rule=rule,
            dataset_id=self.forged.dataset_id.hex(),
            index=IndexPin(object=self.index, sha256=self.sha256 or sha256(self.objects[self.index]).hex()),
            private_key=self.private_key.encode(),
            objects=dict(sorted(self.objects.items())),
            expect=Expect(files=files, error=error),
        )


def forge(label: str, files: Mapping[str, bytes], object_bytes: int = 4 * FULL) -> Forged:
    """Lay files out as a writer does."""
    names = sorted(files, key=str.encode)
    plans = plan_objects([len(files[name]) for name in names], BITS, object_bytes)
    data = []
    for number, plan in enumerate(plans):
        records = []
        for piece in plan.pieces:
            content = files[names[piece.file]][piece.start : piece.start + piece.size]
            start = 0
            for size in record_sizes(piece.size, RECORD):
                records.append(content[start : start + size])
                start += size
        room = plan.length - HEADER_BYTES - sum(len(record) + 16 for record in records)
        fill = [bytes(size) for size in fill_sizes(room, RECORD)]
        id, salt = fixed(f"{label} object {number}", 16), fixed(f"{label} salt {number}", 32)
        data.append(DataObject(id, salt, records + fill, len(records)))
    first = [(number, piece) for number, plan in enumerate(plans) for piece in plan.pieces if piece.start == 0]
    return Forged(
        label=label,
        data=data,
        names=[name.encode() for name in names],
        sizes=[len(files[name]) for name in names],
        object_numbers=[number for number, _ in first],
        offsets=[piece.offset for _, piece in first],
        first_records=[piece.record for _, piece in first],
        contents=dict(files),
        modes=[MODE] * len(names),
    )
