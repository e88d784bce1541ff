"""The scrub's own process on a machine with simulated GPUs."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec

from lethe.decisions.receipts import Cleared, NotCleared, decide_clearance
from lethe.formats.receipt import parse_report, parse_summary
from lethe.model.agentconfig import ScrubConfig, encode
from lethe.model.scrub import GpuReport, ScrubReport, ScrubSummary
from tests.common.scrubs import build_summary, report_sha256
from tests.simgpu.client import KERNELS
from tests.simgpu.faults import are_in_force, events_counted
from tests.simgpu.fixtures import Machine
from tests.simgpu.gpus import make_gpus
from tests.simgpu.libraries import client_environment

EVENTS = ("context", "allocation", *KERNELS)
FLOOR = 0.97  # what the driver reserves is much of a GPU of 16 MiB
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

    def judge(self, report: ScrubReport, gpu: GpuReport) -> Cleared | NotCleared:
        """Return what the operator makes of one GPU of a report, as if it were the node's only one."""
        reason = gpu.reason if gpu.verdict == "Failed" else ""
        alone = msgspec.structs.replace(report, gpus=[gpu], verdict=gpu.verdict, reason=reason)
        config = msgspec.structs.replace(self.config, gpu_count=1)
        return decide_clearance(alone, report_sha256(alone), build_summary(alone), config)

    def run(self) -> tuple[ScrubReport, Cleared | NotCleared]:
        """Run it and return the report, and what the operator makes of it."""
        with self.start() as process:
            report, summary = self.finish(process)
        return report, decide_clearance(report, summary.report_sha256, summary, self.config)


def write_memory(machine: Machine, number: int, offset: int, data: bytes) -> None:
    with (machine.gpus[number].folder / "mem").open("r+b") as memory:
        memory.seek(offset)
        memory.write(data)


def read_until(process: subprocess.Popen[str], sentence: str) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if sentence in line:
            return
    raise AssertionError(f"the scrub ended without saying {sentence!r}")


def count_events(libraries: Path, folder: Path, mib: int) -> dict[str, int]:
    """Return how many events of each kind a scrub without faults has on a GPU of this size."""
    root = folder / "gpus"
    machine = Machine(make_gpus(root, "node", len(EVENTS), mib), client_environment(libraries, root))
    for number, event in enumerate(EVENTS):
        machine.set_faults(number, strike_at=event, strike_after=10**9)
    assert isinstance(Scrub(machine, folder).run()[1], Cleared)
    return {event: events_counted(gpu.folder) for event, gpu in zip(EVENTS, machine.gpus, strict=True)}


def has_struck(machine: Machine, number: int) -> bool:
    """Say whether the faults of a GPU are in force."""
    return are_in_force(machine.gpus[number].folder)
