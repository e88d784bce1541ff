"""The scrub of a GPU node's current epoch: its pod, what is made of its report, and the receipt.

1. The ledger names nonce and pod before the pod exists, and the pod's uid before its report is believed.
2. The receipt is created before the node becomes Free, and must be found again: of this nonce, node, boot and epoch.
3. Whatever else comes of a scrub quarantines the node.
4. A pod that the kubelet refuses has not scrubbed anything: its devices may not be told apart yet from those of a pod
   that has just left, or its device plugin just restarted. Another one is tried, for two minutes.
5. A node that becomes Free may have receipts that retention no longer keeps (decisions.retention): they are deleted
   after the ledger says so.
"""

from typing import Final

import msgspec

from lethe.decisions.actions import CreateScrubPod, DeleteReceipt, IssueReceipt, Note
from lethe.decisions.joining import known_past
from lethe.decisions.ledger import NodeCase, some
from lethe.decisions.receipts import Cleared, decide_clearance
from lethe.decisions.retention import outdated_receipts
from lethe.decisions.snapshot import IssuedReceipt, PodFacts, Snapshot
from lethe.formats.quantity import seconds_between
from lethe.model import names, reasons
from lethe.model.agentconfig import ScrubConfig
from lethe.model.phases import NodePhase
from lethe.model.resources import LastReceipt, NodeStatus, ScrubState
from lethe.model.scrub import ReceiptPredicate

_ADVICE: Final = {
    reasons.SCRUB_POD_LOST: "find out who deletes pods in Lethe's namespace",
    reasons.SCRUB_POD_REFUSED: "see why the kubelet refuses the scrub pod",
    reasons.SCRUB_TIMED_OUT: "look at the scrub pod's events and log, and at the device plugin",
    reasons.NODE_NOT_EMPTY: "move these pods away, and see why the fence let them in",
    reasons.NONCE_MISMATCH: "find out who writes ScrubReceipts, or answers for the scrub",
    reasons.GPU_LOST: "take the GPU out of service or reset it",
    reasons.GPU_HANG: "reset the GPU",
    reasons.ECC_UNCORRECTABLE: "have the GPU's memory looked at",
    reasons.RECOVERY_REQUIRED: "do the recovery that the GPU asks for (nvidia-smi -q)",
    reasons.GPU_SET_MISMATCH: "compare the GPUs of the node with those that its device plugin offers",
    reasons.MIG_ENABLED: "switch MIG off on the node's GPUs",
    reasons.COMPUTE_MODE_EXCLUSIVE: "set the compute mode Default on the node's GPUs",
    reasons.LEFTOVER_PROCESS: "end the process that still holds a GPU",
}
"""What to do first, by why a scrub did not clear its node."""

_SCRUB_START_SECONDS: Final = 300
"""How long a scrub pod may take to start: image pull and device plugin."""
_UNHEALTHY_SECONDS: Final = 120
"""How long a GPU may be unhealthy, and so keep the scrub pod from its node: a device plugin may be restarting."""
_REFUSED_SECONDS: Final = 5
"""After how long another scrub pod follows the first that the kubelet refused."""


def decide_scrub(case: NodeCase) -> None:
    """Decide about a node that is being scrubbed."""
    scrub = case.old.scrub
    if scrub is None:
        _quarantine(case, reasons.SCRUB_POD_LOST, "the ledger names no scrub")
        return
    pod = case.snapshot.scrub_pod(scrub.pod_name)
    if not scrub.pod_uid:
        if pod is None:
            case.actions.append(
                CreateScrubPod(
                    node=case.name,
                    config=scrub_config(case.snapshot, case.name, case.old),
                    pod_name=scrub.pod_name,
                )
            )
        else:
            case.set(scrub=msgspec.structs.replace(scrub, pod_uid=pod.uid))
        return
    if pod is None or pod.uid != scrub.pod_uid:
        _quarantine(case, reasons.SCRUB_POD_LOST, f"the scrub pod {scrub.pod_name} is gone, and no report with it")
        return
    age = seconds_between(scrub.started_at, case.snapshot.now)
    if pod.is_refused and age <= _UNHEALTHY_SECONDS:
        _try_again(case, scrub, pod, age)
        return
    if pod.has_ended:
        _judge(case, scrub, pod)
        return
    limit = case.snapshot.config.scrub_timeout_seconds + _SCRUB_START_SECONDS
    if age > limit:
        _quarantine(case, reasons.SCRUB_TIMED_OUT, f"the scrub has not ended within {limit} s{_hint(pod)}", pod)
        return
    if not pod.node and case.facts is not None and _lacks_gpus(case):
        healthy = f"the device plugin calls {case.facts.gpu_allocatable} of {case.old.gpu_count} GPUs healthy"
        if age > _UNHEALTHY_SECONDS:
            _quarantine(case, reasons.GPU_LOST, f"{healthy}, and a scrub takes all", pod)
            return
        limit = _UNHEALTHY_SECONDS
    case.wake(limit - age + 1)
    case.say(reasons.SCRUB_STARTED, f"the scrub of epoch {case.old.epoch} takes {case.old.gpu_count} GPUs{_hint(pod)}")


