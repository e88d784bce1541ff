"""Heads: which index of a dataset that grows is the newest. Nothing is pinned."""

from msgspec.structs import replace

from lethe.crypto.derive import sha256
from lethe.formats.header import Kind, build_header
from lethe.formats.stream import seal_stream
from tests.vectors.forge import BITS, Stored, fixed
from tests.vectors.scenarios.base import HEADER_FIELDS, Scenarios, cut, flip, large, small
from tests.vectors.sealed_keys import SealedKeys
from tests.vectors.vector import Vector

HEAD = "head"


def head(keys: SealedKeys) -> Scenarios:
    """Yield name and vector."""
    yield "head-good", _unpinned(_with_head(small().seal(keys)), "The head names the index.", "R24")
    stored = small().seal(keys)
    yield "head-missing", _unpinned(stored, "There is no head: nothing was completed.", "R22", "ObjectMissingError")
    stored = _with_head(small().seal(keys))
    del stored.objects[stored.index]
    about = "The head names an index that is gone: storage shows an older head."
    yield "head-of-a-missing-index", _unpinned(stored, about, "R22", "ObjectMissingError")
    stored = _with_head(small().seal(keys)).change(stored.index, flip(-1))
    yield "head-of-a-changed-index", _unpinned(stored, "The index is another than the head's.", "R6", "IntegrityError")
    for name, at, mask, error, rule in (
        *HEADER_FIELDS,
        ("kind-index", 9, 0x01, "IntegrityError", "R9"),
        ("epoch", 15, 0x02, "UnwrapError", "R8"),
        ("record", 130, 0x01, "AuthenticationError", "R12"),
        ("tag", -1, 0x80, "AuthenticationError", "R12"),
    ):
        stored = _with_head(small().seal(keys)).change(HEAD, flip(at, mask))
        yield f"head-flip-{name}", _unpinned(stored, f"A bit of the head is flipped: {name}.", rule, error)
    for name, change, error, rule, about in (
        ("cut-to-nothing", cut(0), "HeaderError", "R7", "The head is empty."),
        ("cut-to-its-header", cut(128), "IntegrityError", "R11", "The head is a header only."),
        ("cut-by-one-byte", cut(-1), "AuthenticationError", "R12", "The last byte is missing."),
        ("with-a-byte-more", lambda data: data + b"\0", "IntegrityError", "R24", "One byte follows."),
    ):
        stored = _with_head(small().seal(keys)).change(HEAD, change)
        yield f"head-{name}", _unpinned(stored, about, rule, error)
    for name, options, error, rule, about in (
        ("of-a-shorter-pin", {"content": bytes(47)}, "IntegrityError", "R24", "The pin has 47 bytes."),
        ("of-another-kind", {"kind": Kind.INDEX}, "IntegrityError", "R9", "An index in place of a head."),
        ("under-another-id", {"object_id": b"\1" * 16}, "IntegrityError", "R9", "The object id is not zero."),
    ):
        stored = _with_head(small().seal(keys), **options)  # type: ignore[arg-type]
        yield f"head-{name}", _unpinned(stored, about, rule, error)
    stored = small().seal(keys)
    stored.objects[HEAD] = _with_head(large().seal(keys)).objects[HEAD]
    yield "head-of-another-dataset", _unpinned(stored, "The head of another dataset.", "R9", "IntegrityError")


def _with_head(
    stored: Stored, kind: Kind = Kind.STREAM, object_id: bytes = bytes(16), content: bytes | None = None
) -> Stored:
    """Put a head there that names the index as it is now."""
    forged = stored.forged
    header, cipher = build_header(
        forged.dek(1),
        kind=kind,
        record_bits=BITS,
        epoch=1,
        dataset_id=forged.dataset_id,
        object_id=object_id,
        salt=fixed(f"{forged.label} head salt", 32),
    )
    plain = bytes.fromhex(stored.index) + sha256(stored.objects[stored.index]) if content is None else content
    stored.objects[HEAD] = header.encode() + seal_stream(cipher, 1 << BITS, plain)
    return stored


def _unpinned(stored: Stored, about: str, rule: str, error: str = "") -> Vector:
    stored.sha256 = "0" * 64
    return replace(stored.vector(about, rule, error), index=None)
