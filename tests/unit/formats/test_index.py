import struct
import zlib
from array import array
from collections.abc import Sequence

import pytest

from lethe.crypto.derive import sha256
from lethe.formats.header import HEADER_BYTES, Kind, build_header, open_header
from lethe.formats.index import (
    Index,
    ObjectEntry,
    check_name,
    encode_index,
    open_index,
    parse_index,
    seal_index,
)
from lethe.formats.padding import padme
from lethe.formats.stream import open_stream, seal_stream
from lethe.model.errors import CryptoError, DatasetIndexError, InputError, IntegrityError, LetheError, UnwrapError
from lethe.model.resources import IndexPin

DEK, DATASET, OBJECT, SALT = bytes(range(32)), b"d" * 16, b"o" * 16, b"s" * 32
SEAL = {"epoch": 1, "dataset_id": DATASET, "object_id": OBJECT, "salt": SALT}


def make_index(names: Sequence[str] = ("a", "b/c", "b/d"), size: int = 100) -> Index:
    count = len(names)
    entry = ObjectEntry("ab" * 16, 1 << 20, max(1, count), 1, b"c" * 32)
    return Index(
        record_bits=12,
        objects=(entry,) if count else (),
        names=list(names),
        sizes=array("Q", [size] * count),
        modes=array("H", [0o644] * count),
        object_numbers=array("I", [0] * count),
        offsets=array("I", [128 + number * (size + 16) for number in range(count)]),
        first_records=array("I", range(count)),
    )


def pin_of(data: bytes) -> IndexPin:
    return IndexPin(object=OBJECT.hex(), sha256=sha256(data).hex())


def seal(plain: bytes) -> bytes:
    """Seal any plaintext as an index: what somebody who has the key could write."""
    header, cipher = build_header(DEK, kind=Kind.INDEX, record_bits=16, **SEAL)  # type: ignore[arg-type]
    return header.encode() + seal_stream(cipher, 1 << 16, plain)


@pytest.mark.parametrize(
    "names",
    [
        [],
        ["a"],
        ["a", "a b", "a-b", "ab/c"],
        ["e\u0301", "\u00e9"],
        ["x" * 255, "y" * 255 + "/" + "z" * 255],
        ["line\nbreak", "tab\t", "…"],
    ],
    ids=["none", "one", "sorting", "nfc-and-nfd", "long", "odd"],
)
def test_an_index_comes_back(names: list[str]) -> None:
    index = make_index(sorted(names))
    data = seal_index(index, DEK, **SEAL)  # type: ignore[arg-type]
    assert open_index(data, pin_of(data), DATASET.hex(), {1: DEK}) == index
    assert [index.find(name) for name in index.names] == list(range(len(names)))


def test_the_same_index_gives_the_same_bytes() -> None:
    assert seal_index(make_index(), DEK, **SEAL) == seal_index(make_index(), DEK, **SEAL)  # type: ignore[arg-type]


@pytest.mark.parametrize("count", [0, 1, 10, 500, 2000, 2290, 5000])
def test_the_object_has_a_padme_length(count: int) -> None:
    data = seal_index(make_index([f"{number:06d}" for number in range(count)]), DEK, **SEAL)  # type: ignore[arg-type]
    assert len(data) == padme(len(data))


def test_every_flipped_byte_is_an_error_at_the_pin() -> None:
    data = bytearray(seal_index(make_index(), DEK, **SEAL))  # type: ignore[arg-type]
    pin = pin_of(bytes(data))
    for offset in range(len(data)):
        data[offset] ^= 0x80
        with pytest.raises(IntegrityError, match="pinned is"):
            open_index(bytes(data), pin, DATASET.hex(), {1: DEK})
        data[offset] ^= 0x80


