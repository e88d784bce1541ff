"""Holds docs/spec/dataset-format.md to the code and to the vectors."""

import re
import struct
from pathlib import Path

import pytest

from lethe.crypto.hpke import PrivateKey, sealed_length
from lethe.formats import header, index, keyring, layout
from lethe.formats.padding import padme
from lethe.model import errors
from tests.vectors.decoder import primitives
from tests.vectors.examples import Example, elements, find_examples
from tests.vectors.vector import load_all

SPECIFICATION = (Path(__file__).parents[2] / "docs" / "spec" / "dataset-format.md").read_text()
VECTORS = load_all()
EXAMPLES = list(find_examples(SPECIFICATION))


def section(title: str) -> str:
    """Return the text of one section."""
    return SPECIFICATION.split(f"\n## {title}\n")[1].split("\n## ")[0]


def rows(text: str, columns: int) -> list[list[str]]:
    """Return the rows of all tables of that many columns, heads left out."""
    lines = [line.strip("|").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line] for line in lines if len(line) == columns]


def number(text: str) -> int:
    """Read the first number of a cell, such as `1,048,576 bytes`."""
    match = re.search(r"\d[\d,]*", text)
    assert match, text
    return int(match[0].replace(",", ""))


def test_the_header_has_the_fields_of_the_table() -> None:
    table = [row for row in rows(section("Object header"), 3) if row[0].isdigit()]
    offsets, widths = [int(row[0]) for row in table], [int(row[1]) for row in table]
    assert offsets == [sum(widths[:count]) for count in range(len(widths))]
    assert sum(widths) == header.HEADER_BYTES
    assert [struct.calcsize(code) for code in re.findall(r"\d*[a-zA-Z]", header._LAYOUT.format)] == widths
    assert table[0][2].startswith(f"magic `{header.MAGIC.hex()}`")
    assert table[1][2].startswith(f"suite: {header.SUITE} ")
    kinds = dict(re.findall(r"(\d) = (\w+)", table[2][2]))
    assert kinds == {str(kind.value): kind.name.lower() for kind in header.Kind}


def test_the_limits_are_those_of_the_code() -> None:
    limits = {row[0]: row[1] for row in rows(section("Conventions"), 2)}
    assert limits["record bits"] == f"{header.MIN_RECORD_BITS} to {header.MAX_RECORD_BITS}"
    assert number(limits["data object"]) == layout.MAX_OBJECT_BYTES
    assert number(limits["index object"]) == index.MAX_INDEX_BYTES
    assert number(limits["keyring"]) == keyring.MAX_KEYRING
    assert limits["keyring"].endswith(f"{keyring.MAX_STANZAS} stanzas")
    assert number(limits["file"]) == index.MAX_FILE_BYTES
    assert limits["name"] == f"{index.MAX_NAME_BYTES:,} bytes, {index.MAX_COMPONENT_BYTES} a component"


def test_the_index_has_the_parts_of_the_tables() -> None:
    parts = [row[0] for row in rows(section("Index"), 2)]
    fixed = [int(part) for part in parts[1:7]]
    assert fixed == [struct.calcsize(code) for code in re.findall(r"\d*[a-zA-Z]", index._FIXED.format)]
    assert parts[7] == f"{index._OBJECT.size} × K"
    assert parts[8:13] == [f"{index._WIDTHS[code]} × F" for code in index._COLUMNS]
    entry = [int(part) for part in parts[16:]]
    assert entry == [struct.calcsize(code) for code in re.findall(r"\d*[a-zA-Z]", index._OBJECT.format)]


@pytest.mark.parametrize("files", [0, 1, 20, 21, 22, 1000])
def test_the_limit_of_names_is_that_of_the_code(files: int) -> None:
    assert "min(4,096 × F, 1,024 × F + 65,536)" in section("Readers")
    assert index._names_limit(files) == min(4096 * files, 1024 * files + 65536)


def test_padme_is_that_of_the_code() -> None:
    lengths, padded = (row[1:] for row in rows(section("Padmé"), 7))
    assert [number(length) for length in padded] == [padme(number(length)) for length in lengths]


def test_the_keyring_has_the_fields_of_the_tables() -> None:
    text = section("Keyring")
    head = [row[0] for row in rows(text, 2)]
    assert (
        [int(part) for part in head[1:5]]
        == [8, 16, 2, 2]
        == [struct.calcsize(code) for code in re.findall(r"\d*[a-zA-Z]", keyring._HEAD.format)]
    )
    assert f"magic `{keyring.MAGIC.hex()}`" in text
    assert f"{keyring._MAC_ENTRY.size} × epochs" in text
    stanza = head[head.index("bytes", 1) + 1 :][:6]
    assert [int(part) for part in stanza] == [
        struct.calcsize(code) for code in re.findall(r"[a-zA-Z]", keyring._STANZA.format)
    ]
    for table in (keyring._CRITICALITIES, keyring._SCHEMES):
        assert ", ".join(f"{value} = `{name}`" for value, name in table.items()) in text
    assert ", ".join(f"{value} = {name}" for value, name in keyring._SUITE_BYTES.items()) in text


def test_the_suites_are_those_of_the_code() -> None:
    suites = {int(row[0]): row for row in rows(section("Keyring"), 6) if row[0].isdigit()}
    keys = {int(row[0]): row for row in rows(section("Keyring"), 3) if row[0].isdigit()}
    for byte, suite in keyring._SUITE_BYTES.items():
        private = PrivateKey.generate(suite)
        assert number(suites[byte][5]) == sealed_length(suite, 32)
        assert number(suites[byte][4]) == sealed_length(suite, 32) - 48
        assert len(private.raw) == sum(int(part) for part in re.findall(r", (\d+)", keys[byte][2]))
        public = [int(part.replace(",", "")) for part in re.findall(r", (\d[\d,]*\d)", keys[byte][1])]
        assert len(private.public_key().raw) == sum(public)


def test_there_are_examples_of_every_element() -> None:
    assert {example.element.split()[0] for example in EXAMPLES} == {
        "data",
        "dek",
        "index",
        "info",
        "keyring",
        "mac",
        "pin",
    }


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda one: f"{one.element}[{one.start}:{one.end}]")
def test_the_examples_are_those_of_the_vectors(example: Example) -> None:
    value = elements(VECTORS[example.vector])[example.element][example.start : example.end]
    assert example.value == value
    assert len(value) == example.end - example.start


def test_every_rule_with_an_error_has_a_vector_of_its_class() -> None:
    rules = {row[0]: row[2] for row in rows(section("Readers"), 3) if re.fullmatch(r"R\d+", row[0])}
    shown = {(vector.rule, vector.expect.error) for vector in VECTORS.values() if vector.expect.error}
    assert shown == set(rules.items())
    assert {vector.rule for vector in VECTORS.values()} <= {*rules, *re.findall(r"\bW\d+", section("Writers"))}


def test_the_classes_are_those_of_the_code_and_of_the_second_decoder() -> None:
    classes = {row[0] for row in rows(section("Errors"), 2)} - {"class"}
    assert classes == {vector.expect.error for vector in VECTORS.values()} - {""}
    for name in classes:
        assert issubclass(getattr(errors, name), errors.LetheError)
        assert issubclass(getattr(primitives, name), primitives.DecodeError)


def test_the_second_decoder_imports_nothing_of_the_package() -> None:
    for path in (Path(__file__).parent / "decoder").glob("*.py"):
        assert not re.search(r"^\s*(from|import) (?!tests\.vectors\.decoder)(lethe|tests)\b", path.read_text(), re.M)
