"""What must hold of custody at every moment, whatever the operator, the machines and the people do.

On every write to the API server:
1. An epoch never falls, and grows by one at Dirty → Scrubbing and nowhere else.
2. A scrub begins only once the fence has been closed for the settling time, unless a clock was moved in between, and
   on a node without pods of others.
3. A node becomes Free only with a ScrubReceipt that verifies, is of its epoch, node uid, boot and nonce, and tells of a
   scrub that really cleared the machine; and only when no pod of others is on it. Free and Assigned keep that epoch,
   node uid and boot.
4. A training pod's object never vanishes while its containers run, unless somebody removed it by force.

After every step:
5. No two owners' processes run on one machine, and no two tenants' pods are bound to one node.
6. On a node that is Scrubbing, Free or Assigned, no grant names a pod that could still be bound and is not the
   holder's.
What lies in the GPUs' memory when a container starts is checked by the machines themselves (`hosts`).
"""

from collections import Counter
from datetime import datetime
from typing import Final

import msgspec

from lethe.adapters import kube
from lethe.adapters.kube import Object
from lethe.formats.receipt import verify_receipt
from lethe.model import names
from lethe.model.resources import Envelope
from lethe.specs.fence import ROLE_GRANT, parse_names, parse_pod_uids
from tests.simulation.api_server import ApiServer
from tests.simulation.cluster import check_company
from tests.simulation.hosts import FOREIGN, Hosts
from tests.simulation.operators import KEYS

_TERMINAL: Final = ("Succeeded", "Failed")
_HELD: Final = ("Scrubbing", "Free", "Assigned")
_GRANTS: Final = f"{names.LABEL_ROLE}={ROLE_GRANT}"


