import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lethe.agents import eviction
from lethe.agents.eviction import Process, evict, read_process
from lethe.model import reasons
from lethe.model.errors import GpuError

PROC = Path("/proc")
UID = "0b1c2d3e-1111-2222-3333-444455556666"


@pytest.fixture
def holder() -> Iterator[subprocess.Popen[bytes]]:
    """A process that ignores every signal it can and never ends by itself."""
    program = "import signal, sys; signal.signal(15, signal.SIG_IGN); print(flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


def held_by(process: subprocess.Popen[bytes]) -> list[int]:
    return [process.pid] if process.poll() is None else []


def test_ends_what_holds_the_gpu(holder: subprocess.Popen[bytes]) -> None:
    killed = evict(lambda: held_by(holder), PROC, seconds=10)
    assert [process.pid for process in killed] == [holder.pid]
    assert killed[0].name.startswith("python")
    assert holder.wait() == -9


def test_a_gpu_that_nobody_holds_needs_nothing() -> None:
    assert evict(lambda: [], PROC, seconds=0) == []


@pytest.mark.parametrize("pid", [0, 1, os.getpid()], ids=["invisible", "init", "itself"])
def test_never_kills_what_it_must_not_and_says_who_stays(pid: int) -> None:
    with pytest.raises(GpuError, match=f"by {pid} ") as raised:
        evict(lambda: [pid], PROC, seconds=0)
    assert raised.value.reason == reasons.LEFTOVER_PROCESS


def test_a_process_id_used_again_is_spared(holder: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter(range(1000))
    monkeypatch.setattr(
        eviction, "read_process", lambda proc, pid: Process(pid=pid, start_time=next(times), name="other")
    )
    with pytest.raises(GpuError):
        evict(lambda: held_by(holder), PROC, seconds=0)
    assert holder.poll() is None


def test_a_process_that_may_not_be_killed_is_an_error(
    holder: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(eviction.signal, "pidfd_send_signal", refuse)
    with pytest.raises(GpuError, match="capability KILL") as raised:
        evict(lambda: held_by(holder), PROC, seconds=10)
    assert raised.value.reason == reasons.LEFTOVER_PROCESS


def write_process(proc: Path, pid: int, stat: str, cgroup: str) -> None:
    folder = proc / str(pid)
    folder.mkdir()
    (folder / "stat").write_text(stat)
    (folder / "cgroup").write_text(cgroup)


def stat_line(pid: int, name: str, state: str = "S", start_time: int = 4711) -> str:
    return f"{pid} ({name}) {state} 1 {' '.join(['0'] * 17)} {start_time} 0 0\n"


@pytest.mark.parametrize(
    ("cgroup", "pod_uid"),
    [
        pytest.param(f"0::/kubepods/burstable/pod{UID}/0123abcd\n", UID, id="cgroupfs"),
        pytest.param(
            f"0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UID.replace('-', '_')}.slice/cri-x\n",
            UID,
            id="systemd",
        ),
        pytest.param("0::/system.slice/sshd.service\n", "", id="no pod"),
    ],
)
def test_knows_the_pod_by_its_cgroup(tmp_path: Path, cgroup: str, pod_uid: str) -> None:
    write_process(tmp_path, 12, stat_line(12, "python3"), cgroup)
    assert read_process(tmp_path, 12) == Process(pid=12, start_time=4711, name="python3", pod_uid=pod_uid)


def test_a_name_cannot_forge_lines_or_fields(tmp_path: Path) -> None:
    write_process(tmp_path, 12, stat_line(12, "a) R 1\n{"), "0::/\n")
    found = read_process(tmp_path, 12)
    assert found is not None
    assert (found.name, found.start_time) == ("a) R 1?{", 4711)


def test_an_ended_process_is_none(tmp_path: Path) -> None:
    assert read_process(tmp_path, 12) is None
    write_process(tmp_path, 13, stat_line(13, "gone", state="Z"), "0::/\n")
    assert read_process(tmp_path, 13) is None
