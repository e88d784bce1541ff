"""The kill sweep on a real API server: every dangerous write of the operator, disturbed in every way.

`python -m tests.apiserver.sweep` disturbs each by itself; test_sweep.py all of them in one run of two tenants.
"""

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Any, Final

from lethe.model import names
from tests.apiserver.site import NODE, TENANTS, Site, open_site
from tests.common.measurements import report
from tests.simulation.faults import Fault, Request, at_first
from tests.simulation.quiet import quiet

HOWS: Final = (
    Fault.KILLED_BEFORE,
    Fault.KILLED_AFTER,
    Fault.CONFLICT,
    Fault.FAILED,
    Fault.TIMED_OUT,
    Fault.LOST_REPLY,
)


def _ledger(phase: str) -> Callable[[Request], bool]:
    return lambda request: request.plural == "gpunodes" and request.phase == phase


def _is(verb: str, plural: str, prefix: str = "") -> Callable[[Request], bool]:
    return lambda request: (request.verb, request.plural) == (verb, plural) and request.name.startswith(prefix)


def _patches(plural: str, path: str, value: Callable[[Any], bool]) -> Callable[[Request], bool]:
    return lambda request: (
        (request.verb, request.plural) == ("patch", plural)
        and isinstance(request.body, list)
        and any(each["path"] == path and value(each["value"]) for each in request.body)
    )


DANGEROUS: Final[dict[str, Callable[[Request], bool]]] = {
    "grant: the ledger": _ledger("Assigned"),
    "grant: the RoleBinding": _is("create", "rolebindings", names.grant(NODE)),
    "gate lifted": _patches("pods", "/spec/schedulingGates", lambda value: value == []),
    "fence closed: the ledger": _ledger("Draining"),
    "fence closed: the RoleBinding": _is("delete", "rolebindings"),
    "scrub begun": _ledger("Scrubbing"),
    "scrub pod created": _is("create", "pods", names.SCRUB_POD_PREFIX),
    "receipt created": _is("create", "scrubreceipts"),
    "node free": _ledger("Free"),
    "pod's finalizer removed": _patches("pods", "/metadata/finalizers", lambda value: names.POD_FINALIZER not in value),
    "job's finalizer removed": _patches(
        "securetrainingjobs", "/metadata/finalizers", lambda value: names.JOB_FINALIZER not in value
    ),
    "open list": _is("replace", "roles", names.OPEN_NODES_ACCOUNT),
}

EXPECTED: Final = {
    "node": "Free",
    "jobs": dict.fromkeys(TENANTS, ("Succeeded", 1, [])),
    "grants": [],
    "memory": {},
    "held": [],
    "receipt": True,
    "epochs": 2,
    "started": 2,
    "open": True,
}


async def disturb(site: Site, wanted: list[str], fault: Fault) -> str:
    """Run two tenants with a fault at the first of each of these writes; return what is wrong, or nothing."""
    before = len(site.faults.happened)
    summary = await site.run(at_first([DANGEROUS[name] for name in wanted], fault))
    if summary != EXPECTED:
        return f"the end is {summary}, expected {EXPECTED}"
    happened = len(site.faults.happened) - before
    return "" if happened == len(wanted) else f"{len(wanted)} writes were to be disturbed, and {happened} were"


async def sweep() -> list[tuple[str, Fault, str]]:
    """Disturb each dangerous write in each way; return what broke."""
    rows = []
    with TemporaryDirectory() as folder:
        async with open_site(Path(folder)) as site:
            for name in DANGEROUS:
                for fault in HOWS:
                    rows.append((name, fault, await disturb(site, [name], fault)))
                print(f"{name}: {len(HOWS)} faults", flush=True)
    return rows


def main() -> int:
    """Sweep, print a table, and write it down."""
    began = monotonic()
    with quiet():
        rows = asyncio.run(sweep())
    table = [f"| dangerous write | {' | '.join(HOWS)} |", "|---" * (len(HOWS) + 1) + "|"]
    for name in DANGEROUS:
        found = ["violated" if problem else "held" for other, _, problem in rows if other == name]
        table.append(f"| {name} | {' | '.join(found)} |")
    violations = [f"{fault} at {name}: {problem}" for name, fault, problem in rows if problem]
    told = f"On a real API server with the chart's policies, {len(rows)} runs, {monotonic() - began:.0f} s, "
    lines = [f"{told}{len(violations)} violations:", "", *table, *([""] if violations else []), *violations]
    report("sweep", "on a real API server", "Kill sweep", lines)
    print("\n".join(lines))
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
