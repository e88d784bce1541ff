"""Only processes that were started here are ever stopped."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.cluster.processes import Processes, start_time

FOREVER = ["sleep", "infinity"]


@pytest.fixture
def processes(tmp_path: Path) -> Processes:
    return Processes(tmp_path / "run", tmp_path / "logs")


def test_a_process_is_found_again_and_not_started_twice(processes: Processes) -> None:
    started = processes.start("one", FOREVER)
    again = Processes(processes.records, processes.logs)
    try:
        assert again.find("one") == started
        assert again.start("one", FOREVER) == started
        assert again.names() == ["one"]
    finally:
        processes.stop("one", grace=0)
    assert again.find("one") is None
    assert start_time(started.pid) is None
    assert again.names() == []


def test_a_process_with_a_reused_id_is_neither_found_nor_stopped(processes: Processes) -> None:
    with subprocess.Popen(FOREVER) as stranger:
        try:
            started = start_time(stranger.pid)
            assert started is not None
            processes.records.mkdir()
            record = {"pid": stranger.pid, "started": started - 1}
            (processes.records / "one.json").write_text(json.dumps(record))
            assert processes.find("one") is None
            processes.stop("one", grace=0)
            assert stranger.poll() is None
        finally:
            stranger.kill()


def test_a_process_that_ignores_the_polite_signal_is_killed(processes: Processes, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    script = f"trap '' TERM; echo > {ready}; while :; do sleep 1; done"
    started = processes.start("stubborn", ["/bin/sh", "-c", script])
    while not ready.exists():
        assert start_time(started.pid) is not None
    processes.stop("stubborn", grace=0.2)
    assert start_time(started.pid) is None


def test_stopping_what_never_ran_changes_nothing(processes: Processes) -> None:
    processes.stop("nothing")
    assert processes.names() == []


def test_output_is_kept_in_the_log(processes: Processes) -> None:
    processes.start("speaker", ["/bin/sh", "-c", "echo spoken; exec sleep infinity"])
    log = processes.logs / "speaker.log"
    try:
        while not log.read_text():
            assert processes.find("speaker") is not None
        assert log.read_text() == "spoken\n"
    finally:
        processes.stop("speaker", grace=0)
