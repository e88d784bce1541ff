"""Which training pods are open to `kubectl exec`: none, unless the provider has set `Tenant.spec.debug`.

1. Then those that hold datasets of criticality `standard` only, as the operator wrote it into the pod; the keys of a
   dataset that was sealed as more than it is declared are not released.
2. A pod that is being deleted or has ended leaves the list.
"""

from lethe.decisions.actions import Action, SetDebugPods
from lethe.decisions.snapshot import PodFacts, Snapshot
from lethe.model.names import ROLE_TRAIN


def decide_debug(snapshot: Snapshot) -> list[Action]:
    """Keep the lists."""
    wanted: dict[str, set[str]] = {namespace: set() for namespace in snapshot.debug}
    for pod in snapshot.pods.values():
        if _is_open(snapshot, pod):
            wanted.setdefault(pod.namespace, set()).add(pod.name)
    return [
        SetDebugPods(namespace=namespace, pods=sorted(pods))
        for namespace, pods in sorted(wanted.items())
        if frozenset(pods) != snapshot.debug.get(namespace)
    ]


def _is_open(snapshot: Snapshot, pod: PodFacts) -> bool:
    if pod.role != ROLE_TRAIN or pod.criticality != "standard" or pod.is_gated or pod.deleting or pod.has_ended:
        return False
    owners = snapshot.tenants_of(pod.namespace)
    return len(owners) == 1 and owners[0].spec.debug
