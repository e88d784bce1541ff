import os
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from lethe.crypto.hpke import PrivateKey
from lethe.data import output_writer
from lethe.data.access import Access, Place
from lethe.data.output_writer import OutputsResult, OutputsWriter, Sealing, is_unfinished
from lethe.data.unpack import unseal, verify
from lethe.formats.head import HEAD_NAME
from lethe.formats.keyring import KEYRING_NAME, open_keyring, parse_keyring
from lethe.model.agentconfig import OutputRecipient, OutputsConfig, OutputsMessage
from lethe.model.errors import InputError, LetheError, StorageError, UnavailableError
from lethe.model.resources import Storage
from tests.common.datasets import read_tree, write_tree

SERVICE, RECOVERY = PrivateKey.generate("X25519"), PrivateKey.generate("X25519")


def config_for(folder: Path, dataset_id: str = "5e" * 16) -> OutputsConfig:
    return OutputsConfig(
        tenant="acme",
        namespace="acme",
        dataset_id=dataset_id,
        storage=Storage(url=f"file://{folder}/models/"),
        recipients=[
            OutputRecipient(key="default", version=3, public_key=SERVICE.public_key().encode()),
            OutputRecipient(public_key=RECOVERY.public_key().encode()),
        ],
        criticality="sensitive",
    )


def sealed(folder: Path, dataset_id: str = "5e" * 16) -> OutputsResult:
    """Seal what lies in `outputs` at the end of a job."""
    return OutputsWriter(folder / "outputs", config_for(folder, dataset_id), None).finish()


def unsealed(message: OutputsMessage, identity: PrivateKey, target: Path) -> dict[str, bytes]:
    place = Place(Storage(url=message.url), None)
    keyring = parse_keyring(place.store.get(KEYRING_NAME))
    unseal(Access(place, message.dataset_id, message.index, open_keyring(keyring, identity)), target)
    return read_tree(target)


def test_finished_files_are_sealed_to_every_recipient(tmp_path: Path) -> None:
    files = {"model.pt": b"weights", "logs/train.txt": b"loss", "step-9/.metadata": b"complete"}
    unfinished = {
        "model.pt.partial": b"",
        ".tmp/x": b"",
        "logs/.lock": b"",
        "step-9/.metadata.tmp": b"",
        "half.partial/y": b"",
    }
    write_tree(tmp_path / "outputs", files | unfinished)
    (tmp_path / "outputs/latest").symlink_to("model.pt")
    result = sealed(tmp_path)
    assert (result.message.files, result.message.bytes) == (3, 19)
    assert set(result.left_out) == {
        "model.pt.partial", ".tmp/", "logs/.lock", "step-9/.metadata.tmp", "half.partial/", "latest is a symbolic link",
    }  # fmt: skip
    assert unsealed(result.message, SERVICE, tmp_path / "one") == files
    assert unsealed(result.message, RECOVERY, tmp_path / "two") == files


def test_stanzas_carry_the_job_s_tenant_and_criticality(tmp_path: Path) -> None:
    write_tree(tmp_path / "outputs", {})
    message = sealed(tmp_path).message
    keyring = parse_keyring(Place(Storage(url=message.url), None).store.get(KEYRING_NAME))
    assert [(stanza.tenant, stanza.namespace, stanza.key, stanza.version, stanza.criticality)
            for stanza in keyring.stanzas] == [
        ("acme", "acme", "default", 3, "sensitive"), ("acme", "acme", "", 0, "sensitive"),
    ]  # fmt: skip


def test_an_empty_folder_is_a_dataset_without_files(tmp_path: Path) -> None:
    write_tree(tmp_path / "outputs", {})
    message = sealed(tmp_path).message
    assert (message.files, message.bytes) == (0, 0)
    assert unsealed(message, RECOVERY, tmp_path / "back") == {}


def test_another_attempt_leaves_the_first_readable(tmp_path: Path) -> None:
    write_tree(tmp_path / "outputs", {"model": b"first"})
    first = sealed(tmp_path, "01" * 16).message
    write_tree(tmp_path / "outputs", {"model": b"second"})
    second = sealed(tmp_path, "02" * 16).message
    assert first.url == f"file://{tmp_path}/models/{first.dataset_id}" != second.url
    assert unsealed(first, RECOVERY, tmp_path / "1") == {"model": b"first"}
    assert unsealed(second, RECOVERY, tmp_path / "2") == {"model": b"second"}


def test_a_prefix_that_somebody_else_has_begun_is_left_alone(tmp_path: Path) -> None:
    write_tree(tmp_path / "outputs", {"model": b"first"})
    first = sealed(tmp_path).message
    with pytest.raises(StorageError, match="keyring"):
        sealed(tmp_path)
    assert unsealed(first, RECOVERY, tmp_path / "1") == {"model": b"first"}


