"""What proves that a pod has ended, case by case (custody.md, Proof)."""

from typing import Any

import pytest

from lethe.decisions.proof import has_kubelet_proof
from lethe.decisions.snapshot import ContainerFacts, PodFacts

ENDED = ContainerFacts(state="terminated", reason="Completed")
KILLED = ContainerFacts(state="terminated", reason="Error", exit_code=137)
UNKNOWN = ContainerFacts(state="terminated", reason="ContainerStatusUnknown", exit_code=137)
RUNNING = ContainerFacts(state="running")
WAITING = ContainerFacts(state="waiting", reason="PodInitializing")
DELETING = {"deletion_timestamp": "2030-01-01T00:00:00Z"}


def pod(**changes: Any) -> PodFacts:
    given: dict[str, Any] = {
        "name": "p",
        "namespace": "acme",
        "uid": "u",
        "resource_version": "1",
        "role": "train",
        "node": "gpu-1",
        "phase": "Succeeded",
        "containers": {"train": ENDED},
        **changes,
    }
    return PodFacts(**given)


@pytest.mark.parametrize(
    ("facts", "proved"),
    [
        (pod(), True),
        (pod(phase="Failed", containers={"train": KILLED}), True),
        (pod(phase="Failed", containers={"keyfetch": KILLED, "train": WAITING}, ended_by_kubelet=True), True),
        (pod(phase="Failed", containers={}, ended_by_kubelet=True), True),
        (pod(phase="Failed", containers={"keyfetch": ENDED, "train": WAITING}), False),
        (pod(phase="Failed", containers={"keyfetch": WAITING, "train": WAITING}), False),
        (pod(phase="Failed", containers={}), False),
        (pod(phase="Failed", containers={"train": RUNNING}, ended_by_kubelet=True), False),
        (pod(phase="Failed", containers={"train": UNKNOWN}, ended_by_kubelet=True), False),
        (pod(phase="Running", containers={"train": RUNNING}), False),
        (pod(phase="Running", containers={"train": ENDED, "outputs": RUNNING}), False),
        (pod(phase="Running", containers={"train": ENDED}), False),
        (pod(phase="Failed", containers={"train": UNKNOWN}), False),
        (pod(phase="Failed", containers={"train": ENDED, "outputs": UNKNOWN}), False),
        (pod(phase="Failed", containers={"train": RUNNING}), False),
        (pod(phase="Failed", collected=True), False),
        (pod(phase="Running", containers={"train": RUNNING}, **DELETING), False),
        (pod(phase="Pending", containers={}, **DELETING), False),
        (pod(phase="Pending", containers={}, node=""), False),
        (pod(phase="Pending", containers={}, node="", **DELETING), True),
        (pod(phase="Failed", containers={}, node=""), True),
    ],
    ids=[
        "succeeded",
        "killed by the kubelet",
        "an init container failed, the rest never started",
        "refused by the kubelet before anything started",
        "declared dead by nobody knows whom, before its container was reported",
        "declared dead by nobody knows whom, before any container was reported",
        "declared dead by nobody knows whom, before the kubelet said anything",
        "the kubelet contradicts itself",
        "the kubelet says that it ended, and not how",
        "running",
        "the sidecar still runs",
        "all ended, but the kubelet has not said so of the pod",
        "the kubelet does not know how it ended",
        "the kubelet does not know how the sidecar ended",
        "a terminal phase with a running container",
        "declared dead by the garbage collector",
        "being deleted, still running",
        "bound, being deleted, nothing reported",
        "not bound, may still be",
        "not bound, and never will be",
        "not bound, ended",
    ],
)
def test_proof(facts: PodFacts, proved: bool) -> None:
    assert has_kubelet_proof(facts) is proved
