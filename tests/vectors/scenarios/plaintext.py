"""Index plaintexts as only a holder of the DEK could write them: wrong in form, in names, or in places."""

import zlib
from typing import Any

from tests.vectors.forge import MODE, RECORD, Forged, forge
from tests.vectors.scenarios.base import Scenarios, large, small
from tests.vectors.sealed_keys import SealedKeys

HUGE = 50_000_000


def plaintext(keys: SealedKeys) -> Scenarios:
    """Yield name and vector. All end in a DatasetIndexError."""
    for name, rule, about, draft in (*_forms(), *_names(), *_places()):
        yield f"plaintext-{name}", draft.seal(keys).vector(about, rule, "DatasetIndexError")


Case = tuple[str, str, str, Forged]


def _with(**fields: Any) -> Forged:
    draft = small()
    for name, value in fields.items():
        setattr(draft, name, value)
    return draft


def _entry(draft: Forged, **fields: Any) -> Forged:
    def change(entries: list[Any]) -> None:
        for name, value in fields.items():
            setattr(entries[0], name, value)

    draft.change_entries = change
    return draft


def _only(plain: bytes) -> Forged:
    """Seal exactly these bytes as the index plaintext."""
    draft = small()
    draft.plaintext = lambda entries: plain  # type: ignore[method-assign]
    return draft


