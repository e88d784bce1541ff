"""Scrubs on a cluster with kubelets: from the scrub pod's creation to the receipt, as the API server's audit log tells.

A node is released and enrolled again, so that it is scrubbed without a job before; its GPUs are simulated.
"""

from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

from tests.cluster.errors import ClusterError
from tests.cluster.progress import step
from tests.common.objects import find
from tests.common.world import World
from tests.performance.auditlog import first_time, open_world, read_entries
from tests.performance.report import Part, median_row

SCRUBS = 5
GOAL_SECONDS = 10


def measure(folder: Path, part: Part) -> None:
    """Scrub a node again and again."""
    world, log = open_world()
    node = world.installation.gpu_nodes()[0].name
    spans: dict[str, list[float]] = {}
    for number in range(SCRUBS):
        with step(f"Scrub {number + 1} of {SCRUBS}"):
            marks = _scrub(world, node, log)
        spans.setdefault("pod creation to receipt", []).append((marks[-1][1] - marks[0][1]).total_seconds())
        for (_, earlier), (what, later) in pairwise(marks):
            spans.setdefault(f"of it: {what}", []).append((later - earlier).total_seconds())
    for what, values in spans.items():
        part.rows.append(median_row(what, "s", values, GOAL_SECONDS if what.startswith("pod") else None))
    part.notes.append(
        "Two simulated GPUs of 64 MiB; the image is on the node. The kubelet tells an end within a second."
    )


def _scrub(world: World, node: str, log: Path) -> list[tuple[str, datetime]]:
    """Have a Free node scrubbed once; return the steps in order, each with when it was done."""
    world.installation.cli("node", "release", node)
    world.installation.wait_for_node(node, "Unmanaged")
    began = datetime.now(UTC)
    world.installation.cli("node", "enrol", node)
    world.installation.wait_for_node(node, "Free")
    ledger = find(world.provider.kubectl(), "gpunode", node)
    assert ledger is not None
    pod, receipt = ledger["status"]["scrub"]["podName"], ledger["status"]["lastReceipt"]["name"]
    written = list(read_entries(log, began))
    times = {
        "the pod is created": first_time(written, "pods", pod),
        "its container runs": first_time(written, "pods/status", pod, text='"running"'),
        "it scrubs, and its end is told": first_time(written, "pods/status", pod, text='"terminated"'),
        "the report is read and the receipt written": first_time(written, "scrubreceipts", receipt),
    }
    if times["the pod is created"] is None or times["the report is read and the receipt written"] is None:
        raise ClusterError(f"The audit log does not tell of scrub pod {pod} and receipt {receipt}.")
    return [(what, time) for what, time in times.items() if time is not None]
