"""Sealing and unsealing: what goes in comes out, and only on storage is it hidden."""

import os
import stat
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from lethe.crypto.hpke import PrivateKey
from lethe.data.seal import Progress, seal_folder
from lethe.data.unpack import unpack, unseal, verify
from lethe.formats.keyring import KEYRING_NAME
from lethe.formats.layout import DEFAULT_OBJECT_BYTES
from lethe.formats.padding import padme
from lethe.model.errors import InputError, LetheError, StorageError
from lethe.model.resources import Storage
from tests.common.datasets import OBJECT, RECORD, content, policy_for, read_tree, seal_files, seeded_random, write_tree

TREES: dict[str, dict[str, bytes]] = {
    "no files": {},
    "one empty file": {"empty": b""},
    "small files": {f"class{number % 3}/{number:03d}.bin": content(number * 97) for number in range(60)},
    "record boundaries": {f"{size:06d}": content(size) for size in (RECORD - 1, RECORD, RECORD + 1, 2 * RECORD)},
    "a file of many objects": {"before": b"x", "huge": content(23 * RECORD + 7), "middle/after": b"y" * RECORD},
    "a file that ends with its object": {"exact": content(5 * RECORD), "next": content(10)},
    "odd names": {
        "e\u0301": b"nfd",
        "\u00e9": b"nfc",
        "line\nbreak": b"1",
        " blank ": b"2",
        "deep/" * 30 + "leaf": b"3",
    },
}


@pytest.fixture(params=TREES.values(), ids=TREES.keys())
def files(request: pytest.FixtureRequest) -> dict[str, bytes]:
    return request.param  # type: ignore[no-any-return]


def test_unsealed_files_are_the_sealed_ones(tmp_path: Path, files: dict[str, bytes]) -> None:
    dataset = seal_files(tmp_path, files)
    result = unseal(dataset.access, tmp_path / "back", workers=1)
    assert read_tree(tmp_path / "back") == files
    assert (result.files, result.bytes) == (len(files), sum(map(len, files.values())))
    assert (dataset.sealed.files, dataset.sealed.bytes) == (result.files, result.bytes)


def test_unpacked_files_are_the_sealed_ones(tmp_path: Path, files: dict[str, bytes]) -> None:
    dataset = seal_files(tmp_path, files)
    unpack(dataset.source, dict(dataset.access.deks), tmp_path / "volume", workers=1)
    assert read_tree(tmp_path / "volume") == files
    assert [path.name for path in (tmp_path / "volume").iterdir() if path.name.startswith(".lethe")] == []


def test_verification_reads_everything(tmp_path: Path, files: dict[str, bytes]) -> None:
    dataset = seal_files(tmp_path, files)
    assert verify(dataset.access, workers=1).bytes == sum(map(len, files.values()))


def test_several_processes_give_the_same(tmp_path: Path) -> None:
    files = TREES["a file of many objects"] | TREES["small files"]
    alone = seal_files(tmp_path / "1", files, identity=PrivateKey.generate("X25519"), random=seeded_random(b"same"))
    several = seal_files(tmp_path / "2", files, identity=alone.identity, random=seeded_random(b"same"), workers=2)
    assert several.sealed.index == alone.sealed.index
    objects = {path.name for path in alone.objects}
    for name in objects:
        assert (alone.root / name).read_bytes() == (several.root / name).read_bytes()
    unseal(several.access, tmp_path / "back", workers=2)
    assert read_tree(tmp_path / "back") == files
    assert verify(several.access, workers=2).files == len(files)


def test_sealing_twice_shares_no_byte_of_ciphertext(tmp_path: Path) -> None:
    files = {"a": bytes(RECORD)}
    first = seal_files(tmp_path / "1", files, random=os.urandom)
    second = seal_files(tmp_path / "2", files, random=os.urandom)
    (one,), (two,) = first.objects, second.objects
    assert one.name != two.name
    assert one.read_bytes()[128:144] != two.read_bytes()[128:144]


def test_names_sizes_and_contents_are_hidden(tmp_path: Path) -> None:
    secret = b"a very secret sentence of a patient's record"
    dataset = seal_files(tmp_path, {"patient-4711.txt": secret, "other": bytes(9 * RECORD)})
    stored = read_tree(dataset.root)
    assert set(stored) == {KEYRING_NAME, dataset.sealed.index.object, *(path.name for path in dataset.objects)}
    for data in stored.values():
        assert secret[:16] not in data
        assert b"patient" not in data


def test_objects_have_equal_lengths_and_the_last_a_padme_one(tmp_path: Path) -> None:
    dataset = seal_files(tmp_path, {"huge": content(23 * RECORD + 7)})
    *full, last = [path.stat().st_size for path in dataset.objects]
    assert set(full) == {OBJECT}
    assert last == min(OBJECT, padme(last))
    assert dataset.sealed.stored_bytes == sum(path.stat().st_size for path in dataset.root.iterdir())


def test_modes_are_kept_for_the_owner_and_opened_to_the_group_in_a_pod(tmp_path: Path) -> None:
    write_tree(tmp_path / "plain", {"run.sh": b"#!", "sub/private": b"x"})
    (tmp_path / "plain/run.sh").chmod(0o755)
    (tmp_path / "plain/sub/private").chmod(0o600)
    dataset = seal_files(tmp_path, {})
    unseal(dataset.access, tmp_path / "back")
    unpack(dataset.source, dict(dataset.access.deks), tmp_path / "volume")
    modes = [
        [stat.S_IMODE((tmp_path / root / name).stat().st_mode) for name in ("run.sh", "sub/private")]
        for root in ("back", "volume")
    ]
    assert modes == [[0o755, 0o600], [0o750, 0o640]]


