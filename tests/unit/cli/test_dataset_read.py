import json
import sys
from pathlib import Path

import pytest
import yaml

from lethe.cli.progress import ProgressReport
from lethe.data import file_records
from lethe.data.file_records import iterate_file
from lethe.data.seal import Progress
from lethe.model.errors import AuthenticationError, UsageError
from tests.common.clocks import Stopwatch
from tests.common.dataset_command import FILES, run
from tests.common.datasets import RECORD, content, seal_files


class TestInfo:
    def test_it_says_all_with_a_private_key(self, home: Path, manifest: Path) -> None:
        facts = json.loads(run("info", "-f", manifest, "-i", home / "recovery.key", "-o", "json").stdout)
        spec = yaml.safe_load(manifest.read_text())["spec"]
        stored = {path.name: path.stat().st_size for path in (home / "sealed").iterdir()}
        assert facts.pop("overhead") > 1
        assert facts == {
            "datasetId": spec["datasetId"],
            "url": spec["storage"]["url"],
            "index": spec["index"]["object"],
            "epochs": [1],
            "recipients": ["acme/default@4", "recovery:1"],
            "files": 3,
            "bytes": 6,
            "objects": 1,
            "recordBytes": 65536,
            "storedBytes": sum(size for name, size in stored.items() if name not in ("keyring", facts["index"])),
            "paddingBytes": facts["paddingBytes"],
        }

    def test_without_one_it_says_what_storage_and_keyring_tell(self, home: Path, manifest: Path) -> None:
        result = run("info", "-f", manifest)
        lines = {line[:18].strip(): line[18:].strip() for line in result.stdout.splitlines()}
        assert lines["recipients"] == "acme/default@4, recovery:1"
        assert lines["data objects"] == "1"
        assert not {"files", "bytes"} & lines.keys()
        assert "not checked" in result.stderr

    def test_padding_is_what_is_neither_header_nor_content(self, tmp_path: Path) -> None:
        sealed = seal_files(tmp_path, {"a": content(9 * RECORD), "b": b""})
        (tmp_path / "i.key").write_text(sealed.identity.encode())
        (tmp_path / "i.key").chmod(0o600)
        pins = ["--dataset-id", sealed.sealed.dataset_id, "--index", sealed.sealed.index.object]
        facts = json.loads(
            run("info", "--url", sealed.storage.url, *pins, "--sha256", sealed.sealed.index.sha256, "-i",
                tmp_path / "i.key", "-o", "json").stdout
        )  # fmt: skip
        objects = sum(path.stat().st_size for path in sealed.objects)
        assert facts["paddingBytes"] == objects - 128 * facts["objects"] - (9 * RECORD + 10 * 16)
        assert facts["storedBytes"] == objects


class TestLs:
    @pytest.mark.parametrize(
        ("names", "expected"),
        [
            (["readme"], ["readme"]),
            (["train"], ["train/1.png", "train/2.png"]),
            (["train/"], ["train/1.png", "train/2.png"]),
            (["*/2.png", "readme"], ["readme", "train/2.png"]),
        ],
    )
    def test_names_folders_and_patterns_choose(
        self, home: Path, manifest: Path, names: list[str], expected: list[str]
    ) -> None:
        listed = run("ls", *names, "-f", manifest, "-i", home / "recovery.key").stdout.splitlines()
        assert [line.split()[2] for line in listed] == expected

    def test_what_chooses_nothing_is_named(self, home: Path, manifest: Path) -> None:
        with pytest.raises(UsageError, match="no file of the dataset is 'trai'"):
            run("ls", "readme", "trai", "-f", manifest, "-i", home / "recovery.key")

    def test_json(self, home: Path, manifest: Path) -> None:
        (home / "images/readme").chmod(0o640)
        listed = json.loads(run("ls", "-f", manifest, "-i", home / "recovery.key", "-o", "json").stdout)
        assert [(item["name"], item["size"]) for item in listed] == [(name, len(FILES[name])) for name in sorted(FILES)]


class TestCat:
    def test_files_follow_one_another(self, home: Path, manifest: Path) -> None:
        result = run("cat", "train/2.png", "readme", "train/1.png", "-f", manifest, "-i", home / "recovery.key")
        assert result.stdout_bytes == b"twoone"

    def test_nothing_is_written_before_every_name_is_found(
        self, home: Path, manifest: Path, capfdbinary: pytest.CaptureFixture[bytes]
    ) -> None:
        with pytest.raises(UsageError, match=r"has no file 'train/3.png'"):
            run("cat", "train/2.png", "train/3.png", "-f", manifest, "-i", home / "recovery.key")
        assert capfdbinary.readouterr().out == b""

    @pytest.mark.parametrize("size", [0, 1, RECORD, RECORD + 1, 23 * RECORD + 7])
    def test_a_file_of_any_size_comes_in_records(
        self, tmp_path: Path, size: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(file_records, "BLOCK_BYTES", 2 * RECORD)
        access = seal_files(tmp_path, {"a": b"x", "b": content(size), "c": b"y"}).access
        index = access.load_index()
        blocks = list(iterate_file(access, index, index.find("b")))
        assert b"".join(blocks) == content(size)
        assert max(map(len, blocks)) <= RECORD

    def test_what_was_written_before_a_damaged_record_is_genuine(self, tmp_path: Path) -> None:
        dataset = seal_files(tmp_path, {"a": content(4 * RECORD)})
        (path,) = dataset.objects
        data = bytearray(path.read_bytes())
        data[128 + 2 * (RECORD + 16) + 5] ^= 1
        path.write_bytes(data)
        access, got = dataset.access, b""
        with pytest.raises(AuthenticationError, match=path.name):
            for block in iterate_file(access, access.load_index(), 0):
                got += block
        assert got == content(2 * RECORD)


class TestProgress:
    def lines(self, capsys: pytest.CaptureFixture[str]) -> list[str]:
        return capsys.readouterr().err.splitlines()

    def test_lines_tell_rate_and_remaining_time(self, capsys: pytest.CaptureFixture[str]) -> None:
        clock = Stopwatch()
        report = ProgressReport("sealing", clock)
        report(Progress(0, 100_000_000, 1))
        clock.seconds += 10
        report(Progress(10_000_000, 100_000_000, 1))
        clock.seconds += 1
        report(Progress(11_000_000, 100_000_000, 1))
        clock.seconds += 3590
        report(Progress(50_000_000, 100_000_000, 1))
        report(Progress(100_000_000, 100_000_000, 1))
        first, second, last = self.lines(capsys)
        assert first == "sealing: 10.0 MB of 100.0 MB, 1.0 MB/s, 1m30s left"
        assert second.endswith("1h00m left")
        assert last.startswith("sealing: 100.0 MB of 100.0 MB") and "left" not in last

    def test_what_an_earlier_run_did_is_not_this_one_s_rate(self, capsys: pytest.CaptureFixture[str]) -> None:
        clock = Stopwatch()
        report = ProgressReport("sealing", clock)
        report(Progress(80_000_000, 100_000_000, 1))
        clock.seconds += 10
        report(Progress(90_000_000, 100_000_000, 1))
        assert self.lines(capsys) == ["sealing: 90.0 MB of 100.0 MB, 1.0 MB/s, 10s left"]

    def test_a_terminal_gets_a_bar(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
        with ProgressReport("sealing") as report:
            report(Progress(0, 100, 1))
            report(Progress(100, 100, 1))
        assert "sealing" in capsys.readouterr().err
