"""A GPU node's life: who may use it, and what happens when they leave (custody.md).

    phase        goes to       when
    Unmanaged    Dirty         it is enrolled, or its past says that it was managed
    Dirty        Scrubbing     the fence is closed and settled, and the node is empty
                 Unmanaged     it is released, and nobody was on it since it was enrolled or scrubbed
    Scrubbing    Free          the receipt of this epoch exists, and the node is still empty
                 Dirty         its Node was replaced
                 Quarantined   anything else came of the scrub
    Free         Assigned      an admitted job's gated pod waits for it
                 Unmanaged     it is released
                 Dirty         its Node was replaced, it offers another number of GPUs, strangers are on it, or the
                               fence only warned before (audit mode)
    Assigned     Assigned      the same tenant's next job takes it, without a scrub
                 Draining      its pods have ended or are lost, and no job of the tenant may follow; or its Node was
                               replaced
    Draining     Dirty         the fence is closed and settled, every pod's end is proved, and the node is empty
                 Quarantined   no proof in time
    Quarantined  Dirty         its cause is cured, or a named human overrides it
                 Unmanaged     an administrator releases it
    any managed  Dirty         the Node shows a new boot id; or its pods have ended, and the machine has another name

1. A decision makes at most one move; the ledger is written by compare-and-swap before anything follows from it.
2. Closed means: no RBAC copy and not on the open list, as read in this cycle. Settled means: closed in every cycle for
   `settle_seconds`, and a dry-run bind was refused in this cycle (decisions.fence).
3. Nothing but a verified receipt of this epoch, node uid, boot id and nonce leads to Free.
4. A node that was closed and settled when it left Draining need not settle again: nothing opens it before Assigned.
5. `epoch` grows at Dirty → Scrubbing and nowhere else. A ledger that begins anew goes on after the receipts that the
   earlier one of its name has left.
"""

from typing import Final

import msgspec

from lethe.decisions.actions import Action, WriteNodeStatus
from lethe.decisions.admission import Admission
from lethe.decisions.fence import copy_to_fence, is_settled, tell_audit, was_unfenced
from lethe.decisions.grants import (
    are_pods_over,
    describe_holder,
    following_holder,
    grant,
    is_kept,
    may_keep,
    next_holder,
    not_idle,
)
from lethe.decisions.joining import decide_renamed, decide_unmanaged, is_past_unknown
from lethe.decisions.ledger import NodeCase, left, past_holder, seen, some
from lethe.decisions.proof import unproved_pods
from lethe.decisions.quarantine import decide_quarantined, note_override
from lethe.decisions.scrubbing import decide_scrub
from lethe.decisions.snapshot import NodeFacts, PodFacts, Snapshot
from lethe.formats.quantity import seconds_between
from lethe.model import names, reasons
from lethe.model.phases import NodePhase
from lethe.model.resources import GPUNode, LastReceipt, ScrubState


class NodeDecision(msgspec.Struct, frozen=True, kw_only=True):
    """What to do about one node."""

    actions: list[Action] = []
    again_in: float | None = None


def decide_node(snapshot: Snapshot, node: GPUNode, admission: Admission) -> NodeDecision:
    """Decide about one node."""
    case = NodeCase(snapshot, node, admission)
    facts, is_managed = case.facts, case.old.phase != NodePhase.UNMANAGED
    successor = snapshot.successor_of(case.name) if is_managed else None
    if facts is not None and is_managed and facts.has_left_boot(case.old.boot_id):
        _enter_new_boot(case, facts)
    elif successor is None or not decide_renamed(case, successor):
        _PHASES[case.old.phase](case)
    note_override(case)
    tell_audit(case)
    copy_to_fence(case)
    if case.status != case.old:
        case.actions.insert(0, WriteNodeStatus(node=case.name, ledger=node, status=case.status, notes=case.notes))
    return NodeDecision(actions=case.actions, again_in=case.again_in)


# ---- phases


def _enter_new_boot(case: NodeCase, facts: NodeFacts) -> None:
    """A new boot id: whatever ran has ended, and nothing is known about the GPUs' memory."""
    case.move(
        NodePhase.DIRTY,
        reasons.NEW_BOOT,
        f"the node was rebooted (boot {facts.boot_id}): it is scrubbed before anybody uses it",
        **left(case),
        **seen(facts),
    )


