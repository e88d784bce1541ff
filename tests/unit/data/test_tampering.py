"""Whatever storage does to an object, no wrong byte of plaintext comes out."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lethe.data.unpack import verify
from lethe.formats.keyring import KEYRING_NAME
from lethe.model.errors import (
    AuthenticationError,
    CommitmentError,
    CryptoError,
    FormatError,
    IntegrityError,
    LetheError,
    ObjectMissingError,
    UnwrapError,
)
from tests.common.datasets import RECORD, Dataset, content, seal_files

FILES = {"a": b"first", "b": b"", "c/d": b"x" * 90}


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return seal_files(tmp_path, FILES)


@pytest.fixture
def large(tmp_path: Path) -> Dataset:
    return seal_files(tmp_path, {"a": content(4 * RECORD), "b": content(9 * RECORD + 5)})


def test_every_flipped_byte_of_every_object_is_an_error(dataset: Dataset) -> None:
    opened = dataset.access
    for path in sorted(dataset.root.iterdir()):
        data = bytearray(path.read_bytes())
        for offset in range(len(data)):
            data[offset] ^= 0x10
            path.write_bytes(data)
            with pytest.raises((FormatError, CryptoError, IntegrityError)):
                verify(dataset.access if path.name == KEYRING_NAME else opened)
            data[offset] ^= 0x10
        path.write_bytes(data)
    verify(dataset.access)


def test_every_truncation_of_every_object_is_an_error(dataset: Dataset) -> None:
    opened = dataset.access
    for path in sorted(dataset.root.iterdir()):
        data = path.read_bytes()
        for length in range(len(data)):
            path.write_bytes(data[:length])
            with pytest.raises((FormatError, CryptoError, IntegrityError)):
                verify(dataset.access if path.name == KEYRING_NAME else opened)
        path.write_bytes(data + b"\0")
        with pytest.raises((FormatError, CryptoError, IntegrityError)):
            verify(dataset.access)
        path.write_bytes(data)


@pytest.mark.parametrize("which", ["keyring", "index", "object"])
def test_a_missing_object_is_named(dataset: Dataset, which: str) -> None:
    (data,) = dataset.objects
    name = {"keyring": KEYRING_NAME, "index": dataset.sealed.index.object, "object": data.name}[which]
    (dataset.root / name).unlink()
    with pytest.raises(ObjectMissingError, match=f"object {name}"):
        verify(dataset.access)


def test_a_truncated_object_is_an_error_at_every_record(large: Dataset) -> None:
    for path in large.objects:
        data = path.read_bytes()
        for length in range(128, len(data), RECORD + 16):
            path.write_bytes(data[:length])
            with pytest.raises(IntegrityError, match=f"{path.name}.* cut off"):
                verify(large.access)
        path.write_bytes(data)


def test_swapped_records_are_an_error(large: Dataset) -> None:
    path, full = large.objects[0], RECORD + 16
    data = bytearray(path.read_bytes())
    first, second = slice(128, 128 + full), slice(128 + full, 128 + 2 * full)
    data[first], data[second] = data[second], data[first]
    path.write_bytes(data)
    with pytest.raises(AuthenticationError, match=f"object {path.name}: record 0 is not authentic"):
        verify(large.access)


def test_a_record_of_another_object_is_an_error(large: Dataset) -> None:
    one, two = large.objects[:2]
    data = bytearray(one.read_bytes())
    data[128 : 128 + RECORD + 16] = two.read_bytes()[128 : 128 + RECORD + 16]
    one.write_bytes(data)
    with pytest.raises(AuthenticationError):
        verify(large.access)


def test_swapped_objects_are_an_error(large: Dataset) -> None:
    one, two = large.objects[:2]
    first, second = one.read_bytes(), two.read_bytes()
    one.write_bytes(second)
    two.write_bytes(first)
    with pytest.raises(IntegrityError, match="objects were swapped"):
        verify(large.access)


@pytest.fixture
def versions(tmp_path: Path) -> Iterator[tuple[Dataset, Dataset]]:
    """Two sealings of the same files with the same ids and key, but other salts: an update in place."""
    from tests.common.datasets import seeded_random

    def seal(folder: str, salt: bytes) -> Dataset:
        draw, fresh = seeded_random(b"same"), seeded_random(salt)
        return seal_files(
            tmp_path / folder,
            FILES,
            identity=identity,
            random=lambda count: fresh(32) if is_salt(count) else draw(count),
        )

    drawn: list[int] = []

    def is_salt(count: int) -> bool:
        drawn.append(count)
        return count == 32 and len(drawn) > 2

    from lethe.crypto.hpke import PrivateKey

    identity = PrivateKey.generate("X25519")
    old = seal("old", b"1")
    drawn.clear()
    yield old, seal("new", b"2")


def test_an_older_version_of_a_data_object_is_refused(versions: tuple[Dataset, Dataset]) -> None:
    old, new = versions
    assert old.sealed.dataset_id == new.sealed.dataset_id
    (data,) = new.objects
    shutil.copy(old.root / data.name, data)
    with pytest.raises(CommitmentError, match="another version"):
        verify(new.access)


def test_an_older_index_is_refused(versions: tuple[Dataset, Dataset]) -> None:
    old, new = versions
    shutil.copy(old.root / new.sealed.index.object, new.root)
    with pytest.raises(IntegrityError, match="another version"):
        verify(new.access)


def test_a_whole_older_dataset_is_refused(versions: tuple[Dataset, Dataset]) -> None:
    old, new = versions
    shutil.copytree(old.root, new.root, dirs_exist_ok=True)
    with pytest.raises(IntegrityError, match="pinned is"):
        verify(new.access)


def test_another_datasets_keyring_does_not_open_this_one(tmp_path: Path, dataset: Dataset) -> None:
    other = seal_files(tmp_path / "other", FILES, identity=dataset.identity)
    shutil.copy(other.root / KEYRING_NAME, dataset.root)
    with pytest.raises(IntegrityError, match=f"is of dataset {other.sealed.dataset_id}"):
        verify(dataset.access)


def test_a_wrong_pin_is_an_error(dataset: Dataset) -> None:
    access = dataset.access
    for pin in (
        type(access.pin)(object=access.pin.object, sha256="0" * 64),
        type(access.pin)(object=dataset.objects[0].name, sha256=access.pin.sha256),
    ):
        with pytest.raises(IntegrityError, match="pinned is"):
            verify(replace(access, pin=pin))


def test_another_dataset_id_than_the_manifests_is_an_error(dataset: Dataset) -> None:
    with pytest.raises(IntegrityError, match="belongs to dataset"):
        verify(replace(dataset.access, dataset_id="0" * 32))


def test_a_key_of_another_epoch_does_not_help(dataset: Dataset) -> None:
    access = dataset.access
    with pytest.raises(UnwrapError, match="epoch 1, at hand: \\[2\\]"):
        verify(replace(access, deks={2: access.deks[1]}))


def test_keys_and_secrets_do_not_print(dataset: Dataset) -> None:
    access = dataset.access
    assert access.deks[1].hex() not in repr(access)
    assert repr(access.deks[1])[2:-1] not in repr(access)


def test_every_error_is_one_that_lethe_raises_on_purpose(dataset: Dataset) -> None:
    for path in sorted(dataset.root.iterdir()):
        data = path.read_bytes()
        for wrong in (b"", b"\0", bytes(128), bytes(len(data)), data[::-1], data * 2):
            path.write_bytes(wrong)
            with pytest.raises(LetheError):
                verify(dataset.access)
        path.write_bytes(data)
