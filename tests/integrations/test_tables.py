"""pandas and pyarrow read tables of a dataset by URL."""

from pathlib import Path

import fsspec
import pytest

from lethe.data.filesystem import LetheFileSystem
from lethe.data.reader import EncryptedFiles
from lethe.model.errors import InputError
from tests.common.datasets import Dataset
from tests.integrations.corpus import ROWS


class TestPandas:
    @pytest.fixture(autouse=True)
    def pandas(self, pod: Path) -> None:
        self.pandas = pytest.importorskip("pandas", reason="pandas is not installed", exc_type=ImportError)

    def test_csv(self) -> None:
        assert self.pandas.read_csv("lethe://corpus/train.csv").to_dict("records") == ROWS

    def test_csv_in_pieces(self) -> None:
        with self.pandas.read_csv("lethe://corpus/train.csv", chunksize=700) as pieces:
            assert [row for piece in pieces for row in piece.to_dict("records")] == ROWS

    def test_json_lines(self) -> None:
        assert self.pandas.read_json("lethe://corpus/train.jsonl", lines=True).to_dict("records") == ROWS

    def test_parquet(self) -> None:
        pytest.importorskip("pyarrow", reason="pyarrow is not installed", exc_type=ImportError)
        assert self.pandas.read_parquet("lethe://corpus/train.parquet").to_dict("records") == ROWS

    def test_a_folder_of_parquet(self) -> None:
        pytest.importorskip("pyarrow", reason="pyarrow is not installed", exc_type=ImportError)
        frame = self.pandas.read_parquet("lethe://corpus/parts")
        assert frame[["label", "text"]].to_dict("records") == ROWS
        assert list(frame["half"].astype(int)) == [1] * 2500 + [2] * 2500

    def test_outside_a_pod(self, corpus: Dataset) -> None:
        options = {"source": corpus.source, "keys": corpus.access.deks}
        frame = self.pandas.read_csv("lethe://digits/train.csv", storage_options=options)
        assert frame.to_dict("records") == ROWS

    def test_writing_is_refused(self) -> None:
        frame = self.pandas.DataFrame(ROWS[:3])
        with pytest.raises(InputError, match="outputs folder"):
            frame.to_csv("lethe://corpus/new.csv")
        with pytest.raises(InputError, match="outputs folder"):
            frame.to_parquet("lethe://corpus/new.parquet")


class TestPyarrow:
    @pytest.fixture(autouse=True)
    def filesystem(self, pod: Path) -> None:
        self.dataset = pytest.importorskip("pyarrow.dataset", reason="pyarrow is not installed", exc_type=ImportError)
        self.filesystem: LetheFileSystem = fsspec.filesystem("lethe")

    def test_a_partitioned_folder_is_one_table(self) -> None:
        table = self.dataset.dataset("corpus/parts", filesystem=self.filesystem, partitioning="hive").to_table()
        assert table.select(["label", "text"]).to_pylist() == ROWS
        assert table["half"].to_pylist() == [1] * 2500 + [2] * 2500

    def test_csv_and_filters(self) -> None:
        found = self.dataset.dataset("corpus/train.csv", filesystem=self.filesystem, format="csv")
        table = found.to_table(filter=self.dataset.field("label") == 3, columns=["text"])
        assert table.to_pylist() == [{"text": row["text"]} for row in ROWS if row["label"] == 3]

    def test_one_column_reads_a_part_of_the_file(self, corpus: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
        read = 0
        read_into = EncryptedFiles.read_into

        def count(files: EncryptedFiles, item: int, out: memoryview, start: int) -> int:
            nonlocal read
            read += len(out)
            return read_into(files, item, out, start)

        monkeypatch.setattr(EncryptedFiles, "read_into", count)
        import pyarrow.parquet

        with self.filesystem.open("corpus/wide.parquet") as file:
            labels = pyarrow.parquet.ParquetFile(file).read(columns=["label"])
        assert labels.to_pylist() == [{"label": row["label"]} for row in ROWS]
        assert read < len(corpus.files["wide.parquet"]) // 3

    def test_writing_is_refused(self) -> None:
        import pyarrow

        with pytest.raises(InputError, match="outputs folder"):
            table = pyarrow.Table.from_pylist(ROWS[:3])
            self.dataset.write_dataset(table, "corpus/new", filesystem=self.filesystem, format="parquet")
