"""What a fuzzer begins with: the bytes of the test vectors, each in the form that its target takes."""

from collections.abc import Iterator

from tests.fuzz.targets import unfold
from tests.vectors.decoder.dataset import check_form, read_index_plaintext, read_keys
from tests.vectors.decoder.primitives import DecodeError
from tests.vectors.decoders import given
from tests.vectors.vector import Vector, load_all


def seeds(target: str) -> list[bytes]:
    """Return different inputs of a target."""
    return sorted({seed for vector in load_all().values() for seed in _of(target, vector)})


def _of(target: str, vector: Vector) -> Iterator[bytes]:
    objects = {name: data for name, data in vector.objects.items() if name != "keyring"}
    if target == "header":
        yield from (data[:128] for data in objects.values())
    elif target == "keyring":
        yield from (data for name, data in vector.objects.items() if name == "keyring")
    elif target == "stream":
        yield from (data[128:328] for data in objects.values())
    else:
        yield from _plaintexts(target, vector)


def _plaintexts(target: str, vector: Vector) -> Iterator[bytes]:
    dataset = given(vector)
    try:
        check_form(dataset)
        plain = read_index_plaintext(dataset, read_keys(dataset))
    except DecodeError:
        return
    if target == "index-object":
        yield b"\0" + plain
        yield b"\1" + dataset.objects[dataset.index]
    else:
        yield unfold(plain) if target == "index-names" else plain