def _forms() -> list[Case]:
    joined = b"\0".join(small().names)
    deflated = zlib.compress(joined, 6)
    raw = zlib.compressobj(6, zlib.DEFLATED, -15)
    dictionary = zlib.compressobj(6, zlib.DEFLATED, 15, zdict=b"a.txt")
    bomb = zlib.compress(bytes(HUGE // 50), 9)
    modes, sizes = [0o640, 0o1000, 0o640], [5, (1 << 60) + 1, 11]
    none = forge("nothing", {})
    none.joined = b"x"
    empty = forge("nothing", {})
    empty.deflated = b""
    return [
        ("empty", "R13", "Nothing at all.", _only(b"")),
        ("short", "R13", "31 bytes, one less than the first fields have.", _only(bytes(31))),
        ("all-zero", "R13", "Zeros: record bits 0.", _only(bytes(64))),
        ("reserved", "R13", "A reserved byte is not zero.", _with(zero=b"\0\0\1")),
        ("record-bits-11", "R13", "Records of 2 KiB.", _with(record_bits=11)),
        ("record-bits-25", "R13", "Records of 32 MiB.", _with(record_bits=25)),
        ("more-files", "R13", "One file more than there are names.", _with(file_count=4)),
        ("fewer-files", "R13", "One file less than there are names.", _with(file_count=2)),
        ("files-beyond-memory", "R13", "2^63 files.", _with(file_count=1 << 63)),
        ("files-beyond-64-bits", "R13", "2^64 - 1 files: times 22 it overflows.", _with(file_count=(1 << 64) - 1)),
        ("objects-beyond-the-end", "R13", "2^32 - 1 objects.", _with(object_count=(1 << 32) - 1)),
        ("deflated-beyond-the-end", "R13", "2^64 - 1 bytes of names.", _with(deflated_length=(1 << 64) - 1)),
        ("padding", "R13", "The last byte of the padding is 1.", _with(padding=bytes(63) + b"\1")),
        ("padding-first", "R13", "The first byte of the padding is 1.", _with(padding=b"\1" + bytes(63))),
        ("size", "R13", "A file of more than 2^60 bytes.", _with(sizes=sizes)),
        ("mode", "R13", "A mode with more than permission bits: sticky.", _with(modes=modes)),
        ("mode-setuid", "R13", "A mode with setuid.", _with(modes=[0o4755, 0o640, 0o640])),
        ("object-twice", "R13", "One object twice in the table, a file in each.", _twin()),
        ("object-length-127", "R13", "An object shorter than a header.", _entry(small(), length=127)),
        ("object-too-long", "R13", "An object of more than 2^30 bytes.", _entry(small(), length=(1 << 30) + 1)),
        ("object-epoch-zero", "R13", "An object of epoch 0.", _entry(small(), epoch=0)),
        ("object-without-records", "R13", "An object without content.", _entry(small(), records=0)),
        ("names-longer", "R14", "The names unfold to one byte less.", _with(names_length=len(joined) + 1)),
        ("names-shorter", "R14", "The names unfold to one byte more.", _with(names_length=len(joined) - 1)),
        ("bomb-claimed", "R14", f"{HUGE} bytes of names for 3 files.", _with(names_length=HUGE)),
        ("bomb", "R14", "Names that unfold to a thousandfold.", _with(deflated=bomb, names_length=len(joined))),
        ("zlib-checksum", "R14", "The checksum of zlib is wrong.", _with(deflated=deflated[:-1] + b"\0")),
        ("zlib-cut-off", "R14", "The zlib stream lacks its last byte.", _with(deflated=deflated[:-1])),
        ("zlib-and-more", "R14", "Bytes behind the zlib stream.", _with(deflated=deflated + b"more")),
        ("zlib-twice", "R14", "Two zlib streams.", _with(deflated=deflated + zlib.compress(b""))),
        ("zlib-without-header", "R14", "Deflate without zlib's header.", _with(deflated=_end(raw, joined))),
        ("zlib-dictionary", "R14", "A preset dictionary.", _with(deflated=_end(dictionary, joined))),
        ("zlib-not-at-all", "R14", "Names that are not deflated.", _with(deflated=joined)),
        ("names-without-files", "R14", "No file, and a name.", none),
        ("no-zlib-stream", "R14", "No file, and no zlib stream of nothing.", empty),
    ]


def _twin() -> Forged:
    draft = forge("twin", {"a": b"twice"})
    draft.names, draft.sizes, draft.modes = [b"a", b"b"], [5, 5], [MODE, MODE]
    draft.object_numbers, draft.offsets, draft.first_records = [0, 1], [128, 128], [0, 0]
    draft.change_entries = lambda entries: entries.append(entries[0])
    return draft


def _end(stream: "zlib._Compress", data: bytes) -> bytes:
    return stream.compress(data) + stream.flush()


def _names() -> list[Case]:
    return [
        (f"name-{name}", "R15", about, _with(names=names))
        for name, about, names in (
            ("parent", "A path out of the folder.", [b"../x", b"a", b"b"]),
            ("inner-parent", "`..` within.", [b"a", b"b/../../x", b"c"]),
            ("last-parent", "`..` at the end.", [b"a", b"b/..", b"c"]),
            ("absolute", "An absolute name.", [b"/etc/passwd", b"a", b"b"]),
            ("empty", "An empty name.", [b"", b"a", b"b"]),
            ("dot", "The component `.`.", [b"./a", b"a", b"b"]),
            ("double-slash", "An empty component.", [b"a//b", b"b", b"c"]),
            ("slash-last", "A slash at the end.", [b"a/", b"b", b"c"]),
            ("not-utf-8", "Bytes that are not UTF-8.", [b"a", b"b", b"\xff\xfe"]),
            ("latin-1", "A letter in Latin-1.", [b"a", b"b", b"caf\xe9"]),
            ("overlong", "An overlong encoding of a slash.", [b"a", b"b", b"c\xc0\xafd"]),
            ("surrogate", "An encoded surrogate.", [b"a", b"b", b"\xed\xa0\x80"]),
            ("beyond-unicode", "A code point beyond U+10FFFF.", [b"a", b"b", b"\xf4\x90\x80\x80"]),
            ("long", "4,096 bytes.", [b"/".join([b"x" * 15] * 256) + b"y", b"y", b"z"]),
            ("long-component", "A component of 256 bytes.", [b"a", b"b", b"x" * 256]),
            ("twice", "A name twice.", [b"a", b"b", b"b"]),
            ("descending", "Names that descend.", [b"a", b"c", b"b"]),
            ("in-order-of-utf-16", "In order of UTF-16.", [b"a", "\U0001f40d".encode(), "\uffff".encode()]),
            ("and-folder", "A file and a folder of one name.", [b"a", b"b", b"b/c"]),
            ("and-folder-apart", "The same, another name between.", [b"b", b"b-c", b"b/c"]),
            ("and-folder-above", "The same, two levels up.", [b"b", b"b-c", b"b/c/d"]),
            ("with-zero-byte", "A zero byte within a name is two names.", [b"a", b"b\0c", b"d"]),
        )
    ]


def _places() -> list[Case]:
    end = 128 + 5 + 16
    """Where the first file's record ends."""
    last = (1 << 32) - 1
    spare = large()
    spare.contents.pop("b.bin")
    for column in ("names", "sizes", "modes", "object_numbers", "offsets", "first_records"):
        setattr(spare, column, getattr(spare, column)[:1])
    same = _with(sizes=[5, 5, 5], offsets=[128, 128, 128], first_records=[0, 0, 0])
    return [
        (f"place-{name}", rule, about, draft)
        for name, rule, about, draft in (
            ("object-number", "R16", "An object that is not in the table.", _with(object_numbers=[0, 0, 1])),
            ("offset-in-header", "R16", "A record in the header.", _with(offsets=[127, end, end + 16])),
            ("offset-zero", "R16", "A record at 0.", _with(offsets=[0, end, end + 16])),
            ("offset-beyond", "R16", "A record behind the end.", _with(offsets=[128, end, 1 << 20])),
            ("record-beyond", "R16", "A record that is not content.", _with(first_records=[0, 1, 3])),
            ("record-far-beyond", "R16", "Record 2^32 - 1.", _with(first_records=[0, 1, last])),
            ("size-beyond", "R16", "A file longer than all objects.", _with(sizes=[5, 0, RECORD])),
            ("size-at-the-limit", "R16", "A file of 2^60 bytes.", _with(sizes=[5, 0, 1 << 60])),
            ("too-few-records", "R16", "The object has a record less.", _entry(small(), records=2)),
            ("gap", "R17", "16 bytes between two files.", _with(offsets=[128, end, end + 32])),
            ("overlap", "R17", "Two files of one record.", _with(offsets=[128, 128, end + 16])),
            ("same-place", "R17", "Three files in one place.", same),
            ("record-skipped", "R17", "A record number is left out.", _with(first_records=[0, 2, 3])),
            ("not-at-128", "R17", "The first file begins at 129.", _with(offsets=[129, end, end + 16])),
            ("too-many-records", "R17", "The object has a record more.", _entry(small(), records=4)),
            ("records-of-no-file", "R17", "An object holds a record that no file has.", spare),
        )
    ]
