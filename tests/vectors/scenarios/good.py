"""Datasets that must open. Those that the product can seal are sealed by it, from a folder."""

import tempfile
import zlib
from collections.abc import Mapping
from pathlib import Path

from lethe.data.seal import seal_folder
from lethe.formats.binding import Binding
from lethe.formats.keyring import KEYRING_NAME, encode_keyring
from lethe.formats.keyring import Stanza as KeyringStanza
from lethe.model.resources import Storage
from tests.common.datasets import policy_for, seeded_random
from tests.vectors.forge import (
    ACME,
    ACME_PQ,
    BITS,
    FULL,
    MODE,
    RECORD,
    SERVICE,
    Forged,
    Stanza,
    fixed,
    service_stanza,
)
from tests.vectors.scenarios.base import Scenarios, large, small
from tests.vectors.sealed_keys import SealedKeys
from tests.vectors.vector import Expect, ExpectedFile, Vector

MANY = {
    **{f"train/{number // 10}/{number:04d}.txt": fixed(f"many {number}", number * 7) for number in range(40)},
    "train-a": b"sorts before train/",
    "train.txt": b"so does this",
    "train0": b"and this after",
}
NAMES = {
    "caf\u00e9": b"composed",
    "cafe\u0301": b"decomposed",
    "line\nbreak\x1b[31m": b"a terminal would obey",
    "\U0001f40d/\u6a21\u578b": b"beyond the basic plane",
    "\uffff": b"before the one above in UTF-8, after it in UTF-16",
    " /-/..a/a..": b"odd, but allowed",
    "x" * 255 + "/" + "y" * 255: b"longest components",
    "back\\slash": b"not a separator",
}


def good(keys: SealedKeys) -> Scenarios:
    """Yield name and vector."""
    sealed = _Writer(keys)
    yield "good-one-small-file", sealed("One file of one record.", "W4", {"hello.txt": b"Hello, Lethe!\n"})
    yield "good-empty-dataset", sealed("No file, so no data object.", "R17", {})
    yield "good-empty-files", sealed("Empty files have an empty record each.", "R16", {"a": b"", "b": b"", "c/d": b""})
    yield "good-many-files", sealed("Names in the order of their bytes; two modes.", "R15", MANY)
    yield "good-names", sealed("Names are kept byte for byte: NFC, NFD, control characters.", "R15", NAMES)
    edges = {str(size): fixed(f"edge {size}", size) for size in (RECORD - 1, RECORD, RECORD + 1, 2 * RECORD)}
    yield "good-record-edges", sealed("Files around one and two full records.", "R16", edges)
    one = {"large.bin": fixed("several objects", 7 * RECORD + 5)}
    yield (
        "good-several-objects",
        sealed("A file that goes on in three further objects.", "R16", one, object_bytes=128 + 2 * FULL + 40),
    )
    exact = {"large.bin": fixed("exact", 4 * RECORD)}
    yield (
        "good-objects-without-fill",
        sealed("Objects that content fills to the last byte.", "W4", exact, object_bytes=128 + 2 * FULL),
    )
    yield (
        "good-fill-in-two-records",
        sealed(
            "Fill of a full record and 5 bytes: 16 bytes of the first go to the second.",
            "R21",
            {"large.bin": fixed("fill", 3 * RECORD)},
            object_bytes=128 + 2 * FULL + 5,
        ),
    )
    yield "good-large-records", sealed("Record bits 24.", "R7", {"a": fixed("large record", 5000)}, record_bits=24)
    yield from _recipients(keys)
    yield from _forged(keys)


def _recipients(keys: SealedKeys) -> Scenarios:
    for name, reader in (("x25519", ACME), ("mlkem768-x25519", ACME_PQ), ("key-service", SERVICE)):
        draft = small()
        draft.stanzas = [Stanza(ACME_PQ), service_stanza(), Stanza(ACME)]
        stored = draft.seal(keys)
        stored.private_key = reader
        about = "Three recipients, keys of both HPKE suites; this is one of them."
        yield f"good-recipient-{name}", stored.vector(about, "R4")
    draft = _two_epochs()
    yield "good-two-epochs", draft.seal(keys).vector("An object of epoch 1, one of epoch 2, the index of 2.", "R8")
    draft = small()
    draft.stanzas = [service_stanza(), Stanza(ACME), Stanza(ACME, tenant=b"a" * 253)]
    yield "good-offline-keys", draft.seal(keys).vector("A recovery key twice: it has no name to be unique.", "R2")


def _two_epochs() -> Forged:
    draft = large()
    draft.data[1].epoch = draft.index_epoch = 2
    draft.stanzas = [service_stanza(), Stanza(ACME), service_stanza(2), Stanza(ACME, epoch=2)]
    return draft