@pytest.mark.parametrize(
    ("name", "unfinished"),
    [("a.pt", False), (".a", True), ("a.partial", True), ("partial", False), ("a.partial.pt", False)],
)
def test_names_of_unfinished_files(name: str, unfinished: bool) -> None:
    assert is_unfinished(name) is unfinished


def test_a_keyring_whose_writing_only_seemed_to_fail_is_taken(job: "Job", monkeypatch: pytest.MonkeyPatch) -> None:
    job.write({"model": b"weights"})
    store = job.writer._place.store
    put_new = store.put_new

    def lands(*arguments: object) -> None:
        monkeypatch.undo()
        put_new(*arguments)  # type: ignore[arg-type]
        raise UnavailableError("timed out")

    monkeypatch.setattr(store, "put_new", lands, raising=False)
    with pytest.raises(UnavailableError):
        job.writer.finish()
    assert unsealed(job.writer.finish().message, RECOVERY, job.root / "back") == {"model": b"weights"}


class Job:
    """A job that writes outputs, and its writer, one after the other."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = root / "outputs"
        self.folder.mkdir()
        self.saved: list[bytes] = []
        self.writer = self.restart(None)

    def restart(self, state: Sealing | None) -> OutputsWriter:
        def save(state: Sealing) -> None:
            self.saved.append(msgspec.msgpack.encode(state))

        self.writer = OutputsWriter(
            self.folder, config_for(self.root), None, state=state, save=save, object_bytes=256 << 10
        )
        return self.writer

    def write(self, files: dict[str, bytes]) -> None:
        write_tree(self.folder, files)

    def look_twice(self) -> OutputsResult | None:
        """Let a snapshot be taken of what has settled since it was written."""
        return self.writer.snapshot() or self.writer.snapshot()

    def newest(self) -> dict[str, bytes]:
        """Return what a recipient reads who knows no pin; every object is verified."""
        place = Place(Storage(url=config_for(self.root).url), None)
        access = Access.of_newest(place, config_for(self.root).dataset_id, RECOVERY)
        verify(access)
        target = self.root / f"back-{len(list(self.root.iterdir()))}"
        unseal(access, target)
        return read_tree(target)

    def stored(self) -> set[str]:
        return {path.name for path in (self.root / "models" / config_for(self.root).dataset_id).iterdir()}


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(tmp_path)


LARGE = bytes(range(256)) * 8000


def test_what_is_complete_is_sealed_while_the_job_goes_on(job: Job) -> None:
    job.write({"step-1.pt": b"one"})
    assert job.writer.snapshot() is None, "it may still be growing"
    assert job.writer.snapshot() is not None
    assert job.newest() == {"step-1.pt": b"one"}
    assert job.writer.snapshot() is None, "nothing is new"
    job.write({"step-2.pt": LARGE, "log": b"two"})
    assert job.look_twice() is not None
    assert job.newest() == {"step-1.pt": b"one", "step-2.pt": LARGE, "log": b"two"}


def test_a_file_that_somebody_has_open_for_writing_is_not_complete(job: Job) -> None:
    with (job.folder / "step-1.pt").open("wb") as file:
        file.write(b"half")
        file.flush()
        assert [job.writer.snapshot() for _ in range(3)] == [None] * 3
    assert job.writer.snapshot() is not None
    assert job.newest() == {"step-1.pt": b"half"}


CHECK = """
import sys
from pathlib import Path
from lethe.data.output_writer import is_open_for_writing
from lethe.data.tree import scan_tree
folder = Path(sys.argv[1])
[file] = scan_tree(folder).files
print(is_open_for_writing(folder, file))
"""


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("setpriv") is None, reason="needs root, and setpriv")
@pytest.mark.parametrize(("capabilities", "is_seen"), [("-all,+setuid", True), ("-all", False)])
def test_a_writer_that_is_another_user_is_seen_with_one_capability(job: Job, capabilities: str, is_seen: bool) -> None:
    with (job.folder / "model").open("wb"):
        os.chown(job.folder / "model", 65532, 65532)
        check = [sys.executable, "-c", CHECK, str(job.folder)]
        printed = subprocess.check_output(["setpriv", f"--bounding-set={capabilities}", *check], text=True)
    assert printed == f"{is_seen}\n"


def test_until_a_file_is_complete_again_its_last_complete_state_stays(job: Job) -> None:
    job.write({"last.pt": b"first", "other": b"x"})
    job.look_twice()
    with (job.folder / "last.pt").open("wb") as file:
        file.write(b"sec")
        file.flush()
        job.write({"other": b"y", "new": b"z"})
        assert job.look_twice() is not None
        assert job.newest() == {"last.pt": b"first", "other": b"x", "new": b"z"}, "other lies in one object with it"
    job.look_twice()
    assert job.newest() == {"last.pt": b"sec", "other": b"y", "new": b"z"}


def test_storage_holds_what_the_newest_state_needs_and_no_more(job: Job) -> None:
    for number in range(4):
        job.write({"last.pt": LARGE + bytes([number]), "log": bytes(number), "same": b"same"})
        assert job.look_twice() is not None
    (job.folder / "log").unlink()
    message = job.writer.finish().message
    assert job.newest() == unsealed(message, SERVICE, job.root / "pinned")
    assert job.newest() == {"last.pt": LARGE + b"\3", "same": b"same"}
    objects = -(-len(LARGE) // (128 << 10))
    assert {KEYRING_NAME, HEAD_NAME, message.index.object} < job.stored()
    assert len(job.stored()) <= 3 + objects + 1


def test_large_files_that_stay_are_not_sealed_again(job: Job) -> None:
    job.write({"step-1.pt": LARGE})
    job.look_twice()
    before = job.stored()
    job.write({"step-2.pt": LARGE})
    job.look_twice()
    assert len(before - job.stored()) == 1, "only the index was replaced"


def test_the_end_takes_what_is_new_and_repeats_the_last_snapshot_otherwise(job: Job) -> None:
    job.write({"model": b"1"})
    snapshot = job.look_twice()
    assert snapshot is not None and job.writer.finish() == snapshot
    job.write({"model": b"22"})
    assert job.writer.finish().message != snapshot.message
    assert job.newest() == {"model": b"22"}


def test_a_file_that_changes_while_it_is_sealed_ends_the_snapshot_and_not_what_was_there(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    job.write({"model": b"1"})
    job.look_twice()
    job.write({"model": b"22", "more": LARGE})
    seal = output_writer.seal_object

    def touched(*arguments: object) -> object:
        job.write({"model": b"333", "more": LARGE + b"x"})
        return seal(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(output_writer, "seal_object", touched)
    with pytest.raises(InputError, match="changed while"):
        job.look_twice()
    monkeypatch.undo()
    assert job.newest() == {"model": b"1"}
    job.look_twice()
    assert job.newest() == {"model": b"333", "more": LARGE + b"x"}
    assert len(job.stored()) <= 3 + 1 + -(-len(LARGE) // (128 << 10))


class Killed(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("state", ["first", "later"])
def test_a_process_that_is_killed_anywhere_is_followed_by_one_that_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    """Before each write to the storage and each saving of the state."""
    step = 0
    while True:
        root = tmp_path / f"{step}"
        root.mkdir()
        job = Job(root)
        if state == "later":
            job.write({"model": b"1", "log": b"a"})
            job.look_twice()
        complete = job.newest() if state == "later" else None
        job.write({"model": LARGE, "more": b"22"})
        left = step

        def count() -> None:
            nonlocal left
            if left == 0:
                raise Killed
            left -= 1

        store = job.writer._place.store
        for name in ("put", "put_new", "delete", "create"):
            method = getattr(store, name)
            monkeypatch.setattr(store, name, lambda *a, method=method: (count(), method(*a))[1], raising=False)
        save = job.writer._save
        job.writer._save = lambda state, save=save: (count(), save(state))[1]  # type: ignore[misc]
        try:
            job.look_twice()
        except Killed:
            if complete is not None:
                assert job.newest() in (complete, read_tree(job.folder))
        else:
            break
        finally:
            monkeypatch.undo()
        job.restart(msgspec.msgpack.decode(job.saved[-1], type=Sealing) if job.saved else None)
        message = job.writer.finish().message
        assert unsealed(message, RECOVERY, root / "pinned") == job.newest() == read_tree(job.folder)
        objects = 1 + -(-len(LARGE) // (128 << 10))
        assert len(job.stored()) <= 3 + objects, "what was begun is removed"
        step += 1
    assert step > 8


@pytest.mark.parametrize("at", range(0, 192, 5))
def test_a_head_with_a_flipped_bit_is_refused(job: Job, at: int) -> None:
    job.write({"model": b"1"})
    job.writer.finish()
    head = job.root / "models" / config_for(job.root).dataset_id / HEAD_NAME
    data = bytearray(head.read_bytes())
    assert len(data) == 192
    data[at] ^= 1
    head.write_bytes(data)
    with pytest.raises(LetheError):
        job.newest()


def test_the_head_of_another_dataset_is_refused(tmp_path: Path, job: Job) -> None:
    job.write({"model": b"1"})
    job.writer.finish()
    sealed(tmp_path, "77" * 16)
    models = tmp_path / "models"
    (models / config_for(tmp_path).dataset_id / HEAD_NAME).write_bytes((models / ("77" * 16) / HEAD_NAME).read_bytes())
    with pytest.raises(LetheError):
        job.newest()


def test_the_state_does_not_print_its_key() -> None:
    assert "6b" not in repr(Sealing(b"k" * 32)) and "kkk" not in repr(Sealing(b"k" * 32))
