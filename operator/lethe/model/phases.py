"""Phases of a job and of a GPU node. The transitions stand in `decisions.lifecycle` and `decisions.custody`."""

from enum import StrEnum


class JobPhase(StrEnum):
    """Where a SecureTrainingJob is."""

    QUEUED = "Queued"
    """Waits for a node, or for something that its message names."""
    ADMITTED = "Admitted"
    """Nodes are assigned; its pods exist and are bound or about to be."""
    RUNNING = "Running"
    """Keys were released and the training containers started."""
    SUSPENDED = "Suspended"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"

    @property
    def is_terminal(self) -> bool:
        """Say whether the job has ended for good."""
        return self in (JobPhase.SUCCEEDED, JobPhase.FAILED)


class NodePhase(StrEnum):
    """Where a GPU node is in its custody (custody.md, Ledger)."""

    UNMANAGED = "Unmanaged"
    DIRTY = "Dirty"
    SCRUBBING = "Scrubbing"
    FREE = "Free"
    ASSIGNED = "Assigned"
    DRAINING = "Draining"
    QUARANTINED = "Quarantined"
