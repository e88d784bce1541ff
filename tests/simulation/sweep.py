"""The kill sweep: a full run of two tenants, disturbed at every single write of the operator.

`python -m tests.simulation.sweep` does all of it and writes docs/measurements/sweep.md; the tests take a part.

1. The writes of an undisturbed run are recorded, events left out.
2. For each write and each fault the run is repeated, with that fault at that write.
3. Custody holds at every step of every run (`cluster`, `hosts`), and the end is the same as if nothing had happened:
   the same receipts, outcomes, phases and clean memory, and no training container started twice.
"""

import asyncio
import sys
from time import monotonic

from lethe.adapters import kube
from lethe.model import names
from tests.common.measurements import report
from tests.simulation.cluster import Cluster
from tests.simulation.faults import Fault, Faults, at_write
from tests.simulation.quiet import quiet

HOWS = (
    Fault.KILLED_BEFORE,
    Fault.KILLED_AFTER,
    Fault.CONFLICT,
    Fault.GONE,
    Fault.TOO_MANY,
    Fault.FAILED,
    Fault.TIMED_OUT,
    Fault.LOST_REPLY,
)


async def run_two_tenants(faults: Faults | None = None) -> Cluster:
    """Let two tenants' jobs follow each other on one node."""
    cluster = Cluster(faults)
    cluster.add_node("cpu-1", gpus=0)
    cluster.add_node("gpu-1")
    cluster.add_tenant("acme")
    cluster.add_tenant("globex")
    cluster.add_job("acme")
    cluster.clock.move(2)
    cluster.add_job("globex")
    await cluster.settle()
    return cluster


def summary(cluster: Cluster) -> object:
    """Return what must be the same whatever happened on the way."""
    receipts = [
        (receipt["spec"]["node"], receipt["spec"]["epoch"], receipt["spec"].get("tenant", ""))
        for receipt in cluster.server.all(kube.RECEIPT)
    ]
    jobs = {
        job["metadata"]["namespace"]: (
            job["status"]["phase"],
            job["status"]["attempt"],
            job["status"]["outputs"]["files"],
        )
        for job in cluster.server.all(kube.JOB_CR)
    }
    pods = sorted(
        (
            pod["metadata"]["name"].rpartition("-")[0][:20],
            pod["status"]["phase"],
            pod["metadata"].get("finalizers") or [],
        )
        for pod in cluster.server.all(kube.POD, labels=f"{names.LABEL_ROLE}={names.ROLE_TRAIN}")
    )
    return {
        "receipts": receipts,
        "jobs": jobs,
        "pods": pods,
        "grants": cluster.server.all(kube.ROLEBINDING, labels=f"{names.LABEL_ROLE}=grant"),
        "node": cluster.node_status("gpu-1")["phase"],
        "memory": cluster.memory,
        "ran": len(cluster.ran),
    }


async def sweep() -> list[tuple[Fault, int, list[str]]]:
    """Disturb every write in every way; return how often each, and what broke."""
    undisturbed = await run_two_tenants()
    expected = summary(undisturbed)
    writes = undisturbed.faults.writes
    rows = []
    for fault in HOWS:
        broken = []
        for number, write in enumerate(writes, start=1):
            try:
                cluster = await run_two_tenants(Faults(at_write(number, fault)))
                if summary(cluster) != expected:
                    broken.append(f"{fault} at write {number} ({write}): another end")
            except AssertionError as error:
                broken.append(f"{fault} at write {number} ({write}): {error}")
        rows.append((fault, len(writes), broken))
        print(f"{fault}: {len(writes)} writes, {len(broken)} violations", flush=True)
    return rows


def main() -> int:
    """Sweep, print a table, and write it down."""
    began = monotonic()
    with quiet():
        rows = asyncio.run(sweep())
    table = ["| at each write | writes | violations |", "|---|---|---|"]
    table += [f"| {fault} | {count} | {len(broken)} |" for fault, count, broken in rows]
    text = [f"In memory, {monotonic() - began:.0f} s:", "", *table]
    violations = [line for _, _, broken in rows for line in broken]
    report("sweep", "in memory", "Kill sweep", [*text, *([""] if violations else []), *violations])
    print("\n".join([*table, *violations]))
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
