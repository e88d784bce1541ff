"""The programs of docs/guides/reading-data.md run as they stand there, in a pod, and make what they say."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.common.datasets import Dataset
from tests.integrations.corpus import LINES, ONE_PROCESS, ROWS

GUIDE = Path(__file__).parents[2] / "docs/guides/reading-data.md"
LIBRARIES = ("torch", "pandas", "pyarrow", "datasets")
PROGRAM = re.compile(r"```python\n(.*?)```", re.DOTALL)

Made = dict[str, Any]


def torch_files(made: Made, corpus: Dataset, outputs: Path) -> None:
    assert sorted(made["sizes"]) == sorted(map(len, corpus.files.values()))


def torch_images(made: Made, corpus: Dataset, outputs: Path) -> None:
    assert sorted(made["labels"]) == [0] * 4 + [1] * 4 + [2] * 4


def urls(made: Made, corpus: Dataset, outputs: Path) -> None:
    assert made["folders"] == ["corpus/images/0", "corpus/images/1", "corpus/images/2"]
    assert made["images"] == [f"corpus/{name}" for name in sorted(corpus.files) if name.startswith("images/")]
    assert made["head"] == b"label,text"
    assert made["first"] == f"{LINES[0]}\n"


def pandas_tables(made: Made, corpus: Dataset, outputs: Path) -> None:
    assert made["table"].to_dict("records") == made["same"].to_dict("records") == ROWS


def pyarrow_rows(made: Made, corpus: Dataset, outputs: Path) -> None:
    assert made["rows"].to_pylist() == [{"label": row["label"]} for row in ROWS[2500:]]


def stream(made: Made, corpus: Dataset, outputs: Path) -> None:
    assert made["first"] == ROWS[0]


def cached(made: Made, corpus: Dataset, outputs: Path) -> None:
    assert made["count"] == len(ROWS)


def loaded(made: Made, corpus: Dataset, outputs: Path) -> None:
    assert made["state"]["step"] == 12 and float(made["state"]["weights"][1, 2]) == 302.0


def saved(made: Made, corpus: Dataset, outputs: Path) -> None:
    assert (outputs / "step-13/.metadata").is_file()


CHECKS: list[Callable[[Made, Dataset, Path], None]] = [
    torch_files,
    torch_images,
    urls,
    pandas_tables,
    pyarrow_rows,
    stream,
    cached,
    loaded,
    saved,
]


@pytest.mark.filterwarnings(f"ignore:{ONE_PROCESS}")
@pytest.mark.parametrize("number", range(len(CHECKS)), ids=[check.__name__ for check in CHECKS])
def test_a_program_of_the_guide(
    number: int, pod: Path, corpus: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = PROGRAM.findall(GUIDE.read_text(encoding="utf-8"))
    assert len(programs) == len(CHECKS)
    program = programs[number].replace("/tmp/huggingface", str(tmp_path / "cache"))
    for library in LIBRARIES:
        if re.search(rf"^(import|from) {library}\b", program, re.MULTILINE):
            pytest.importorskip(library, reason=f"{library} is not installed", exc_type=ImportError)
    made: Made = {"__name__": "program"}
    exec(compile(program, f"{GUIDE}, program {number + 1}", "exec"), made)
    CHECKS[number](made, corpus, tmp_path / "outputs")