def _forged(keys: SealedKeys) -> Scenarios:
    """What no writer of ours does, and readers accept."""
    draft = small()
    draft.padding = b""
    yield "good-index-without-padding", draft.seal(keys).vector("Padding of the index is up to the writer.", "R13")
    draft = small()
    draft.index_bits, draft.padding = 12, bytes(9000)
    yield "good-index-of-several-records", draft.seal(keys).vector("Record bits 12 for the index.", "R11")
    draft = small()
    draft.index_bits, draft.padding = 12, b""
    draft.padding = bytes(-(len(draft.seal(keys).objects[draft.index_id.hex()]) - 128 - 16) % RECORD)
    about = "A plaintext of exactly one record: an empty one follows."
    yield "good-index-of-a-full-record", draft.seal(keys).vector(about, "R11")
    draft = large()
    _swap_objects(draft)
    yield "good-objects-in-another-order", draft.seal(keys).vector("A later file in an earlier object.", "R17")
    draft = large()
    _split_early(draft)
    about = "A file goes on in the next object although a record would have fitted: content records say so."
    yield "good-split-before-the-end", draft.seal(keys).vector(about, "R16")
    draft = small()
    draft.deflated = zlib.compress(b"\0".join(draft.names), 0)
    yield "good-names-stored", draft.seal(keys).vector("Names that are stored in zlib, not deflated.", "R14")


def _swap_objects(draft: Forged) -> None:
    """Give each of two files an object of its own, the first file the second object."""
    one, two = sorted(draft.contents)
    draft.contents = {one: draft.contents[one][:50], two: draft.contents[two][:60]}
    for data, name in zip(draft.data, (two, one), strict=True):
        data.records, data.content_records = [draft.contents[name], bytes(20)], 1
    draft.sizes, draft.object_numbers, draft.offsets, draft.first_records = [50, 60], [1, 0], [128, 128], [0, 0]


def _split_early(draft: Forged) -> None:
    """One file of two records and a tail: a record and much fill in the first object, the rest in the second."""
    (name, content), _ = sorted(draft.contents.items())
    draft.contents, draft.names, draft.sizes = {name: content}, [name.encode()], [len(content)]
    draft.modes, draft.object_numbers, draft.offsets, draft.first_records = [MODE], [0], [128], [0]
    draft.data[0].records, draft.data[0].content_records = [content[:RECORD], bytes(RECORD)], 1
    draft.data[1].records, draft.data[1].content_records = [content[RECORD : 2 * RECORD], content[2 * RECORD :]], 2


class _Writer:
    """Seals with the product, and replaces the keyring, whose HPKE is random, by one of kept sealed keys."""

    def __init__(self, keys: SealedKeys) -> None:
        self._keys = keys

    def __call__(
        self,
        about: str,
        rule: str,
        files: Mapping[str, bytes],
        *,
        record_bits: int = BITS,
        object_bytes: int = 1 << 26,
    ) -> Vector:
        random = seeded_random(about.encode())
        drawn: list[bytes] = []

        def draw(count: int) -> bytes:
            drawn.append(random(count))
            return drawn[-1]

        modes = {name: 0o755 if number % 3 == 1 else MODE for number, name in enumerate(sorted(files))}
        with tempfile.TemporaryDirectory() as folder:
            plain, place = Path(folder, "plain"), Path(folder, "sealed")
            plain.mkdir()
            for name, content in files.items():
                path = plain / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
                path.chmod(modes[name])
            sealed = seal_folder(
                plain,
                Storage(url=f"file://{place}"),
                None,
                policy_for(ACME),
                record_bits=record_bits,
                object_bytes=object_bytes,
                workers=1,
                random=draw,
            )
            objects = {path.name: path.read_bytes() for path in sorted(place.iterdir())}
        dek = next(value for value in drawn if len(value) == 32)
        objects[KEYRING_NAME] = self._keyring(bytes.fromhex(sealed.dataset_id), dek)
        return Vector(
            about=about,
            rule=rule,
            dataset_id=sealed.dataset_id,
            index=sealed.index,
            private_key=ACME.encode(),
            objects=objects,
            expect=Expect(files={name: ExpectedFile(modes[name], files[name]) for name in sorted(files)}),
        )

    def _keyring(self, dataset_id: bytes, dek: bytes) -> bytes:
        stanzas = []
        for key, version, reader in (("default", 3, SERVICE), ("", 0, ACME)):
            binding = Binding(
                dataset_id=dataset_id.hex(), epoch=1, tenant="acme", namespace="acme", key=key, version=version
            )
            public_key = reader.public_key()
            sealed = self._keys.seal(public_key, dek, binding.info())
            stanzas.append(
                KeyringStanza(1, public_key.suite, "acme", "acme", key, version, "standard", "provider", sealed)
            )
        return encode_keyring(dataset_id.hex(), stanzas, {1: dek})