def test_every_flipped_byte_is_an_error_behind_the_pin_too() -> None:
    data = bytearray(seal_index(make_index(), DEK, **SEAL))  # type: ignore[arg-type]
    for offset in range(len(data)):
        data[offset] ^= 0x01
        with pytest.raises(LetheError):
            open_index(bytes(data), pin_of(bytes(data)), DATASET.hex(), {1: DEK})
        data[offset] ^= 0x01


def test_every_truncation_is_an_error_behind_the_pin_too() -> None:
    data = seal_index(make_index(), DEK, **SEAL)  # type: ignore[arg-type]
    for length in range(len(data)):
        with pytest.raises(LetheError):
            open_index(data[:length], pin_of(data[:length]), DATASET.hex(), {1: DEK})


def test_an_older_index_is_refused() -> None:
    old = seal_index(make_index(["a"]), DEK, **SEAL)  # type: ignore[arg-type]
    new = seal_index(make_index(["a", "b"]), DEK, **{**SEAL, "salt": b"t" * 32})  # type: ignore[arg-type]
    with pytest.raises(IntegrityError, match="another version"):
        open_index(old, pin_of(new), DATASET.hex(), {1: DEK})


def test_another_datasets_index_is_refused() -> None:
    data = seal_index(make_index(), DEK, **{**SEAL, "dataset_id": b"x" * 16})  # type: ignore[arg-type]
    with pytest.raises(IntegrityError, match="belongs to dataset"):
        open_index(data, pin_of(data), DATASET.hex(), {1: DEK})


def test_a_missing_or_wrong_key_is_named() -> None:
    data = seal_index(make_index(), DEK, **SEAL)  # type: ignore[arg-type]
    with pytest.raises(UnwrapError, match="epoch 1, at hand: \\[2\\]"):
        open_index(data, pin_of(data), DATASET.hex(), {2: DEK})
    with pytest.raises(CryptoError):
        open_index(data, pin_of(data), DATASET.hex(), {1: bytes(32)})


@pytest.mark.parametrize(
    ("pin", "dataset"),
    [
        (IndexPin(object="../../x", sha256="0" * 64), "0" * 32),
        (IndexPin(object="0" * 32, sha256="Z" * 64), "0" * 32),
        (IndexPin(object="0" * 32, sha256="0" * 64), "0" * 31),
    ],
)
def test_a_pin_of_another_form_is_refused(pin: IndexPin, dataset: str) -> None:
    with pytest.raises(InputError, match="hex digits"):
        open_index(b"", pin, dataset, {1: DEK})


BAD_NAMES = {
    "parent": "../x",
    "inner-parent": "a/../../x",
    "end-parent": "a/..",
    "absolute": "/etc/passwd",
    "empty": "",
    "dot": "./a",
    "double-slash": "a//b",
    "trailing-slash": "a/",
    "zero-byte": "a\0b",
    "long-component": "x" * 256,
    "long": "/".join(["x" * 200] * 21),
    "surrogate": "a\udcff",
}


@pytest.mark.parametrize("name", BAD_NAMES.values(), ids=BAD_NAMES.keys())
def test_bad_names_are_refused_by_check_and_by_the_writer(name: str) -> None:
    with pytest.raises(DatasetIndexError):
        check_name(name)
    with pytest.raises(DatasetIndexError):
        encode_index(make_index(sorted(["a", name])))


def plaintext(names: bytes, files: int, *, names_length: int | None = None, deflated: bytes | None = None) -> bytes:
    """Encode by hand what `encode_index` would refuse."""
    deflated = zlib.compress(names) if deflated is None else deflated
    return b"".join(
        [
            struct.pack(">QIB3sQQ", files, 1, 12, bytes(3), names_length or len(names), len(deflated)),
            struct.pack(">16sQII32s", b"\xab" * 16, 1 << 20, 1, 1, bytes(32)),
            struct.pack(f">{files}Q{files}H{3 * files}I", *[1] * files, *[0o644] * files, *[0] * files * 3),
            deflated,
        ]
    )


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (b"../x", "'\\.\\.'"),
        (b"a/../../x", "'\\.\\.'"),
        (b"/etc/passwd", "absolute"),
        (b"", "empty component"),
        (b"x" * 256, "too long"),
        (b"\xff\xfe", "not UTF-8"),
        (b"a\0a", "there twice"),
        (b"b\0a", "not in ascending order"),
        (b"a\0a/b", "a file and a folder at once"),
        (b"a\0a-b\0a/b", "a file and a folder at once"),
    ],
)
def test_bad_names_are_refused_by_the_reader(names: bytes, message: str) -> None:
    with pytest.raises(DatasetIndexError, match=message):
        parse_index(plaintext(names, names.count(b"\0") + 1))


