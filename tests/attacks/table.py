"""The attack table: every request that works without the admission policies and must be refused with them."""

from lethe.adapters import kube as kinds
from tests.apiserver.cluster import TAINT, Scene
from tests.apiserver.requests import (
    ADMIN,
    CLUSTER_ADMIN,
    SCHEDULER,
    TENANT,
    Row,
    bind,
    delete,
    edit,
    kubelet,
    mirror,
    patch,
    token,
)
from tests.attacks.jobs import IMMUTABLE, job_attacks, swap
from tests.attacks.ledger import forge_receipt, ledger_attacks, namespace_attacks, right_attacks
from tests.attacks.nodes import bind_attacks, connect_attacks, node_attacks, placement_attacks, scheduling_attacks
from tests.attacks.pods import account_attacks, pod_attacks, workload_attacks


def attacks(s: Scene) -> list[Row]:
    """Return all attacks that are plain requests."""
    return [
        *bind_attacks(s),
        *placement_attacks(s),
        *scheduling_attacks(s),
        *node_attacks(s),
        *pod_attacks(s),
        *workload_attacks(s),
        *account_attacks(s),
        *namespace_attacks(s),
        *ledger_attacks(s),
        *right_attacks(s),
        *job_attacks(s),
    ]


def entries(s: Scene) -> list[Row]:
    """Return the attacks that ask for a connection."""
    return connect_attacks(s)


def refused_anyway(s: Scene) -> list[Row]:
    """Return what Kubernetes refuses by itself, on which the fence relies."""
    taint = {"spec": {"taints": [{**TAINT, "key": "mine"}]}}
    return [
        Row("core: bind another pod under the uid of the holder's", SCHEDULER, bind("mine", s.held, uid=GRANTED)),
        Row("core: bind a pod that is gated", SCHEDULER, bind("lethe-digits-1", s.open)),
        Row("core: a static pod shown by another kubelet", kubelet(s.free), mirror(s.held)),
        Row(
            "core: status of a pod written by another kubelet",
            kubelet(s.free),
            patch(kinds.POD, s.running, "acme", {"status": {"phase": "Succeeded"}}, "status"),
        ),
        Row("core: a token asked for by a kubelet without a pod", kubelet(s.free), token("lethe-job", "acme")),
        Row("core: a kubelet takes its node's taint away", kubelet(s.held), patch(kinds.NODE, s.held, "", taint)),
        Row("core: a kubelet deletes its node", kubelet(s.held), delete(kinds.NODE, s.held)),
        Row("core: an argument of a pod changed", CLUSTER_ADMIN, edit(kinds.POD, s.running, "acme", ARGUMENT)),
        Row("core: a tenant deletes another's pod", TENANT, delete(kinds.POD, "theirs", "globex")),
        Row("rbac: a tenant makes a receipt", ADMIN, forge_receipt()),
        Row("rbac: a tenant deletes a receipt", ADMIN, delete(kinds.RECEIPT, s.receipt)),
        *(Row(f"schema: {name} of a job swapped", TENANT, swap(s.job, change)) for name, change in IMMUTABLE.items()),
        Row("schema: a receipt edited", CLUSTER_ADMIN, patch(kinds.RECEIPT, s.receipt, "", {"spec": {"epoch": 900}})),
    ]


GRANTED = "acme/lethe-digits-0"
ARGUMENT = [{"op": "add", "path": "/spec/containers/0/args", "value": ["evil"]}]
