"""A job's life on a cluster with kubelets: how soon its node is Free again, and how often the operator writes.

1. Whole jobs, one after the other, each with a dataset and outputs, on a node with simulated GPUs of 64 MiB.
2. Both are read from the API server's audit log, whose times are finer than those of Kubernetes' objects. The end of
   the last container is the last line of its log: its status has whole seconds only.
3. Events are counted apart. The audit log leaves Leases out; their renewals are counted by a watch.
"""

import subprocess
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from threading import Timer

from lethe.model import names
from lethe.model.config import OperatorConfig
from tests.cluster.errors import ClusterError
from tests.cluster.progress import step
from tests.common.digits import make_canary, write_digits
from tests.common.objects import Object, find, find_all, phase, remove, wait_until
from tests.common.tenants import TrialTenant
from tests.common.world import World
from tests.performance.auditlog import OPERATOR, Entry, first_time, open_world, parse_time, read_entries, wait_for_rest
from tests.performance.report import Part, Row, median_row

JOBS = 5
GOAL_SECONDS, GOAL_WRITES = 10, 15
_RESYNCS = 2.1
_TENANT = "bench"
_COMMAND = ("echo", "done", ">", "/outputs/result")


@dataclass(frozen=True)
class _Run:
    """One job: when its last container ended, and when its node was Free again."""

    node: str
    scrub_pod: str
    ended: datetime
    free: datetime


def measure(folder: Path, part: Part) -> None:
    """Run the jobs, then watch the operator rest."""
    world, log = open_world()
    tenant = world.tenant(_TENANT)
    _set_up(tenant, folder)
    try:
        _run_job(world, tenant, "warm-up", log)
        wait_for_rest(log)
        begin = datetime.now(UTC)
        runs = []
        for number in range(JOBS):
            with step(f"Job {number + 1} of {JOBS}"):
                runs.append(_run_job(world, tenant, f"job-{number}", log))
        wait_for_rest(log)
        entries = list(read_entries(log, begin))
        _add_times(part, runs, entries)
        _add_writes(part, [entry for entry in entries if entry.user == OPERATOR])
        _add_rest(part, world, log)
    finally:
        for job in find_all(tenant.kubectl, "stj", _TENANT):
            remove(tenant.kubectl, "stj", job["metadata"]["name"], _TENANT)
        remove(tenant.kubectl, "tenant", _TENANT)
        remove(tenant.kubectl, "namespace", _TENANT)


def _set_up(tenant: TrialTenant, folder: Path) -> None:
    tenant.set_up()
    write_digits(folder / "images", make_canary())
    tenant.apply_dataset(tenant.seal(folder / "images"))


def _run_job(world: World, tenant: TrialTenant, name: str, log: Path) -> _Run:
    """Run a job to its end, and wait until its node is Free and the operator has let the job go."""
    kubectl = tenant.kubectl
    began = datetime.now(UTC)
    kubectl.apply([tenant.job(name, _COMMAND)])
    job = wait_until(kubectl, "stj", name, _is_released, tenant.name, what=f"the end of job {name}", seconds=180)
    if phase(job) != "Succeeded":
        raise ClusterError(f"Job {name} was to succeed, it is {phase(job)}: {job['status'].get('message')}.")
    node, pod = job["status"]["node"], job["status"]["pods"][-1]["name"]
    world.installation.wait_for_node(node, "Free")
    scrub_pod = find(kubectl, "gpunode", node)["status"]["scrub"]["podName"]  # type: ignore[index]
    lines = kubectl("logs", pod, f"--namespace={tenant.name}", "--all-containers", "--timestamps").splitlines()
    ended = max(parse_time(line.split()[0]) for line in lines)
    freed = [
        entry.time
        for entry in read_entries(log, began)
        if entry.resource == "gpunodes/status" and entry.name == node and entry.phase == "Free"
    ]
    return _Run(node=node, scrub_pod=scrub_pod, ended=ended, free=freed[-1])


def _is_released(job: Object) -> bool:
    return phase(job) in ("Succeeded", "Failed") and not job["metadata"].get("finalizers")