def _try_again(case: NodeCase, scrub: ScrubState, pod: PodFacts, age: float) -> None:
    """Put another pod in the place of one that the kubelet refused, after twice the time each time."""
    pause = _REFUSED_SECONDS * 2**scrub.refusals
    if age < pause:
        case.wake(min(pause, _UNHEALTHY_SECONDS + 1) - age)
        case.say(reasons.SCRUB_STARTED, f"the kubelet refused the scrub pod, another follows: {pod.message}")
        return
    refusals = scrub.refusals + 1
    pod_name = names.scrub_pod(case.name, case.old.epoch, refusals)
    case.set(scrub=msgspec.structs.replace(scrub, pod_name=pod_name, pod_uid="", refusals=refusals))


def _judge(case: NodeCase, scrub: ScrubState, pod: PodFacts) -> None:
    """Decide about a scrub that has ended."""
    if pod.is_refused:
        reason = reasons.GPU_LOST if _lacks_gpus(case) else reasons.SCRUB_POD_REFUSED
        _quarantine(
            case, reason, f"the kubelet refused {scrub.refusals + 1} scrub pods, the last so: {pod.message}", pod
        )
        return
    result = case.snapshot.scrubs.get(pod.uid)
    if result is None:
        return
    config = scrub_config(case.snapshot, case.name, case.old)
    clearance = decide_clearance(result.report, result.report_sha256, result.summary, config)
    if not isinstance(clearance, Cleared) or result.report is None:
        reason, message = (
            (reasons.REPORT_MISSING, "") if isinstance(clearance, Cleared) else (clearance.reason, clearance.message)
        )
        details = "; ".join(part for part in (message, result.error, pod.message) if part)
        _quarantine(case, reason, details, pod)
        return
    receipt = case.snapshot.receipts.get(case.name)
    if receipt is None:
        container = pod.containers.get(names.CONTAINER_SCRUB)
        predicate = ReceiptPredicate(
            node=case.name,
            node_uid=case.old.node_uid,
            boot_id=case.old.boot_id,
            epoch=case.old.epoch,
            nonce=scrub.nonce,
            holder=case.old.previous_holder,
            image=container.image_id if container is not None else "",
            report=result.report,
            report_sha256=result.report_sha256,
            verdict="Cleared",
            previous=case.old.last_receipt.sha256 if case.old.last_receipt is not None else "",
            issued_at=case.now,
        )
        case.actions.append(
            IssueReceipt(
                node=case.name,
                name=names.receipt(case.name, case.old.epoch),
                predicate=predicate,
                residue_bytes=clearance.residue_bytes,
            )
        )
        return
    found = (receipt.nonce, receipt.node_uid, receipt.boot_id, receipt.epoch)
    if found != (scrub.nonce, case.old.node_uid, case.old.boot_id, case.old.epoch):
        _quarantine(
            case, reasons.NONCE_MISMATCH, f"ScrubReceipt {receipt.name} is of another scrub than this epoch's", pod
        )
        return
    if case.name not in case.snapshot.occupants:
        return
    if occupants := case.snapshot.occupants[case.name]:
        _quarantine(case, reasons.NODE_NOT_EMPTY, f"pods appeared during the scrub: {some(occupants)}", pod)
        return
    outdated = outdated_receipts(
        case.snapshot.past_receipts.get(case.name, ()),
        receipt,
        case.snapshot.config.receipt_keep_days,
        case.snapshot.now,
    )
    case.move(
        NodePhase.FREE,
        reasons.SCRUB_VERIFIED,
        f"{len(clearance.gpus)} GPUs were scrubbed and verified (coverage {clearance.coverage:.2%}); receipt "
        f"{receipt.name}",
        gpus=clearance.gpus,
        posture=result.report.posture,
        conditions=known_past(case),
        last_receipt=_reference(receipt),
    )
    _tell_residue(case, clearance)
    if outdated:
        _delete(case, outdated)


