"""The fuzz targets without Atheris: over all seeds, over seeds changed at random, and over a planted defect."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lethe.formats import header, index, keyring
from lethe.model.errors import DatasetIndexError, LetheError
from tests.fuzz.seeds import seeds
from tests.fuzz.targets import TARGETS, Disagreement, fold, fuzz_header, fuzz_index, fuzz_keyring, unfold

SEEDS = {name: seeds(name) for name in TARGETS}


@pytest.mark.parametrize("name", TARGETS)
def test_no_seed_fails(name: str) -> None:
    assert len(SEEDS[name]) > 10
    for seed in SEEDS[name]:
        TARGETS[name](seed)


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_no_changed_seed_fails(name: str, data: st.DataObject) -> None:
    seed = bytearray(data.draw(st.sampled_from(SEEDS[name])))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(seed)))
        seed[place : place + data.draw(st.integers(0, 8))] = data.draw(st.binary(max_size=8))
    TARGETS[name](bytes(seed))


def test_seeds_of_names_are_the_plaintexts() -> None:
    opened = 0
    for plain in SEEDS["index"]:
        try:
            found = index.parse_index(plain)
        except LetheError:
            continue
        assert index.parse_index(fold(unfold(plain))).names[: len(found)] == found.names
        opened += 1
    assert opened > 5


def test_a_crash_is_let_through(monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(data: bytes) -> None:
        raise IndexError("planted")

    monkeypatch.setattr(header, "parse_header", crash)
    with pytest.raises(IndexError, match="planted"):
        fuzz_header(SEEDS["header"][-1])


def test_a_reader_that_refuses_too_much_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(data: bytes) -> None:
        raise DatasetIndexError("planted")

    monkeypatch.setattr(index, "parse_index", refuse)
    with pytest.raises(Disagreement, match="the second decoder: taken"):
        for seed in SEEDS["index"]:
            fuzz_index(seed)


def test_a_reader_that_takes_too_much_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "_has_nonzero", lambda view: False)
    with pytest.raises(Disagreement, match="the package: taken"):
        for seed in SEEDS["index"]:
            fuzz_index(seed)


def test_a_reader_that_is_wrong_about_a_value_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyring, "_CRITICALITIES", {1: "critical", 2: "critical", 3: "standard"})
    with pytest.raises(Disagreement):
        for seed in SEEDS["keyring"]:
            fuzz_keyring(seed)
