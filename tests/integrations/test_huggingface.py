"""Hugging Face `datasets` over `lethe://`: streamed, or with a cache, which holds plaintext."""

from pathlib import Path
from typing import Any

import pytest

from tests.common.datasets import Dataset, release, seal_files
from tests.integrations.corpus import LINES, ROWS

datasets = pytest.importorskip("datasets", reason="Hugging Face's datasets is not installed", exc_type=ImportError)

TEXT_ROWS = [{"text": line} for line in LINES]
FORMATS: list[tuple[str, str, list[dict[str, Any]]]] = [
    ("text", "train.txt", TEXT_ROWS),
    ("csv", "train.csv", ROWS),
    ("json", "train.jsonl", ROWS),
    ("parquet", "train.parquet", ROWS),
    ("parquet", "parts/*/0.parquet", ROWS),
]
MARK = b"which no disk may see"


@pytest.fixture(autouse=True)
def disk(pod: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for all that the library keeps unless it is told otherwise."""
    folder = tmp_path / "disk"
    folder.mkdir()
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", folder)
    monkeypatch.setattr(datasets.config, "DOWNLOADED_DATASETS_PATH", folder / "downloads")
    monkeypatch.setenv("TMPDIR", str(folder))
    datasets.disable_progress_bars()
    return folder


def plaintext_below(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.is_file() and MARK in path.read_bytes()]


def load(kind: str, name: str, **options: Any) -> Any:
    return datasets.load_dataset(kind, data_files=f"lethe://corpus/{name}", split="train", **options)


@pytest.mark.parametrize(("kind", "name", "rows"), FORMATS)
def test_streaming_gives_every_row_and_keeps_nothing(
    kind: str, name: str, rows: list[dict[str, Any]], disk: Path
) -> None:
    found = [{key: row[key] for key in rows[0]} for row in load(kind, name, streaming=True)]
    assert found == rows
    assert [path for path in disk.rglob("*") if path.is_file() and path.stat().st_size] == []


@pytest.mark.parametrize(("kind", "name", "rows"), FORMATS)
def test_a_table_in_the_cache_gives_every_row(kind: str, name: str, rows: list[dict[str, Any]], tmp_path: Path) -> None:
    found = load(kind, name, cache_dir=str(tmp_path / "memory"))
    assert found.select_columns(list(rows[0])).to_list() == rows


def test_the_cache_is_plaintext_and_lies_where_cache_dir_says(disk: Path, tmp_path: Path) -> None:
    load("text", "train.txt", cache_dir=str(tmp_path / "memory"))
    assert plaintext_below(tmp_path / "memory")
    assert plaintext_below(disk) == []
    load("text", "train.txt")
    assert plaintext_below(disk)


def test_a_cache_that_outlives_a_version_must_be_told_to_compare(
    corpus: Dataset, pod: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By default the library keeps what it copied by the URL alone."""
    options = {"cache_dir": str(tmp_path / "memory"), "download_config": datasets.DownloadConfig(use_etag=True)}
    assert load("text", "train.txt", **options).to_list() == TEXT_ROWS
    newer = seal_files(tmp_path / "newer", {"train.txt": corpus.files["train.txt"].replace(b"line", b"LINE")})
    release(newer, tmp_path / "run2", "corpus")
    monkeypatch.setenv("LETHE_DATASETS", str(tmp_path / "run2"))
    found = load("text", "train.txt", **options).to_list()
    assert found == [{"text": line.replace("line", "LINE")} for line in LINES]


def test_a_stream_is_shared_out_to_the_workers_of_a_data_loader() -> None:
    torch_data = pytest.importorskip("torch.utils.data", reason="PyTorch is not installed", exc_type=ImportError)
    stream = load("parquet", "parts/*/0.parquet", streaming=True)
    loader = torch_data.DataLoader(stream, batch_size=None, num_workers=2, multiprocessing_context="fork")
    seen = [{"label": row["label"], "text": row["text"]} for row in loader]
    assert sorted(seen, key=str) == sorted(ROWS, key=str)