def test_progress_ends_with_all_bytes(tmp_path: Path) -> None:
    reports: list[Progress] = []
    write_tree(tmp_path / "plain", {"huge": content(23 * RECORD)})
    identity = PrivateKey.generate("X25519")
    seal_folder(
        tmp_path / "plain",
        Storage(url=f"file://{tmp_path}/sealed"),
        None,
        policy_for(identity),
        record_bits=12,
        object_bytes=OBJECT,
        progress=reports.append,
    )
    assert [report.done_bytes for report in reports] == sorted(report.done_bytes for report in reports)
    assert reports[-1] == Progress(23 * RECORD, 23 * RECORD, 1)
    assert len(reports) > 3


def test_defaults_are_64_kib_and_64_mib(tmp_path: Path) -> None:
    write_tree(tmp_path / "plain", {"a": content(200_000)})
    identity = PrivateKey.generate("X25519")
    storage = Storage(url=f"file://{tmp_path}/sealed")
    sealed = seal_folder(tmp_path / "plain", storage, None, policy_for(identity))
    (data,) = [path for path in (tmp_path / "sealed").iterdir() if path.read_bytes()[9:11] == bytes([1, 16])]
    assert data.stat().st_size == padme(200_000 + 128 + 4 * 16) < DEFAULT_OBJECT_BYTES
    assert sealed.objects == 1


def test_a_prefix_that_is_not_empty_is_refused_by_what_it_holds(tmp_path: Path) -> None:
    write_tree(tmp_path / "sealed", {"letter.txt": b"dear"})
    with pytest.raises(InputError, match=r"is not empty: it holds letter.txt \(4 bytes\)"):
        seal_files(tmp_path, {"a": b"1"})
    assert read_tree(tmp_path / "sealed") == {"letter.txt": b"dear"}


def test_a_dataset_without_recipients_is_refused(tmp_path: Path) -> None:
    write_tree(tmp_path / "plain", {"a": b"1"})
    policy = policy_for(PrivateKey.generate("X25519"))
    nobody = type(policy)(policy.tenant, policy.namespace, ())
    with pytest.raises(InputError, match="at least one recipient"):
        seal_folder(tmp_path / "plain", Storage(url=f"file://{tmp_path}/sealed"), None, nobody)


def test_a_file_that_changes_while_it_is_sealed_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    plain = write_tree(tmp_path / "plain", {"a": content(7 * RECORD), "b": b"1"})

    def draw_and_change(length: int) -> bytes:
        (plain / "a").write_bytes(content(7 * RECORD + 1))
        return os.urandom(length)

    with pytest.raises(InputError, match="a changed while the folder was sealed"):
        seal_folder(
            plain,
            Storage(url=f"file://{tmp_path}/sealed"),
            None,
            policy_for(PrivateKey.generate("X25519")),
            random=draw_and_change,
        )
    assert read_tree(tmp_path / "sealed") == {}


def test_an_upload_that_fails_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lethe.adapters.objectstore import FolderStore

    create, begun = FolderStore.create, 0

    def create_two(self: FolderStore, key: str, length: int) -> AbstractContextManager[Callable[[memoryview], object]]:
        nonlocal begun
        begun += 1
        if begun == 3:
            raise StorageError("the disk is full")
        return create(self, key, length)

    monkeypatch.setattr(FolderStore, "create", create_two)
    with pytest.raises(StorageError, match="disk is full"):
        seal_files(tmp_path, {"huge": content(23 * RECORD)})
    assert read_tree(tmp_path / "sealed") == {}


def test_unseal_refuses_a_folder_with_files(tmp_path: Path) -> None:
    dataset = seal_files(tmp_path, {"a": b"1"})
    write_tree(tmp_path / "back", {"mine": b"precious"})
    with pytest.raises(InputError, match="not an empty folder"):
        unseal(dataset.access, tmp_path / "back")
    assert read_tree(tmp_path / "back") == {"mine": b"precious"}


def test_unpack_replaces_what_an_earlier_attempt_left(tmp_path: Path) -> None:
    dataset = seal_files(tmp_path, {"a": b"1", "sub/b": b"2"})
    write_tree(tmp_path / "volume", {"a": b"old", ".lethe-half/sub/b": b"part", "sub/stale": b"old"})
    unpack(dataset.source, dict(dataset.access.deks), tmp_path / "volume")
    assert read_tree(tmp_path / "volume") == {"a": b"1", "sub/b": b"2"}


def test_unpack_counts_pages_against_the_volume_before_it_writes(tmp_path: Path) -> None:
    dataset = seal_files(tmp_path, {"a": b"1", "b": content(4097), "c": b""})
    deks = dict(dataset.access.deks)
    assert unpack(dataset.source, deks, tmp_path / "volume", 3 * 4096).files == 3
    with pytest.raises(InputError, match="needs 12288 bytes unpacked, its volume has 12287: raise unpackSize"):
        unpack(dataset.source, deks, tmp_path / "other", 3 * 4096 - 1)
    assert not (tmp_path / "other").exists()


def test_a_damaged_dataset_leaves_no_file_behind(tmp_path: Path) -> None:
    dataset = seal_files(tmp_path, {f"{number}": content(3 * RECORD) for number in range(8)})
    last = dataset.objects[-1]
    data = bytearray(last.read_bytes())
    data[200] ^= 1
    last.write_bytes(data)
    for workers in (1, 2):
        with pytest.raises(LetheError, match=f"object {last.name}"):
            unseal(dataset.access, tmp_path / "out/back", workers=workers)
        with pytest.raises(LetheError, match=f"object {last.name}"):
            unpack(dataset.source, dict(dataset.access.deks), tmp_path / "out/volume", workers=workers)
        assert read_tree(tmp_path / "out") == {}
