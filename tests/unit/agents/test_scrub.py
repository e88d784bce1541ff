"""The scrub's own process on the simulated driver: real libraries, real kernels; faults are in test_scrub_faults.py."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lethe.agents.kernels import ptx_sha256
from lethe.decisions.receipts import Cleared, NotCleared
from lethe.model import reasons
from tests.common.scrub_process import BOOT, Scrub, write_memory
from tests.simgpu.driver_root import write_parameters
from tests.simgpu.fixtures import Machine
from tests.simgpu.gpus import MULTIPROCESSORS, SHARED_BYTES

MIB = 16
SECRET_OFFSET = 8 << 20
CONTEXT_OFFSET = 300 << 10
"""Behind what the driver reserves: a fresh GPU's first context lies there."""


@pytest.fixture
def pair(make_machine: Callable[..., Machine]) -> Machine:
    """A machine with two GPUs; `machine` has one, which is quicker."""
    return make_machine(count=2, mib=MIB)


def test_a_fresh_node_is_cleared(pair: Machine, tmp_path: Path) -> None:
    report, clearance = Scrub(pair, tmp_path).run()
    assert clearance == Cleared(
        gpus=[gpu.uuid for gpu in pair.gpus],
        residue_bytes=0,
        coverage=1 - ((256 << 10) + 128) / (MIB << 20),  # the driver's reserve, the second process's counters
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


def test_what_lies_where_the_first_process_has_its_context_is_found_and_gone(machine: Machine, tmp_path: Path) -> None:
    write_memory(machine, 0, CONTEXT_OFFSET, b"x" * 160)
    report, clearance = Scrub(machine, tmp_path).run()
    assert isinstance(clearance, Cleared) and clearance.residue_bytes == 0
    leapfrog = report.gpus[0].leapfrog
    assert leapfrog is not None and leapfrog.residue is not None
    assert leapfrog.residue.nonzero_bytes == 160
    assert (leapfrog.bytes_context, leapfrog.bytes_left_over) == (512 << 10, 0)
    assert not any((machine.gpus[0].folder / "mem").read_bytes())


def test_shared_memory_of_every_multiprocessor_is_measured_and_wiped(machine: Machine, tmp_path: Path) -> None:
    file = machine.gpus[0].folder / "shared"
    memory = bytearray(file.stat().st_size)
    for number in range(MULTIPROCESSORS):
        memory[number * SHARED_BYTES + 4096 : number * SHARED_BYTES + 4096 + 8 * (number + 1)] = b"x" * 8 * (number + 1)
    file.write_bytes(memory)
    report, clearance = Scrub(machine, tmp_path).run()
    shared = report.gpus[0].shared
    assert shared is not None
    assert (shared.seen, shared.multiprocessors, shared.bytes_each) == ("f", MULTIPROCESSORS, 227 << 10)
    assert isinstance(clearance, Cleared) and clearance.residue_bytes == shared.residue_bytes == 8 * (1 + 2 + 3 + 4)
    assert not any(file.read_bytes())


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
    # The page that lies where the first process's counters come to lie: all but those is measured.
    assert isinstance(clearance, Cleared) and clearance.residue_bytes == 65536 - 128


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
