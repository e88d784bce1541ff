"""The worked examples of the specification: lines that name bytes of a vector, and the bytes that stand there.

A block begins with ```vector NAME. Its lines are `element[from:to]  hex  what it is`; a long value goes on in indented
lines of hex. Elements are objects on storage (`keyring`, `index`, `data` for the first data object) and what follows
from them, computed by the second decoder.
"""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass

from tests.vectors.decoder.dataset import Records, parse_header, read_index_plaintext, read_keys
from tests.vectors.decoder.index import parse_index
from tests.vectors.decoder.keyring import mac_key, parse_keyring
from tests.vectors.decoder.primitives import expand
from tests.vectors.decoders import given
from tests.vectors.vector import Vector

_BLOCK = re.compile(r"^```vector (?P<vector>[-a-z0-9]+)\n(?P<lines>.*?)^```$", re.MULTILINE | re.DOTALL)
_LINE = re.compile(r"^(?P<element>[a-z0-9. -]+)\[(?P<start>\d+):(?P<end>\d+)\] +(?P<hex>[0-9a-f]+)(?:  +.*)?$")
_MORE = re.compile(r"^ +(?P<hex>[0-9a-f]+)$")


@dataclass(frozen=True)
class Example:
    """One line."""

    vector: str
    element: str
    start: int
    end: int
    value: bytes


def find_examples(specification: str) -> Iterator[Example]:
    """Yield every line of every block; raise ValueError for one that does not parse."""
    for block in _BLOCK.finditer(specification):
        joined: list[str] = []
        for line in block["lines"].splitlines():
            more = _MORE.match(line)
            if more:
                joined[-1] += more["hex"]
            else:
                joined.append(re.sub(r"(\] +[0-9a-f]+)  +.*$", r"\1", line))
        for line in joined:
            match = _LINE.match(line)
            if match is None:
                raise ValueError(f"{line!r} is not element[from:to] and hex")
            start, end = int(match["start"]), int(match["end"])
            yield Example(block["vector"], match["element"], start, end, bytes.fromhex(match["hex"]))


def elements(vector: Vector) -> dict[str, bytes]:
    """Return what lines may name."""
    dataset = given(vector)
    deks = read_keys(dataset)
    keyring = parse_keyring(dataset.objects["keyring"])
    raw = dataset.objects[dataset.index]
    header = parse_header(raw)
    plain = read_index_plaintext(dataset, deks)
    found = {
        "keyring": dataset.objects["keyring"],
        "index": raw,
        "index plaintext": plain,
        "index derived": expand("sha512", deks[header.epoch], b"lethe/v1\x00" + header.derived_from, 76),
        "pin": hashlib.sha256(raw).digest(),
    }
    for epoch, dek in deks.items():
        found[f"dek {epoch}"] = dek
        found[f"mac key {epoch}"] = mac_key(dek, keyring.dataset, epoch)
    for number, stanza in enumerate(keyring.stanzas):
        found[f"info {number}"] = stanza.info(keyring.dataset)
    for entry in parse_index(plain).objects[:1]:
        data = dataset.objects[entry.id.hex()]
        own = parse_header(data)
        Records(own, deks[entry.epoch], kind=1, dataset=own.dataset, name=entry.id)
        found["data"] = data
        found["data derived"] = expand("sha512", deks[entry.epoch], b"lethe/v1\x00" + own.derived_from, 76)
    return found
