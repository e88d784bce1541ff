"""Data objects that are changed, cut off or swapped, and those that a holder of the DEK wrote wrongly."""

from lethe.formats.header import Kind
from tests.vectors.forge import ACME, FULL, RECORD, Entry, Forged, Stanza, fixed, forge, service_stanza
from tests.vectors.scenarios.base import HEADER_FIELDS, SMALL, Scenarios, cut, flip, large, put, small
from tests.vectors.sealed_keys import SealedKeys
from tests.vectors.vector import Vector


def data(keys: SealedKeys) -> Scenarios:
    """Yield name and vector."""
    yield from _flips(keys)
    yield from _cuts(keys)
    yield from _swaps(keys)
    yield from _fill(keys)
    yield from _disagreements(keys)


def _flips(keys: SealedKeys) -> Scenarios:
    first = 128 + len(SMALL["a.txt"])
    for name, at, mask, error, rule in (
        *HEADER_FIELDS,
        ("kind-other", 9, 0x02, "IntegrityError", "R9"),
        ("epoch", 15, 0x02, "CommitmentError", "R10"),
        ("epoch-zero", 15, 0x01, "HeaderError", "R7"),
        ("record", 128, 0x01, "AuthenticationError", "R12"),
        ("record-tag", first, 0x80, "AuthenticationError", "R12"),
        ("empty-record", first + 16, 0x01, "AuthenticationError", "R12"),
        ("fill", -17, 0x01, "AuthenticationError", "R12"),
        ("fill-tag", -1, 0x01, "AuthenticationError", "R12"),
    ):
        draft = forge("filled", {**SMALL, "c": bytes(600)})
        stored = draft.seal(keys)
        stored.change(stored.data(), flip(at, mask))
        yield f"data-flip-{name}", stored.vector(f"A bit of a data object is flipped: {name}.", rule, error)


def _cuts(keys: SealedKeys) -> Scenarios:
    for name, length in (
        ("to-nothing", 0),
        ("in-header", 127),
        ("after-header", 128),
        ("in-record", 128 + 10),
        ("before-tag", 128 + RECORD),
        ("after-record", 128 + FULL),
        ("after-content", 128 + 2 * FULL),
        ("by-one-byte", -1),
    ):
        stored = large().seal(keys)
        stored.change(stored.data(), cut(length))
        yield f"data-cut-{name}", stored.vector(f"A data object is cut off: {name}.", "R18", "IntegrityError")
    stored = large().seal(keys)
    stored.change(stored.data(), lambda data: data + b"\0")
    yield "data-with-a-byte-more", stored.vector("One byte follows a data object.", "R18", "IntegrityError")
    stored = large().seal(keys)
    del stored.objects[stored.data(1)]
    yield "data-missing", stored.vector("A data object is not there.", "R22", "ObjectMissingError")


def _swaps(keys: SealedKeys) -> Scenarios:
    def swap_records(data: bytes) -> bytes:
        return data[:128] + data[128 + FULL : 128 + 2 * FULL] + data[128 : 128 + FULL] + data[128 + 2 * FULL :]

    stored = large().seal(keys)
    stored.change(stored.data(), swap_records)
    yield "data-records-swapped", stored.vector("Two records of one object.", "R12", "AuthenticationError")
    stored = large().seal(keys)
    record = stored.objects[stored.data(1)][128 : 128 + 32]
    stored.change(stored.data(), put(128, record))
    yield "data-record-of-another-object", stored.vector("A record's first bytes.", "R12", "AuthenticationError")
    stored = large().seal(keys)
    one, two = stored.data(0), stored.data(1)
    stored.objects[one], stored.objects[two] = stored.objects[two], stored.objects[one]
    yield "data-objects-swapped", stored.vector("Two objects of one dataset.", "R9", "IntegrityError")
    stored = large().seal(keys)
    stored.change(stored.data(0), put(128, stored.objects[stored.data(1)][128:]))
    about = "The records of one object under the header of another."
    yield "data-records-of-another-object", stored.vector(about, "R12", "AuthenticationError")
    stored = small().seal(keys)
    older = _older(small()).seal(keys)
    stored.objects[stored.data()] = older.objects[stored.data()]
    about = "An older version of an object: the same id and key, another salt."
    yield "data-of-an-older-version", stored.vector(about, "R19", "CommitmentError")
    stored = small().seal(keys).pin()
    stored.objects = _older(small()).seal(keys).objects
    about = "All of an older version, its keyring and index too; the pin is the newer one's."
    yield "dataset-of-an-older-version", stored.vector(about, "R6", "IntegrityError")
    stored = small().seal(keys)
    other = forge("other", SMALL)
    other.deks, other.data[0].id = {1: small().dek(1)}, bytes.fromhex(stored.data())
    stored.objects[stored.data()] = other.seal(keys).objects[stored.data()]
    about = "An object of another dataset that shares the key and the object's id."
    yield "data-of-another-dataset", stored.vector(about, "R9", "IntegrityError")


