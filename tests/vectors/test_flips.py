"""A flipped bit of any byte of any object is an error, the same one in both decoders.

Exhaustive for small datasets; of larger ones a sample, drawn anew in each run from a seed that a failure prints. An
index object is tried twice: with the pin that was, and with one that follows the change, as if the pin had not helped.
"""

import random
import secrets
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from lethe.crypto.derive import sha256
from lethe.crypto.hpke import parse_private
from lethe.data.access import Access
from lethe.data.unpack import verify
from lethe.formats.head import HEAD_NAME
from lethe.formats.keyring import KEYRING_NAME
from lethe.model.errors import LetheError
from lethe.model.resources import IndexPin
from tests.vectors.decoder.dataset import Dataset, decode_with, newest, read_keys
from tests.vectors.decoder.primitives import DecodeError
from tests.vectors.decoders import given, open_access, store
from tests.vectors.vector import load_all

GOOD = {name: vector for name, vector in load_all().items() if vector.expect.files is not None}
SMALL_BYTES = 1300
SAMPLE = 12
SEED = secrets.randbits(32)


@pytest.mark.parametrize("name", GOOD)
def test_a_flipped_byte_is_an_error_and_both_decoders_say_which(name: str, tmp_path: Path) -> None:
    vector, draw = GOOD[name], random.Random(f"{SEED} {name}")
    is_small = sum(map(len, vector.objects.values())) <= SMALL_BYTES
    store(vector, tmp_path)
    dataset, access = given(vector), open_access(vector, tmp_path)
    deks = read_keys(dataset)
    dataset = dataset if dataset.index else newest(dataset, deks)
    private_key = parse_private(vector.private_key)

    def read_keyring() -> object:
        return Access.of_identity(access.place, access.dataset_id, access.pin, private_key)

    for key, data in vector.objects.items():
        size = len(data)
        for place in range(size) if is_small else {0, size - 1, *draw.sample(range(size), SAMPLE)}:
            mask = 1 << draw.randrange(8)
            where = f"{name}: {key}, byte {place} XOR {mask:#04x} (seed {SEED})"
            changed = data[:place] + bytes([data[place] ^ mask]) + data[place + 1 :]
            (tmp_path / key).write_bytes(changed)
            other = replace(dataset, objects={**dataset.objects, key: changed})
            if key == KEYRING_NAME:
                agree(where, read_keyring, lambda other=other: read_keys(other))
                continue
            if key == HEAD_NAME:
                agree(where, lambda: open_access(vector, tmp_path), lambda other=other: newest(other, deks))
                continue
            error = agree(where, lambda: verify(access, workers=1), lambda other=other: decode_with(other, deks))
            if key == dataset.index:
                assert error == "IntegrityError", where
                agree(f"{where}, pin follows", *repinned(access, other, sha256(changed).hex(), deks))
        (tmp_path / key).write_bytes(data)
    verify(access, workers=1)


def repinned(
    access: Access, dataset: Dataset, pin: str, deks: dict[int, bytes]
) -> tuple[Callable[[], object], Callable[[], object]]:
    """Return both readers with another pin."""
    opened = replace(access, pin=IndexPin(object=dataset.index, sha256=pin))
    given_pin = replace(dataset, sha256=pin)
    return lambda: verify(opened, workers=1), lambda: decode_with(given_pin, deks)


def agree(where: str, product: Callable[[], object], second: Callable[[], object]) -> str:
    """Demand an error of one class of both, and return it."""
    with pytest.raises(LetheError) as one:
        product()
    with pytest.raises(DecodeError) as two:
        second()
    assert one.type.__name__ == two.type.__name__, where
    return one.type.__name__
