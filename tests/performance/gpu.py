"""The scrub on the GPU of this machine: what a process leaves, what can be covered, and how long it takes.

1. It scrubs with the product's own code, and ends no process of others: a GPU that is in use is refused.
2. A pass stands beside the time in which the GPU's memory could move as many bytes: NVML's greatest memory clock, twice
   a cycle, over the width of the bus.
"""

import secrets
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pynvml

from lethe.adapters.nvml import Nvml
from lethe.agents.host import HostPaths
from lethe.agents.passes import PAGE_BYTES, take_all
from lethe.agents.scrub import scrub_node
from lethe.model.agentconfig import ScrubConfig
from lethe.model.errors import GpuError
from lethe.model.ports import VideoMemory
from lethe.model.scrub import PASSES, GpuFacts, ScrubReport
from tests.cluster.errors import ClusterError
from tests.performance.report import Part, Row, median_row, quantile, spread
from tests.simgpu.compile_ptx import compile_ptx

ROUNDS = 5
GOAL_SHARE = 0.85
"""Of the greatest bandwidth."""
GOAL_SECONDS = 3
GOAL_BYTES = 80e9
_WRITTEN = 1 << 30
_SHARING = """
extern "C" __global__ void leave(unsigned long long words)
{
    extern __shared__ volatile unsigned long long cells[];
    for (unsigned long long i = threadIdx.x; i < words; i += blockDim.x)
        cells[i] = ~i;
}
"""
_FLOOR = 0.98


def find_gpu() -> GpuFacts:
    """Return the machine's first GPU; raise ClusterError when there is none, or somebody uses it."""
    try:
        with Nvml() as nvml:
            if nvml.gpu_count() == 0:
                raise ClusterError("The NVIDIA driver has no GPU: there is nothing to measure.")
            gpu = nvml.read_facts(0)
    except GpuError as error:
        raise ClusterError(f"This benchmark needs an NVIDIA GPU: {error}.") from error
    if gpu.processes:
        raise ClusterError(f"{gpu.processes} processes use {gpu.uuid}, and a scrub would end them: end them first.")
    return gpu


