"""One process for each GPU, and a watchdog outside of it.

A driver call that hangs cannot be interrupted from within, and a broken GPU may end the process. So:

1. Each GPU is scrubbed by a process of its own, started afresh: a process forked from one that has used the driver
   cannot use it.
2. A worker sends its report after each step. When it ends without a last one, or is killed at the deadline, the report
   is what it reached, with the reason; the other GPUs go on.
3. A worker that does not even die waits inside the driver. It is left behind and named: only a reset helps.
"""

import multiprocessing
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

import msgspec

from lethe.agents.gpu_scrub import GpuScrub
from lethe.agents.kernels import load_ptx
from lethe.model import reasons
from lethe.model.errors import GpuError
from lethe.model.scrub import GpuReport

_DEATH_SECONDS = 10


@dataclass(frozen=True, kw_only=True)
class Task:
    """What one worker does."""

    start: GpuReport
    """Facts and killed processes; its verdict is Failed until the worker says otherwise."""
    nonce: str
    coverage_floor: float


class _Message(msgspec.Struct, frozen=True, kw_only=True):
    step: str
    """What begins now; empty in the last message."""
    report: GpuReport


@dataclass(kw_only=True)
class _Worker:
    process: SpawnProcess
    connection: Connection
    report: GpuReport
    step: str = "start"
    is_done: bool = False


def scrub_in_workers(tasks: list[Task], seconds: float, say: Callable[[str], None]) -> tuple[list[GpuReport], bool]:
    """Scrub GPUs side by side; return their reports, in the order of the tasks, and whether every worker has ended."""
    deadline = time.monotonic() + seconds
    workers = [_start(task) for task in tasks]
    while running := [worker for worker in workers if not worker.is_done]:
        ready = wait([worker.connection for worker in running], timeout=max(0.0, deadline - time.monotonic()))
        for worker in running:
            if worker.connection in ready:
                _receive(worker, say)
        if time.monotonic() >= deadline:
            break
    for worker in workers:
        if not worker.is_done:
            message = f"step {worker.step} had not ended after {seconds:.0f} s, when its process was killed"
            worker.report = _failed(worker.report, reasons.GPU_HANG, message)
            worker.process.kill()
    have_ended = all(_has_ended(worker.process) for worker in workers)
    return [worker.report for worker in workers], have_ended


def _start(task: Task) -> _Worker:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(task, theirs), name=task.start.facts.uuid, daemon=True)
    process.start()
    theirs.close()
    return _Worker(process=process, connection=ours, report=task.start)


def _receive(worker: _Worker, say: Callable[[str], None]) -> None:
    try:
        message = msgspec.json.decode(worker.connection.recv_bytes(), type=_Message)
    except EOFError:
        worker.process.join(_DEATH_SECONDS)
        worker.report = _failed(
            worker.report,
            reasons.DRIVER_ERROR,
            f"the worker process ended in step {worker.step} with exit code {worker.process.exitcode}: see the log",
        )
        worker.is_done = True
        return
    worker.step, worker.report, worker.is_done = message.step, message.report, not message.step
    name = message.report.facts.uuid
    say(f"{name}: {message.step}" if message.step else f"{name}: {_outcome(message.report)}")


def _outcome(report: GpuReport) -> str:
    if report.verdict == "Failed":
        return f"failed, {report.reason}: {report.message}"
    residue = report.residue.nonzero_bytes if report.residue else 0
    times = ", ".join(f"{name} {seconds:.3f} s" for name, seconds in report.durations.items())
    return (
        f"clear, {report.bytes_verified} of {report.bytes_total} bytes verified ({report.coverage:.2%}), {residue} "
        f"bytes of residue were found; {times}"
    )


def _work(task: Task, connection: Connection) -> None:
    """Scrub one GPU, in the worker process."""
    # Only here: the library takes the driver's settings from this process.
    from lethe.adapters.cuda import Gpu

    last = task.start

    def tell(step: str, report: GpuReport) -> None:
        nonlocal last
        last = report
        connection.send_bytes(msgspec.json.encode(_Message(step=step, report=report)))

    try:
        tell("open", task.start)
        gpu = Gpu(task.start.facts.uuid, load_ptx())
        report = GpuScrub(gpu, task.start, task.nonce, task.coverage_floor, tell).run()
    except GpuError as error:
        report = _failed(last, error.reason, str(error))
    tell("", report)


def _failed(report: GpuReport, reason: str, message: str) -> GpuReport:
    return msgspec.structs.replace(report, verdict="Failed", reason=reason, message=message)


def _has_ended(process: SpawnProcess) -> bool:
    process.join(_DEATH_SECONDS)
    return process.exitcode is not None
