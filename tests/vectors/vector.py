"""A test vector as a file: what a reader is given, what lies on storage, and what must come of it."""

from pathlib import Path

import msgspec

from lethe.model.resources import IndexPin

FOLDER = Path(__file__).parent / "cases"


class ExpectedFile(msgspec.Struct, frozen=True):
    mode: int
    content: bytes
    """Base64 in the file, as msgspec writes bytes."""


class Expect(msgspec.Struct, frozen=True, omit_defaults=True):
    """One of the two."""

    files: dict[str, ExpectedFile] | None = None
    error: str = ""


class Vector(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    about: str
    rule: str
    dataset_id: str
    index: IndexPin | None
    """None where the head tells it."""
    private_key: str
    objects: dict[str, bytes]
    expect: Expect


def encode(vector: Vector) -> bytes:
    """Return the bytes of the file. ASCII, so that no editor or checkout normalises a name."""
    return _ascii(msgspec.json.format(msgspec.json.encode(vector), indent=1)) + b"\n"


def load_all() -> dict[str, Vector]:
    """Return all vectors by name."""
    return {
        path.stem: msgspec.json.decode(path.read_bytes(), type=Vector, strict=True)
        for path in sorted(FOLDER.glob("*.json"))
    }


def _ascii(json: bytes) -> bytes:
    return "".join(
        char if char.isascii() else "".join(f"\\u{unit:04x}" for unit in _utf16(char)) for char in json.decode()
    ).encode("ascii")


def _utf16(char: str) -> list[int]:
    raw = char.encode("utf-16-be")
    return [int.from_bytes(raw[at : at + 2], "big") for at in range(0, len(raw), 2)]
