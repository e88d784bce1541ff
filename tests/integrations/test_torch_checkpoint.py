"""torch's distributed checkpoints: loaded from a dataset, saved into the outputs folder, loaded again from there."""

from pathlib import Path
from typing import Any

import fsspec
import pytest

from lethe.crypto.hpke import PrivateKey
from lethe.data.access import Place
from lethe.data.output_writer import OutputsWriter
from lethe.formats.keyring import KEYRING_NAME, open_keyring, parse_keyring
from lethe.model.agentconfig import OutputRecipient, OutputsConfig
from lethe.model.dataset import DatasetSource
from lethe.model.resources import Storage
from tests.integrations.corpus import ONE_PROCESS, empty_state, state

checkpoint = pytest.importorskip(
    "torch.distributed.checkpoint", reason="PyTorch is not installed", exc_type=ImportError
)
pytestmark = pytest.mark.filterwarnings(f"ignore:{ONE_PROCESS}")


def assert_equal(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    import torch

    assert found["step"] == wanted["step"]
    assert torch.equal(found["weights"], wanted["weights"]) and torch.equal(found["bias"], wanted["bias"])


def test_a_checkpoint_loads_by_its_url(pod: Path) -> None:
    loaded = empty_state()
    checkpoint.load(loaded, checkpoint_id="lethe://corpus/checkpoint", no_dist=True)
    assert_equal(loaded, state())


def test_a_checkpoint_loads_through_the_reader(pod: Path) -> None:
    loaded = empty_state()
    checkpoint.load(loaded, storage_reader=checkpoint.FsspecReader("lethe://corpus/checkpoint"), no_dist=True)
    assert_equal(loaded, state())


def test_a_missing_checkpoint_is_not_found(pod: Path) -> None:
    with pytest.raises(checkpoint.CheckpointException, match="no such file"):
        checkpoint.load(empty_state(), checkpoint_id="lethe://corpus/nothing", no_dist=True)


def test_saving_to_a_dataset_names_the_outputs_folder(pod: Path) -> None:
    with pytest.raises(checkpoint.CheckpointException, match="outputs folder"):
        checkpoint.save(state(), checkpoint_id="lethe://corpus/new", no_dist=True)


def test_what_was_saved_into_the_outputs_folder_loads_from_the_sealed_outputs(pod: Path, tmp_path: Path) -> None:
    outputs, identity = tmp_path / "outputs", PrivateKey.generate("X25519")
    checkpoint.save(state(), checkpoint_id=outputs / "step-12", no_dist=True)
    config = OutputsConfig(
        tenant="acme",
        namespace="acme",
        dataset_id="5e" * 16,
        storage=Storage(url=f"file://{tmp_path}/models"),
        recipients=[OutputRecipient(public_key=identity.public_key().encode())],
        criticality="sensitive",
    )
    result = OutputsWriter(outputs, config, None).finish()
    assert result.left_out == ()
    storage = Storage(url=result.message.url)
    keys = open_keyring(parse_keyring(Place(storage, None).store.get(KEYRING_NAME)), identity)
    source = DatasetSource(
        name="model", dataset_id=result.message.dataset_id, index=result.message.index, storage=storage
    )
    assert fsspec.filesystem("lethe", source=source, keys=keys).exists("lethe://model/step-12/.metadata")
    loaded = empty_state()
    reader = checkpoint.FsspecReader("lethe://model/step-12", source=source, keys=keys)
    checkpoint.load(loaded, storage_reader=reader, no_dist=True)
    assert_equal(loaded, state())
