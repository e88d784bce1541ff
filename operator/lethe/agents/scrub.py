"""The scrub of a node: every GPU it has, and one report about all of them (scrub.md, Scrub pod).

In order
 1. Read the node's boot id, the driver and every GPU. A GPU that does not answer is reported, not skipped.
 2. Compare the GPUs with what the operator expects: their number, and the UUIDs of the last verified scrub. A
    difference fails the scrub, and what is there is scrubbed all the same.
 3. MIG enabled: refuse that GPU. One slice's scrub says nothing about the others. A compute mode that lets only one
    process in: refuse it too, since its scrub takes two at a time.
 4. End the processes that hold a GPU.
 5. Scrub the GPUs side by side.
 6. Read every GPU again: lost, in need of recovery, new memory errors, or held again is a failure whatever the worker
    says. A lost GPU is called lost, not what its worker made of it.

The node is clear only if every GPU is. It signs nothing: whoever reads the report decides what it is worth.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Final

import msgspec

from lethe.adapters.nvml import EXCLUSIVE_COMPUTE_MODES, Nvml, needs_recovery
from lethe.agents.eviction import evict, refuse
from lethe.agents.gpu_scrub import EXCLUSIONS
from lethe.agents.host import HostPaths, read_boot_id, read_scrubs_on_free
from lethe.agents.kernels import ptx_sha256
from lethe.agents.posture import read_posture
from lethe.agents.workers import Task, scrub_in_workers
from lethe.model import reasons
from lethe.model.agentconfig import ScrubConfig
from lethe.model.errors import GpuError
from lethe.model.scrub import GpuFacts, GpuReport, ScrubReport

_EVICTION_SECONDS: Final = 20.0
_DISTRIBUTION: Final = "lethe-operator"
_ADVICE: Final = {
    reasons.GPU_LOST: "reset or replace the GPU, or reboot the node",
    reasons.GPU_HANG: "reset the GPU or reboot the node",
    reasons.ECC_UNCORRECTABLE: "reset the GPU, which remaps the row, or replace it",
    reasons.RECOVERY_REQUIRED: "reset the GPU or reboot the node",
    reasons.DRIVER_MISMATCH: "load the kernel driver that matches the libraries, on the drained node",
    reasons.DRIVER_ERROR: "look at the kernel log for NVRM messages, then reset the GPU or reboot the node",
    reasons.VERIFY_MISMATCH: "replace the GPU",
    reasons.SHARED_MEMORY_MISMATCH: "replace the GPU",
    reasons.MULTIPROCESSORS_MISSED: "reset the GPU or reboot the node, and look who else uses the GPU",
    reasons.LEAPFROG_FAILED: "look at the scrub pod's log and for other users of the GPU, then scrub again",
    reasons.COMPUTE_MODE_EXCLUSIVE: "set the compute mode Default (nvidia-smi -c 0)",
    reasons.MIG_ENABLED: "disable MIG and reset the GPU",
}
"""What to do about a reason, where its sentence does not say."""


def scrub_node(
    config: ScrubConfig, paths: HostPaths, say: Callable[[str], None], *, kill: bool = True, probe_only: bool = False
) -> tuple[ScrubReport, bool]:
    """Scrub every GPU of this node; return the report, and whether every worker process has ended.

    Without `kill`, a GPU that somebody holds fails. With `probe_only` nothing is overwritten, and nothing cleared.
    Nothing of it raises for a fault of the driver or of a GPU: the report says so.
    """
    deadline = time.monotonic() + config.timeout_seconds
    report = _empty_report(config)
    have_ended = True
    try:
        report = msgspec.structs.replace(report, boot_id=read_boot_id(paths))
        with Nvml() as nvml:
            driver = nvml.driver_version()
            report = msgspec.structs.replace(
                report,
                driver=driver,
                cuda=nvml.cuda_version(),
                driver_scrubs_on_free=read_scrubs_on_free(paths, driver),
            )
            gpus = [_read_gpu(nvml, index) for index in range(nvml.gpu_count())]
            say(f"{len(gpus)} GPUs, driver {driver}, {config.gpu_count} GPUs expected")
            gpus = [_prepare(nvml, index, gpu, paths, kill, say) for index, gpu in enumerate(gpus)]
            gpus, have_ended = _scrub_ready(gpus, config, deadline, probe_only, say)
            gpus = [_look_again(nvml, index, gpu) for index, gpu in enumerate(gpus)]
            posture = read_posture(paths, driver, report.driver_scrubs_on_free, [gpu.facts for gpu in gpus])
            report = msgspec.structs.replace(report, gpus=gpus, posture=posture)
        reason, message = _judge(gpus, config)
    except GpuError as error:
        reason, message = error.reason, _advised(error.reason, str(error))
    return (
        msgspec.structs.replace(
            report, finished_at=_now(), verdict="Failed" if reason else "Cleared", reason=reason, message=message
        ),
        have_ended,
    )


def _empty_report(config: ScrubConfig) -> ScrubReport:
    now = _now()
    return ScrubReport(
        node=config.node,
        node_uid=config.node_uid,
        boot_id="",
        epoch=config.epoch,
        nonce=config.nonce,
        started_at=now,
        finished_at=now,
        lethe_version=_lethe_version(),
        ptx_sha256=ptx_sha256(),
        gpus=[],
        exclusions=list(EXCLUSIONS),
        verdict="Failed",
    )


def _read_gpu(nvml: Nvml, index: int) -> GpuReport:
    try:
        facts = nvml.read_facts(index)
    except GpuError as error:
        unknown = GpuFacts(uuid="", name=f"GPU {index}", memory_total=0, memory_used=0, memory_free=0)
        return GpuReport(facts=unknown, verdict="Failed", reason=error.reason, message=str(error))
    return GpuReport(facts=facts, verdict="Failed", bytes_total=facts.memory_total)


def _is_ready(gpu: GpuReport) -> bool:
    """Say whether a GPU is still to be scrubbed: nothing has failed."""
    return not gpu.reason


def _prepare(
    nvml: Nvml, index: int, gpu: GpuReport, paths: HostPaths, kill: bool, say: Callable[[str], None]
) -> GpuReport:
    """Refuse MIG and end the processes on a GPU, or refuse a GPU with processes."""
    if not _is_ready(gpu):
        return gpu
    if gpu.facts.mig_enabled:
        return _failed(gpu, reasons.MIG_ENABLED, "MIG is enabled, and a slice's scrub says nothing about the others")
    if gpu.facts.compute_mode in EXCLUSIVE_COMPUTE_MODES:
        return _failed(
            gpu,
            reasons.COMPUTE_MODE_EXCLUSIVE,
            f"the compute mode is {gpu.facts.compute_mode}, and the scrub's second process opens its context while the "
            "first still has one",
        )

    def holders() -> list[int]:
        return nvml.processes(index)

    try:
        killed = evict(holders, paths.proc, _EVICTION_SECONDS) if kill else refuse(holders, paths.proc)
    except GpuError as error:
        return _failed(gpu, error.reason, str(error))
    for process in killed:
        pod = f" of pod {process.pod_uid}" if process.pod_uid else ""
        say(f"{gpu.facts.uuid}: killed process {process.pid} ({process.name}){pod}, which held it")
    return msgspec.structs.replace(gpu, killed=killed)


def _scrub_ready(
    gpus: list[GpuReport], config: ScrubConfig, deadline: float, probe_only: bool, say: Callable[[str], None]
) -> tuple[list[GpuReport], bool]:
    tasks = [
        Task(start=gpu, nonce=config.nonce, coverage_floor=config.coverage_floor, probe_only=probe_only)
        for gpu in gpus
        if _is_ready(gpu)
    ]
    reports, have_ended = scrub_in_workers(tasks, max(0.0, deadline - time.monotonic()), say)
    scrubbed = iter(reports)
    return [next(scrubbed) if _is_ready(gpu) else gpu for gpu in gpus], have_ended


def _look_again(nvml: Nvml, index: int, gpu: GpuReport) -> GpuReport:
    """Read a GPU once everything is freed, and fail it for what shows only now."""
    if gpu.reason == reasons.GPU_LOST:
        return gpu
    try:
        after = nvml.read_facts(index)
    except GpuError as error:
        return _failed(gpu, error.reason, str(error))
    gpu = msgspec.structs.replace(gpu, after=after)
    if gpu.verdict == "Failed":
        return gpu
    if (after.ecc_uncorrected or 0) > (gpu.facts.ecc_uncorrected or 0):
        return _failed(
            gpu,
            reasons.ECC_UNCORRECTABLE,
            f"uncorrected memory errors grew from {gpu.facts.ecc_uncorrected or 0} to {after.ecc_uncorrected}",
        )
    if demand := needs_recovery(after):
        return _failed(gpu, reasons.RECOVERY_REQUIRED, demand)
    if after.processes:
        return _failed(gpu, reasons.LEFTOVER_PROCESS, f"{after.processes} processes held it when the scrub ended")
    return gpu


def _judge(gpus: list[GpuReport], config: ScrubConfig) -> tuple[str, str]:
    """Return reason and message of the node's failure, both empty when every GPU is clear."""
    for gpu in gpus:
        if gpu.verdict == "Failed":
            return gpu.reason, _advised(gpu.reason, f"{gpu.facts.uuid or gpu.facts.name}: {gpu.message}")
    found = sorted(gpu.facts.uuid for gpu in gpus)
    if len(found) != config.gpu_count or not found:
        return reasons.GPU_SET_MISMATCH, (
            f"NVML has {len(found)} GPUs ({', '.join(found) or 'none'}), the node's capacity is {config.gpu_count}: "
            "give the scrub pod every GPU, or repair the node"
        )
    if config.gpus and found != sorted(config.gpus):
        return reasons.GPU_SET_MISMATCH, (
            f"the node has the GPUs {', '.join(found)}, its last scrub saw {', '.join(sorted(config.gpus))}: confirm "
            "the change"
        )
    return "", ""


def _advised(reason: str, message: str) -> str:
    return f"{message}; {_ADVICE[reason]}" if reason in _ADVICE else message


def _failed(gpu: GpuReport, reason: str, message: str) -> GpuReport:
    return msgspec.structs.replace(gpu, verdict="Failed", reason=reason, message=message)


def _lethe_version() -> str:
    try:
        return version(_DISTRIBUTION)
    except PackageNotFoundError:
        return "unreleased"


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
