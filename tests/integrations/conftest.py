"""A pod's view of one sealed dataset, `corpus`, with a file of each kind that other libraries read."""

import importlib.util
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lethe.data.filesystem import LetheFileSystem, _share
from tests.common.datasets import Dataset, content, read_tree, release, seal_files
from tests.integrations.corpus import LINES, ROWS, write_checkpoint, write_parquet

# Hugging Face's library would ask its site to count each use; it reads this when it is imported.
os.environ["HF_UPDATE_DOWNLOAD_COUNTS"] = "0"


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("corpus")
    files = {
        **{f"images/{number % 3}/{number:02d}.png": content(3000 + 700 * number) for number in range(12)},
        "train.csv": "\n".join(["label,text", *(f"{row['label']},{row['text']}" for row in ROWS)]).encode(),
        "train.jsonl": "\n".join(map(json.dumps, ROWS)).encode(),
        "train.txt": "\n".join(LINES).encode(),
    }
    if importlib.util.find_spec("pyarrow"):
        write_parquet(folder / "made")
    if importlib.util.find_spec("torch"):
        write_checkpoint(folder / "made/checkpoint")
    return seal_files(folder, {**files, **read_tree(folder / "made")})


@pytest.fixture
def pod(corpus: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder that keyfetch left for the dataset; the outputs folder is `tmp_path / "outputs"`."""
    (tmp_path / "outputs").mkdir()
    monkeypatch.setenv("LETHE_DATASETS", str(tmp_path / "run"))
    monkeypatch.setenv("LETHE_OUTPUTS", str(tmp_path / "outputs"))
    yield release(corpus, tmp_path / "run", "corpus")
    LetheFileSystem.clear_instance_cache()
    _share.cache_clear()