class Auditor:
    """Watches a server, and fails when custody is broken."""

    def __init__(self, server: ApiServer, hosts: Hosts, settle_seconds: float) -> None:
        self.moves: Counter[str] = Counter()
        """Every transition of a node that was seen."""
        self.is_late = False
        """Who writes has slept since it read; the Lease would keep it from writing."""
        self.forced: set[str] = set()
        """Uids of pods that somebody removed by force."""
        self._server = server
        self._hosts = hosts
        self._settle_seconds = settle_seconds
        self._open: frozenset[str] = frozenset()
        self._open_until: dict[str, datetime] = {}
        server.observers.append(self._see)

    def check(self) -> None:
        """Check what must hold now."""
        check_company(self._server)
        self._check_processes()
        self._check_grants()

    # ---- writes

    def _see(self, plural: str, before: Object | None, after: Object | None) -> None:
        if plural == kube.GPU_NODE.plural and before is not None and after is not None:
            self._see_ledger(after["metadata"]["name"], before.get("status") or {}, after.get("status") or {})
        elif plural == kube.POD.plural and before is not None and after is None:
            self._see_pod_go(before)
        elif plural in (kube.ROLE.plural, kube.ROLEBINDING.plural):
            self._see_fence()

    def _see_ledger(self, node: str, before: Object, after: Object) -> None:
        if before == after:
            return
        old, new = before.get("phase", "Unmanaged"), after.get("phase", "Unmanaged")
        grown = after.get("epoch", 0) - before.get("epoch", 0)
        scrubs = (old, new) == ("Dirty", "Scrubbing")
        assert grown == (1 if scrubs else 0), f"the epoch of {node} grew by {grown} at {old} → {new}"
        if old != new:
            self.moves[f"{old} → {new}"] += 1
        elif new == "Assigned" and before["holder"] != after["holder"]:
            self.moves["Assigned → Assigned"] += 1
        if scrubs:
            self._check_settled(node)
            self._check_alone(node, new)
        if new == "Free" and old != "Free":
            self._check_freed(node, old, after)
        if (old, new) == ("Free", "Assigned"):
            self._check_alone(node, new)
        if new in ("Free", "Assigned") and old in ("Free", "Assigned"):
            for name in ("epoch", "nodeUid", "bootId", "lastReceipt"):
                assert before.get(name) == after.get(name), f"{name} of {node} changed in {new}"
        if new == "Unmanaged" and old == "Quarantined":
            self._hosts.excuse(node)

    def _check_settled(self, node: str) -> None:
        closed = self._open_until.get(node)
        if closed is None:
            return
        assert node not in self._open, f"{node} is scrubbed behind an open fence"
        age = (self._server.clock.time - closed).total_seconds()
        assert age >= self._settle_seconds, f"{node} is scrubbed {age:.1f} s after its fence was closed"

    def _check_freed(self, node: str, old: str, status: Object) -> None:
        assert old == "Scrubbing", f"{node} went from {old} to Free"
        receipt = self._server.find(kube.RECEIPT, names.receipt(node, status["epoch"]))
        assert receipt is not None, f"{node} is Free without a receipt of epoch {status['epoch']}"
        said = verify_receipt(msgspec.convert(receipt["spec"]["envelope"], Envelope), KEYS)
        nonce = status["scrub"]["nonce"]
        found = (said.node, said.epoch, said.node_uid, said.boot_id, said.nonce, said.verdict)
        wanted = (node, status["epoch"], status["nodeUid"], status["bootId"], nonce, "Cleared")
        assert found == wanted, f"{node} is Free by a receipt of {found}, expected {wanted}"
        assert (node, nonce) in self._hosts.cleared, f"{node} is Free, and its scrub has cleared nothing"
        self._check_alone(node, "Free")

    def _check_alone(self, node: str, phase: str) -> None:
        if self.is_late:
            return
        others = [
            pod["metadata"]["name"]
            for pod in self._server.all(kube.POD, fields=f"spec.nodeName={node}")
            if pod["metadata"]["namespace"] != names.SYSTEM_NAMESPACE and pod["status"].get("phase") not in _TERMINAL
        ]
        assert not others, f"{node} is {phase} with {others} on it"

    def _see_pod_go(self, pod: Object) -> None:
        uid = pod["metadata"]["uid"]
        process = self._hosts.processes.get(uid)
        if process is None or process.role != names.ROLE_TRAIN or uid in self.forced:
            return
        if process.node not in self._hosts.excused:
            assert not process.is_running, f"the object of {process.name} vanished while it runs on {process.node}"

    def _see_fence(self) -> None:
        now = self._server.clock.time
        self._open_until |= dict.fromkeys(self._open, now)
        role = self._server.find(kube.ROLE, names.OPEN_NODES_ACCOUNT, names.OPEN_NAMESPACE)
        granted = {
            item["metadata"]["labels"][names.LABEL_NODE] for item in self._server.all(kube.ROLEBINDING, labels=_GRANTS)
        }
        self._open = frozenset(granted | (parse_names(role) if role is not None else set()))

    # ---- states

    def _check_processes(self) -> None:
        owners: dict[str, set[str]] = {}
        for process in self._hosts.processes.values():
            if process.alive and process.role != names.ROLE_SCRUB and process.owner not in ("", FOREIGN):
                owners.setdefault(process.node, set()).add(process.owner)
        for node, found in owners.items():
            assert len(found) <= 1, f"processes of {sorted(found)} run on {node}"

    def _check_grants(self) -> None:
        for binding in self._server.all(kube.ROLEBINDING, labels=_GRANTS):
            metadata = binding["metadata"]
            node = metadata["labels"][names.LABEL_NODE]
            ledger = self._server.find(kube.GPU_NODE, node)
            status = (ledger or {}).get("status") or {}
            if status.get("phase") not in _HELD:
                continue
            holder = status.get("holder") or {}
            for uid in parse_pod_uids(binding):
                if uid in holder.get("podUids", ()) and metadata["namespace"] == holder["namespace"]:
                    continue
                assert not self._is_bindable(metadata["namespace"], uid), (
                    f"{node} is {status['phase']}, and a grant lets pod {uid} of {metadata['namespace']} onto it"
                )

    def _is_bindable(self, namespace: str, uid: str) -> bool:
        return any(
            pod["metadata"]["uid"] == uid
            and not pod["spec"].get("nodeName")
            and "deletionTimestamp" not in pod["metadata"]
            and pod["status"].get("phase") not in _TERMINAL
            for pod in self._server.all(kube.POD, namespace)
        )
