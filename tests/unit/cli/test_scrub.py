"""`lethe scrub --local` on simulated GPUs."""

import subprocess
import sys

import msgspec
import pytest

from lethe.agents.passes import COUNTER_BYTES
from lethe.formats.receipt import parse_report
from lethe.model.scrub import ScrubReport
from tests.simgpu.fixtures import Machine, machine, make_machine, simgpu_libraries

__all__ = ["machine", "make_machine", "simgpu_libraries"]

FLOOR = "0.9"
SECRET = "a secret of acme"
LEFT = (1 << 20) - COUNTER_BYTES
"""The probe's counters take the first bytes that are free: there the secret was."""
WRITE = """
    open_gpu()
    address = allocate(1 << 20)
    write(address, sys.argv[1].encode() * ((1 << 20) // len(sys.argv[1])))
    answer(written=True)
    sys.stdin.readline()
"""


def scrub(machine: Machine, *flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from lethe.cli.main import main; main()", "scrub", f"--coverage-floor={FLOOR}", *flags],
        env=machine.environment,
        capture_output=True,
        text=True,
        check=False,
    )


def report_of(done: subprocess.CompletedProcess[str]) -> ScrubReport:
    return parse_report(done.stdout.encode())[0]


def residue(machine: Machine) -> list[int]:
    """Return what a probe says was found on each GPU."""
    report = report_of(scrub(machine, "--local", "--probe-only", "-o", "json"))
    assert report.verdict == "Failed", "a probe clears nothing"
    return [gpu.residue.nonzero_bytes for gpu in report.gpus if gpu.residue is not None]


@pytest.fixture
def dirty(machine: Machine) -> Machine:
    """A machine on whose GPU somebody left a secret."""
    with machine.start(WRITE, SECRET) as client:
        client.next_answer()
    return machine


def test_a_scrub_clears(dirty: Machine) -> None:
    done = scrub(dirty, "--local", "-o", "json")
    assert done.returncode == 0, done.stderr
    report = report_of(done)
    assert (report.verdict, len(report.gpus)) == ("Cleared", 1)
    assert residue(dirty) == [0]


def test_a_probe_finds_what_is_left_and_changes_nothing(dirty: Machine) -> None:
    done = scrub(dirty, "--local", "--probe-only")
    assert done.returncode == 1
    assert done.stdout.endswith(f"looked at, {LEFT} bytes of residue\n")
    assert residue(dirty) == residue(dirty) == [LEFT]


def test_a_probe_of_clean_memory_is_good(machine: Machine) -> None:
    assert scrub(machine, "--local").returncode == 0
    assert scrub(machine, "--local", "--probe-only").returncode == 0


@pytest.mark.parametrize("flags", [(), ("--probe-only",)], ids=["scrub", "probe"])
def test_a_gpu_in_use_is_left_alone(machine: Machine, flags: tuple[str, ...]) -> None:
    with machine.start(WRITE, SECRET) as client:
        client.next_answer()
        done = scrub(machine, "--local", "-o", "json", *flags)
        assert client.process.poll() is None
    assert done.returncode == 1
    gpu = report_of(done).gpus[0]
    assert (gpu.reason, gpu.residue) == ("LeftoverProcess", None)
    assert str(client.process.pid) in gpu.message


def test_a_process_is_killed_on_demand(machine: Machine) -> None:
    with machine.start(WRITE, SECRET) as client:
        client.next_answer()
        done = scrub(machine, "--local", "--kill", "-o", "json")
        assert client.process.wait() != 0
    assert done.returncode == 0, done.stderr
    assert [killed.pid for killed in report_of(done).gpus[0].killed] == [client.process.pid]


def test_it_says_local(machine: Machine) -> None:
    done = scrub(machine)
    assert done.returncode == 1
    assert "--local is missing" in done.stderr


def test_without_a_driver_it_says_so(machine: Machine) -> None:
    machine.environment["LD_LIBRARY_PATH"] = ""
    done = scrub(machine, "--local")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("lethe: NVML does not start")
    assert "Traceback" not in done.stderr


def test_the_report_is_the_scrub_pods(machine: Machine) -> None:
    report = report_of(scrub(machine, "--local", "-o", "json"))
    assert msgspec.json.decode(msgspec.json.encode(report), type=ScrubReport) == report
    assert (report.node_uid, report.epoch) == ("", 0), "no receipt can be made of it"
