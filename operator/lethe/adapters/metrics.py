"""Metrics of the operator, for Prometheus.

1. Gauges that describe the world are set from each cycle's Snapshot as a whole, so that what has gone away disappears
   from them too.
2. What a scrub found is counted once its receipt has been created, a failure once the quarantine is in the ledger: not
   before, and not again when the write is repeated.
3. Counters of a node begin with 0 when it is first seen. Prometheus does not see an increase in a series' first value.
"""

from collections.abc import Collection, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_CYCLE_BUCKETS: Final = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30)
_SCRUB_BUCKETS: Final = (1, 2, 3, 5, 7.5, 10, 15, 20, 30, 60, 120, 300, 600)
_STEP_BUCKETS: Final = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100)


class OperatorMetrics:
    """What the operator counts."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.cycle_seconds = Histogram(
            "lethe_cycle_seconds",
            "Time of one cycle: reads and writes",
            buckets=_CYCLE_BUCKETS,
            registry=self._registry,
        )
        self.writes = Counter(
            "lethe_writes_total", "Actions that were carried out", ["action"], registry=self._registry
        )
        self.errors = Counter(
            "lethe_errors_total", "Actions and cycles that failed", ["error"], registry=self._registry
        )
        self.residue_bytes = Counter(
            "lethe_residue_bytes_total", "Bytes that scrubs found in GPU memory", ["node"], registry=self._registry
        )
        self.leaks = Counter(
            "lethe_leaks_total",
            "Scrubs that found residue although the driver says that it clears freed memory",
            ["node"],
            registry=self._registry,
        )
        self.scrub_failures = Counter(
            "lethe_scrub_failures_total",
            "Scrubs that did not clear their node, by why",
            ["node", "reason"],
            registry=self._registry,
        )
        self.scrub_seconds = Histogram(
            "lethe_scrub_seconds",
            "Time of a scrub that cleared its node: from before its pod is created until its receipt is",
            buckets=_SCRUB_BUCKETS,
            registry=self._registry,
        )
        self.scrub_step_seconds = Histogram(
            "lethe_scrub_step_seconds",
            "Time of each step of a scrub, of one GPU",
            ["step"],
            buckets=_STEP_BUCKETS,
            registry=self._registry,
        )
        self._coverage = Gauge(
            "lethe_scrub_coverage_ratio",
            "Share of memory that the last scrub of a node verified, of the GPU with the smallest",
            ["node"],
            registry=self._registry,
        )
        self.coverage_floor = Gauge(
            "lethe_scrub_coverage_floor_ratio", "Smallest share that clears a node", registry=self._registry
        )
        self.blind_watches = Gauge(
            "lethe_blind_watches", "Kinds whose watch tells nothing of what cycles read", registry=self._registry
        )
        self.unclassified_nodes = Gauge(
            "lethe_unclassified_nodes",
            "Nodes that are neither open to everybody nor in a ledger that can be read: closed, and nothing happens",
            registry=self._registry,
        )
        self.last_cycle = Gauge(
            "lethe_last_cycle_timestamp_seconds", "When the last cycle succeeded", registry=self._registry
        )
        self.last_event = Gauge(
            "lethe_last_event_timestamp_seconds", "When a watch last told something", ["kind"], registry=self._registry
        )
        self.leader = Gauge(
            "lethe_leader", "1 on the replica that holds the Lease, 0 on one that waits", registry=self._registry
        )
        self._jobs = Gauge(
            "lethe_jobs", "Jobs that are not over and released, by phase", ["phase"], registry=self._registry
        )
        self._nodes = Gauge("lethe_gpu_nodes", "GPU nodes by phase", ["phase"], registry=self._registry)
        self._waiting = Gauge("lethe_waiting_jobs", "Waiting jobs by reason", ["reason"], registry=self._registry)

        self._covered: set[str] = set()
        """Nodes in the gauge of coverage."""

    def set_coverage(self, node: str, coverage: float) -> None:
        """Set what the last scrub of a node reached."""
        self._covered.add(node)
        self._coverage.labels(node).set(coverage)

    def set_gpu_nodes(self, names: Collection[str]) -> None:
        """Begin the counters of nodes that are new, and forget the coverage of those that are gone."""
        for name in names:
            self.residue_bytes.labels(name)
            self.leaks.labels(name)
        for gone in self._covered.difference(names):
            self._coverage.remove(gone)
        self._covered.intersection_update(names)

    def set_world(self, jobs: Mapping[str, int], nodes: Mapping[str, int], waiting: Mapping[str, int]) -> None:
        """Set the gauges that describe the world."""
        for gauge, counts in ((self._jobs, jobs), (self._nodes, nodes), (self._waiting, waiting)):
            gauge.clear()
            for label, count in counts.items():
                gauge.labels(label).set(count)

    def render(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self._registry)