def _dirty(case: NodeCase) -> None:
    facts = case.facts
    if not case.node.spec.managed and case.old.previous_holder is None and not is_past_unknown(case.node):
        case.move(NodePhase.UNMANAGED, reasons.NOT_ENROLLED, "the node was released before anybody used it", scrub=None)
    elif facts is None:
        case.say(reasons.NODE_MISSING, "there is no Node of this name: it is scrubbed when it comes back")
    elif not facts.boot_id:
        case.say(reasons.NODE_NOT_READY, "the kubelet has not reported a boot id: the scrub waits for it")
    elif facts.uid != case.old.node_uid or facts.gpu_capacity != case.old.gpu_count:
        case.set(**seen(facts))
    elif not is_settled(case):
        return
    elif occupants := case.snapshot.occupants.get(case.name):
        case.say(reasons.NODE_NOT_EMPTY, f"waits until these pods have left: {some(occupants)}")
    elif case.name not in case.snapshot.occupants:
        return
    elif not facts.is_ready:
        case.say(reasons.NODE_NOT_READY, "the kubelet does not report Ready: the scrub waits for it")
    elif facts.gpu_capacity == 0:
        case.say(
            reasons.GPU_SET_MISMATCH,
            f"the node offers no {names.GPU_RESOURCE}: is its device plugin running? The scrub waits for it",
        )
    else:
        _start_scrub(case, facts)


def _start_scrub(case: NodeCase, facts: NodeFacts) -> None:
    epoch, last = case.old.epoch + 1, case.old.last_receipt
    earlier = case.snapshot.earlier_receipts.get(case.name)
    if earlier is not None and case.old.epoch == 0:
        epoch = earlier.epoch + 1
        last = LastReceipt(name=earlier.name, sha256=earlier.sha256, epoch=earlier.epoch, boot_id=earlier.boot_id)
    case.move(
        NodePhase.SCRUBBING,
        reasons.SCRUB_STARTED,
        f"the scrub of epoch {epoch} takes {facts.gpu_capacity} GPUs",
        epoch=epoch,
        last_receipt=last,
        scrub=ScrubState(
            pod_name=names.scrub_pod(case.name, epoch),
            nonce=case.snapshot.new_nonces[case.name],
            started_at=case.now,
        ),
    )


def _scrubbing(case: NodeCase) -> None:
    if case.facts is not None and case.facts.uid != case.old.node_uid:
        _replaced(case, case.facts)
    else:
        decide_scrub(case)


def _free(case: NodeCase) -> None:
    facts = case.facts
    if not case.node.spec.managed:
        case.move(NodePhase.UNMANAGED, reasons.NOT_ENROLLED, "the node was released: open to everybody", **left(case))
    elif facts is not None and facts.uid != case.old.node_uid:
        _replaced(case, facts)
    elif facts is not None and facts.gpu_capacity not in (0, case.old.gpu_count):
        case.move(
            NodePhase.DIRTY,
            reasons.GPUS_CHANGED,
            f"the node offers {facts.gpu_capacity} GPUs, of which {case.old.gpu_count} were scrubbed",
            **left(case),
            **seen(facts),
        )
    elif was_unfenced(case):
        message = "the fence only warned until now (fence.mode was audit): anybody may have been on the node"
        case.move(NodePhase.DIRTY, reasons.AUDIT_ONLY, message, **left(case))
    elif case.node.spec.drain:
        case.say(reasons.DRAINED, f"clean and drained: no job gets it until `lethe node undrain {case.name}`")
    elif facts is not None and facts.gpu_capacity == 0:
        case.say(
            reasons.GPUS_CHANGED, f"clean, but it offers no {names.GPU_RESOURCE} now: is its device plugin running?"
        )
    elif occupants := case.snapshot.occupants.get(case.name):
        case.move(
            NodePhase.DIRTY,
            reasons.NODE_NOT_EMPTY,
            f"these pods came past the fence after the scrub: {some(occupants)}; it is repeated when they have left",
            warning=True,
            **left(case),
        )
    elif case.name in case.snapshot.occupants and (holder := next_holder(case)):
        grant(case, holder, previous=None)
    elif case.old.reason in (reasons.DRAINED, reasons.GPUS_CHANGED):
        receipt = case.old.last_receipt.name if case.old.last_receipt is not None else "none"
        case.say(reasons.SCRUB_VERIFIED, f"clean; receipt {receipt}")


