"""The training scripts of examples/ run as a user starts them, on a sealed dataset, and learn."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from lethe.data.unpack import unpack
from tests.cluster.waiting import until
from tests.common.datasets import read_tree, release, seal_files

EXAMPLES = Path(__file__).parents[2] / "examples"
NAMES = {"images": "shapes", "text": "messages"}
NEEDS = {"images": ("torch", "PIL"), "text": ("torch", "datasets"), "files": ("numpy",)}
SECONDS = 300


@dataclass(frozen=True)
class Training:
    """One example in a pod of its own."""

    example: str
    folder: Path

    @property
    def outputs(self) -> Path:
        return self.folder / "outputs"

    def command(self, *flags: str) -> list[str | Path]:
        given = [self.folder / "data"] if self.example == "files" else ["--dataset", NAMES[self.example]]
        return [sys.executable, EXAMPLES / self.example / "train.py", *given, *flags]

    @property
    def environment(self) -> dict[str, str]:
        places = {"LETHE_DATASETS": self.folder / "run", "LETHE_OUTPUTS": self.outputs, "HF_HOME": self.folder / "hf"}
        # One thread: several that wait for each other on a busy machine wait long.
        settings = {"HF_UPDATE_DOWNLOAD_COUNTS": "0", "OMP_NUM_THREADS": "1"}
        return {**os.environ, **settings, **{name: str(path) for name, path in places.items()}}

    def run(self, *flags: str) -> str:
        """Train to the end and return what was printed."""
        done = subprocess.run(
            self.command(*flags), env=self.environment, capture_output=True, text=True, timeout=SECONDS
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    @contextmanager
    def running(self, *flags: str) -> Iterator[None]:
        """Train in the background; at the end kill the process and its workers, as a node does that loses power."""
        process = subprocess.Popen(self.command(*flags), env=self.environment, start_new_session=True)
        try:
            yield
            assert process.poll() is None
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def prepare(example: str, folder: Path) -> Training:
    """Make the example's data, seal it, and give it to the pod: unpacked for `files`, else with its keys."""
    for library in NEEDS[example]:
        pytest.importorskip(library, reason=f"{library} is not installed", exc_type=ImportError)
    subprocess.run([sys.executable, EXAMPLES / example / "make_data.py", folder / "made"], check=True)
    dataset = seal_files(folder, read_tree(folder / "made"))
    if example == "files":
        unpack(dataset.source, dataset.access.deks, folder / "data", workers=1)
    else:
        release(dataset, folder / "run", NAMES[example])
    (folder / "outputs").mkdir()
    return Training(example, folder)


@pytest.mark.parametrize(("example", "model"), [("images", "model.pt"), ("text", "model.pt"), ("files", "model.npz")])
def test_an_example_learns(example: str, model: str, tmp_path: Path) -> None:
    training = prepare(example, tmp_path)
    training.run()
    metrics = json.loads((training.outputs / "metrics.json").read_text())
    assert metrics["accuracy"] > 2 / metrics["classes"]
    assert (training.outputs / model).stat().st_size > 0
    assert [path.name for path in training.outputs.rglob("*.partial")] == []


def test_training_that_was_killed_goes_on_from_its_last_checkpoint(tmp_path: Path) -> None:
    training = prepare("images", tmp_path)
    checkpoints = training.outputs / "checkpoints"
    with training.running("--epochs", "100000"):
        until(lambda: len(list(checkpoints.glob("*.pt"))) >= 2, what="two checkpoints", seconds=SECONDS)
    last = max(int(path.stem) for path in checkpoints.glob("*.pt"))
    previous = training.outputs.rename(tmp_path / "previous")
    training.outputs.mkdir()
    printed = training.run("--epochs", str(last + 1), "--previous", str(previous))
    assert f"going on from {last:04}.pt" in printed
    assert [line.split(":")[0] for line in printed.splitlines() if line.startswith("epoch")] == [f"epoch {last + 1}"]
    assert (checkpoints / f"{last + 1:04}.pt").is_file()


def test_a_checkpoint_that_was_cut_off_is_not_taken_for_one(tmp_path: Path) -> None:
    training = prepare("images", tmp_path)
    checkpoints = tmp_path / "previous" / "checkpoints"
    checkpoints.mkdir(parents=True)
    (checkpoints / ".0007.pt.00112233.partial").write_bytes(b"PK")
    assert "going on" not in training.run("--epochs", "1", "--previous", str(tmp_path / "previous"))


def test_the_example_with_plain_files_imports_nothing_of_lethe() -> None:
    for script in (EXAMPLES / "files").glob("*.py"):
        assert "lethe" not in script.read_text(encoding="utf-8").replace("LETHE_OUTPUTS", "")
