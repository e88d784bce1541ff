"""Metrics of the operator, for Prometheus.

Gauges are set from each cycle's Snapshot as a whole, so that what has gone away disappears from them too.
"""

from collections.abc import Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_CYCLE_BUCKETS: Final = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30)


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

    def set_world(self, jobs: Mapping[str, int], nodes: Mapping[str, int], waiting: Mapping[str, int]) -> None:
        """Set the gauges that describe the world."""
        for gauge, counts in ((self._jobs, jobs), (self._nodes, nodes), (self._waiting, waiting)):
            gauge.clear()
            for label, count in counts.items():
                gauge.labels(label).set(count)

    def render(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self._registry)
