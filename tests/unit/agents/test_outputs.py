"""The sidecar: when it seals, how long it tries, and what it says."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

import lethe
from lethe.agents import outputs
from lethe.crypto.hpke import PrivateKey
from lethe.data.output_writer import OutputsResult, OutputsWriter
from lethe.model import agentconfig
from lethe.model.agentconfig import OutputRecipient, OutputsConfig, OutputsMessage
from lethe.model.errors import CredentialsError, CryptoError, LetheError, UnavailableError
from lethe.model.resources import IndexPin, Storage
from tests.common.datasets import write_tree

SECONDS = 60

MESSAGE = OutputsMessage(
    dataset_id="0" * 32, index=IndexPin(object="1" * 32, sha256="2" * 64), files=1, bytes=2, url="file:///x"
)


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.pauses: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


def config_for(folder: Path, timeout: int = 600) -> OutputsConfig:
    return OutputsConfig(
        tenant="acme",
        namespace="acme",
        dataset_id="5e" * 16,
        storage=Storage(url=f"file://{folder}/models"),
        recipients=[OutputRecipient(public_key=PrivateKey.generate("X25519").public_key().encode())],
        timeout_seconds=timeout,
    )


def failing(monkeypatch: pytest.MonkeyPatch, error: LetheError, times: int) -> list[int]:
    """Let sealing fail a number of times; return where calls are counted."""
    calls: list[int] = []

    def seal(_: OutputsWriter) -> OutputsResult:
        calls.append(1)
        if len(calls) <= times:
            raise error
        return OutputsResult(MESSAGE, ("half.partial",))

    monkeypatch.setattr(OutputsWriter, "finish", seal)
    return calls


def attempt(tmp_path: Path, clock: Clock, timeout: int = 600) -> OutputsMessage:
    writer = OutputsWriter(tmp_path, config_for(tmp_path), None)
    return outputs.seal_with_patience(writer, timeout, clock=clock, sleep=clock.sleep)


@pytest.mark.parametrize("error", [UnavailableError("away"), CredentialsError("refused")])
def test_storage_that_comes_back_saves_the_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: LetheError, caplog: pytest.LogCaptureFixture
) -> None:
    failing(monkeypatch, error, 9)
    clock = Clock()
    assert attempt(tmp_path, clock) == MESSAGE
    assert clock.pauses == [1, 2, 4, 8, 16, 30, 30, 30, 30]
    assert "left out: half.partial" in caplog.text


def test_it_gives_up_before_the_kubelet_kills_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, UnavailableError("away"), 10**6)
    clock = Clock()
    with pytest.raises(UnavailableError, match="away"):
        attempt(tmp_path, clock)
    assert 540 < clock.now - 1000 <= 585


def test_other_errors_are_tried_three_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = failing(monkeypatch, CryptoError("no key"), 10**6)
    with pytest.raises(CryptoError, match="no key"):
        attempt(tmp_path, Clock())
    assert len(calls) == 3


def run(tmp_path: Path, wait: Callable[[Path, float], object], config: OutputsConfig | None = None) -> tuple[int, str]:
    log = tmp_path / "termination-log"
    status = outputs.run(
        config or config_for(tmp_path),
        folder=tmp_path / "outputs",
        credentials=None,
        termination_log=log,
        state_file=tmp_path / "state",
        wait=wait,  # type: ignore[arg-type]
        sleep=lambda _: None,
    )
    return status, log.read_text()


def test_success_is_a_message_with_the_index(tmp_path: Path) -> None:
    write_tree(tmp_path / "outputs", {"model": b"weights"})
    status, text = run(tmp_path, lambda *_: "signal")
    message = json.loads(text)
    assert status == 0
    assert set(message) == {"datasetId", "index", "files", "bytes", "url"}
    assert (message["files"], message["bytes"]) == (1, 7)
    assert (tmp_path / "models" / message["datasetId"] / message["index"]["object"]).is_file()


def test_failure_is_one_sentence_that_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, CryptoError("ü" * 5000), 10**6)
    status, text = run(tmp_path, lambda *_: "signal")
    assert status == 1
    assert text.startswith("The outputs are lost: ü")
    assert len(text.encode()) <= outputs.MESSAGE_BYTES


def test_the_marker_file_ends_the_wait(tmp_path: Path) -> None:
    write_tree(tmp_path, {outputs.MARKER: b""})
    assert outputs.wait_for_end(tmp_path, SECONDS) == "marker"


@pytest.fixture
def sidecar(tmp_path: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """Run the entry point as the pod does; kill it when a test leaves it running."""
    write_tree(tmp_path / "outputs", {"model": b"weights", ".hidden": b""})
    process = subprocess.Popen(
        [sys.executable, "-m", "lethe.outputs_main", "--config", agentconfig.encode(config_for(tmp_path)),
         "--credentials", f"{tmp_path}/none", "--termination-log", f"{tmp_path}/termination-log",
         "--state", f"{tmp_path}/state"],
        env={
            **os.environ,
            "PYTHONPATH": str(Path(lethe.__path__[0]).parent),
            "LETHE_OUTPUTS": f"{tmp_path}/outputs",
        },
        stdout=subprocess.PIPE,
    )  # fmt: skip
    timer = threading.Timer(SECONDS, process.kill)
    timer.start()
    yield process
    timer.cancel()
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def read_until(process: "subprocess.Popen[bytes]", words: bytes) -> bytes:
    """Return what the process said up to a line with these words; it is killed when it says nothing for long."""
    assert process.stdout is not None
    said = b""
    for line in process.stdout:
        said += line
        if words in line:
            return said
    raise AssertionError(f"the sidecar ended without {words!r}: {said!r}")


def test_the_process_seals_on_sigterm_and_exits_with_zero(tmp_path: Path, sidecar: "subprocess.Popen[bytes]") -> None:
    read_until(sidecar, b"until the training ends")
    sidecar.send_signal(signal.SIGTERM)
    said = read_until(sidecar, b"sealed 1 files")
    assert sidecar.wait(SECONDS) == 0
    assert b"left out: .hidden" in said
    assert msgspec.json.decode((tmp_path / "termination-log").read_bytes(), type=OutputsMessage).files == 1


def test_after_the_marker_the_process_stays_until_sigterm(tmp_path: Path, sidecar: "subprocess.Popen[bytes]") -> None:
    read_until(sidecar, b"until the training ends")
    write_tree(tmp_path / "outputs", {outputs.MARKER: b""})
    read_until(sidecar, b"sealed 1 files")
    assert sidecar.poll() is None
    sidecar.send_signal(signal.SIGTERM)
    assert sidecar.wait(SECONDS) == 0


def test_a_wrong_config_is_said(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "lethe.outputs_main", "--config", "{}", "--termination-log", f"{tmp_path}/log"],
        env={**os.environ, "PYTHONPATH": str(Path(lethe.__path__[0]).parent)},
        check=False,
        timeout=SECONDS,
    )
    assert result.returncode == 2
    assert "--config is wrong" in (tmp_path / "log").read_text()
