"""What the operator counts, once it has been written: from actions and snapshots to metrics."""

from collections import Counter

from lethe.adapters.metrics import OperatorMetrics
from lethe.decisions.actions import IssueReceipt, Plan, WriteNodeStatus
from lethe.decisions.enrolment import is_unclassified
from lethe.decisions.receipts import is_leak, lowest_coverage
from lethe.decisions.snapshot import Snapshot
from lethe.model.phases import NodePhase


def count_world(metrics: OperatorMetrics, snapshot: Snapshot, plan: Plan) -> None:
    """Count what one cycle saw."""
    metrics.set_world(
        Counter(job.status.phase.value for job in snapshot.jobs.values()),
        Counter(node.status.phase.value for node in snapshot.gpu_nodes.values()),
        Counter(plan.waiting.values()),
    )
    metrics.set_gpu_nodes(snapshot.gpu_nodes)
    metrics.coverage_floor.set(snapshot.config.coverage_floor)
    metrics.unclassified_nodes.set(sum(is_unclassified(snapshot, name) for name in snapshot.nodes))


def count_scrub(metrics: OperatorMetrics, action: IssueReceipt, seconds: float) -> None:
    """Count a scrub whose receipt has just been created, so long after it began."""
    report = action.predicate.report
    metrics.residue_bytes.labels(action.node).inc(action.residue_bytes)
    metrics.leaks.labels(action.node).inc(is_leak(report))
    metrics.set_coverage(action.node, lowest_coverage(report))
    metrics.scrub_seconds.observe(seconds)
    for gpu in report.gpus:
        for step, spent in gpu.durations.items():
            metrics.scrub_step_seconds.labels(step).observe(spent)


def count_failure(metrics: OperatorMetrics, action: WriteNodeStatus) -> None:
    """Count a scrub that has not cleared its node, if that is what the ledger now says."""
    quarantine = action.status.quarantine
    if action.ledger.status.phase == NodePhase.SCRUBBING and quarantine is not None:
        metrics.scrub_failures.labels(action.node, quarantine.reason).inc()
