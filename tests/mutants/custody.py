"""Mutants of the custody of GPU nodes: each opens a way to another tenant's memory, or forgets who was there."""

from tests.mutants.mutant import Mutant

_CUSTODY = "decisions/custody.py"
_FENCE = "decisions/fence.py"
_GRANTS = "decisions/grants.py"
_JOINING = "decisions/joining.py"
_PROOF = "decisions/proof.py"
_SCRUBBING = "decisions/scrubbing.py"

_FOUND = "found != (scrub.nonce, case.old.node_uid, case.old.boot_id, case.old.epoch)"


def _receipt(number: int, field: str) -> Mutant:
    """Return a mutant that accepts a receipt of another `field`."""
    parts = ["scrub.nonce", "case.old.node_uid", "case.old.boot_id", "case.old.epoch"]
    parts[number] = f"found[{number}]"
    return Mutant(f"accept a receipt of another {field}", _SCRUBBING, _FOUND, f"found != ({', '.join(parts)})")


MUTANTS = [
    Mutant("drop the settle", _FENCE, "age is None or age < config.settle_seconds", "age is None"),
    Mutant("skip the trial bind", _FENCE, "case.name not in case.snapshot.closed_nodes and", "False and"),
    Mutant(
        "settle before closing",
        "controller/observe.py",
        "for name in snapshot.gpu_nodes if is_closed(snapshot, name)",
        "for name in snapshot.gpu_nodes",
    ),
    Mutant(
        "skip the first empty check",
        _CUSTODY,
        "    elif occupants := case.snapshot.occupants.get(case.name):\n        case.say(",
        "    elif False:\n        case.say(",
    ),
    Mutant(
        "skip the second empty check", _SCRUBBING, "if occupants := case.snapshot.occupants[case.name]:", "if False:"
    ),
    Mutant(
        "skip the empty check before a grant",
        _CUSTODY,
        "    elif occupants := case.snapshot.occupants.get(case.name):\n        case.move(",
        "    elif False:\n        case.move(",
    ),
    _receipt(0, "nonce"),
    _receipt(1, "node"),
    _receipt(2, "boot"),
    _receipt(3, "epoch"),
    Mutant(
        "free on scrub failure",
        _SCRUBBING,
        "if not isinstance(clearance, Cleared) or result.report is None:",
        "if result.report is None:",
    ),
    Mutant(
        "free without receipt",
        _SCRUBBING,
        """            )
        )
        return
    found =""",
        """            )
        )
        case.move(NodePhase.FREE, reasons.SCRUB_VERIFIED, "")
        return
    found =""",
    ),
    Mutant("ignore the boot id", _CUSTODY, "and facts.has_left_boot(case.old.boot_id)", "and False"),
    Mutant(
        "an empty boot id is a new boot",
        "decisions/snapshot.py",
        "return bool(self.boot_id) and self.boot_id != boot_id",
        "return self.boot_id != boot_id",
    ),
    Mutant(
        "ignore a Node replaced while Free",
        _CUSTODY,
        """    elif facts is not None and facts.uid != case.old.node_uid:
        _replaced""",
        """    elif False and facts is not None:
        _replaced""",
    ),
    Mutant(
        "ignore a Node replaced while Assigned",
        _CUSTODY,
        """    if facts is not None and facts.uid != case.old.node_uid:
        case.move""",
        """    if False:
        case.move""",
    ),
    Mutant(
        "ignore a Node replaced while Scrubbing",
        _CUSTODY,
        "if case.facts is not None and case.facts.uid != case.old.node_uid:",
        "if False and case.facts is not None:",
    ),
    Mutant("ignore other GPUs", _CUSTODY, "facts.gpu_capacity not in (0, case.old.gpu_count)", "False"),
    Mutant("skip the proof", _CUSTODY, "    elif missing:\n", "    elif False:\n"),
    Mutant("count PodGC's word as proof", _PROOF, "if not pod.has_ended or pod.collected:", "if not pod.has_ended:"),
    Mutant("count ContainerStatusUnknown as proof", _PROOF, "if container.reason != _UNKNOWN", "if True"),
    Mutant("count a container that waits as never started", _PROOF, 'states != [] and "waiting" not in states', "True"),
    Mutant(
        "grant to another tenant without scrub",
        _GRANTS,
        "return following if following is not None and following.tenant == tenant.metadata.name else None",
        "return following",
    ),
    Mutant("grant with isolation job", _GRANTS, 'tenant.spec.isolation == "tenant"', "True"),
    Mutant("grant before the holder's end is proved", _GRANTS, "and is_idle(case.snapshot, case.node)", "and True"),
    Mutant("forget the retention limit", _GRANTS, "if age >= retention:", "if False:"),
    Mutant(
        "retain against a demanded scrub",
        _GRANTS,
        "retention == 0 or tenant.metadata.name in case.admission.want_scrub",
        "retention == 0",
    ),
    Mutant("epoch not raised", _CUSTODY, "case.old.epoch + 1, case", "case.old.epoch, case"),
    Mutant("a new ledger forgets its receipts", _CUSTODY, "earlier is not None and case.old.epoch == 0", "False"),
    Mutant("holder not recorded before the grant", _GRANTS, "        holder=holder,\n", ""),
    Mutant("lift the gate before the grant", "decisions/lifecycle.py", "    elif granted:\n", "    else:\n"),
    Mutant(
        "release the finalizer before proof",
        "decisions/orphans.py",
        "not awaited and _is_over(snapshot, pod)",
        "not awaited",
    ),
    Mutant(
        "release the finalizer while a scrub runs",
        _PROOF,
        "in (NodePhase.FREE, NodePhase.ASSIGNED)",
        "in (NodePhase.FREE, NodePhase.ASSIGNED, NodePhase.SCRUBBING)",
    ),
    Mutant(
        "override leads to Free",
        "decisions/quarantine.py",
        "            NodePhase.DIRTY,\n            reasons.OVERRIDDEN",
        "            NodePhase.FREE,\n            reasons.OVERRIDDEN",
    ),
    Mutant(
        "an override is kept for later",
        "decisions/quarantine.py",
        "        case.set(override=_record(case, override))\n",
        "",
    ),
    Mutant("drain ignored for a free node", _CUSTODY, "    elif case.node.spec.drain:\n", "    elif False:\n"),
    Mutant("drain ignored by who keeps a node", _GRANTS, "        and not spec.drain\n", ""),
    Mutant("drain ignored by admission", "decisions/admission.py", "        and not node.spec.drain\n", ""),
    Mutant(
        "renamed node open",
        _JOINING,
        "return (is_new and facts.has_mark) or former_ledger(snapshot, facts) is not None",
        "return is_new and facts.has_mark",
    ),
    Mutant(
        "node without its ledger open",
        _JOINING,
        "return (is_new and facts.has_mark) or former",
        "return former",
    ),
    Mutant(
        "unreadable ledger open",
        "decisions/enrolment.py",
        "    if facts.name in snapshot.unreadable_gpu_nodes:\n        return False\n",
        "",
    ),
    Mutant(
        "closing keeps the grant",
        _FENCE,
        "            case.actions.append(CloseGrant(node=case.name, namespace=grant.namespace))",
        "            pass",
    ),
    Mutant("forget who was there", "decisions/ledger.py", '"previous_holder": past_holder(case.old, case.now),', ""),
]

_ROWS = {
    "UNMANAGED": "{NodePhase.DIRTY}",
    "DIRTY": "{NodePhase.SCRUBBING, NodePhase.UNMANAGED, NodePhase.DIRTY}",
    "SCRUBBING": "{NodePhase.FREE, NodePhase.QUARANTINED, NodePhase.DIRTY}",
    "FREE": "{NodePhase.ASSIGNED, NodePhase.UNMANAGED, NodePhase.DIRTY}",
    "ASSIGNED": "{NodePhase.ASSIGNED, NodePhase.DRAINING, NodePhase.DIRTY}",
    "DRAINING": "{NodePhase.DIRTY, NodePhase.QUARANTINED}",
    "QUARANTINED": "{NodePhase.DIRTY, NodePhase.UNMANAGED}",
}
MUTANTS += [
    Mutant(
        f"any move from {phase.title()}",
        "decisions/ledger.py",
        f"    NodePhase.{phase}: {goals},\n",
        f"    NodePhase.{phase}: {{*NodePhase}},\n",
    )
    for phase, goals in _ROWS.items()
]