def _older(draft: Forged) -> Forged:
    for number, data in enumerate(draft.data):
        data.salt = fixed(f"older salt {number}", 32)
    return draft


def _fill(keys: SealedKeys) -> Scenarios:
    """Fill as only a holder of the DEK could make it."""
    draft = forge("filled", {"c": bytes(1100)})
    fill = draft.data[0].records[1]
    for name, records, error, rule, about in (
        ("not-zero", [fill[:-1] + b"\1"], "IntegrityError", "R21", "The last byte of the fill is 1."),
        ("in-two-records", [fill[16:], b""], "AuthenticationError", "R12", "Fill of two records, not one."),
    ):
        draft = forge("filled", {"c": bytes(1100)})
        draft.data[0].records[1:] = records
        yield f"data-fill-{name}", draft.seal(keys).vector(about, rule, error)
    for count in (1, 15):
        draft = small()
        data = draft.data[0]
        data.records, data.tail = data.records[: data.content_records], bytes(count)
        about = f"Behind the last record {count} bytes are left, too few for a record."
        yield f"data-stray-bytes-{count}", draft.seal(keys).vector(about, "R21", "IntegrityError")
    draft = small()
    draft.data[0].tail = bytes(16)
    about = "Behind the fill there are 16 bytes that are no record."
    yield "data-stray-bytes-16", draft.seal(keys).vector(about, "R12", "AuthenticationError")
    draft = forge("filled", {"c": bytes(600)})
    draft.data[0].records[0:1] = [bytes(300), bytes(284)]
    about = "A file's record is written as two shorter ones of together the same length."
    yield "data-record-in-two", draft.seal(keys).vector(about, "R12", "AuthenticationError")


def _disagreements(keys: SealedKeys) -> Scenarios:
    """Objects that are genuine, and not what the index says."""

    def changed(about: str, rule: str, error: str, draft: Forged, **changes: object) -> Vector:
        def change(entries: list[Entry]) -> None:
            for name, value in changes.items():
                setattr(entries[0], name, value)

        draft.change_entries = change
        return draft.seal(keys).vector(about, rule, error)

    def filled() -> Forged:
        return forge("filled", {"c": bytes(600)})

    length = len(filled().seal(keys).objects[filled().data[0].id.hex()])
    commitment = fixed("another commitment", 32)
    yield (
        "data-longer-than-the-index-says",
        changed("The index says 16 bytes less.", "R18", "IntegrityError", filled(), length=length - 16),
    )
    yield (
        "data-shorter-than-the-index-says",
        changed("The index says 16 bytes more.", "R18", "IntegrityError", filled(), length=length + 16),
    )
    yield (
        "data-with-another-commitment",
        changed("The index has another commitment.", "R19", "CommitmentError", small(), commitment=commitment),
    )
    yield (
        "data-of-an-epoch-without-key",
        changed("The index says epoch 2, of which there is no key.", "R8", "UnwrapError", small(), epoch=2),
    )
    draft = small()
    draft.deks = {1: draft.dek(1), 2: draft.dek(1)}
    draft.data[0].epoch = 2
    draft.stanzas = [*draft.stanzas, service_stanza(2), Stanza(ACME, epoch=2)]
    yield (
        "data-of-another-epoch",
        changed("Two epochs with one DEK; the index says 1.", "R20", "IntegrityError", draft, epoch=1),
    )
    draft = small()
    draft.data[0].record_bits = 13
    about = "Record bits 13 in the header, 12 in the index."
    yield "data-of-another-record-size", draft.seal(keys).vector(about, "R20", "IntegrityError")
    for kind in (Kind.INDEX, Kind.STREAM):
        draft = small()
        draft.data[0].kind = kind
        about = f"A genuine object of kind {kind.value} under the name of a data object."
        yield f"data-of-kind-{kind.name.lower()}", draft.seal(keys).vector(about, "R9", "IntegrityError")
