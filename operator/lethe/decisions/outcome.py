"""What a training pod's containers say: how far it is, and how it ended.

1. A job has succeeded only when every container of the tenant ended with 0 and, if it has outputs, the sidecar ended
   with 0 and left the outputs' index in its message.
2. What failed first in the order key fetch, tenant's containers, outputs names the reason.
"""

from datetime import datetime
from typing import Any, Final

import msgspec

from lethe.decisions.snapshot import ContainerFacts, PodFacts
from lethe.formats.quantity import seconds_between
from lethe.model import reasons
from lethe.model.agentconfig import OutputsMessage
from lethe.model.names import CONTAINER_KEYFETCH, CONTAINER_OUTPUTS
from lethe.model.resources import SealedOutputs, SecureTrainingJob

_SLOW_SECONDS: Final = 3
"""A key fetch, or the sealing of outputs, that takes less is not told: each step that is told is a write."""
_NORMAL_WAITS = ("", "ContainerCreating", "PodInitializing")


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a pod is that has not ended."""

    reason: str
    message: str
    keys_released: bool = False
    is_training: bool = False
    is_usual: bool = False
    """A step on the usual way, mostly short: the next one follows, and nobody reads this one."""
    since: str = ""
    """When such a step began, for one that is told once it has lasted."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How a pod ended."""

    succeeded: bool
    reason: str
    message: str
    keys_released: bool = False
    keys_refused: bool = False
    outputs: SealedOutputs | None = None
    outputs_reason: str = ""
    outputs_message: str = ""


def has_trained(pod: PodFacts) -> bool:
    """Say whether a container of the tenant has run in a pod."""
    return any(pod.containers.get(name, _NEVER).state != "waiting" for name in pod.main)


def read_progress(pod: PodFacts, keyfetch_words: str) -> Progress:
    """Say how far a pod is whose gate was lifted."""
    if pod.deleting:
        return Progress(reason=reasons.STOPPING, message=f"pod {pod.name} is being stopped")
    if not pod.node:
        why = f": {pod.unschedulable}" if pod.unschedulable else ""
        return Progress(
            reason=reasons.STARTING, message=f"pod {pod.name} waits for the scheduler{why}", is_usual=not why
        )
    keyfetch = pod.containers.get(CONTAINER_KEYFETCH)
    if keyfetch is not None and keyfetch.state != "terminated":
        return _fetching(pod, keyfetch, keyfetch_words)
    released = keyfetch is not None and keyfetch.exit_code == 0
    mains = [pod.containers[name] for name in pod.main if name in pod.containers]
    if mains and all(container.state == "terminated" for container in mains):
        sidecar = pod.containers.get(CONTAINER_OUTPUTS)
        sealing = sidecar is not None and sidecar.state == "running"
        return Progress(
            reason=reasons.SEALING_OUTPUTS if sealing else reasons.TRAINING,
            message="training has ended; the outputs are being sealed and uploaded"
            if sealing
            else "training has ended",
            keys_released=released,
            is_training=True,
            is_usual=True,
            since=max(container.since for container in mains) if sealing else "",
        )
    if any(container.state == "running" for container in mains):
        return Progress(
            reason=reasons.TRAINING,
            message=f"pod {pod.name} trains on node {pod.node}",
            keys_released=released,
            is_training=True,
        )
    return Progress(
        reason=reasons.STARTING, message=_waits(pod), keys_released=released, is_usual=not _unusual_waits(pod)
    )


def keyfetch_since(pod: PodFacts) -> str:
    """Return when the key fetch that runs began; empty if none runs."""
    keyfetch = pod.containers.get(CONTAINER_KEYFETCH)
    return keyfetch.since if keyfetch is not None and keyfetch.state == "running" else ""


def until_slow(since: str, now: datetime) -> float | None:
    """Return the seconds after which a step that began then is worth telling; None for one that never is."""
    return max(0.0, _SLOW_SECONDS - seconds_between(since, now)) if since else None


