"""One cycle: from a Snapshot to a Plan.

1. Namespaces and accounts, so that tenants can have pods.
2. Validation of every job that waits, then admission.
3. Jobs before nodes: how a job ended is written before its node moves on.
4. Nodes, with what admission has promised.
5. The open list, marks on Nodes, and the pods that are open to exec.
6. Pods that nobody wants, last.
"""

from collections.abc import Iterable

from lethe.decisions.actions import Action, Plan
from lethe.decisions.admission import decide_admission, is_waiting
from lethe.decisions.custody import decide_node
from lethe.decisions.debug import decide_debug
from lethe.decisions.enrolment import decide_enrolment, decide_open_nodes
from lethe.decisions.lifecycle import decide_job
from lethe.decisions.orphans import decide_orphans
from lethe.decisions.snapshot import Key, Snapshot
from lethe.decisions.tenancy import decide_tenancy
from lethe.decisions.validation import Accepted, validate_job
from lethe.model.errors import ResourceError


def decide(snapshot: Snapshot) -> Plan:
    """Return everything that is to be done now."""
    actions: list[Action] = [*decide_tenancy(snapshot)]
    verdicts = {key: _verdict(snapshot, key) for key, job in snapshot.jobs.items() if is_waiting(job)}
    admission = decide_admission(
        snapshot, {key: verdict for key, verdict in verdicts.items() if isinstance(verdict, Accepted)}
    )
    again: list[float | None] = []
    unasked = ResourceError("", "")
    for key, job in snapshot.jobs.items():
        decision = decide_job(snapshot, job, verdicts.get(key, unasked), admission)
        actions += decision.actions
        again.append(decision.again_in)
    for node in snapshot.gpu_nodes.values():
        outcome = decide_node(snapshot, node, admission)
        actions += outcome.actions
        again.append(outcome.again_in)
    actions += decide_open_nodes(snapshot)
    actions += decide_enrolment(snapshot)
    actions += decide_debug(snapshot)
    actions += decide_orphans(snapshot)
    return Plan(
        actions=actions,
        again_in=_soonest(again),
        waiting={key: waiting.reason for key, waiting in admission.waiting.items()},
    )


def _verdict(snapshot: Snapshot, key: Key) -> Accepted | ResourceError:
    try:
        return validate_job(snapshot, snapshot.jobs[key])
    except ResourceError as error:
        return error


def _soonest(times: Iterable[float | None]) -> float | None:
    return min((time for time in times if time is not None), default=None)
