"""Both decoders, behind one form: files with their modes, or the name of an error's class."""

from pathlib import Path

from lethe.crypto.hpke import parse_private
from lethe.data.access import Access, Place
from lethe.data.reader import EncryptedFiles
from lethe.data.unpack import verify
from lethe.model.dataset import DatasetSource
from lethe.model.errors import LetheError
from lethe.model.resources import Storage
from tests.vectors.decoder.dataset import Dataset, decode
from tests.vectors.decoder.primitives import DecodeError
from tests.vectors.vector import Vector

Files = dict[str, tuple[int, bytes]]
Outcome = Files | str


def product(vector: Vector, folder: Path) -> Outcome:
    """Read with the package under test, from a folder that holds the objects: every object, then every file."""
    try:
        access = open_access(vector, folder)
        verify(access, workers=1)
        index = access.load_index()
        source = DatasetSource(
            name="vector", dataset_id=access.dataset_id, index=access.pin, storage=access.place.storage
        )
        files = EncryptedFiles(source, access.deks)
        return {name: (mode, files[name]) for name, mode in zip(index.names, index.modes, strict=True)}
    except LetheError as error:
        return type(error).__name__


def product_by_range(vector: Vector, folder: Path) -> Outcome:
    """Read every file with the package under test, nothing kept: only what the files' own records are."""
    try:
        access = open_access(vector, folder)
        source = DatasetSource(
            name="vector", dataset_id=access.dataset_id, index=access.pin, storage=access.place.storage
        )
        files, index = EncryptedFiles(source, access.deks, cache_bytes=0), access.load_index()
        return {name: (mode, files[name]) for name, mode in zip(index.names, index.modes, strict=True)}
    except LetheError as error:
        return type(error).__name__


def second(vector: Vector) -> Outcome:
    """Read with the second decoder."""
    try:
        return decode(given(vector))
    except DecodeError as error:
        return type(error).__name__


def expected(vector: Vector) -> Outcome:
    """Return what must come out."""
    if vector.expect.files is None:
        return vector.expect.error
    return {name: (file.mode, file.content) for name, file in vector.expect.files.items()}


def given(vector: Vector) -> Dataset:
    """Return a vector as the second decoder takes it."""
    index, pin = (vector.index.object, vector.index.sha256) if vector.index is not None else ("", "")
    return Dataset(vector.dataset_id, index, pin, vector.private_key, dict(vector.objects))


def store(vector: Vector, folder: Path) -> None:
    """Lay the objects out as storage would."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in vector.objects.items():
        (folder / name).write_bytes(data)


def open_access(vector: Vector, folder: Path) -> Access:
    """Open the keyring and return what reading takes."""
    place = Place(Storage(url=f"file://{folder}"), None)
    private_key = parse_private(vector.private_key)
    if vector.index is None:
        return Access.of_newest(place, vector.dataset_id, private_key)
    return Access.of_identity(place, vector.dataset_id, vector.index, private_key)