def _add_times(part: Part, runs: list[_Run], entries: list[Entry]) -> None:
    spans: dict[str, list[float]] = {}
    for run in runs:
        marks = _marks(run, entries)
        for (_, earlier), (what, later) in pairwise(marks):
            spans.setdefault(what, []).append((later - earlier).total_seconds())
    whole = [(run.free - run.ended).total_seconds() for run in runs]
    part.rows.append(median_row("last container's end to Free", "s", whole, GOAL_SECONDS))
    part.rows += [median_row(f"of it: {what}", "s", values) for what, values in spans.items()]


def _marks(run: _Run, entries: list[Entry]) -> list[tuple[str, datetime]]:
    """Return the steps from a job's last container to the Free node, in order, each with when it was done."""
    ours = [entry for entry in entries if run.ended <= entry.time <= run.free]

    marks = [
        ("", run.ended),
        ("the pod's end is told and the node set Draining", first_time(ours, "gpunodes/status", run.node, "Draining")),
        ("the fence is closed", first_time(ours, "rolebindings", names.grant(run.node))),
        ("it settles, and the end is proved: Dirty", first_time(ours, "gpunodes/status", run.node, "Dirty")),
        ("Dirty settles: Scrubbing", first_time(ours, "gpunodes/status", run.node, "Scrubbing")),
        ("the scrub pod is created", first_time(ours, "pods", run.scrub_pod)),
        ("its container runs", first_time(ours, "pods/status", run.scrub_pod, text='"running"')),
        ("it scrubs, and its end is told", first_time(ours, "pods/status", run.scrub_pod, text='"terminated"')),
        ("the receipt is written", first_time(ours, "scrubreceipts", f"{run.node}-{run.scrub_pod.rpartition('-')[2]}")),
        ("Free", run.free),
    ]
    return [(what, time) for what, time in marks if time is not None]


def _add_writes(part: Part, entries: list[Entry]) -> None:
    events = [entry for entry in entries if entry.resource == "events"]
    writes = Counter(f"{entry.verb} {entry.resource}" for entry in entries if entry.resource != "events")
    part.rows.append(
        Row(
            measure="writes of the operator for a job",
            value=sum(writes.values()) / JOBS,
            unit="writes",
            n=JOBS,
            goal=GOAL_WRITES,
        )
    )
    part.rows += [
        Row(measure=f"of them: {what}", value=count / JOBS, unit="writes", n=JOBS)
        for what, count in writes.most_common()
    ]
    part.rows.append(Row(measure="events for a job", value=len(events) / JOBS, unit="writes", n=JOBS))


def _add_rest(part: Part, world: World, log: Path) -> None:
    seconds = _RESYNCS * OperatorConfig(image="").resync_seconds
    begin = datetime.now(UTC)
    with step(f"Watching the operator rest for {seconds:.0f} s"):
        renewals = _count_renewals(world, seconds)
    written = [entry for entry in read_entries(log, begin) if entry.user == OPERATOR]
    part.rows.append(Row(measure=f"writes at rest, in {seconds:.0f} s", value=len(written), unit="writes", n=1, goal=0))
    part.rows.append(
        Row(measure=f"renewals of the Lease at rest, in {seconds:.0f} s", value=renewals, unit="writes", n=1)
    )
    part.notes.append(
        f"{JOBS} jobs with a dataset and outputs, one after the other; GPUs are simulated, of 64 MiB each. Time to "
        "Free counts from the last line in any container's log. Writes are those of the operator's account that were "
        "carried out, dry runs left out, from the first job's creation to the rest after the last."
    )


def _count_renewals(world: World, seconds: float) -> int:
    """Count the changes of Leases in Lethe's namespace during this time; the first lines show what there is."""
    kubectl = world.provider.kubectl()
    before = len(find_all(kubectl, "leases", names.SYSTEM_NAMESPACE))
    command = kubectl.command("get", "leases", f"--namespace={names.SYSTEM_NAMESPACE}", "--watch", "--no-headers")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as watching:
        timer = Timer(seconds, watching.terminate)
        timer.start()
        output, _ = watching.communicate()
        timer.cancel()
    return max(len(output.splitlines()) - before, 0)
