"""PyTorch's DataLoader over the files of a dataset, in this process and in workers."""

import multiprocessing
import pickle
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

import lethe.data
from lethe.data.reader import EncryptedFiles
from lethe.model.dataset import DatasetSource
from lethe.model.errors import AuthenticationError
from tests.common.datasets import Dataset
from tests.common.faulty_s3 import FaultyS3

torch_data = pytest.importorskip("torch.utils.data", reason="PyTorch is not installed", exc_type=ImportError)


@pytest.fixture
def server(corpus: Dataset) -> Iterator[FaultyS3]:
    with FaultyS3(corpus.root) as running:
        yield running


@pytest.fixture
def remote(pod: Path, server: FaultyS3) -> EncryptedFiles:
    """The dataset on a server that counts requests."""
    described = msgspec.json.decode((pod / "source.json").read_bytes(), type=DatasetSource)
    return EncryptedFiles(msgspec.structs.replace(described, storage=server.storage), pod)


def workers(method: str, **more: object) -> dict[str, object]:
    return {"num_workers": 2, "multiprocessing_context": method, "collate_fn": list, **more}


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"shuffle": False, "collate_fn": list}, id="no workers"),
        pytest.param({"shuffle": True, "collate_fn": list}, id="no workers, shuffled"),
        pytest.param(workers("fork", shuffle=False), id="fork"),
        pytest.param(workers("fork", shuffle=True), id="fork, shuffled"),
        pytest.param(workers("fork", shuffle=True, persistent_workers=True), id="fork, shuffled, persistent"),
        # Each new worker imports PyTorch, for seconds: these live for both epochs.
        pytest.param(workers("spawn", shuffle=True, persistent_workers=True), id="spawn, shuffled, persistent"),
    ],
)
def test_every_epoch_gives_every_file_once(pod: Path, corpus: Dataset, options: dict[str, object]) -> None:
    files = lethe.data.open("corpus")
    loader = torch_data.DataLoader(files, batch_size=4, **options)
    for _ in range(2):
        seen = [item for batch in loader for item in batch]
        assert Counter(seen) == Counter(corpus.files.values())
        assert options["shuffle"] or seen == [corpus.files[name] for name in files.names]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_each_worker_opens_its_own(remote: EncryptedFiles, server: FaultyS3, corpus: Dataset, method: str) -> None:
    # With a sampler of its own, the loader does not ask the dataset for its length in this process.
    order = range(len(corpus.files))
    loader = torch_data.DataLoader(remote, batch_size=1, sampler=order, **workers(method, persistent_workers=True))
    epochs = [[item for (item,) in loader] for _ in range(2)]
    assert epochs == [[corpus.files[name] for name in sorted(corpus.files)]] * 2
    index = corpus.sealed.index.object
    assert server.requests.count(index) == 2
    assert len(remote) == len(corpus.files)
    assert server.requests.count(index) == 3


def test_a_forked_worker_goes_on_with_what_the_parent_had_opened(
    remote: EncryptedFiles, server: FaultyS3, corpus: Dataset
) -> None:
    assert remote["train.csv"] == corpus.files["train.csv"]
    loader = torch_data.DataLoader(remote, batch_size=3, **workers("fork", shuffle=True))
    assert Counter(item for batch in loader for item in batch) == Counter(corpus.files.values())
    assert server.requests.count(corpus.sealed.index.object) == 1


def test_what_goes_to_a_worker_has_no_key(pod: Path, corpus: Dataset) -> None:
    files = lethe.data.open("corpus")
    assert files["train.txt"] == corpus.files["train.txt"]
    sent = bytes(multiprocessing.reduction.ForkingPickler.dumps(torch_data.DataLoader(files, num_workers=2).dataset))
    assert corpus.access.deks[1] not in sent
    assert corpus.files["train.txt"][:64] not in sent
    assert pickle.loads(sent)["train.txt"] == corpus.files["train.txt"]


def test_a_record_that_was_changed_ends_the_epoch(pod: Path, corpus: Dataset, tmp_path: Path) -> None:
    """A worker's error reaches the training process as an error of the same class."""
    stored = tmp_path / "stored"
    stored.mkdir()
    for path in corpus.root.iterdir():
        (stored / path.name).write_bytes(path.read_bytes())
    changed = stored / corpus.objects[0].name
    data = bytearray(changed.read_bytes())
    data[200] ^= 1
    changed.write_bytes(data)
    described = msgspec.json.decode((pod / "source.json").read_bytes(), type=DatasetSource)
    storage = msgspec.structs.replace(described.storage, url=f"file://{stored}")
    files = EncryptedFiles(msgspec.structs.replace(described, storage=storage), pod)
    loader = torch_data.DataLoader(files, batch_size=4, **workers("fork"))
    with pytest.raises(AuthenticationError, match="is not authentic"):
        list(loader)
