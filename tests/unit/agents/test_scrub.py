"""The scrub's own process on the simulated driver: real libraries, real kernels, one process for each GPU."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lethe.agents.kernels import ptx_sha256
from lethe.decisions.receipts import Cleared, NotCleared, decide_clearance
from lethe.formats.receipt import parse_report, parse_summary
from lethe.model import reasons
from lethe.model.agentconfig import ScrubConfig, encode
from lethe.model.scrub import ScrubReport, ScrubSummary
from tests.simgpu.driver_root import write_parameters
from tests.simgpu.fixtures import Machine

MIB = 16
FLOOR = 0.94  # a context takes 512 KiB, which is much of so small a GPU
SECRET_OFFSET = 8 << 20
BOOT = "6f0b9a52-0000-4000-8000-000000000001"


class Scrub:
    """A scrub process on a machine."""

    def __init__(self, machine: Machine, folder: Path, **changes: Any) -> None:
        self.machine, self.folder = machine, folder
        config = ScrubConfig(
            node="gpu-1",
            node_uid="node-uid",
            boot_id=BOOT,
            epoch=3,
            nonce="5a" * 32,
            gpu_count=len(machine.gpus),
            coverage_floor=FLOOR,
            timeout_seconds=60,
        )
        self.config = msgspec.structs.replace(config, **changes)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        (self.folder / "boot_id").write_text(BOOT + "\n")
        return subprocess.Popen(
            [
                *(sys.executable, "-m", "lethe.scrub_main", "--config", encode(self.config)),
                *("--boot-id-file", str(self.folder / "boot_id")),
                *("--termination-log", str(self.folder / "termination-log")),
                *arguments,
            ],
            env={**self.machine.environment, "LETHE_DRIVER_ROOT": str(self.folder)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finish(self, process: subprocess.Popen[str]) -> tuple[ScrubReport, ScrubSummary]:
        """Wait for the process; check that log, summary and exit status belong together."""
        log, progress = process.communicate(timeout=120)
        report, sha256 = parse_report(log.encode())
        summary = parse_summary((self.folder / "termination-log").read_text())
        assert log.count("\n") == 1
        assert progress.endswith(f"{report.message or report.verdict}\n")
        assert (summary.report_sha256, summary.verdict, summary.reason) == (sha256, report.verdict, report.reason)
        assert process.returncode == (0 if report.verdict == "Cleared" else 1)
        return report, summary

    def run(self) -> tuple[ScrubReport, Cleared | NotCleared]:
        """Run it and return the report, and what the operator makes of it."""
        with self.start() as process:
            report, summary = self.finish(process)
        return report, decide_clearance(report, summary.report_sha256, summary, self.config)


@pytest.fixture
def pair(make_machine: Callable[..., Machine]) -> Machine:
    """A machine with two GPUs; `machine` has one, which is quicker."""
    return make_machine(count=2, mib=MIB)


def write_memory(machine: Machine, number: int, offset: int, data: bytes) -> None:
    with (machine.gpus[number].folder / "mem").open("r+b") as memory:
        memory.seek(offset)
        memory.write(data)


def test_a_fresh_node_is_cleared(pair: Machine, tmp_path: Path) -> None:
    report, clearance = Scrub(pair, tmp_path).run()
    assert clearance == Cleared(
        gpus=[gpu.uuid for gpu in pair.gpus],
        residue_bytes=0,
        coverage=1 - ((768 << 10) + 32) / (MIB << 20),  # the driver's reserve, the context, the counters
        leak=False,
    )
    assert (report.boot_id, report.node_uid, report.epoch) == (BOOT, "node-uid", 3)
    assert report.ptx_sha256 == ptx_sha256()
    assert any("registers" in exclusion for exclusion in report.exclusions)
    for gpu in report.gpus:
        assert gpu.bytes_total == gpu.facts.memory_total == MIB << 20
        assert gpu.after is not None and gpu.after.memory_used == 0


def test_the_posture_of_the_node_is_reported(machine: Machine, tmp_path: Path) -> None:
    kernel = tmp_path / "kernel"
    for name, text in {"mm/ksm/run": "2\n", "security/lockdown": "none integrity [confidentiality]\n"}.items():
        (kernel / name).parent.mkdir(parents=True)
        (kernel / name).write_text(text)
    scrub = Scrub(machine, tmp_path)
    with scrub.start("--kernel-folder", str(kernel)) as process:
        report, _ = scrub.finish(process)
    found = report.posture
    assert found is not None
    assert (found.ksm, found.lockdown) == ("unmerged", "confidentiality")
    assert (found.kernel, found.driver) == (os.uname().release, report.driver)
    assert found.ecc is report.gpus[0].facts.ecc_enabled


def test_what_a_tenant_left_is_measured_and_gone(pair: Machine, tmp_path: Path) -> None:
    secret = b"secret of acme!!" * 5
    write_memory(pair, 1, SECRET_OFFSET, secret)
    write_memory(pair, 1, SECRET_OFFSET + (1 << 20), b"\x01")
    report, clearance = Scrub(pair, tmp_path).run()
    assert isinstance(clearance, Cleared) and clearance.residue_bytes == 6 * 16
    clean, dirty = (gpu.residue for gpu in report.gpus)
    assert clean is not None and clean.nonzero_bytes == 0
    assert dirty is not None and dirty.nonzero_pages == 2
    assert clean.digest != dirty.digest
    assert secret[:16].hex() not in msgspec.json.encode(report).decode()
    memory = (pair.gpus[1].folder / "mem").read_bytes()
    assert not any(memory)


def test_a_second_scrub_finds_nothing(machine: Machine, tmp_path: Path) -> None:
    write_memory(machine, 0, SECRET_OFFSET, os.urandom(4096))
    assert Scrub(machine, tmp_path).run()[1].residue_bytes == 4096
    assert Scrub(machine, tmp_path).run()[1].residue_bytes == 0


def test_residue_under_a_driver_that_claims_to_clear_is_a_leak(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "params").write_text('RegistryDwords: ""\n')
    write_memory(machine, 0, SECRET_OFFSET, b"x" * 16)
    report, clearance = Scrub(machine, tmp_path).run()
    assert report.driver_scrubs_on_free is True
    assert isinstance(clearance, Cleared) and clearance.leak


def test_the_simulated_driver_tells_that_it_does_not_clear(machine: Machine, tmp_path: Path) -> None:
    write_parameters(tmp_path, [gpu.folder for gpu in machine.gpus])
    write_memory(machine, 0, SECRET_OFFSET, b"x" * 16)
    report, clearance = Scrub(machine, tmp_path).run()
    assert report.driver_scrubs_on_free is False
    assert isinstance(clearance, Cleared) and not clearance.leak


FAULTS: list[Any] = [
    pytest.param({"bit_flip_offset": SECRET_OFFSET}, reasons.VERIFY_MISMATCH, id="bit flips after the pattern"),
    pytest.param(
        {"bit_flip_offset": SECRET_OFFSET, "bit_flip_after": "zero"}, reasons.VERIFY_MISMATCH, id="or after zeros"
    ),
    pytest.param({"stuck_offset": SECRET_OFFSET, "stuck_value": 7}, reasons.VERIFY_MISMATCH, id="stuck cell"),
    pytest.param({"out_of_memory_after": 10 << 20}, reasons.COVERAGE_TOO_LOW, id="not all memory to be had"),
    pytest.param({"out_of_memory_after": 512 << 10}, reasons.OUT_OF_MEMORY, id="only a context fits"),
    pytest.param({"out_of_memory_after": 1}, reasons.OUT_OF_MEMORY, id="not even a context"),
    pytest.param({"uncorrectable_ecc": 1}, reasons.ECC_UNCORRECTABLE, id="uncorrectable error"),
    pytest.param({"lost": 1}, reasons.GPU_LOST, id="lost"),
    pytest.param({"mig": 1}, reasons.MIG_ENABLED, id="MIG"),
    pytest.param({"remap_pending": 1}, reasons.RECOVERY_REQUIRED, id="remapped row waits for a reset"),
    pytest.param({"recovery_action": 2}, reasons.RECOVERY_REQUIRED, id="driver wants a reboot"),
]


@pytest.mark.parametrize(("faults", "reason"), FAULTS)
def test_a_fault_of_one_gpu_fails_the_node_and_the_other_is_reported(
    pair: Machine, tmp_path: Path, faults: dict[str, int | str], reason: str
) -> None:
    pair.set_faults(1, **faults)
    report, clearance = Scrub(pair, tmp_path).run()
    assert [gpu.verdict for gpu in report.gpus] == ["Cleared", "Failed"]
    assert report.gpus[1].reason == report.reason == reason
    assert isinstance(clearance, NotCleared) and clearance.reason == reason
    assert report.message


def test_a_driver_that_does_not_match_fails_without_gpus(pair: Machine, tmp_path: Path) -> None:
    pair.set_faults(0, driver_mismatch=1)
    report, clearance = Scrub(pair, tmp_path).run()
    assert (report.reason, report.gpus) == (reasons.DRIVER_MISMATCH, [])
    assert isinstance(clearance, NotCleared) and clearance.reason == reasons.DRIVER_MISMATCH


@pytest.mark.parametrize(
    "changes", [{"gpu_count": 1}, {"gpu_count": 3}, {"gpus": ["GPU-other", "GPU-another"]}], ids=str
)
def test_other_gpus_than_expected_fail_and_are_scrubbed(pair: Machine, tmp_path: Path, changes: dict[str, Any]) -> None:
    write_memory(pair, 0, SECRET_OFFSET, b"x" * 16)
    report, clearance = Scrub(pair, tmp_path, **changes).run()
    assert report.reason == reasons.GPU_SET_MISMATCH
    assert isinstance(clearance, NotCleared) and clearance.reason == reasons.GPU_SET_MISMATCH
    assert [gpu.verdict for gpu in report.gpus] == ["Cleared", "Cleared"]


def test_a_node_that_was_rebooted_meanwhile_is_not_cleared(machine: Machine, tmp_path: Path) -> None:
    scrub = Scrub(machine, tmp_path, boot_id="another boot")
    assert scrub.run()[1].reason == reasons.BOOT_MISMATCH


def test_a_process_that_still_holds_a_gpu_is_ended_and_named(machine: Machine, tmp_path: Path) -> None:
    leftover = """
        open_gpu()
        write(allocate(65536), b"secret of acme!!" * 4096)
        answer(ready=True)
        sys.stdin.readline()
    """
    with machine.start(leftover) as client:
        client.next_answer()
        report, clearance = Scrub(machine, tmp_path).run()
        assert client.process.wait() == -signal.SIGKILL
    assert [process.pid for process in report.gpus[0].killed] == [client.process.pid]
    assert report.gpus[0].facts.processes == 1
    # The page that lies where the scrubber's counters come to lie: all but those is measured.
    assert isinstance(clearance, Cleared) and clearance.residue_bytes == 65536 - 32


def read_until(process: subprocess.Popen[str], sentence: str) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if sentence in line:
            return
    raise AssertionError(f"the scrub ended without saying {sentence!r}")


def test_a_gpu_lost_during_the_scrub_is_called_lost(machine: Machine, tmp_path: Path) -> None:
    machine.set_faults(0, hang=1)
    scrub = Scrub(machine, tmp_path)
    with scrub.start() as process:
        read_until(process, f"{machine.gpus[0].uuid}: probe")
        machine.set_faults(0, lost=1)
        report, _ = scrub.finish(process)
    assert report.reason == reasons.GPU_LOST
    assert report.gpus[0].bytes_held > 0 and report.gpus[0].bytes_probed == 0


def test_a_gpu_that_hangs_is_given_up_at_the_deadline(machine: Machine, tmp_path: Path) -> None:
    machine.set_faults(0, hang=1)
    report, clearance = Scrub(machine, tmp_path, timeout_seconds=1).run()
    assert report.reason == reasons.GPU_HANG
    assert isinstance(clearance, NotCleared) and clearance.reason == reasons.GPU_HANG
    assert report.gpus[0].after is not None and report.gpus[0].after.memory_used == 0


def worker_on(machine: Machine, number: int) -> int:
    """Return the one process that holds a GPU, as NVML names it."""
    found = machine.run(f"""
        from lethe.adapters.nvml import Nvml
        with Nvml() as nvml:
            answer(pids=nvml.processes({number}))
    """)
    (pid,) = found["pids"]
    return int(pid)


def test_a_worker_that_dies_fails_its_gpu(pair: Machine, tmp_path: Path) -> None:
    pair.set_faults(1, hang=1)
    scrub = Scrub(pair, tmp_path)
    with scrub.start() as process:
        read_until(process, f"{pair.gpus[1].uuid}: probe")
        os.kill(worker_on(pair, 1), signal.SIGKILL)
        report, _ = scrub.finish(process)
    assert [gpu.verdict for gpu in report.gpus] == ["Cleared", "Failed"]
    assert report.reason == reasons.DRIVER_ERROR
    assert "exit code -9" in report.message


@pytest.mark.parametrize("config", ["", "{}"])
def test_a_bad_configuration_is_refused(machine: Machine, tmp_path: Path, config: str) -> None:
    with Scrub(machine, tmp_path).start("--config", config) as process:
        _, error = process.communicate(timeout=30)
    assert process.returncode == 2
    assert "not a scrub's configuration" in error


def test_a_short_nonce_is_refused(machine: Machine, tmp_path: Path) -> None:
    with Scrub(machine, tmp_path, nonce="5a").start() as process:
        _, error = process.communicate(timeout=30)
    assert process.returncode == 2
    assert "64 hex digits" in error
