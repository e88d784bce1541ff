"""Every vector through both decoders, and the vectors as the generator makes them."""

from pathlib import Path

import pytest
from msgspec.structs import replace

from lethe.data.unpack import unseal
from lethe.model.errors import LetheError
from tests.vectors.decoders import expected, open_access, product, product_by_range, second, store
from tests.vectors.scenarios import all_vectors
from tests.vectors.sealed_keys import FILE, SealedKeys
from tests.vectors.vector import FOLDER, Vector, encode, load_all

VECTORS = load_all()
NOT_OF_ONE_FILE = ("R17", "R18", "R21")
"""Rules that R23 lets a reader of single files leave out."""

IN_THE_FILL = {name for name in VECTORS if name.startswith(("data-fill", "data-flip-fill", "data-stray"))}
every_vector = pytest.mark.parametrize("vector", VECTORS.values(), ids=VECTORS.keys())


@every_vector
def test_the_product_reads_it_as_expected(vector: Vector, tmp_path: Path) -> None:
    store(vector, tmp_path)
    assert product(vector, tmp_path) == expected(vector)


@every_vector
def test_the_second_decoder_reads_it_as_expected(vector: Vector) -> None:
    assert second(vector) == expected(vector)


@pytest.mark.parametrize("name", VECTORS)
def test_single_files_are_refused_too_unless_what_is_wrong_is_elsewhere(name: str, tmp_path: Path) -> None:
    store(VECTORS[name], tmp_path)
    outcome = product_by_range(VECTORS[name], tmp_path)
    if VECTORS[name].rule not in NOT_OF_ONE_FILE and name not in IN_THE_FILL:
        assert outcome == expected(VECTORS[name])


@pytest.mark.parametrize(("length", "error"), [(1 << 20, "KeyringError"), ((1 << 20) + 1, "IntegrityError")])
def test_no_more_than_the_bound_is_read_of_a_keyring(length: int, error: str, tmp_path: Path) -> None:
    vector = VECTORS["good-one-small-file"]
    longer = vector.objects["keyring"].ljust(length, b"\0")
    vector = replace(vector, objects={**vector.objects, "keyring": longer})
    store(vector, tmp_path)
    assert product(vector, tmp_path) == second(vector) == error


@every_vector
def test_unseal_writes_all_files_or_leaves_nothing(vector: Vector, tmp_path: Path) -> None:
    store(vector, tmp_path / "sealed")
    target = tmp_path / "work" / "plain"
    try:
        unseal(open_access(vector, tmp_path / "sealed"), target, workers=1)
    except LetheError as error:
        assert type(error).__name__ == vector.expect.error
        assert not (tmp_path / "work").exists() or list((tmp_path / "work").iterdir()) == []
        return
    paths = [path for path in target.rglob("*") if path.is_file()]
    found = {str(path.relative_to(target)): (path.stat().st_mode & 0o777, path.read_bytes()) for path in paths}
    assert found == expected(vector)


def test_the_generator_makes_what_is_committed() -> None:
    keys = SealedKeys.load()
    made = {f"{name}.json": encode(vector) for name, vector in all_vectors(keys).items()}
    committed = {path.name: path.read_bytes() for path in FOLDER.iterdir()}
    assert sorted(made) == sorted(committed)
    for name in made:
        assert made[name] == committed[name], f"{name}: run python3 -m tests.vectors, and look at the difference"
    assert keys.encode() == FILE.read_bytes()
