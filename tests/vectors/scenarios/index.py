"""Index objects: changed, with the pin that was and with one that follows; and the ids and pins themselves."""

from msgspec.structs import replace

from lethe.formats.header import Kind
from tests.vectors.forge import FULL, RECORD, Forged, fixed
from tests.vectors.scenarios.base import HEADER_FIELDS, Scenarios, cut, flip, put, small
from tests.vectors.sealed_keys import SealedKeys


def index(keys: SealedKeys) -> Scenarios:
    """Yield name and vector."""
    yield from _pins(keys)
    yield from _pinned(keys)
    yield from _behind_the_pin(keys)


def _pins(keys: SealedKeys) -> Scenarios:
    stored = small().seal(keys)
    for name, change, about in (
        ("object-path", {"object": "../" + stored.index[3:]}, "The pinned object is a path."),
        ("object-upper-case", {"object": stored.index.upper()}, "The pinned object is in upper case."),
        ("object-short", {"object": stored.index[:-1]}, "The pinned object has 31 digits."),
        ("hash-short", {"sha256": "0" * 63}, "The pinned hash has 63 digits."),
        ("hash-letters", {"sha256": "g" * 64}, "The pinned hash has other letters."),
        ("hash-digits-beyond-ascii", {"sha256": "\u0663" * 64}, "The pinned hash has digits of another script."),
    ):
        vector = stored.vector(about, "R1", "InputError")
        yield f"pin-{name}", replace(vector, index=replace(vector.index, **change))
    vector = small().seal(keys).vector("The dataset id has 31 digits.", "R1", "InputError")
    yield "pin-dataset-id-short", replace(vector, dataset_id=vector.dataset_id[:-1])
    vector = small().seal(keys).vector("The expected dataset is another one.", "R3", "IntegrityError")
    yield "pin-of-another-dataset", replace(vector, dataset_id="00" * 16)


def _pinned(keys: SealedKeys) -> Scenarios:
    """What the pin catches: anything at all."""
    for name, change, about in (
        ("flip-header", flip(48), "A bit of the salt is flipped."),
        ("flip-record", flip(130), "A bit of the first record is flipped."),
        ("flip-last", flip(-1, 0x80), "The last bit is flipped."),
        ("cut-to-nothing", cut(0), "The object is empty."),
        ("cut-by-one-byte", cut(-1), "The last byte is missing."),
        ("with-a-byte-more", lambda data: data + b"\0", "One byte follows."),
    ):
        stored = small().seal(keys).pin()
        stored.change(stored.index, change)
        yield f"index-pinned-{name}", stored.vector(about, "R6", "IntegrityError")
    older = small()
    older.names[0] = b"a.old"
    stored = small().seal(keys).pin()
    stored.objects[stored.index] = older.seal(keys).objects[stored.index]
    yield "index-pinned-older", stored.vector("Another index of the same id.", "R6", "IntegrityError")
    stored = small().seal(keys)
    del stored.objects[stored.pin().index]
    vector = stored.vector("There is no index object: the dataset is incomplete.", "R22", "ObjectMissingError")
    yield "index-missing", vector


def _behind_the_pin(keys: SealedKeys) -> Scenarios:
    """What is left where the pin was taken over from somebody who made the change."""
    for name, at, mask, error, rule in (
        *HEADER_FIELDS,
        ("kind-other", 9, 0x03, "IntegrityError", "R9"),
        ("epoch", 15, 0x02, "UnwrapError", "R8"),
        ("epoch-zero", 15, 0x01, "HeaderError", "R7"),
        ("record", 128, 0x01, "AuthenticationError", "R12"),
        ("tag", -1, 0x01, "AuthenticationError", "R12"),
    ):
        stored = small().seal(keys)
        stored.change(stored.index, flip(at, mask)).pin()
        yield f"index-flip-{name}", stored.vector(f"A bit of the index object is flipped: {name}.", rule, error)
    for name, change, error, rule in (
        ("to-nothing", cut(0), "HeaderError", "R7"),
        ("in-header", cut(127), "HeaderError", "R7"),
        ("after-header", cut(128), "IntegrityError", "R11"),
        ("in-tag", cut(128 + 15), "IntegrityError", "R11"),
        ("in-record", cut(128 + 40), "AuthenticationError", "R12"),
        ("by-one-byte", cut(-1), "AuthenticationError", "R12"),
        ("after-record", cut(128 + FULL), "IntegrityError", "R11"),
        ("in-last-record", cut(128 + FULL + 16), "AuthenticationError", "R12"),
    ):
        stored = _of_two_records().seal(keys)
        stored.change(stored.index, change).pin()
        yield f"index-cut-{name}", stored.vector(f"The index object is cut off: {name}.", rule, error)
    stored = _of_two_records().seal(keys)
    stored.change(stored.index, _swap_bytes).pin()
    about = "Bytes of the two records are exchanged."
    yield "index-records-swapped", stored.vector(about, "R12", "AuthenticationError")
    for kind in (Kind.DATA, Kind.STREAM):
        draft = small()
        draft.index_kind = kind
        about = f"A genuine object of kind {kind.value} with the plaintext of an index."
        yield f"index-of-kind-{kind.name.lower()}", draft.seal(keys).vector(about, "R9", "IntegrityError")
    stored = small().seal(keys)
    stored.index = stored.data()
    yield "index-is-a-data-object", stored.vector("The pin names a data object.", "R9", "IntegrityError")
    stored = small().seal(keys)
    other = fixed("another index", 16).hex()
    stored.objects[other] = stored.objects.pop(stored.index)
    stored.index = other
    yield "index-under-another-name", stored.vector("The index under another name.", "R9", "IntegrityError")


def _of_two_records() -> Forged:
    draft = small()
    draft.index_bits, draft.padding = 12, bytes(RECORD)
    return draft


def _swap_bytes(data: bytes) -> bytes:
    return put(128, data[128 + FULL : 128 + FULL + 64])(put(128 + FULL, data[128 : 128 + 64])(data))
