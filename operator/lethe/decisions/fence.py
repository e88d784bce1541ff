"""The RBAC copy of the ledger that the admission policies read (custody.md, Fence).

1. The copy follows the ledger as it was read; what a cycle changes in the ledger reaches the copy in the next one.
2. Closed means: no grant and not on the open list, as read in this cycle.
   Closing deletes the binding; its Role lets nobody in and stays until the node is released, for the next grant.
3. Settled means: this process has seen it closed in every cycle for `settle_seconds` of its own monotonic clock
   (machines' clocks differ and jump; a new leader begins anew), and a trial bind was refused in this cycle.
4. Where the policies only warn, a managed node carries the condition Fenced=False. It outlives the change to enforce:
   anybody may have been on the node until the next scrub begins.
"""

from lethe.decisions.actions import CloseGrant, OpenGrant, RemoveGrantRole
from lethe.decisions.conditions import find_condition
from lethe.decisions.ledger import NodeCase
from lethe.decisions.snapshot import Snapshot
from lethe.model import reasons
from lethe.model.phases import NodePhase


def is_closed(snapshot: Snapshot, node: str) -> bool:
    """Say whether nothing lets anybody on this node, as read in this cycle."""
    return node not in (snapshot.open_nodes or ()) and not snapshot.grants_of(node)


def copy_to_fence(case: NodeCase) -> None:
    """Ask for what makes the RBAC copy equal to the ledger, unless this cycle changes the holder."""
    holder = case.old.holder if case.old.phase == NodePhase.ASSIGNED else None
    for grant in case.snapshot.grants_of(case.name):
        if holder is None or grant.namespace != holder.namespace:
            case.actions.append(CloseGrant(node=case.name, namespace=grant.namespace))
    roles = case.snapshot.grant_roles_of(case.name)
    if case.old.phase == NodePhase.UNMANAGED and not case.snapshot.grants_of(case.name):
        case.actions += [RemoveGrantRole(node=case.name, namespace=role.namespace) for role in roles]
    if holder is None or case.status.phase != NodePhase.ASSIGNED or case.status.holder != holder:
        return
    current = next(
        (grant for grant in case.snapshot.grants_of(case.name) if grant.namespace == holder.namespace),
        None,
    )
    if current is None or sorted(current.pod_uids) != sorted(holder.pod_uids):
        has_role = any(role.is_right and role.namespace == holder.namespace for role in roles)
        case.actions.append(
            OpenGrant(node=case.name, namespace=holder.namespace, pod_uids=holder.pod_uids, has_role=has_role)
        )


def tell_audit(case: NodeCase) -> None:
    """Say on a managed node that nothing protects it; take that back when a scrub behind an enforced fence begins."""
    if case.status.phase != NodePhase.UNMANAGED and case.snapshot.config.fence == "audit":
        message = "fence.mode is audit: the API server only warns, and NOTHING IS PROTECTED"
        case.set(conditions=case.with_condition(reasons.CONDITION_FENCED, "False", reasons.AUDIT_ONLY, message))
    elif case.status.phase in (NodePhase.UNMANAGED, NodePhase.SCRUBBING) and case.status.phase != case.old.phase:
        case.set(conditions=case.without_condition(reasons.CONDITION_FENCED))


def was_unfenced(case: NodeCase) -> bool:
    """Say whether the fence, which is enforced now, only warned at some time since the node's last scrub."""
    unfenced = find_condition(case.old.conditions, reasons.CONDITION_FENCED) is not None
    return unfenced and case.snapshot.config.fence == "enforce"


def is_settled(case: NodeCase, *, quiet: bool = False) -> bool:
    """Say whether the fence is closed and has settled, and what is waited for."""
    config, age = case.snapshot.config, case.snapshot.closed_for.get(case.name)
    if age is None or age < config.settle_seconds:
        if age is not None:
            case.wake(config.settle_seconds - age)
        if not quiet and case.old.reason != reasons.SETTLING:
            case.say(reasons.SETTLING, "the fence closes and settles")
        return False
    if case.name not in case.snapshot.closed_nodes and config.fence == "enforce":
        case.wake(config.settle_seconds)
        if not quiet:
            case.say(
                reasons.SETTLING,
                "the API server does not refuse a trial bind to the node: are Lethe's admission policies in place?",
            )
        return False
    return True
