import io
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from lethe.data.filesystem import LetheFileSystem, _share
from lethe.data.reader import EncryptedFiles
from lethe.model.errors import AuthenticationError, InputError, ObjectMissingError
from tests.common.datasets import RECORD, Dataset, content, release, seal_files
from tests.common.forks import holds_after_fork

FILES = {
    "a": b"first",
    "a.txt": b"beside the folder",
    "b/empty": b"",
    "b/many": content(11 * RECORD + 3),
    "b/sub/deep/x": b"x",
    "b-c": b"between b and b/",
    "lines": b"".join(b"line %d\n" % number for number in range(2000)),
    "ü/ß": "naïve".encode(),
}


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return seal_files(tmp_path, FILES)


@pytest.fixture
def pod(tmp_path: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("LETHE_DATASETS", str(tmp_path / "run"))
    yield release(dataset, tmp_path / "run")
    LetheFileSystem.clear_instance_cache()
    _share.cache_clear()


@pytest.fixture
def filesystem(pod: Path) -> LetheFileSystem:
    return fsspec.filesystem("lethe")


def names(entries: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(entry["name"], entry["type"]) for entry in entries]


class TestNames:
    def test_the_datasets_of_the_job_are_its_folders(self, filesystem: LetheFileSystem) -> None:
        assert filesystem.ls("") == filesystem.ls("lethe://") == filesystem.ls("/")
        assert names(filesystem.ls("")) == [("digits", "directory")]

    def test_folders_follow_from_the_names_of_files(self, filesystem: LetheFileSystem) -> None:
        assert names(filesystem.ls("lethe://digits")) == [
            ("digits/a", "file"),
            ("digits/a.txt", "file"),
            ("digits/b-c", "file"),
            ("digits/b", "directory"),
            ("digits/lines", "file"),
            ("digits/ü", "directory"),
        ]
        assert filesystem.ls("digits/b/", detail=False) == ["digits/b/empty", "digits/b/many", "digits/b/sub"]
        assert filesystem.ls("digits/b/sub", detail=False) == ["digits/b/sub/deep"]
        assert filesystem.ls("digits/a", detail=False) == ["digits/a"]

    def test_info_tells_size_and_version(self, filesystem: LetheFileSystem, dataset: Dataset) -> None:
        assert filesystem.info("lethe://digits/b/many") == {
            "name": "digits/b/many",
            "size": 11 * RECORD + 3,
            "type": "file",
            "ETag": dataset.sealed.index.sha256,
        }
        assert filesystem.info("digits/b")["type"] == "directory"
        assert filesystem.size("digits/b/empty") == 0

    def test_find_and_glob_see_every_file(self, filesystem: LetheFileSystem) -> None:
        assert filesystem.find("lethe://digits") == sorted(f"digits/{name}" for name in FILES)
        assert filesystem.glob("lethe://digits/b/*") == ["digits/b/empty", "digits/b/many", "digits/b/sub"]
        assert filesystem.glob("digits/**/x") == ["digits/b/sub/deep/x"]
        assert filesystem.glob("digits/nothing*") == []
        assert filesystem.du("digits") == sum(map(len, FILES.values()))

    @pytest.mark.parametrize(
        "path", ["digits/nothing", "digits/b/man", "digits/a/x", "letters", "letters/a", "../digits"]
    )
    def test_what_is_not_there_is_not_found(self, filesystem: LetheFileSystem, path: str) -> None:
        assert not filesystem.exists(path) and not filesystem.isfile(path) and not filesystem.isdir(path)
        for look in (filesystem.info, filesystem.ls, filesystem.cat_file, filesystem.open):
            with pytest.raises(FileNotFoundError):
                look(path)

    def test_an_unknown_dataset_is_told_what_there_is(self, filesystem: LetheFileSystem) -> None:
        with pytest.raises(FileNotFoundError, match="no dataset 'letters', found digits in"):
            filesystem.info("lethe://letters/a")

    def test_kinds(self, filesystem: LetheFileSystem) -> None:
        assert filesystem.isdir("lethe://digits/b") and not filesystem.isfile("lethe://digits/b")
        assert filesystem.isfile("digits/a") and not filesystem.isdir("digits/a")
        with pytest.raises(IsADirectoryError):
            filesystem.open("digits/b")


def recorded(read: Callable[..., Any], ranges: list[tuple[int, int]]) -> Callable[..., Any]:
    """Return a method of EncryptedFiles that notes which bytes it gave."""

    def call(files: EncryptedFiles, item: int, *arguments: Any) -> Any:
        result = read(files, item, *arguments)
        start, count = (arguments[1], result) if isinstance(result, int) else (arguments[0], len(result))
        if count:
            ranges.append((start, start + count))
        return result

    return call


class TestBytes:
    def test_every_file_reads_as_it_was_sealed(self, filesystem: LetheFileSystem) -> None:
        assert filesystem.cat(filesystem.find("lethe://digits")) == {f"digits/{name}": FILES[name] for name in FILES}
        for name, data in FILES.items():
            with fsspec.open(f"lethe://digits/{name}") as file:
                assert file.read() == data

    @pytest.mark.parametrize(
        ("start", "end"),
        [
            (None, None),
            (0, 5),
            (None, 5),
            (RECORD - 1, RECORD + 1),
            (-5, None),
            (-5, -2),
            (9, 4),
            (10**9, None),
            (None, 10**9),
        ],
    )
    def test_ranges_are_slices(self, filesystem: LetheFileSystem, start: int | None, end: int | None) -> None:
        assert filesystem.cat_file("digits/b/many", start, end) == FILES["b/many"][start:end]

    def test_many_ranges_at_once(self, filesystem: LetheFileSystem) -> None:
        paths, starts, ends = ["digits/b/many", "digits/lines", "digits/b/many"], [3, 8, RECORD], [9, 20, 3 * RECORD]
        wanted = [FILES["b/many"][3:9], FILES["lines"][8:20], FILES["b/many"][RECORD : 3 * RECORD]]
        assert filesystem.cat_ranges(paths, starts, ends, on_error="raise") == wanted

    def test_a_file_seeks_and_reads_like_any_other(self, filesystem: LetheFileSystem) -> None:
        plain = io.BytesIO(FILES["b/many"])
        with filesystem.open("digits/b/many") as file:
            assert (file.size, file.readable(), file.seekable(), file.writable()) == (
                11 * RECORD + 3,
                True,
                True,
                False,
            )
            for step in (
                lambda each: each.read(10),
                lambda each: each.seek(RECORD - 3),
                lambda each: each.read(RECORD * 2),
                lambda each: each.tell(),
                lambda each: each.seek(-4, io.SEEK_END),
                lambda each: each.read(100),
                lambda each: each.read(1),
                lambda each: each.seek(-RECORD * 3, io.SEEK_CUR),
                lambda each: each.read(),
                lambda each: each.seek(1 << 40),
                lambda each: each.read(1),
            ):
                assert step(file) == step(plain)
            with pytest.raises(ValueError, match="before the beginning"):
                file.seek(-(1 << 40), io.SEEK_END)

    def test_lines_and_text(self, filesystem: LetheFileSystem) -> None:
        with filesystem.open("digits/lines") as file:
            assert list(file) == FILES["lines"].splitlines(keepends=True)
        with fsspec.open("lethe://digits/ü/ß", "r", encoding="utf-8") as text:
            assert text.read() == "naïve"

    @pytest.mark.parametrize("block_size", [None, 100, 3 * RECORD])
    @pytest.mark.parametrize("step", [1000, RECORD, 5 * RECORD + 1, -1])
    def test_reading_on_opens_no_record_twice(
        self, filesystem: LetheFileSystem, monkeypatch: pytest.MonkeyPatch, step: int, block_size: int | None
    ) -> None:
        ranges: list[tuple[int, int]] = []
        for name in ("read_range", "read_into"):
            monkeypatch.setattr(EncryptedFiles, name, recorded(getattr(EncryptedFiles, name), ranges))
        with filesystem.open("digits/b/many", block_size=block_size) as file:
            assert b"".join(iter(lambda: file.read(step), b"")) == FILES["b/many"]
        opened = [number for start, end in ranges for number in range(start // RECORD, -(-end // RECORD))]
        assert opened == list(range(12))


class TestRefusals:
    @pytest.mark.parametrize(
        "write",
        [
            lambda fs: fs.open("digits/new", "wb"),
            lambda fs: fs.open("digits/a", "ab"),
            lambda fs: fs.open("digits/a", "w"),
            lambda fs: fs.pipe_file("digits/new", b""),
            lambda fs: fs.pipe({"digits/new": b""}),
            lambda fs: fs.write_text("digits/new", ""),
            lambda fs: fs.mkdir("digits/new"),
            lambda fs: fs.makedirs("digits/new", exist_ok=True),
            lambda fs: fs.touch("digits/new"),
            lambda fs: fs.put_file(__file__, "digits/new"),
            lambda fs: fs.cp_file("digits/a", "digits/new"),
            lambda fs: fs.mv("digits/a", "digits/new"),
            lambda fs: fs.rename("digits/a", "digits/new"),
            lambda fs: fs.rm("digits/a"),
            lambda fs: fs.rm_file("digits/a"),
            lambda fs: fs.rmdir("digits/b"),
        ],
    )
    def test_writing_names_the_outputs_folder(
        self, filesystem: LetheFileSystem, write: Callable[[LetheFileSystem], object], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with pytest.raises(InputError, match="read-only: write results into the outputs folder /outputs"):
            write(filesystem)
        monkeypatch.setenv("LETHE_OUTPUTS", "/elsewhere")
        with pytest.raises(InputError, match="/elsewhere"):
            write(filesystem)

    def test_a_changed_record_gives_no_byte(self, filesystem: LetheFileSystem, dataset: Dataset) -> None:
        index = dataset.access.load_index()
        number, piece = next(iter(index.pieces(index.find("lines"))))
        data = bytearray(dataset.objects[number].read_bytes())
        data[piece.offset + 20] ^= 1
        dataset.objects[number].write_bytes(data)
        with filesystem.open("digits/lines") as file:
            for _ in range(2):
                with pytest.raises(AuthenticationError):
                    file.read(1)
            file.seek(RECORD)
            assert file.read(1) == FILES["lines"][RECORD : RECORD + 1]

    def test_what_cannot_be_read_is_not_taken_for_missing(self, filesystem: LetheFileSystem, dataset: Dataset) -> None:
        (dataset.root / dataset.sealed.index.object).unlink()
        for look in (filesystem.exists, filesystem.isdir, filesystem.isfile, filesystem.glob, filesystem.find):
            with pytest.raises(ObjectMissingError, match=dataset.sealed.index.object):
                look("digits/a*" if look == filesystem.glob else "digits/a")


class TestProcesses:
    def test_it_goes_on_after_fork(self, filesystem: LetheFileSystem) -> None:
        assert filesystem.cat_file("digits/a") == b"first"
        opened = filesystem.open("digits/b/many")
        assert holds_after_fork(lambda: filesystem.cat_file("digits/a.txt") == FILES["a.txt"])
        assert holds_after_fork(lambda: fsspec.filesystem("lethe").cat_file("digits/a") == b"first")
        assert holds_after_fork(lambda: opened.read() == FILES["b/many"])
        assert opened.read() == FILES["b/many"]

    def test_it_pickles_without_keys(self, filesystem: LetheFileSystem, dataset: Dataset) -> None:
        assert filesystem.cat_file("digits/a") == b"first"
        pickled = pickle.dumps((filesystem, fsspec.open("lethe://digits/a")))
        assert dataset.access.deks[1] not in pickled
        again, file = pickle.loads(pickled)
        assert again.cat_file("digits/a") == b"first"
        with file as stream:
            assert stream.read() == b"first"

    def test_a_new_process_reads_what_was_pickled(self, filesystem: LetheFileSystem) -> None:
        code = "import pickle, sys; print(pickle.load(sys.stdin.buffer).cat_file('digits/a').decode())"
        done = subprocess.run(
            [sys.executable, "-c", code], input=pickle.dumps(filesystem), capture_output=True, check=True
        )
        assert done.stdout == b"first\n"

    def test_threads_share_one_reader(self, filesystem: LetheFileSystem, monkeypatch: pytest.MonkeyPatch) -> None:
        filesystem.cat_file("digits/a")
        opened: list[object] = []
        monkeypatch.setattr("lethe.data.reader._Opened", lambda *arguments: opened.append(arguments))
        seen: list[bytes] = []
        threads = [
            threading.Thread(target=lambda: seen.append(fsspec.filesystem("lethe").cat_file("digits/b/many")))
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert seen == [FILES["b/many"]] * 8
        assert opened == []


class TestOutsideAPod:
    def test_source_and_keys_open_one_dataset(self, dataset: Dataset) -> None:
        filesystem = fsspec.filesystem("lethe", source=dataset.source, keys=dataset.access.deks)
        assert filesystem.ls("", detail=False) == ["digits"]
        assert filesystem.cat_file("digits/a") == b"first"
        with pytest.raises(FileNotFoundError, match="has dataset 'digits' only"):
            filesystem.info("letters/a")
        with fsspec.open("lethe://digits/a", source=dataset.source, keys=dataset.access.deks) as file:
            assert file.read() == b"first"

    def test_keys_in_memory_go_nowhere(self, dataset: Dataset) -> None:
        filesystem = fsspec.filesystem("lethe", source=dataset.source, keys=dataset.access.deks)
        with pytest.raises(TypeError, match="keys never go"):
            pickle.dumps(filesystem)
        with pytest.raises(TypeError):
            filesystem.to_json()
        assert str(dataset.access.deks[1]) not in repr(filesystem)

    def test_a_folder_of_keys_pickles(self, dataset: Dataset, tmp_path: Path) -> None:
        folder = release(dataset, tmp_path / "run")
        filesystem = LetheFileSystem(source=dataset.source, keys=str(folder))
        assert pickle.loads(pickle.dumps(filesystem)).cat_file("digits/a") == b"first"

    def test_a_source_without_keys_is_refused(self, dataset: Dataset) -> None:
        with pytest.raises(InputError, match="give `keys`"):
            LetheFileSystem(source=dataset.source).info("digits/a")


def test_lethe_data_needs_no_fsspec() -> None:
    code = "import sys; sys.modules['fsspec'] = None; import lethe.data"
    subprocess.run([sys.executable, "-c", code], check=True)
