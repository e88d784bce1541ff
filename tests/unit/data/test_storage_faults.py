"""Storage that is slow, gone or wrong: reading ends with the right bytes or with an error, after a bounded time."""

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import repeat
from pathlib import Path

import msgspec
import pytest

from lethe.adapters import s3
from lethe.data.filesystem import LetheFileSystem
from lethe.data.reader import EncryptedFiles
from lethe.model.dataset import DatasetSource
from lethe.model.errors import CommitmentError, CryptoError, FormatError, IntegrityError, UnavailableError
from tests.common.datasets import RECORD, Dataset, content, seal_files
from tests.common.faulty_s3 import Fault, FaultyS3

FILES = {"a": b"first", "many": content(11 * RECORD + 3)}
PASSING = [Fault.UNAVAILABLE, Fault.DROPPED, Fault.SILENT, Fault.CUT, Fault.STALLED, Fault.TRICKLED]
LASTING = {Fault.SHORT: IntegrityError, Fault.CHANGED: (IntegrityError, CryptoError, FormatError)}

Read = Callable[[], bytes]


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(s3, "READ_SECONDS", 0.2)
    monkeypatch.setattr(s3, "ATTEMPTS", 3)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return seal_files(tmp_path_factory.mktemp("dataset"), FILES)


@pytest.fixture
def server(dataset: Dataset) -> Iterator[FaultyS3]:
    with FaultyS3(dataset.root) as running:
        yield running


@pytest.fixture
def source(dataset: Dataset, server: FaultyS3) -> DatasetSource:
    return msgspec.structs.replace(dataset.source, storage=server.storage)


@pytest.fixture(params=["objects", "ranges", "filesystem"])
def read(request: pytest.FixtureRequest, dataset: Dataset, source: DatasetSource) -> Read:
    """Read one whole file, by each way there is; the index is there already."""
    deks = dataset.access.deks
    if request.param in ("objects", "ranges"):
        files = EncryptedFiles(source, deks, cache_bytes=1 << 30 if request.param == "objects" else 0)
        assert len(files) == len(FILES)
        return lambda: files["many"]
    filesystem = LetheFileSystem(source=source, keys=deks)
    assert filesystem.size("digits/many") == len(FILES["many"])
    return lambda: filesystem.open("digits/many").read()


@pytest.mark.parametrize("fault", PASSING, ids=lambda fault: fault.name.lower())
def test_what_passes_is_waited_for(server: FaultyS3, read: Read, fault: Fault) -> None:
    server.faults = iter([fault] * (s3.ATTEMPTS - 1))
    assert read() == FILES["many"]


@pytest.mark.parametrize("fault", PASSING, ids=lambda fault: fault.name.lower())
def test_what_does_not_pass_ends_as_unavailable(server: FaultyS3, read: Read, fault: Fault) -> None:
    server.requests.clear()
    server.faults = repeat(fault)
    with pytest.raises(UnavailableError, match=f"storage is away .*{s3.ATTEMPTS} attempts for s3://.*try again later"):
        read()
    assert max(Counter(server.requests).values()) == s3.ATTEMPTS
    server.faults = iter(())
    assert read() == FILES["many"]


@pytest.mark.parametrize("fault", LASTING, ids=lambda fault: fault.name.lower())
def test_wrong_bytes_are_an_error_at_once(server: FaultyS3, read: Read, fault: Fault) -> None:
    server.requests.clear()
    server.faults = repeat(fault)
    with pytest.raises(LASTING[fault]):
        read()
    assert len(set(server.requests)) == len(server.requests), "it was asked for again"
    server.faults = iter(())
    assert read() == FILES["many"]


@pytest.mark.parametrize("fault", [*PASSING, *LASTING], ids=lambda fault: fault.name.lower())
def test_no_dataset_opens_without_its_index(
    server: FaultyS3, dataset: Dataset, source: DatasetSource, fault: Fault
) -> None:
    filesystem = LetheFileSystem(source=source, keys=dataset.access.deks)
    server.faults = repeat(fault)
    for look in (filesystem.exists, filesystem.cat_file):
        with pytest.raises(LASTING.get(fault, UnavailableError)):
            look("digits/a")
    server.faults = iter(())
    assert filesystem.cat_file("digits/a") == FILES["a"]


def test_ranges_that_a_server_ignores_are_an_error(server: FaultyS3, dataset: Dataset, source: DatasetSource) -> None:
    files = EncryptedFiles(source, dataset.access.deks, cache_bytes=0)
    assert len(files) == len(FILES)
    server.faults = repeat(Fault.WHOLE)
    with pytest.raises(IntegrityError, match="expected at most"):
        files["many"]


def test_another_object_under_a_name_is_an_error(tmp_path: Path) -> None:
    dataset = seal_files(tmp_path, FILES)
    first, second, *_ = dataset.objects
    with FaultyS3(dataset.root) as server:
        source = msgspec.structs.replace(dataset.source, storage=server.storage)
        files = EncryptedFiles(source, dataset.access.deks)
        assert len(files) == len(FILES)
        second.write_bytes(first.read_bytes())
        with pytest.raises((CommitmentError, FormatError, IntegrityError)):
            files["many"]
