"""What a job's status says at its end; its whole life is in tests/simulation."""

from typing import Any

from msgspec.structs import replace

from lethe.decisions.actions import WriteJobStatus
from lethe.decisions.admission import Admission
from lethe.decisions.conditions import find_condition
from lethe.decisions.lifecycle import decide_job
from lethe.model import reasons
from lethe.model.errors import ResourceError
from lethe.model.names import JobUid, training_pod
from lethe.model.phases import JobPhase
from lethe.model.resources import JobStatus, Outputs, SecureTrainingJob, Storage
from tests.unit.decisions.worlds import LONG_AGO, facts, job, pod, world

NAME = training_pod("name-job-2", JobUid("job-2"), 1, 0)
POD = {"name": NAME, "uid": "pod-1", "node": "gpu-1", "bootId": "boot-1", "epoch": 3}


def running(**status: Any) -> SecureTrainingJob:
    """Return a job that ran, with outputs; its pod is gone."""
    made = job("Running", pods=[POD], **status)
    return replace(made, spec=replace(made.spec, outputs=Outputs(storage=Storage(url="s3://acme/m"), recipients=[])))


def ended(found: SecureTrainingJob, **changes: Any) -> JobStatus:
    """Return the status of a job after a decision about it."""
    accepted = ResourceError(reasons.SPEC_INVALID, "not asked")
    decision = decide_job(world(**changes), found, accepted, Admission(nodes={}, waiting={}))
    [written] = [action.status for action in decision.actions if isinstance(action, WriteJobStatus)]
    return written


def test_a_training_that_was_lost_points_to_what_was_sealed_while_it_ran() -> None:
    status = ended(running(startedAt=LONG_AGO))
    assert (status.phase, status.reason) == (JobPhase.FAILED, "PodLost")
    sealed = find_condition(status.conditions, "OutputsSealed")
    assert sealed is not None and (sealed.status, sealed.reason) == ("False", "OutputsLost")
    assert "the pod was lost; `lethe dataset ls --job acme/name-job-2` shows" in sealed.message


def test_one_that_never_began_points_to_nothing() -> None:
    assert find_condition(ended(running()).conditions, "OutputsSealed") is None


def test_a_pod_that_a_rebooted_node_refuses_was_lost_to_the_reboot() -> None:
    refused = pod(
        name=NAME, uid="pod-1", job_uid="job-2", phase="Failed", reason="UnexpectedAdmissionError",
        message="no healthy devices", containers={}, ended_by_kubelet=True,
    )  # fmt: skip
    for boot, message in (("boot-2", "gpu-1 was rebooted"), ("boot-1", "no healthy devices")):
        status = ended(running(startedAt=LONG_AGO), pods={"pod-1": refused}, nodes={"gpu-1": facts(boot_id=boot)})
        assert (status.phase, status.reason) == (JobPhase.FAILED, "PodLost")
        assert message in status.message