def read_outcome(job: SecureTrainingJob, pod: PodFacts) -> Outcome:
    """Say how a pod ended whose end is proved."""
    keyfetch = pod.containers.get(CONTAINER_KEYFETCH)
    if keyfetch is not None and keyfetch.state == "terminated" and keyfetch.exit_code != 0 and not pod.deleting:
        said = keyfetch.message.strip() or f"the key fetch ended with {keyfetch.exit_code} and left no message"
        return Outcome(succeeded=False, keys_refused=True, reason=reasons.KEYS_REFUSED, message=said)
    released = keyfetch is not None and keyfetch.state == "terminated" and keyfetch.exit_code == 0
    sealed, lost = _read_outputs(job, pod)
    outputs_reason = "" if job.spec.outputs is None else (reasons.OUTPUTS_SEALED if sealed else reasons.OUTPUTS_LOST)
    common: dict[str, Any] = {
        "keys_released": released,
        "outputs": sealed,
        "outputs_reason": outputs_reason,
        "outputs_message": f"{sealed.files} files at {sealed.url}" if sealed is not None else lost,
    }
    if failure := _read_failure(pod):
        return Outcome(succeeded=False, reason=failure[0], message=failure[1], **common)
    if job.spec.outputs is not None and sealed is None:
        return Outcome(
            succeeded=False, reason=reasons.OUTPUTS_LOST, message=f"training succeeded, but {lost}", **common
        )
    where = f"; {sealed.files} files of outputs are sealed at {sealed.url}" if sealed is not None else ""
    return Outcome(succeeded=True, reason=reasons.COMPLETE, message=f"training ended with 0{where}", **common)


def _read_failure(pod: PodFacts) -> tuple[str, str] | None:
    for name, container in pod.containers.items():
        if name == CONTAINER_OUTPUTS or container.state != "terminated" or container.exit_code == 0:
            continue
        if pod.deleting:
            return reasons.POD_LOST, f"pod {pod.name} was deleted while container {name} ran ({_ended(container)})"
        return reasons.CONTAINER_FAILED, f"container {name} ended with {_ended(container)}"
    finished = [name for name in pod.main if pod.containers.get(name, _NEVER).state == "terminated"]
    if pod.main and len(finished) == len(pod.main):
        return None
    why = pod.message or pod.reason or ("it was deleted" if pod.deleting else "the kubelet gives no reason")
    return reasons.POD_LOST, f"pod {pod.name} ended before its training did: {why}"


def _read_outputs(job: SecureTrainingJob, pod: PodFacts) -> tuple[SealedOutputs | None, str]:
    """Return the sealed outputs, or why there are none."""
    if job.spec.outputs is None:
        return None, ""
    sidecar = pod.containers.get(CONTAINER_OUTPUTS)
    if sidecar is None or sidecar.state != "terminated":
        return None, "the output sidecar did not run"
    if sidecar.exit_code != 0:
        return None, f"the output sidecar ended with {_ended(sidecar)}"
    try:
        said = msgspec.json.decode(sidecar.message, type=OutputsMessage)
    except msgspec.DecodeError as error:
        return None, f"the output sidecar's message does not name the outputs' index: {error}"
    return SealedOutputs(
        url=said.url,
        dataset_id=said.dataset_id,
        index=said.index,
        criticality=pod.criticality,
        files=said.files,
        bytes=said.bytes,
    ), ""


def _fetching(pod: PodFacts, keyfetch: ContainerFacts, words: str) -> Progress:
    if keyfetch.state == "waiting" and keyfetch.reason not in _NORMAL_WAITS:
        return Progress(reason=reasons.STARTING, message=_waits(pod))
    said = f": {words}" if words else ""
    return Progress(
        reason=reasons.FETCHING_KEYS,
        message=f"pod {pod.name} fetches its keys{said}",
        is_usual=not words,
        since=keyfetch_since(pod),
    )


def _waits(pod: PodFacts) -> str:
    return _unusual_waits(pod) or f"pod {pod.name} starts on node {pod.node}"


def _unusual_waits(pod: PodFacts) -> str:
    for name, container in pod.containers.items():
        if container.state == "waiting" and container.reason not in _NORMAL_WAITS:
            return f"container {name} waits: {container.reason} {container.message}".rstrip()
    return ""


def _ended(container: ContainerFacts) -> str:
    reason = f" ({container.reason})" if container.reason not in ("", "Error", "Completed") else ""
    said = f": {container.message.strip()}" if container.message.strip() else ""
    return f"{container.exit_code}{reason}{said}"


_NEVER = ContainerFacts(state="waiting")
