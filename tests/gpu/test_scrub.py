"""A whole scrub of real GPUs, and what the next process finds."""

from pathlib import Path

import pytest

from lethe.agents.host import HostPaths
from lethe.decisions.receipts import Cleared
from lethe.model.scrub import GpuFacts, ScrubReport
from tests.common.scrub_process import Scrub
from tests.simgpu.fixtures import Machine
from tests.unit.simgpu.test_residue import WRITE_SECRET

pytestmark = pytest.mark.gpu

SECRET = "a secret of acme"
FLOOR = 0.98
_SECONDS = 120

COUNT_WORDS = """
    open_gpu()
    kernels, out = Kernels(), allocate(24)
    write_counters(out, 0, 0, 0)
    pieces = allocate_all(piece=1 << 30)
    for address, size in pieces:
        kernels.run("lethe_probe", address, size // WORD, out, grid=1024, block=256)
    answer(nonzero=read_counters(out, 1)[0], size=sum(size for _, size in pieces))
"""


def scrub(machine: Machine, folder: Path) -> tuple[ScrubReport, object]:
    """Scrub every GPU with the settings of a real installation."""
    parameters = HostPaths.driver / "params"
    if parameters.exists():
        (folder / "params").write_bytes(parameters.read_bytes())
    return Scrub(machine, folder, coverage_floor=FLOOR, timeout_seconds=_SECONDS).run()


def test_every_gpu_is_cleared(machine: Machine, gpus: list[GpuFacts], tmp_path: Path) -> None:
    report, clearance = scrub(machine, tmp_path)
    assert isinstance(clearance, Cleared), clearance
    assert sorted(clearance.gpus) == sorted(gpu.uuid for gpu in gpus)
    for gpu in report.gpus:
        assert gpu.mismatches == 0
        assert gpu.coverage >= FLOOR
        assert gpu.after is not None and gpu.after.processes == 0
        assert gpu.bytes_verified <= gpu.bytes_held <= gpu.bytes_total


def test_nothing_of_a_process_is_left_after_a_scrub(machine: Machine, tmp_path: Path) -> None:
    machine.run(WRITE_SECRET, SECRET)
    report, clearance = scrub(machine, tmp_path)
    assert isinstance(clearance, Cleared), clearance
    found = machine.run(COUNT_WORDS)
    assert found["nonzero"] == 0
    assert found["size"] >= FLOOR * report.gpus[0].facts.memory_free
    if report.driver_scrubs_on_free:
        assert clearance.residue_bytes == 0, "the driver says that it clears memory when it is freed, and did not"


def test_a_second_scrub_finds_nothing(machine: Machine, tmp_path: Path) -> None:
    for _ in range(2):
        _, clearance = scrub(machine, tmp_path)
        assert isinstance(clearance, Cleared), clearance
    assert clearance.residue_bytes == 0