def measure_residue(folder: Path, part: Part) -> None:
    """Let a process write and end, and scrub."""
    written = min(_WRITTEN, find_gpu().memory_free // 2)
    _run_alone("write", str(written))
    report = _scrub()
    residue = report.gpus[0].residue
    part.rows.append(
        Row(
            measure="left by a process that has ended, beside what it wrote",
            value=(residue.nonzero_bytes if residue is not None else 0) / 1e6,
            unit="MB",
            n=1,
            beside=written / 1e6,
        )
    )
    claim = {True: "clears", False: "does not clear", None: "does not tell whether it clears"}
    part.notes.append(f"The driver, {report.driver}, {claim[report.driver_scrubs_on_free]} memory when it is freed.")


def measure_coverage(folder: Path, part: Part) -> None:
    """Take all memory through each allocator, and through both as the scrub does."""
    total = find_gpu().memory_total
    for what in _ALLOCATORS:
        taken = int(_run_alone("take", what))
        part.rows.append(
            Row(measure=f"taken through {what}, beside all", value=taken / 1e6, unit="MB", n=1, beside=total / 1e6)
        )
    report = _scrub()
    part.rows.append(
        Row(
            measure="verified by a scrub, beside all",
            value=report.gpus[0].coverage * total / 1e6,
            unit="MB",
            n=1,
            beside=total / 1e6,
        )
    )
    part.notes += [f"Not covered: {exclusion}." for exclusion in report.exclusions]


def measure_shared(folder: Path, part: Part) -> None:
    """Let a process write to shared memory and end, and scrub."""
    written = int(_run_alone("share", ""))
    shared = _scrub().gpus[0].shared
    assert shared is not None
    part.rows.append(
        Row(
            measure="shared memory left by a process that has ended, beside what it wrote",
            value=shared.residue_bytes / 1e6,
            unit="MB",
            n=1,
            beside=written / 1e6,
        )
    )
    part.notes.append(
        f"{shared.seen_count()} of {shared.multiprocessors} multiprocessors were seen, {shared.bytes_each} B each."
    )


def measure_times(folder: Path, part: Part) -> None:
    """Scrub again and again."""
    bandwidth = _greatest_bandwidth()
    whole, passes = [], {name: list[float]() for name in PASSES}
    for _ in range(ROUNDS):
        began = time.monotonic()
        report = _scrub()
        whole.append(time.monotonic() - began)
        for name, times in passes.items():
            times.append(1000 * report.gpus[0].durations[name])
    moved = report.gpus[0].bytes_held
    for name, times in passes.items():
        part.rows.append(
            Row(
                measure=f"{name}, beside its bytes at {bandwidth / 1e12:.2f} TB/s",
                value=quantile(times, 0.5),
                unit="ms",
                n=ROUNDS,
                spread=spread(times, "ms"),
                beside=1000 * moved / bandwidth,
                goal=round(1 / GOAL_SHARE, 2),
                goal_of="ratio",
            )
        )
    is_full_size = report.gpus[0].bytes_total >= GOAL_BYTES * 0.9
    part.rows.append(median_row("whole scrub of all GPUs", "s", whole, GOAL_SECONDS if is_full_size else None))
    part.notes.append(f"{moved / 1e9:.1f} GB were held, of {len(report.gpus)} GPUs each; medians of {ROUNDS} scrubs.")


def _scrub() -> ScrubReport:
    with Nvml() as nvml:
        count = nvml.gpu_count()
    config = ScrubConfig(
        node="bench",
        node_uid="",
        boot_id="",
        epoch=1,
        nonce=secrets.token_hex(32),
        gpu_count=count,
        coverage_floor=_FLOOR,
        timeout_seconds=120,
    )
    report, _ = scrub_node(config, HostPaths(), lambda sentence: None)
    if report.verdict != "Cleared":
        raise ClusterError(f"The scrub failed, {report.reason}: {report.message}.")
    return report


def _greatest_bandwidth() -> float:
    """Return bytes a second."""
    with Nvml():
        handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        clock = pynvml.nvmlDeviceGetMaxClockInfo(handle, pynvml.NVML_CLOCK_MEM)
        width = pynvml.nvmlDeviceGetMemoryBusWidth(handle)
    return float(2 * clock * 1e6 * width / 8)


# ---- in a process of its own, since a context goes only with its process


def _run_alone(*words: str) -> str:
    command = [sys.executable, "-m", "tests.performance.gpu", find_gpu().uuid, *words]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


def _main(gpu_uuid: str, deed: str, word: str) -> None:
    from lethe.adapters.cuda import Gpu
    from lethe.agents.kernels import load_ptx

    if deed == "share":
        gpu = Gpu(gpu_uuid, compile_ptx(_SHARING) + b"\0")
        gpu.launch_on_multiprocessors("leave", gpu.shared_bytes // 8)
        gpu.synchronize()
        print(gpu.shared_bytes * gpu.multiprocessors)
        return
    gpu = Gpu(gpu_uuid, load_ptx())
    if deed == "take":
        print(_ALLOCATORS[word](gpu))
        return
    length = int(word) // gpu.granularity * gpu.granularity
    piece = gpu.take_mapped(length)
    assert piece is not None
    gpu.launch("lethe_fill", piece.address, piece.length // 16, 0, 1)
    gpu.synchronize()


def _take_mapped(gpu: VideoMemory) -> int:
    taken, length = 0, gpu.free_bytes() // gpu.granularity * gpu.granularity
    while length > 0:
        if gpu.take_mapped(length) is None:
            length = length // 2 // gpu.granularity * gpu.granularity
        else:
            taken += length
    return taken


def _take_classic(gpu: VideoMemory) -> int:
    taken, length = 0, gpu.free_bytes() // PAGE_BYTES * PAGE_BYTES
    while length >= PAGE_BYTES:
        if gpu.take_classic(length) is None:
            length = length // 2 // PAGE_BYTES * PAGE_BYTES
        else:
            taken += length
    return taken


def _take_both(gpu: VideoMemory) -> int:
    return sum(piece.length for piece in take_all(gpu))


_ALLOCATORS: dict[str, Callable[[VideoMemory], int]] = {
    "cuMemCreate": _take_mapped,
    "cuMemAlloc": _take_classic,
    "both": _take_both,
}


if __name__ == "__main__":
    _main(*sys.argv[1:])
