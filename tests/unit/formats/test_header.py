from dataclasses import replace

import pytest

from lethe.crypto.derive import hkdf_expand
from lethe.formats.header import HEADER_BYTES, Kind, build_header, open_header, parse_header
from lethe.model.errors import CommitmentError, FormatError, HeaderError, IntegrityError

DEK, DATASET, OBJECT, SALT = bytes(range(32)), b"d" * 16, b"o" * 16, b"s" * 32
EXPECTED = {"kind": Kind.DATA, "dataset_id": DATASET, "object_id": OBJECT}


def build(**changes: object) -> bytes:
    fields: dict[str, object] = {"record_bits": 16, "epoch": 3, "salt": SALT, **EXPECTED, **changes}
    return build_header(DEK, **fields)[0].encode()  # type: ignore[arg-type]


def test_bytes_lie_where_the_specification_says() -> None:
    data = build()
    assert len(data) == HEADER_BYTES
    assert data[:8] == b"lethe\x00\x00\x01"
    assert data[8:12] == bytes([1, 1, 16, 0])
    assert data[12:16] == (3).to_bytes(4, "big")
    assert (data[16:32], data[32:48], data[48:80], data[112:]) == (DATASET, OBJECT, SALT, bytes(16))
    assert data[80:112] == hkdf_expand(DEK, b"lethe/v1\x00" + data[:80], 76)[44:]


def test_records_open_with_the_derived_key() -> None:
    data = build()
    okm = hkdf_expand(DEK, b"lethe/v1\x00" + data[:80], 76)
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    nonce = (int.from_bytes(okm[32:44], "big") ^ 5).to_bytes(12, "big")
    _, cipher = open_header(data, DEK, **EXPECTED)  # type: ignore[arg-type]
    assert cipher.open(5, AESGCM(okm[:32]).encrypt(nonce, b"hello", None)) == b"hello"


def test_header_comes_back() -> None:
    assert parse_header(build()).encode() == build()


def test_every_flipped_bit_is_an_error() -> None:
    data = bytearray(build())
    for bit in range(8 * HEADER_BYTES):
        data[bit // 8] ^= 1 << bit % 8
        with pytest.raises((FormatError, IntegrityError, CommitmentError)):
            open_header(bytes(data), DEK, **EXPECTED)  # type: ignore[arg-type]
        data[bit // 8] ^= 1 << bit % 8


@pytest.mark.parametrize(
    ("offset", "value", "message"),
    [
        (0, b"X", "not an object of dataset format 1"),
        (7, b"\x02", "not an object of dataset format 1"),
        (8, b"\x02", "unknown suite 2"),
        (9, b"\x04", "unknown object kind 4"),
        (10, b"\x0b", "record size"),
        (10, b"\x19", "record size"),
        (11, b"\x01", "reserved"),
        (12, bytes(4), "epoch 0"),
        (127, b"\x01", "reserved"),
    ],
)
def test_unknown_values_are_refused_by_name(offset: int, value: bytes, message: str) -> None:
    data = bytearray(build())
    data[offset : offset + len(value)] = value
    with pytest.raises(HeaderError, match=message):
        parse_header(bytes(data))


def test_every_cut_header_is_refused() -> None:
    for length in range(HEADER_BYTES):
        with pytest.raises(HeaderError, match="cut off"):
            parse_header(build()[:length])


@pytest.mark.parametrize(
    ("expected", "message"),
    [
        ({"kind": Kind.INDEX}, "of kind DATA, expected INDEX"),
        ({"dataset_id": b"x" * 16}, "belongs to dataset"),
        ({"object_id": b"x" * 16}, "objects were swapped"),
    ],
)
def test_another_object_than_expected_is_refused(expected: dict[str, object], message: str) -> None:
    with pytest.raises(IntegrityError, match=message):
        open_header(build(), DEK, **{**EXPECTED, **expected})  # type: ignore[arg-type]


def test_another_key_is_refused_before_anything_is_decrypted() -> None:
    with pytest.raises(CommitmentError, match="not written with the dataset's key of epoch 3"):
        open_header(build(), bytes(32), **EXPECTED)  # type: ignore[arg-type]


def test_another_salt_gives_another_commitment() -> None:
    first, second = parse_header(build()), parse_header(build(salt=b"t" * 32))
    assert first.commitment != second.commitment
    assert replace(first, salt=second.salt, commitment=second.commitment) == second


@pytest.mark.parametrize(
    "changes",
    [{"epoch": 0}, {"epoch": 2**32}, {"record_bits": 11}, {"record_bits": 25}, {"salt": b""}, {"object_id": b""}],
)
def test_a_writer_refuses_what_a_reader_would(changes: dict[str, object]) -> None:
    with pytest.raises(HeaderError):
        build(**changes)
