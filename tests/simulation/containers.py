"""How the containers of simulated pods behave, and what a kubelet says about them."""

import json
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from lethe.adapters.kube import Object
from lethe.formats.quantity import format_time

_OUTPUTS: Final = {
    "datasetId": "ab" * 16,
    "index": {"object": "cd" * 16, "sha256": "ef" * 32},
    "files": 3,
    "bytes": 99,
    "url": "s3://results/digits/" + "ab" * 16,
}


@dataclass
class Behaviour:
    """How the containers of jobs and scrubs behave."""

    keyfetch: int = 0
    keyfetch_message: str = ""
    train: int = 0
    outputs: int = 0
    outputs_message: str = json.dumps(_OUTPUTS)
    endless: bool = False
    """Training goes on until it is killed."""
    scrub_changes: dict[str, Any] = field(default_factory=dict)
    """Changes of the scrub's report; a scrub that reports something else than it was told has cleared nothing."""
    scrub_fault: str = ""
    """`replay`: the report of an earlier scrub; `forge`: a log that is not what the container vouched for; `silent`: no
    report; `crash`: the container fails."""
    driver_scrubs: bool = False
    """What the driver says of itself: that it clears freed memory."""
    scrub_seconds: float = 0.0
    kubelets: bool = True


def terminated(now: datetime, code: int, message: str = "", reason: str = "") -> Object:
    """Return the state of a container that has just ended."""
    reason = reason or ("Completed" if code == 0 else "Error")
    return {
        "terminated": {"exitCode": code, "reason": reason, "message": message, "finishedAt": format_time(now)},
    }


def is_unknown(states: dict[str, Object]) -> bool:
    """Say whether the kubelet does not know how a container ended."""
    return any(state.get("terminated", {}).get("reason") == "ContainerStatusUnknown" for state in states.values())


def is_broken(states: dict[str, Object]) -> bool:
    """Say whether a container was killed, by a reboot for example: the others end too."""
    return any(state.get("terminated", {}).get("exitCode") == 137 for state in states.values())


def pod_status(states: dict[str, Object], inits: list[str], mains: list[str], phase: str) -> Object:
    """Build the status of a pod."""

    def entries(wanted: list[str]) -> list[Object]:
        return [
            {
                "name": name,
                "image": "image",
                "imageID": "image@sha256:00",
                "ready": False,
                "restartCount": 0,
                "state": states.get(name, {"waiting": {}}),
            }
            for name in wanted
        ]

    reason = {"Succeeded": "PodCompleted", "Failed": "PodFailed"}.get(phase, "ContainersNotReady")
    return {
        "phase": phase,
        "conditions": [{"type": "Ready", "status": "False", "reason": reason}],
        "initContainerStatuses": entries(inits),
        "containerStatuses": entries(mains),
    }
