"""`lethe dataset seal`, killed at any moment, goes on: nothing is sealed twice, no salt is used twice."""

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from lethe.cli import dataset
from lethe.crypto.hpke import PrivateKey
from lethe.data.journal import open_journal
from lethe.formats.keyring import KEYRING_NAME
from lethe.model.errors import ConflictError, CredentialsError, InputError, LetheError, UnwrapError
from tests.cluster.folders import PROJECT
from tests.common.datasets import content, read_tree, write_tree
from tests.common.memory_s3 import MemoryS3, Refused

RECORD = 4096
FILES = {f"{letter}/{number}": content(5000 + number) for letter in "abcde" for number in range(5)} | {"f": b""}
OBJECTS = 6
WRITES = OBJECTS + 2
"""Keyring, objects, index."""
SALT = slice(48, 80)


class Bench:
    """A folder, a bucket, and the command that seals the one into the other."""

    def __init__(self, folder: Path, bucket: MemoryS3) -> None:
        self.folder = folder
        self.bucket = bucket
        self.state = folder / "state/lethe"
        self.identities = {name: PrivateKey.generate("X25519") for name in ("recovery", "other")}
        for name, key in self.identities.items():
            (folder / f"{name}.key").write_text(key.encode())
            (folder / f"{name}.key").chmod(0o600)
            (folder / f"{name}.pub").write_text(key.public_key().encode())
        write_tree(folder / "plain", FILES)

    def arguments(self, *more: object, prefix: str = "digits", key: str = "recovery") -> list[str]:
        return [
            "seal", f"{self.folder}/plain", f"s3://acme/{prefix}", "--endpoint", self.bucket.endpoint,
            "--name", "digits", "--namespace", "acme", "--tenant", "acme",
            "--recipient", f"acme/default={self.folder}/{key}.pub", "--recovery-key", f"{self.folder}/{key}.pub",
            "--record-size", "4Ki", "--object-size", "24Ki", *map(str, more),
        ]  # fmt: skip

    def seal(self, *more: object, **changes: str) -> Result:
        """Run the command in this process, to its end."""
        return CliRunner().invoke(dataset.app, self.arguments(*more, **changes), catch_exceptions=False)

    def start(self, *more: object) -> "subprocess.Popen[str]":
        """Start the command as users do."""
        environment = {**os.environ, "PYTHONPATH": f"{PROJECT}/operator"}
        command = [sys.executable, "-c", "from lethe.cli.main import main; main()", "dataset", *self.arguments(*more)]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def kill_at(self, write: int, when: str, *more: object) -> int:
        """Kill the command at its nth write, before or after it is stored; return the writes that were stored."""
        seen = len(self.bucket.written)
        count, process = 0, self.start(*more)

        def strike(key: str) -> None:
            nonlocal count
            count += 1
            if count == write:
                process.kill()
                process.wait()
                if when == "before":
                    raise Refused

        setattr(self.bucket, when, strike)
        process.communicate()
        self.bucket.before = self.bucket.after = lambda key: None
        assert process.returncode == -signal.SIGKILL
        return len(self.bucket.written) - seen

    def stop_at(self, write: int) -> None:
        """Let the command fail at its nth write."""
        last = len(self.bucket.written) + write

        def refuse(key: str) -> None:
            if len(self.bucket.written) == last - 1:
                raise Refused

        self.bucket.before = refuse
        failed = CliRunner().invoke(dataset.app, self.arguments())
        self.bucket.before = lambda key: None
        assert isinstance(failed.exception, CredentialsError)
        assert "the same command goes on from there, and with --abandon it removes all" in failed.stderr

    def unsealed(self, result: Result, name: str, prefix: str = "digits", key: str = "recovery") -> dict[str, bytes]:
        manifest = self.folder / f"{name}.yaml"
        manifest.write_text(result.stdout)
        assert yaml.safe_load(result.stdout)["spec"]["storage"]["url"] == f"s3://acme/{prefix}"
        options = ["-f", str(manifest), "-i", f"{self.folder}/{key}.key"]
        CliRunner().invoke(dataset.app, ["verify", *options], catch_exceptions=False)
        CliRunner().invoke(dataset.app, ["unseal", f"{self.folder}/{name}", *options], catch_exceptions=False)
        return read_tree(self.folder / name)

    def journals(self) -> list[Path]:
        return sorted(self.state.iterdir()) if self.state.exists() else []


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with MemoryS3() as bucket:
        yield Bench(tmp_path, bucket)


def lengths(objects: dict[str, bytes]) -> Counter[int]:
    return Counter(len(data) for key, data in objects.items())


