"""Recipients, rotation and pruning through the command line."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from lethe.cli import dataset, dataset_keys, key
from lethe.data import rotation
from lethe.formats.keyring import KEYRING_NAME, parse_keyring
from lethe.model.errors import (
    AuthenticationError,
    ConflictError,
    InputError,
    IntegrityError,
    ObjectMissingError,
    StorageError,
    UnwrapError,
    UsageError,
)
from tests.common.dataset_command import FILES, run, seal
from tests.common.datasets import content, read_tree, write_tree


@pytest.fixture
def other(home: Path) -> Path:
    """Another recovery key."""
    CliRunner().invoke(key.app, ["generate", "--out", f"{home}/other.key", "--suite", "X25519"])
    return home / "other"


def listed(manifest: Path, *more: object) -> list[dict[str, object]]:
    return json.loads(run("recipients", "list", "-f", manifest, "-o", "json", *more).stdout)  # type: ignore[no-any-return]


def names(manifest: Path, *more: object) -> list[object]:
    return [item["name"] for item in listed(manifest, *more)]


def change(home: Path, manifest: Path, what: str, *more: object, identity: str = "recovery") -> str:
    return run("recipients", what, *more, "-f", manifest, "-i", home / f"{identity}.key").stdout


def unsealed(manifest: Path, identity: Path) -> dict[str, bytes]:
    target = identity.parent / f"back-{len(list(identity.parent.iterdir()))}"
    run("unseal", target, "-f", manifest, "-i", identity)
    return read_tree(target)


class TestList:
    def test_names_and_epochs(self, home: Path, manifest: Path) -> None:
        assert [(item["name"], item["epochs"], item["recovery"], item["opensWithIdentity"])
                for item in listed(manifest)] == [
            ("acme/default@4", [1], False, None), ("recovery:1", [1], True, None),
        ]  # fmt: skip
        result = run("recipients", "list", "-f", manifest)
        assert "acme/default@4" in result.stdout
        assert "not checked" in result.stderr

    def test_a_private_key_finds_itself(self, home: Path, manifest: Path, other: Path) -> None:
        change(home, manifest, "add", "--recovery-key", f"{other}.pub")
        mine = [item["name"] for item in listed(manifest, "-i", f"{other}.key") if item["opensWithIdentity"]]
        assert mine == ["recovery:2"]

    def test_a_keyring_that_was_changed_is_refused(self, home: Path, manifest: Path) -> None:
        path = home / "sealed" / KEYRING_NAME
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
        with pytest.raises(AuthenticationError, match="not authentic"):
            listed(manifest, "-i", home / "recovery.key")


class TestAdd:
    def test_a_recipient_that_was_added_opens_the_dataset_and_the_others_still_do(
        self, home: Path, manifest: Path, other: Path
    ) -> None:
        objects = {path.name: path.read_bytes() for path in (home / "sealed").iterdir() if path.name != KEYRING_NAME}
        said = change(home, manifest, "add", "--recovery-key", f"{other}.pub", "--recipient",
                      f"acme/second@2={home}/service.pub")  # fmt: skip
        assert "added acme/second@2, recovery:2" in said
        for name in ("recovery", "service", "other"):
            assert unsealed(manifest, home / f"{name}.key") == FILES
        after = {path.name: path.read_bytes() for path in (home / "sealed").iterdir() if path.name != KEYRING_NAME}
        assert after == objects
        stanza = parse_keyring((home / "sealed" / KEYRING_NAME).read_bytes()).stanzas_for(
            namespace="acme", key="second"
        )[0]
        assert (stanza.tenant, stanza.criticality, stanza.version) == ("acme", "sensitive", 2)

    def test_a_stranger_adds_nobody(self, home: Path, manifest: Path, other: Path) -> None:
        with pytest.raises(UnwrapError, match="sealed to other keys"):
            change(home, manifest, "add", "--recovery-key", f"{other}.pub", identity="other")

    def test_whom_must_be_said(self, home: Path, manifest: Path) -> None:
        with pytest.raises(UsageError, match="say whom to add"):
            change(home, manifest, "add")
        with pytest.raises(InputError, match="acme/default@4 is a recipient already"):
            change(home, manifest, "add", "--recipient", f"acme/default@4={home}/service.pub")
        with pytest.raises(UsageError, match="not in namespace acme"):
            change(home, manifest, "add", "--recipient", f"globex/default@4={home}/service.pub")

    def test_of_two_who_write_at_once_one_is_told(
        self, home: Path, manifest: Path, other: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        opened = dataset_keys.open_for_change

        def open_and_be_overtaken(*arguments: object) -> object:
            found = opened(*arguments)  # type: ignore[arg-type]
            monkeypatch.setattr(dataset_keys, "open_for_change", opened)
            change(home, manifest, "add", "--recipient", f"acme/first@1={home}/service.pub")
            return found

        monkeypatch.setattr(dataset_keys, "open_for_change", open_and_be_overtaken)
        with pytest.raises(ConflictError, match="written by another meanwhile"):
            change(home, manifest, "add", "--recovery-key", f"{other}.pub")
        assert names(manifest) == ["acme/default@4", "acme/first@1", "recovery:1"]


class TestRemove:
    def test_one_who_was_removed_opens_nothing(self, home: Path, manifest: Path, other: Path) -> None:
        change(home, manifest, "add", "--recovery-key", f"{other}.pub")
        assert "removed recovery:1" in change(home, manifest, "remove", "recovery:1", identity="other")
        assert names(manifest) == ["acme/default@4", "recovery:1"]
        assert unsealed(manifest, home / "other.key") == FILES
        with pytest.raises(UnwrapError):
            unsealed(manifest, home / "recovery.key")

    def test_the_last_recovery_key_stays_unless_forced(self, home: Path, manifest: Path) -> None:
        with pytest.raises(InputError, match=r"no recovery key opens the dataset.*--force"):
            change(home, manifest, "remove", "recovery:1")
        change(home, manifest, "remove", "recovery:1", "--force")
        assert names(manifest) == ["acme/default@4"]

    def test_the_last_recipient_stays_even_then(self, home: Path, manifest: Path) -> None:
        with pytest.raises(InputError, match="nobody could open the dataset"):
            change(home, manifest, "remove", "recovery:1", "acme/default@4", "--force")
        assert names(manifest) == ["acme/default@4", "recovery:1"]

    def test_one_who_is_not_there_is_named_with_those_who_are(self, home: Path, manifest: Path) -> None:
        with pytest.raises(InputError, match=r"recovery:2 is not a recipient.*acme/default@4, recovery:1"):
            change(home, manifest, "remove", "recovery:2")


def rotate(home: Path, manifest: Path, *more: object, new: str = "other", identity: str = "recovery") -> str:
    return run(
        "rotate", "-f", manifest, "-i", home / f"{identity}.key", "--recipient",
        f"acme/default@5={home}/service.pub", "--recovery-key", home / f"{new}.pub", *more,
    ).stdout  # fmt: skip


@pytest.fixture
def large(home: Path) -> Path:
    """A dataset of several objects; returns its manifest."""
    write_tree(home / "images", {f"{number}": content(9000 + number) for number in range(10)})
    seal(home, "--output", home / "large.yaml", "--record-size", "4Ki", "--object-size", "24Ki")
    return home / "large.yaml"


class TestRotate:
    def test_recipients_are_replaced_and_the_manifest_stays(self, home: Path, manifest: Path, other: Path) -> None:
        assert "is sealed to acme/default@5, recovery:1" in rotate(home, manifest)
        assert unsealed(manifest, home / "other.key") == FILES
        with pytest.raises(UnwrapError):
            unsealed(manifest, home / "recovery.key")

    def test_a_new_dek_makes_every_object_another_and_the_old_version_goes_on(
        self, home: Path, large: Path, other: Path
    ) -> None:
        before = read_tree(home / "sealed")
        rotate(home, large, "--dek", "-o", home / "new.yaml")
        after = read_tree(home / "sealed")
        old, new = (yaml.safe_load((home / name).read_text()) for name in ("large.yaml", "new.yaml"))
        assert old["spec"].pop("index") != new["spec"].pop("index")
        assert old == new
        added = [data for name, data in after.items() if name not in before]
        assert len(added) == len(before) - 1
        assert all(after[name] == data for name, data in before.items() if name != KEYRING_NAME)
        salts = [data[48:80] for name, data in after.items() if name != KEYRING_NAME]
        assert len(set(salts)) == len(salts)
        assert {int.from_bytes(data[12:16], "big") for data in added} == {2}
        for version in ("large.yaml", "new.yaml"):
            assert unsealed(home / version, home / "other.key") == read_tree(home / "images")
            run("verify", "-f", home / version, "-i", home / "other.key")
        with pytest.raises(UnwrapError):
            unsealed(home / "new.yaml", home / "recovery.key")

    def test_one_that_was_stopped_goes_on(
        self, home: Path, large: Path, other: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = read_tree(home / "sealed")
        self.stop_after(3, monkeypatch, lambda: rotate(home, large, "--dek"))
        assert unsealed(large, home / "recovery.key") == read_tree(home / "images")
        halfway = read_tree(home / "sealed")
        assert len(halfway) == len(before) + 3
        result = run(
            "rotate", "-f", large, "-i", home / "recovery.key", "--recipient", f"acme/default@5={home}/service.pub",
            "--recovery-key", f"{other}.pub", "--dek", "-o", home / "new.yaml",
        )  # fmt: skip
        assert "3 of 4 objects are on storage" in result.stderr
        after = read_tree(home / "sealed")
        assert len(after) == 2 * len(before) - 1
        assert halfway.keys() <= after.keys()
        assert unsealed(home / "new.yaml", home / "other.key") == read_tree(home / "images")

    def test_one_that_was_stopped_can_be_abandoned(
        self, home: Path, large: Path, other: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = read_tree(home / "sealed")
        self.stop_after(2, monkeypatch, lambda: rotate(home, large, "--dek"))
        rotate(home, large, "--dek", "--abandon")
        assert read_tree(home / "sealed") == before
        with pytest.raises(InputError, match="nothing to abandon"):
            rotate(home, large, "--dek", "--abandon")

    def test_a_manifest_that_could_not_be_written_comes_with_the_next_run(
        self, home: Path, large: Path, other: Path
    ) -> None:
        with pytest.raises(InputError, match="cannot be written"):
            rotate(home, large, "--dek", "-o", home / "nowhere/new.yaml", identity="service")
        stored = read_tree(home / "sealed")
        rotate(home, large, "--dek", "-o", home / "new.yaml", identity="service")
        assert read_tree(home / "sealed") == stored
        assert unsealed(home / "new.yaml", home / "other.key") == read_tree(home / "images")

    def test_another_version_is_not_rotated_into_the_first_one_s_run(
        self, home: Path, large: Path, other: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rotate(home, large, "--dek", "-o", home / "second.yaml", new="recovery")
        self.stop_after(1, monkeypatch, lambda: rotate(home, large, "--dek"))
        with pytest.raises(InputError, match="rotation of another version"):
            rotate(home, home / "second.yaml", "--dek")

    def test_what_cannot_be_is_said(self, home: Path, large: Path, other: Path) -> None:
        with pytest.raises(UsageError, match="go with --dek"):
            rotate(home, large, "--abandon")
        spec = yaml.safe_load(large.read_text())["spec"]
        pins = ["--url", spec["storage"]["url"], "--dataset-id", spec["datasetId"], "--index", spec["index"]["object"]]
        with pytest.raises(UsageError, match="name that with --manifest"):
            run("rotate", *pins, "--sha256", spec["index"]["sha256"], "-i", home / "recovery.key", "--dek",
                "--recipient", f"acme/default@5={home}/service.pub", "--recovery-key", f"{other}.pub")  # fmt: skip

    def stop_after(self, objects: int, monkeypatch: pytest.MonkeyPatch, run_it: Callable[[], object]) -> None:
        whole, count = rotation._reseal_object, 0

        def reseal(state: object, task: object) -> object:
            nonlocal count
            if count == objects:
                raise StorageError("the network is gone")
            count += 1
            return whole(state, task)  # type: ignore[arg-type]

        with monkeypatch.context() as patched:
            patched.setattr(rotation, "_reseal_object", reseal)
            with pytest.raises(StorageError, match="network is gone"):
                run_it()


class TestPrune:
    def test_what_the_new_version_does_not_need_goes_when_it_is_said(
        self, home: Path, large: Path, other: Path
    ) -> None:
        before = read_tree(home / "sealed")
        rotate(home, large, "--dek", "-o", home / "new.yaml")
        both = read_tree(home / "sealed")
        (home / "sealed/.partial-x").write_bytes(b"half")
        (home / "sealed/letter.txt").write_bytes(b"dear")
        result = run("prune", "-f", home / "new.yaml", "-i", home / "other.key")
        assert f"{len(before)} objects" in result.stdout
        assert "keys of epochs 1 are not needed" in result.stdout
        assert "left alone, because no dataset has such names: letter.txt" in result.stderr
        assert both.items() <= read_tree(home / "sealed").items()
        run("prune", "-f", home / "new.yaml", "-i", home / "other.key", "--yes")
        left = read_tree(home / "sealed")
        assert left.keys() == (both.keys() - before.keys()) | {KEYRING_NAME, "letter.txt"}
        assert parse_keyring(left[KEYRING_NAME]).epochs() == [2]
        assert unsealed(home / "new.yaml", home / "other.key") == read_tree(home / "images")
        with pytest.raises(ObjectMissingError):
            unsealed(large, home / "other.key")

    def test_nothing_is_removed_while_the_version_is_not_whole(self, home: Path, large: Path, other: Path) -> None:
        rotate(home, large, "--dek", "-o", home / "new.yaml")
        index = yaml.safe_load((home / "new.yaml").read_text())["spec"]["index"]["object"]
        new = next(
            path
            for path in (home / "sealed").iterdir()
            if path.name not in (KEYRING_NAME, index) and path.read_bytes()[15] == 2
        )
        new.unlink()
        left = read_tree(home / "sealed")
        with pytest.raises(IntegrityError, match=f"object {new.name} of this version is missing"):
            run("prune", "-f", home / "new.yaml", "-i", home / "other.key", "--yes")
        assert read_tree(home / "sealed") == left


def test_every_command_is_there() -> None:
    told = CliRunner().invoke(dataset.app, ["--help"]).stdout
    for name in ("seal", "info", "ls", "cat", "verify", "unseal", "recipients", "rotate", "prune"):
        assert name in told