def _replaced(case: NodeCase, facts: NodeFacts) -> None:
    case.move(NodePhase.DIRTY, reasons.NODE_REPLACED, "the Node was deleted and made anew", **left(case), **seen(facts))


def _assigned(case: NodeCase) -> None:
    facts, holder = case.facts, case.old.holder
    if facts is not None and facts.uid != case.old.node_uid:
        case.move(NodePhase.DRAINING, reasons.NODE_REPLACED, "the Node was deleted and made anew")
        return
    if holder is not None and not are_pods_over(case):
        if case.node.spec.drain:
            case.say(
                reasons.DRAINED, f"{describe_holder(holder)}; drained: it is scrubbed after that, and no job follows"
            )
        else:
            case.say(reasons.GRANTED, describe_holder(holder))
        return
    tenant = case.snapshot.tenants.get(holder.tenant) if holder is not None else None
    if tenant is not None and may_keep(case, tenant):
        if following := following_holder(case, tenant):
            grant(case, following, previous=past_holder(case.old, case.now))
            return
        if is_kept(case, tenant):
            return
    case.move(
        NodePhase.DRAINING,
        reasons.SETTLING if tenant is not None else reasons.TENANT_GONE,
        "the last pod has ended or is lost: the fence closes",
        conditions=not_idle(case),
    )


def _draining(case: NodeCase) -> None:
    limit = case.snapshot.config.proof_timeout_seconds
    age = seconds_between(case.old.since, case.snapshot.now) if case.old.since else 0.0
    missing = unproved_pods(case.snapshot, case.node)
    occupants = case.snapshot.occupants.get(case.name, ("unknown",))
    if not is_settled(case):
        waits = case.status.message
    elif missing:
        waits = f"the kubelet has not reported the end of pods {some(missing)}"
        case.say(reasons.AWAITING_PROOF, waits)
    elif occupants:
        waits = f"these pods have not left: {some(occupants)}"
        case.say(reasons.NODE_NOT_EMPTY, waits)
    else:
        message = "every pod's end is proved, and the node is empty"
        case.move(NodePhase.DIRTY, reasons.PROVED, message, **left(case))
        return
    if age <= limit:
        case.wake(limit - age + 1)
        return
    case.quarantine(
        reasons.PROOF_TIMED_OUT,
        f"{waits}, for more than {limit} s",
        [f"{waits}, since {case.old.since}", *_last_seen(case, missing)],
        f"reboot the node, which is proof; or, if nothing of these pods can still run there, `lethe node override "
        f"{case.name} --reason …`",
    )


def _last_seen(case: NodeCase, uids: list[str]) -> list[str]:
    """Return what is known of pods without proof, and of their node."""
    facts, holder = case.facts, case.old.holder
    namespace = holder.namespace if holder is not None else ""
    lines = [_describe(uid, namespace, case.snapshot.pods.get(uid)) for uid in uids]
    if facts is None:
        return [*lines, f"there is no Node {case.name}"]
    return [*lines, f"node {case.name}, boot {facts.boot_id}, is {'Ready' if facts.is_ready else 'not Ready'}"]


def _describe(uid: str, namespace: str, pod: PodFacts | None) -> str:
    if pod is None:
        return f"pod {uid} of namespace {namespace}: its object is gone"
    states = ", ".join(
        f"{name} {container.state} {container.reason}".rstrip() for name, container in pod.containers.items()
    )
    said = "; the pod garbage collector says so, no kubelet" if pod.collected else ""
    return f"pod {pod.namespace}/{pod.name} ({uid}): {pod.phase}{said}; containers: {states or 'none known'}"


_PHASES: Final = {
    NodePhase.UNMANAGED: decide_unmanaged,
    NodePhase.DIRTY: _dirty,
    NodePhase.SCRUBBING: _scrubbing,
    NodePhase.FREE: _free,
    NodePhase.ASSIGNED: _assigned,
    NodePhase.DRAINING: _draining,
    NodePhase.QUARANTINED: decide_quarantined,
}
