import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest

import lethe.data
from lethe.adapters.objectstore import FolderStore
from lethe.data.objects import ObjectWriter
from lethe.data.reader import EncryptedFiles
from lethe.model.errors import AuthenticationError, CryptoError, InputError, IntegrityError
from tests.common.datasets import RECORD, Dataset, content, release, seal_files
from tests.common.forks import holds_after_fork

FILES = {
    "a": b"first",
    "b/empty": b"",
    "b/many": content(11 * RECORD + 3),
    "c": content(RECORD),
    **{f"d/{number:02d}": content(700 + number) for number in range(30)},
}


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return seal_files(tmp_path, FILES)


@pytest.fixture
def pod(tmp_path: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LETHE_DATASETS", str(tmp_path / "run"))
    return release(dataset, tmp_path / "run")


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Record each request to storage."""
    made: list[str] = []
    whole, part = FolderStore.get, FolderStore.get_range

    def get(self: FolderStore, key: str, limit: int | None = None) -> bytes:
        made.append(f"get {key}")
        return whole(self, key, limit)

    def get_range(self: FolderStore, key: str, start: int, length: int) -> bytes:
        made.append(f"range {key}")
        return part(self, key, start, length)

    monkeypatch.setattr(FolderStore, "get", get)
    monkeypatch.setattr(FolderStore, "get_range", get_range)
    yield made


def let_others_write(dataset: Dataset) -> None:
    """Make the objects such that they are not mapped, as if they lay in a bucket."""
    for path in dataset.objects:
        path.chmod(0o666)


@pytest.mark.parametrize("is_mapped", [False, True], ids=["fetched", "mapped"])
@pytest.mark.parametrize("cache_bytes", [0, 30_000, 1 << 30], ids=["ranges", "both", "whole"])
def test_files_are_read_by_number_and_by_name(dataset: Dataset, cache_bytes: int, is_mapped: bool) -> None:
    if not is_mapped:
        let_others_write(dataset)
    files = EncryptedFiles(dataset.source, dataset.access.deks, cache_bytes=cache_bytes)
    assert len(files) == len(FILES)
    assert list(files.names) == sorted(FILES)
    assert dict(zip(files.names, files, strict=True)) == FILES
    assert {name: files[name] for name in FILES} == FILES
    assert list(files.sizes) == [len(FILES[name]) for name in sorted(FILES)]
    assert files[-1] == FILES[max(FILES)]
    assert files.__getitems__([2, 0, 2]) == [files[2], files[0], files[2]]
    assert "c" in files and "nothing" not in files and 3 not in files


def test_what_is_not_there_is_an_error(dataset: Dataset) -> None:
    files = EncryptedFiles(dataset.source, dataset.access.deks)
    with pytest.raises(KeyError, match="nothing"):
        files["nothing"]
    for number in (len(FILES), -len(FILES) - 1):
        with pytest.raises(IndexError):
            files[number]


def test_an_object_that_nobody_else_can_change_is_not_copied(dataset: Dataset, requests: list[str]) -> None:
    files = EncryptedFiles(dataset.source, dataset.access.deks)
    assert len(files) == len(FILES)
    requests.clear()
    assert files["b/many"] == FILES["b/many"]
    assert requests == []


def test_an_object_of_another_length_is_refused(dataset: Dataset) -> None:
    path = dataset.objects[0]
    with path.open("ab") as file:
        file.write(b"more")
    for let in (lambda: None, lambda: let_others_write(dataset)):
        let()
        with pytest.raises(IntegrityError, match=path.name):
            EncryptedFiles(dataset.source, dataset.access.deks)["a"]


@pytest.mark.parametrize("is_mapped", [False, True], ids=["fetched", "mapped"])
@pytest.mark.parametrize("name", ["a", "b/empty", "b/many", "c"])
def test_any_range_is_read_into_a_buffer(dataset: Dataset, name: str, is_mapped: bool) -> None:
    if not is_mapped:
        let_others_write(dataset)
    files, data = EncryptedFiles(dataset.source, dataset.access.deks, cache_bytes=0), FILES[name]
    size = len(data)
    edges = sorted({0, 1, RECORD - 1, RECORD, RECORD + 1, 4 * RECORD, 5 * RECORD + 7, size - 1, size, 1 << 20})
    for start in edges:
        for length in edges:
            out = bytearray(b"\xee" * (length + 2))
            if start < 0 or length < 0:
                continue
            count = files.read_into(name, memoryview(out)[1:-1], start)
            expected = data[start : start + length]
            assert (count, out[1 : 1 + count]) == (len(expected), expected)
            assert set(out[:1] + out[1 + count :]) == {0xEE}


def test_a_range_before_the_file_is_refused(dataset: Dataset) -> None:
    with pytest.raises(InputError, match="at least 0"):
        EncryptedFiles(dataset.source, dataset.access.deks).read_into("a", bytearray(3), -1)


def test_a_record_that_is_not_genuine_leaves_nothing_in_the_buffer(dataset: Dataset) -> None:
    index = dataset.access.load_index()
    (number, piece), *_ = index.pieces(index.find("b/many"))
    data = bytearray(dataset.objects[number].read_bytes())
    data[piece.offset + RECORD + 16 + 5] ^= 1
    dataset.objects[number].write_bytes(data)
    out = bytearray(b"\xee" * (3 * RECORD))
    with pytest.raises(AuthenticationError, match=f"record {piece.record + 1} is not authentic"):
        EncryptedFiles(dataset.source, dataset.access.deks).read_into("b/many", out)
    assert out == FILES["b/many"][:RECORD] + bytes(RECORD) + b"\xee" * RECORD


def test_a_job_opens_its_dataset_by_name(pod: Path) -> None:
    assert lethe.data.open("digits")["a"] == b"first"


def test_an_unknown_name_is_told_what_there_is(pod: Path) -> None:
    for name in ("letters", "../digits", ""):
        with pytest.raises(InputError, match="found digits in"):
            lethe.data.open(name)


def test_opening_fetches_nothing_and_each_object_once(pod: Path, dataset: Dataset, requests: list[str]) -> None:
    let_others_write(dataset)
    requests.clear()
    files = lethe.data.open("digits")
    assert requests == []
    for _ in range(2):
        assert list(files) == [FILES[name] for name in sorted(FILES)]
    made = sorted(requests)
    names = [dataset.sealed.index.object, *(path.name for path in dataset.objects)]
    assert made == sorted(f"get {name}" for name in names)


def test_beyond_the_cache_headers_are_fetched_once(dataset: Dataset, requests: list[str]) -> None:
    let_others_write(dataset)
    files = EncryptedFiles(dataset.source, dataset.access.deks, cache_bytes=0)
    requests.clear()
    for _ in range(3):
        files["a"]
    name = dataset.objects[0].name
    assert requests.count(f"range {name}") == 4


def test_it_pickles_without_keys(pod: Path, dataset: Dataset) -> None:
    files = lethe.data.open("digits")
    files["a"]
    data = pickle.dumps(files)
    assert dataset.access.deks[1] not in data
    assert pickle.loads(data)["b/many"] == FILES["b/many"]


def test_with_keys_in_memory_it_refuses_to_pickle(dataset: Dataset) -> None:
    with pytest.raises(TypeError, match="keys never go"):
        pickle.dumps(EncryptedFiles(dataset.source, dataset.access.deks))


def test_a_source_without_keys_is_refused(dataset: Dataset) -> None:
    with pytest.raises(InputError, match="give `keys`"):
        lethe.data.open(dataset.source)


def test_a_key_file_of_another_length_is_refused(pod: Path) -> None:
    (pod / "dek.1").write_bytes(b"short")
    with pytest.raises(InputError, match=r"dek.1 is not a key"):
        lethe.data.open("digits")["a"]
    (pod / "dek.1").unlink()
    with pytest.raises(InputError, match="has no key"):
        lethe.data.open("digits")["a"]


RANGES = [(0, 0), (0, 1), (0, RECORD), (1, RECORD), (RECORD - 1, 2), (RECORD, RECORD), (5 * RECORD - 1, RECORD + 2)]


@pytest.mark.parametrize("cache_bytes", [0, 30_000, 1 << 30], ids=["ranges", "both", "whole"])
def test_a_range_of_a_file_is_what_a_slice_of_it_is(dataset: Dataset, cache_bytes: int) -> None:
    files = EncryptedFiles(dataset.source, dataset.access.deks, cache_bytes=cache_bytes)
    size = len(FILES["b/many"])
    for start, length in [
        *RANGES,
        (size - 1, 1),
        (size - 1, 5),
        (size, 1),
        (size + RECORD, 3),
        (0, size),
        (7, 1 << 40),
    ]:
        assert files.read_range("b/many", start, length) == FILES["b/many"][start : start + length]
    assert files.read_range("b/empty", 0, 10) == b""
    assert files.read_range(0, 1, 3) == b"irs"
    for start, length in ((-1, 2), (0, -1)):
        with pytest.raises(InputError, match="at least 0"):
            files.read_range("b/many", start, length)


@pytest.mark.parametrize("cache_bytes", [0, 1 << 30], ids=["ranges", "whole"])
def test_a_range_opens_its_own_records_and_no_other(dataset: Dataset, cache_bytes: int) -> None:
    """All records of a file but number 3 are changed: that one still reads, and no byte of its neighbours does."""
    index = dataset.access.load_index()
    for number, piece in index.pieces(index.find("b/many")):
        path, data = dataset.objects[number], bytearray(dataset.objects[number].read_bytes())
        for record in range(-(-piece.size // RECORD)):
            if piece.start + record * RECORD != 3 * RECORD:
                data[piece.offset + record * (RECORD + 16)] ^= 1
        path.write_bytes(data)
    files = EncryptedFiles(dataset.source, dataset.access.deks, cache_bytes=cache_bytes)
    assert files.read_range("b/many", 3 * RECORD, RECORD) == FILES["b/many"][3 * RECORD : 4 * RECORD]
    assert files.read_range("b/many", 3 * RECORD + 9, 2) == FILES["b/many"][3 * RECORD + 9 : 3 * RECORD + 11]
    for start, length in ((3 * RECORD - 1, 2), (4 * RECORD - 1, 2), (0, 1), (11 * RECORD + 2, 1)):
        with pytest.raises(AuthenticationError, match="not authentic"):
            files.read_range("b/many", start, length)


@pytest.mark.parametrize("cache_bytes", [0, 1 << 30], ids=["ranges", "whole"])
def test_a_changed_record_is_an_error_and_its_neighbours_still_read(dataset: Dataset, cache_bytes: int) -> None:
    number = dataset.access.load_index().find("d/07")
    ((objects, piece),) = dataset.access.load_index().pieces(number)
    path = dataset.objects[objects]
    data = bytearray(path.read_bytes())
    data[piece.offset + 5] ^= 1
    path.write_bytes(data)
    files = EncryptedFiles(dataset.source, dataset.access.deks, cache_bytes=cache_bytes)
    with pytest.raises(AuthenticationError, match=f"object {path.name}: record {piece.record} is not authentic"):
        files["d/07"]
    assert files["d/06"] == FILES["d/06"] and files["d/08"] == FILES["d/08"]


def test_a_child_goes_on_reading_after_fork(pod: Path) -> None:
    files = lethe.data.open("digits")
    assert files["a"] == b"first"
    assert holds_after_fork(lambda: files["c"] == FILES["c"])


def test_a_writer_that_was_copied_by_fork_refuses() -> None:
    taken: list[bytes] = []
    writer = ObjectWriter(
        lambda sealed: taken.append(bytes(sealed)),
        bytes(32),
        dataset_id=bytes(16),
        object_id=bytes(16),
        epoch=1,
        record_bits=12,
        salt=bytes(32),
        length=1000,
    )
    writer.append(b"parent")

    def is_refused() -> bool:
        with pytest.raises(CryptoError, match="copied by fork"):
            writer.append(b"child")
        return True

    assert holds_after_fork(is_refused)
    writer.append(b"parent goes on")
    writer.finish()
    assert len(b"".join(taken)) == 1000