def check_whole(bench: Bench, result: Result, uninterrupted: dict[str, bytes]) -> None:
    """The dataset is the one that an uninterrupted run makes; no name or salt was ever used twice; nothing is left."""
    assert bench.unsealed(result, "back") == FILES
    now = bench.bucket.below("digits")
    assert lengths(now) == lengths(uninterrupted)
    objects = [(key, data) for key, data in bench.bucket.written if not key.endswith(KEYRING_NAME)]
    assert len({key for key, _ in objects}) == len(objects)
    assert len({data[SALT] for _, data in objects}) == len(objects)
    assert bench.journals() == []


@pytest.mark.parametrize(
    ("write", "when"),
    [(1, "before"), (1, "after"), (2, "before"), (5, "after"), (7, "after"), (WRITES, "before"), (WRITES, "after")],
)
def test_a_run_killed_at_a_write_goes_on(bench: Bench, write: int, when: str) -> None:
    bench.seal(prefix="whole")
    whole = bench.bucket.below("whole")
    assert len(whole) == WRITES
    stored = bench.kill_at(write, when)
    assert stored == write - (when == "before")
    assert len(bench.journals()) == 1
    before = bench.bucket.below("digits")
    result = bench.seal()
    complete = max(0, min(write - 2, OBJECTS))
    assert f"{complete} of {OBJECTS} objects are on storage" in result.stderr
    check_whole(bench, result, whole)
    kept = {key for key, data in before.items() if bench.bucket.below("digits").get(key) == data} - {KEYRING_NAME}
    assert len(kept) == complete


def test_a_run_killed_again_and_again_gets_there(bench: Bench) -> None:
    bench.seal(prefix="whole")
    killed = 0
    while len(bench.bucket.below("digits")) < WRITES - 1:
        bench.kill_at(3, "before")
        killed += 1
    assert killed >= OBJECTS - 1
    check_whole(bench, bench.seal(), bench.bucket.below("whole"))


def test_processes_of_a_killed_run_end_with_it_and_spoil_nothing(bench: Bench) -> None:
    bench.seal(prefix="whole")
    bench.kill_at(4, "after", "--workers", "2")
    check_whole(bench, bench.seal("--workers", "2"), bench.bucket.below("whole"))


def test_a_file_that_changed_between_is_named_and_sealed_anew(bench: Bench) -> None:
    bench.stop_at(7)
    before = bench.bucket.below("digits")
    changed = bench.folder / "plain/a/1"
    times = changed.stat()
    changed.write_bytes(b"x" * len(FILES["a/1"]))
    os.utime(changed, ns=(times.st_atime_ns, times.st_mtime_ns))
    result = bench.seal()
    assert "changed since the earlier run: a/1; it is sealed as it is now" in result.stderr
    assert f"4 of {OBJECTS} objects are on storage" in result.stderr
    assert bench.unsealed(result, "back") == FILES | {"a/1": b"x" * len(FILES["a/1"])}
    assert len(before.keys() & bench.bucket.below("digits").keys()) == 1 + 4


def test_files_that_came_and_went_are_named(bench: Bench) -> None:
    bench.stop_at(7)
    (bench.folder / "plain/d/4").unlink()
    write_tree(bench.folder / "plain", {"c/new": b"new"})
    result = bench.seal()
    assert "added since the earlier run: c/new" in result.stderr
    assert "removed since the earlier run: d/4" in result.stderr
    expected = {name: data for name, data in FILES.items() if name != "d/4"} | {"c/new": b"new"}
    assert bench.unsealed(result, "back") == expected


def test_an_object_that_is_gone_or_short_is_sealed_again(bench: Bench) -> None:
    bench.stop_at(7)
    first, second, *_ = [key for key, _ in bench.bucket.written if not key.endswith(KEYRING_NAME)]
    del bench.bucket.objects[first]
    bench.bucket.objects[second] = bench.bucket.objects[second][:-1]
    result = bench.seal()
    assert f"3 of {OBJECTS} objects are on storage" in result.stderr
    assert bench.unsealed(result, "back") == FILES
    assert second not in bench.bucket.objects


def test_a_second_run_is_refused_while_one_is_at_work(bench: Bench) -> None:
    refused: list[str] = []

    def start_another(key: str) -> None:
        if not refused:
            other = bench.start()
            refused.append(other.communicate()[1])
            assert other.returncode == 1

    bench.bucket.before = start_another
    assert bench.unsealed(bench.seal(), "back") == FILES
    assert "another process is at work on the same folder and storage" in refused[0]


def test_what_failed_is_kept_and_can_go_on(bench: Bench) -> None:
    bench.stop_at(4)
    result = bench.seal()
    assert f"2 of {OBJECTS} objects are on storage" in result.stderr
    assert bench.unsealed(result, "back") == FILES