def _lacks_gpus(case: NodeCase) -> bool:
    return case.facts is not None and case.facts.gpu_allocatable < case.old.gpu_count


def _delete(case: NodeCase, outdated: list[IssuedReceipt]) -> None:
    """Record up to where the chain is deleted, and delete it."""
    last = outdated[-1]
    case.set(pruned_receipt=_reference(last))
    case.actions += [DeleteReceipt(node=case.name, name=receipt.name, uid=receipt.uid) for receipt in outdated]
    case.notes.append(
        Note(
            reason=reasons.RECEIPTS_DELETED,
            message=f"{len(outdated)} receipts older than {case.snapshot.config.receipt_keep_days} days are deleted, "
            f"up to {last.name} (SHA-256 {last.sha256})",
        )
    )


def _reference(receipt: IssuedReceipt) -> LastReceipt:
    return LastReceipt(name=receipt.name, sha256=receipt.sha256, epoch=receipt.epoch, boot_id=receipt.boot_id)


def _tell_residue(case: NodeCase, clearance: Cleared) -> None:
    if not clearance.residue_bytes:
        return
    past = case.old.previous_holder
    whose = f"tenant {past.tenant}, jobs {', '.join(past.jobs)}" if past is not None else "an unknown former user"
    case.notes.append(
        Note(
            reason=reasons.LEAK_DETECTED if clearance.leak else reasons.RESIDUE_FOUND,
            message=f"{clearance.residue_bytes} bytes of {whose} were still in GPU memory before the scrub",
            warning=True,
        )
    )


def scrub_config(snapshot: Snapshot, node: str, status: NodeStatus) -> ScrubConfig:
    """Return what the scrub pod of a node's current epoch is told, and what its report is compared with."""
    assert status.scrub is not None
    return ScrubConfig(
        node=node,
        node_uid=status.node_uid,
        boot_id=status.boot_id,
        epoch=status.epoch,
        nonce=status.scrub.nonce,
        gpu_count=status.gpu_count,
        gpus=status.gpus,
        coverage_floor=snapshot.config.coverage_floor,
        timeout_seconds=snapshot.config.scrub_timeout_seconds,
    )


def _quarantine(case: NodeCase, reason: str, message: str, pod: PodFacts | None = None) -> None:
    """Take the node out of use: its scrub did not clear it."""
    scrub = case.old.scrub
    evidence = [message]
    if scrub is not None:
        evidence.append(
            f"scrub pod {names.SYSTEM_NAMESPACE}/{scrub.pod_name} ({scrub.pod_uid}) of epoch {case.old.epoch}, "
            f"since {scrub.started_at}: {_state(pod)}"
        )
    if case.facts is None:
        evidence.append(f"there is no Node {case.name}")
    case.quarantine(
        reason,
        message,
        evidence,
        f"{_ADVICE.get(reason, 'read the log of the scrub pod and cure what it says')}; then reboot the node, or "
        f"`lethe node override {case.name} --reason …` to scrub it again",
    )


def _state(pod: PodFacts | None) -> str:
    if pod is None:
        return "its object is gone"
    collected = ", says the pod garbage collector, no kubelet" if pod.collected else ""
    return f"{pod.phase}{collected} on node {pod.node}" if pod.node else f"{pod.phase}, not scheduled"


def _hint(pod: PodFacts) -> str:
    """Return what keeps a pod from running, as the end of a sentence."""
    if pod.unschedulable:
        return f"; its pod is not scheduled: {pod.unschedulable}"
    for container in pod.containers.values():
        if container.state == "waiting" and container.reason not in ("", "ContainerCreating", "PodInitializing"):
            return f"; its container waits: {container.reason} {container.message}".rstrip()
    return ""
