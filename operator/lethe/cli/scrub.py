"""`lethe scrub --local`: the scrubber of the scrub pod on this machine's GPUs, without Kubernetes.

1. It signs nothing and issues no receipt: a report is as good as whoever ran it.
2. It ends nobody's processes unless told to: a GPU that is in use is refused.
3. `--probe-only` looks at memory that somebody else calls clean, and overwrites nothing but 128 bytes for its counters.
"""

import os
import platform
import sys
from typing import Annotated, Literal

import typer
from rich.filesize import decimal

from lethe.crypto.derive import random_bytes
from lethe.decisions.receipts import residue_bytes
from lethe.formats.receipt import encode_report
from lethe.model import reasons
from lethe.model.agentconfig import ScrubConfig
from lethe.model.errors import UsageError
from lethe.model.scrub import GpuReport, ScrubReport

_NONCE_BYTES = 32


def scrub(
    local: Annotated[bool, typer.Option("--local", help="This machine's GPUs, all of them.")] = False,
    probe_only: Annotated[bool, typer.Option("--probe-only", help="Look for residue; scrub nothing.")] = False,
    kill: Annotated[bool, typer.Option("--kill", help="End the processes that use a GPU.")] = False,
    coverage_floor: Annotated[float, typer.Option(min=0, max=1, help="Share of memory to be verified.")] = 0.98,
    timeout: Annotated[int, typer.Option(min=1, help="Seconds.")] = 120,
    output: Annotated[Literal["text", "json"], typer.Option("--output", "-o")] = "text",
) -> None:
    """Scrub this machine's GPUs, or look what is left in them. Exit status 1: not clear, or residue was found."""
    if not local:
        raise UsageError("--local is missing: GPU nodes of a cluster are scrubbed by the operator (`lethe node enrol`)")
    report, have_ended = _run(coverage_floor, timeout, probe_only=probe_only, kill=kill)
    if output == "json":
        sys.stdout.write(encode_report(report).decode() + "\n")
    else:
        _show(report)
    is_good = _is_clean(report) if probe_only else report.verdict == "Cleared"
    if not have_ended:
        # A worker that hangs in the driver cannot be waited for, and an ordinary exit would.
        sys.stdout.flush()
        os._exit(1)
    raise typer.Exit(0 if is_good else 1)


def _run(coverage_floor: float, timeout: int, *, probe_only: bool, kill: bool) -> tuple[ScrubReport, bool]:
    try:
        from lethe.adapters.nvml import Nvml
        from lethe.agents.host import HostPaths
        from lethe.agents.scrub import scrub_node
    except ImportError as error:
        raise UsageError(f"the GPU libraries are missing ({error}): pip install 'lethe-operator[scrub]'") from error
    with Nvml() as nvml:
        count = nvml.gpu_count()
    config = ScrubConfig(
        node=platform.node(),
        node_uid="",
        boot_id="",
        epoch=0,
        nonce=random_bytes(_NONCE_BYTES).hex(),
        gpu_count=count,
        coverage_floor=coverage_floor,
        timeout_seconds=timeout,
    )
    return scrub_node(config, HostPaths(), _say, kill=kill, probe_only=probe_only)


def _is_clean(report: ScrubReport) -> bool:
    """Say whether every GPU was looked at, and nothing found."""
    looked = [gpu for gpu in report.gpus if gpu.reason == reasons.PROBED_ONLY and gpu.residue is not None]
    return bool(looked) and len(looked) == len(report.gpus) and residue_bytes(report) == 0


def _show(report: ScrubReport) -> None:
    for gpu in report.gpus:
        print(f"{gpu.facts.uuid} ({gpu.facts.name}, {decimal(gpu.bytes_total)}): {_outcome(gpu)}")
    if report.reason and not report.gpus:
        print(f"{report.reason}: {report.message}")


def _outcome(gpu: GpuReport) -> str:
    if gpu.residue is None:
        return f"{gpu.reason}: {gpu.message}"
    found = f"{decimal(gpu.bytes_probed)} looked at, {gpu.residue.nonzero_bytes} bytes of residue"
    if gpu.reason == reasons.PROBED_ONLY:
        return found
    outcome = f"{gpu.reason}: {gpu.message}" if gpu.reason else gpu.verdict
    return f"{found}; {gpu.coverage:.2%} verified; {outcome}"


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)