def test_abandoning_removes_everything_and_begins_anew(bench: Bench) -> None:
    bench.kill_at(5, "after")
    assert "removed 5 objects" in bench.seal("--abandon").stderr
    assert (bench.bucket.below("digits"), bench.journals()) == ({}, [])
    with pytest.raises(InputError, match="nothing to abandon"):
        bench.seal("--abandon")
    result = bench.seal()
    assert "going on" not in result.stderr
    assert bench.unsealed(result, "back") == FILES


def test_a_complete_dataset_is_neither_abandoned_nor_sealed_again(bench: Bench) -> None:
    with pytest.raises(InputError, match=r"nowhere/digits\.yaml cannot be written"):
        bench.seal("--output", bench.folder / "nowhere/digits.yaml")
    with pytest.raises(InputError, match="is complete: run the same command without --abandon"):
        bench.seal("--abandon")
    (bench.folder / "plain/f").write_bytes(b"late")
    written = len(bench.bucket.written)
    result = bench.seal()
    assert len(bench.bucket.written) == written
    assert "changed since the earlier run: f; the complete dataset is without this" in result.stderr
    assert bench.unsealed(result, "back") == FILES
    assert bench.journals() == []


@pytest.mark.parametrize(
    ("key", "data"), [("digits/letter.txt", b"dear"), (f"digits/{KEYRING_NAME}", b"another dataset's")]
)
def test_what_another_has_put_there_is_left_alone(bench: Bench, key: str, data: bytes) -> None:
    bench.stop_at(6)
    bench.bucket.objects[key] = data
    before = dict(bench.bucket.objects)
    for more in ([], ["--abandon"]):
        with pytest.raises(InputError, match=f"holds {key.removeprefix('digits/')}, which the run that began here did"):
            bench.seal(*more)
    assert bench.bucket.objects == before


def test_recipients_are_those_of_the_last_command(bench: Bench) -> None:
    bench.stop_at(6)
    result = bench.seal(key="other")
    assert bench.unsealed(result, "back", key="other") == FILES
    with pytest.raises(UnwrapError):
        bench.unsealed(result, "again", key="recovery")


def test_sizes_are_those_of_the_first_command(bench: Bench) -> None:
    bench.stop_at(6)
    with pytest.raises(InputError, match="was begun with records of 4096 and objects of 24576 bytes, not 4096 and 327"):
        bench.seal("--object-size", "32Ki")


def test_what_a_killed_writer_left_in_a_folder_is_removed(bench: Bench) -> None:
    url = f"file://{bench.folder}/sealed"
    arguments = [url if word == "s3://acme/digits" else word for word in bench.arguments()]
    run: Callable[..., Result] = lambda *more: CliRunner().invoke(  # noqa: E731
        dataset.app, [*arguments, *more], catch_exceptions=False
    )
    with pytest.raises(InputError):
        run("--output", f"{bench.folder}/nowhere/digits.yaml")
    (journal,) = bench.journals()
    journal.write_bytes(b"".join(line for line in journal.read_bytes().splitlines(True) if b'"completed"' not in line))
    (bench.folder / "sealed/.partial-x").write_bytes(b"half")
    run()
    assert len(list((bench.folder / "sealed").iterdir())) == WRITES
    assert not (bench.folder / "sealed/.partial-x").exists()


class TestJournal:
    def test_only_its_owner_can_read_it(self, bench: Bench) -> None:
        bench.stop_at(6)
        (path,) = bench.journals()
        assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)

    def test_a_line_that_was_cut_off_never_was(self, bench: Bench) -> None:
        bench.stop_at(7)
        (path,) = bench.journals()
        path.write_bytes(path.read_bytes()[:-20])
        result = bench.seal()
        assert f"4 of {OBJECTS} objects are on storage" in result.stderr
        assert bench.unsealed(result, "back") == FILES

    @pytest.mark.parametrize("line", [b"?\n", b'{"type":"unknown"}\n', b'{"type":"begun"}\n'])
    def test_a_damaged_one_is_refused_by_name(self, tmp_path: Path, line: bytes) -> None:
        (tmp_path / "seal-0").write_bytes(line)
        with pytest.raises(InputError, match=f"line 1 of {tmp_path}/seal-0"), open_journal(tmp_path / "seal-0"):
            pass
        assert (tmp_path / "seal-0").read_bytes() == line

    def test_keys_do_not_print(self, bench: Bench) -> None:
        bench.stop_at(6)
        with open_journal(bench.journals()[0]) as journal:
            assert journal.opened is not None
            assert repr(journal.opened.dek) not in repr(journal.opened)

    def test_one_run_has_it_at_a_time(self, tmp_path: Path) -> None:
        path = tmp_path / "a"
        with open_journal(path), pytest.raises(ConflictError, match="at work"), open_journal(path):
            pass
        assert list(tmp_path.iterdir()) == []

    def test_a_folder_that_cannot_be_written_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(LetheError, match="XDG_STATE_HOME"), open_journal(tmp_path / "file/lethe/seal"):
            pass