def test_too_many_or_too_few_names_are_refused() -> None:
    for files in (1, 3):
        with pytest.raises(DatasetIndexError, match="2 names"):
            parse_index(plaintext(b"a\0b", files))


def test_a_decompression_bomb_is_refused_before_it_unfolds() -> None:
    bomb = zlib.compress(bytes(50_000_000), 9)
    with pytest.raises(DatasetIndexError, match="claims names of 50000000 bytes"):
        parse_index(plaintext(b"", 1, names_length=50_000_000, deflated=bomb))
    with pytest.raises(DatasetIndexError, match="do not inflate to the 10 bytes"):
        parse_index(plaintext(b"", 1, names_length=10, deflated=bomb))


@pytest.mark.parametrize("claim", [2**63, 10**9])
def test_a_count_that_memory_could_not_hold_is_refused(claim: int) -> None:
    plain = bytearray(plaintext(b"a", 1))
    plain[:8] = claim.to_bytes(8, "big")
    with pytest.raises(DatasetIndexError, match="says that it has"):
        parse_index(bytes(plain))


def test_padding_that_is_not_zero_is_refused() -> None:
    with pytest.raises(DatasetIndexError, match="padding"):
        parse_index(plaintext(b"a", 1) + b"\0\x01")


def test_data_after_the_names_is_refused() -> None:
    with pytest.raises(DatasetIndexError, match="do not inflate"):
        parse_index(plaintext(b"", 1, names_length=1, deflated=zlib.compress(b"a") + b"more"))


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("object_numbers", 1),
        ("offsets", 0),
        ("offsets", 127),
        ("offsets", 1 << 20),
        ("first_records", 3),
        ("sizes", 2**40),
    ],
)
def test_a_file_outside_its_object_is_refused_when_it_is_looked_up(column: str, value: int) -> None:
    index = make_index()
    getattr(index, column)[2] = value
    with pytest.raises(DatasetIndexError):
        list(index.pieces(2))


@pytest.mark.parametrize("column", ["object_numbers", "offsets", "first_records"])
def test_a_file_that_does_not_lie_in_one_object_has_no_place_there(column: str) -> None:
    assert make_index().place(2) == (0, 2, 128 + 2 * 116)
    for value in (127, 1 << 20):
        index = make_index()
        getattr(index, column)[2] = value
        if column == "object_numbers":
            with pytest.raises(DatasetIndexError, match="b/d"):
                index.place(2)
        else:
            assert index.place(2) is None
            with pytest.raises(DatasetIndexError, match="b/d"):
                list(index.pieces(2))


def test_a_file_in_an_object_that_is_not_there_is_refused() -> None:
    index = make_index()
    index.object_numbers[1] = 1
    with pytest.raises(DatasetIndexError, match="lies in object 1, and there are 1"):
        parse_index(encode_index(index))


def test_plaintext_of_a_sealed_index_is_what_encode_wrote() -> None:
    data = seal_index(make_index(), DEK, **SEAL)  # type: ignore[arg-type]
    _, cipher = open_header(data, DEK, kind=Kind.INDEX, dataset_id=DATASET, object_id=OBJECT)
    assert open_stream(cipher, 1 << 16, data[HEADER_BYTES:]) == encode_index(make_index())
    assert seal(encode_index(make_index())) == data
