"""Results are complete or not there, however a saver uses its file."""

import gc
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import lethe.data
from lethe.data.output_writer import is_unfinished
from lethe.model.errors import DatasetIndexError, InputError


@pytest.fixture
def outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LETHE_OUTPUTS", str(tmp_path))
    return tmp_path


def names(outputs: Path) -> list[str]:
    """Return every file, hidden ones too."""
    return sorted(path.relative_to(outputs).as_posix() for path in outputs.rglob("*") if path.is_file())


def save_as_torch_does(data: bytes, file: Any) -> None:
    """Write, and end with a flush, as torch's writer of zip files does when its `with` is left; do not close."""
    try:
        file.write(data)
    finally:
        file.flush()


class Unpicklable:
    def __reduce__(self) -> str:
        raise RuntimeError("the disk of the accelerator is on fire")


def test_a_file_appears_when_it_is_closed(outputs: Path) -> None:
    with lethe.data.output("checkpoints/0001.pt") as file:
        file.write(b"weights")
        file.flush()
        [hidden] = names(outputs)
        assert is_unfinished(Path(hidden).name)
    assert names(outputs) == ["checkpoints/0001.pt"]
    assert (outputs / "checkpoints/0001.pt").read_bytes() == b"weights"


def test_closing_without_with_completes_too(outputs: Path) -> None:
    file = lethe.data.output("a")
    file.write(b"1")
    file.close()
    file.close()
    assert names(outputs) == ["a"]


def test_a_saver_that_leaves_the_file_open_completes_it_by_its_last_flush(outputs: Path) -> None:
    save_as_torch_does(b"weights", lethe.data.output("ckpt.pt"))
    gc.collect()
    assert names(outputs) == ["ckpt.pt"]
    assert (outputs / "ckpt.pt").read_bytes() == b"weights"


def test_one_that_fails_before_that_does_not(outputs: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Full:
        def __len__(self) -> int:
            return 1

    with pytest.raises(TypeError):
        save_as_torch_does(Full(), lethe.data.output("ckpt.pt"))  # type: ignore[arg-type]
    gc.collect()
    assert names(outputs) == []
    assert "output ckpt.pt was not completed" in caplog.text


@pytest.mark.parametrize("is_kept", [False, True], ids=["nothing was there", "an older one stays"])
def test_an_exception_in_the_block_leaves_nothing_new(outputs: Path, is_kept: bool) -> None:
    if is_kept:
        (outputs / "a").write_bytes(b"older")
    with pytest.raises(RuntimeError, match="on fire"), lethe.data.output("a") as file:
        pickle.dump([1, Unpicklable()], file)
    assert names(outputs) == (["a"] if is_kept else [])
    if is_kept:
        assert (outputs / "a").read_bytes() == b"older"


def test_what_was_never_closed_nor_flushed_is_not_there(outputs: Path, caplog: pytest.LogCaptureFixture) -> None:
    lethe.data.output("a").write(b"half")
    gc.collect()
    assert names(outputs) == []
    assert "close it, or use `with`" in caplog.text


def test_a_last_checkpoint_is_saved_while_an_exception_is_handled(outputs: Path) -> None:
    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt:
        with lethe.data.output("last") as file:
            file.write(b"1")
        save_as_torch_does(b"2", lethe.data.output("last.pt"))
    gc.collect()
    assert names(outputs) == ["last", "last.pt"]


def test_a_killed_writer_leaves_nothing_that_would_be_sealed(outputs: Path) -> None:
    write = "file = lethe.data.output('a'); file.write(b'x' * 10**6); file.flush()"
    program = f"import lethe.data, os; {write}; os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", program], env={**os.environ}, check=False)
    assert all(is_unfinished(Path(name).name) for name in names(outputs))


@pytest.mark.parametrize("name", ["", "/etc/passwd", "../a", "a/../../b", "a//b"])
def test_a_name_that_leaves_the_folder_is_refused(outputs: Path, name: str) -> None:
    with pytest.raises(DatasetIndexError):
        lethe.data.output(name)


def test_a_job_without_outputs_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LETHE_OUTPUTS", str(tmp_path / "absent"))
    with pytest.raises(InputError, match=r"give the job spec\.outputs"):
        lethe.data.output("a")


def test_two_writers_of_one_name_do_not_mix(outputs: Path) -> None:
    first, second = lethe.data.output("a"), lethe.data.output("a")
    first.write(b"first")
    second.write(b"second")
    first.close()
    second.close()
    assert (outputs / "a").read_bytes() == b"second"
    assert names(outputs) == ["a"]
