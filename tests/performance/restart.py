"""How long the operator needs after a start until it is consistent, and how much memory it takes.

Consistent means: a full cycle has succeeded, and the watch of every kind has told something. The operator is the real
process against a real API server; ledger, fence and objects agree, so it finds nothing to write.
"""

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from urllib.request import urlopen

import msgspec

from lethe.adapters.kube import Kube
from lethe.crypto.sign import Signer
from lethe.formats.receiptkeys import build_receipt_key, encode_receipt_keys
from lethe.model.config import OperatorConfig
from tests.apiserver.chart import install, program, render
from tests.apiserver.server import serve
from tests.cluster.folders import PROJECT
from tests.cluster.waiting import until
from tests.performance.finished import Size, add_nodes, fill
from tests.performance.report import Part, Row, quantile, quieten, spread

FINISHED = 5_000
RECEIPTS = 1_000
FEW_NODES, MANY_NODES = 100, 1_000
STARTS = 3
GOAL_SECONDS, GOAL_MEMORY = 10, 150
_PORT = 18080
_WATCHED_KINDS = 8
_CYCLES_AT_REST = 3
_KIBIBYTE = 1024


@dataclass(frozen=True)
class _Start:
    """One start of the operator."""

    seconds: float
    peak: float
    resident: float
    cycle: float
    writes: float


def measure(folder: Path, part: Part) -> None:
    """Start the operator a few times on an empty cluster and on a full one."""
    quieten()
    with serve(program("lethe-kube"), folder) as (client, kubeconfig):
        install(client, render())
        asyncio.run(_fill(kubeconfig, Size(jobs=1, nodes=1, receipts=1)))
        empty = _starts(folder, kubeconfig)
    other = folder / "full"
    other.mkdir()
    with serve(program("lethe-kube"), other) as (client, kubeconfig):
        install(client, render())
        asyncio.run(_fill(kubeconfig, Size(FINISHED, FEW_NODES, RECEIPTS)))
        _add_rows(part, f"{FEW_NODES:,} nodes", _starts(other, kubeconfig), empty)
        asyncio.run(_add_nodes(kubeconfig, range(FEW_NODES, MANY_NODES)))
        _add_rows(part, f"{MANY_NODES:,} nodes", _starts(other, kubeconfig), empty)
    part.notes.append(
        f"{FINISHED:,} finished jobs with their pods, {RECEIPTS:,} receipts, one job that runs. Beside: the same with "
        "one of each, nodes too. Python and its packages are in both."
    )


def _add_rows(part: Part, where: str, full: list[_Start], empty: list[_Start]) -> None:
    for measure, unit, attribute, goal in (
        ("start to consistent", "s", "seconds", GOAL_SECONDS),
        ("peak memory", "MB", "peak", GOAL_MEMORY),
        ("memory at rest", "MB", "resident", None),
        ("a cycle at rest", "s", "cycle", None),
        ("writes after the start", "", "writes", 0),
    ):
        values, beside = ([getattr(start, attribute) for start in starts] for starts in (full, empty))
        part.rows.append(
            Row(
                measure=f"{measure}, {where}",
                value=quantile(values, 0.5),
                unit=unit,
                n=len(values),
                spread=spread(values, unit),
                beside=quantile(beside, 0.5),
                goal=goal,
            )
        )


async def _add_nodes(kubeconfig: Path, numbers: range) -> None:
    async with await Kube.connect(str(kubeconfig)) as api:
        await add_nodes(api, numbers)


async def _fill(kubeconfig: Path, size: Size) -> None:
    async with await Kube.connect(str(kubeconfig)) as api:
        await fill(api, size)


def _starts(folder: Path, kubeconfig: Path) -> list[_Start]:
    """Start the operator a few times, after one start that is not counted and brings all statuses up to date."""
    return [_start(folder, kubeconfig) for _ in range(1 + STARTS)][1:]


def _start(folder: Path, kubeconfig: Path) -> _Start:
    """Start the operator, wait until it is consistent and then at rest, and end it."""
    began = monotonic()
    with _operator(folder, kubeconfig) as process:
        until(lambda: _is_consistent(), what="the operator to be consistent", seconds=120)
        seconds = monotonic() - began
        cycles = _metric("lethe_cycle_seconds_count")
        spent = _metric("lethe_cycle_seconds_sum")
        what = f"{_CYCLES_AT_REST} cycles at rest"
        until(lambda: _metric("lethe_cycle_seconds_count") >= cycles + _CYCLES_AT_REST, what=what, seconds=60)
        return _Start(
            seconds=seconds,
            peak=_memory(process, "VmHWM"),
            resident=_memory(process, "VmRSS"),
            cycle=(_metric("lethe_cycle_seconds_sum") - spent) / (_metric("lethe_cycle_seconds_count") - cycles),
            writes=_metric("lethe_writes_total"),
        )


@contextmanager
def _operator(folder: Path, kubeconfig: Path) -> Iterator[subprocess.Popen[bytes]]:
    config, key, trusted = folder / "operator.json", folder / "receipt.pem", folder / "receipt-keys.json"
    signer = Signer.generate()
    config.write_bytes(msgspec.json.encode(OperatorConfig(image="lethe:test", health_port=_PORT, resync_seconds=2)))
    key.write_bytes(signer.to_pem())
    trusted.write_text(encode_receipt_keys([build_receipt_key(signer.public_key, version=1)]))
    files = ["--config", config, "--receipt-key", key, "--receipt-trust", trusted]
    with (folder / "operator.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "lethe.operator_main", *files],
            env={**os.environ, "KUBECONFIG": str(kubeconfig), "PYTHONPATH": str(PROJECT / "operator")},
            stdout=log,
            stderr=log,
        )
        try:
            yield process
        finally:
            process.terminate()
            process.wait(30)


def _is_consistent() -> bool:
    told = [value for value in _metrics("lethe_last_event_timestamp_seconds") if value > 0]
    return _metric("lethe_last_cycle_timestamp_seconds") > 0 and len(told) == _WATCHED_KINDS


def _metric(name: str) -> float:
    return sum(_metrics(name))


def _metrics(name: str) -> list[float]:
    """Return a metric's values over all labels; none while the operator does not answer."""
    try:
        with urlopen(f"http://127.0.0.1:{_PORT}/metrics", timeout=30) as answer:
            text = answer.read().decode()
    except OSError:
        return []
    return [float(value) for value in re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", text, re.MULTILINE)]


def _memory(process: subprocess.Popen[bytes], field: str) -> float:
    """Return a figure of the kernel about a process, in MB."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    found = re.search(rf"^{field}:\s+(\d+) kB$", status, re.MULTILINE)
    assert found is not None, f"{field} is not told"
    return int(found[1]) * _KIBIBYTE / 1e6
