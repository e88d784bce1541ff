from pathlib import Path

import pytest

from lethe.crypto.hpke import PrivateKey
from lethe.data.access import Access, Place
from lethe.data.output_writer import is_unfinished, seal_outputs
from lethe.data.unpack import unseal
from lethe.formats.keyring import KEYRING_NAME, open_keyring, parse_keyring
from lethe.model.agentconfig import OutputRecipient, OutputsConfig, OutputsMessage
from lethe.model.resources import Storage
from tests.common.datasets import read_tree, write_tree

SERVICE, RECOVERY = PrivateKey.generate("X25519"), PrivateKey.generate("X25519")


def config_for(folder: Path) -> OutputsConfig:
    return OutputsConfig(
        tenant="acme",
        namespace="acme",
        storage=Storage(url=f"file://{folder}/models/"),
        recipients=[
            OutputRecipient(key="default", version=3, public_key=SERVICE.public_key().encode()),
            OutputRecipient(public_key=RECOVERY.public_key().encode()),
        ],
        criticality="sensitive",
    )


def unsealed(message: OutputsMessage, identity: PrivateKey, target: Path) -> dict[str, bytes]:
    place = Place(Storage(url=message.url), None)
    keyring = parse_keyring(place.store.get(KEYRING_NAME))
    unseal(Access(place, message.dataset_id, message.index, open_keyring(keyring, identity)), target)
    return read_tree(target)


def test_finished_files_are_sealed_to_every_recipient(tmp_path: Path) -> None:
    config = config_for(tmp_path)
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
    result = seal_outputs(tmp_path / "outputs", config.storage, None, config)
    assert (result.message.files, result.message.bytes) == (3, 19)
    assert set(result.left_out) == {
        "model.pt.partial", ".tmp/", "logs/.lock", "step-9/.metadata.tmp", "half.partial/", "latest is a symbolic link",
    }  # fmt: skip
    assert unsealed(result.message, SERVICE, tmp_path / "one") == files
    assert unsealed(result.message, RECOVERY, tmp_path / "two") == files


def test_stanzas_carry_the_job_s_tenant_and_criticality(tmp_path: Path) -> None:
    config = config_for(tmp_path)
    write_tree(tmp_path / "outputs", {})
    message = seal_outputs(tmp_path / "outputs", config.storage, None, config).message
    keyring = parse_keyring(Place(Storage(url=message.url), None).store.get(KEYRING_NAME))
    assert [(stanza.tenant, stanza.namespace, stanza.key, stanza.version, stanza.criticality)
            for stanza in keyring.stanzas] == [
        ("acme", "acme", "default", 3, "sensitive"), ("acme", "acme", "", 0, "sensitive"),
    ]  # fmt: skip


def test_an_empty_folder_is_a_dataset_without_files(tmp_path: Path) -> None:
    config = config_for(tmp_path)
    write_tree(tmp_path / "outputs", {})
    message = seal_outputs(tmp_path / "outputs", config.storage, None, config).message
    assert (message.files, message.bytes) == (0, 0)
    assert unsealed(message, RECOVERY, tmp_path / "back") == {}


def test_a_second_sealing_leaves_the_first_readable(tmp_path: Path) -> None:
    config = config_for(tmp_path)
    write_tree(tmp_path / "outputs", {"model": b"first"})
    first = seal_outputs(tmp_path / "outputs", config.storage, None, config).message
    write_tree(tmp_path / "outputs", {"model": b"second"})
    second = seal_outputs(tmp_path / "outputs", config.storage, None, config).message
    assert first.url == f"file://{tmp_path}/models/{first.dataset_id}" != second.url
    assert unsealed(first, RECOVERY, tmp_path / "1") == {"model": b"first"}
    assert unsealed(second, RECOVERY, tmp_path / "2") == {"model": b"second"}


@pytest.mark.parametrize(
    ("name", "unfinished"),
    [("a.pt", False), (".a", True), ("a.partial", True), ("partial", False), ("a.partial.pt", False)],
)
def test_names_of_unfinished_files(name: str, unfinished: bool) -> None:
    assert is_unfinished(name) is unfinished
