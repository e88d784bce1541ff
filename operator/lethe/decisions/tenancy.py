"""Tenants and their namespaces.

1. A namespace belongs to the one tenant that names it. Named by two, it belongs to nobody new until one lets go. A
   system namespace belongs to nobody: the fence keeps its pods off no node.
2. The label `lethe.dev/tenant` tells the admission policies which namespaces are guarded. It is taken off only when no
   tenant claims the namespace and every training pod in it is released.
"""

import msgspec

from lethe.decisions.actions import Action, CreateJobAccount, LabelNamespace, Note, WriteTenantStatus
from lethe.decisions.conditions import with_condition
from lethe.decisions.snapshot import NamespaceFacts, Snapshot
from lethe.model import reasons
from lethe.model.resources import Tenant


def decide_tenancy(snapshot: Snapshot) -> list[Action]:
    """Decide about namespaces and Tenants."""
    actions: list[Action] = []
    for namespace in snapshot.namespaces.values():
        if not namespace.is_terminating:
            actions += _namespace(snapshot, namespace)
    for tenant in snapshot.tenants.values():
        actions += _tenant(snapshot, tenant)
    return actions


def _namespace(snapshot: Snapshot, namespace: NamespaceFacts) -> list[Action]:
    is_system = namespace.name in snapshot.config.system_namespaces
    claims = [] if is_system else [tenant.metadata.name for tenant in snapshot.tenants_of(namespace.name)]
    actions: list[Action] = []
    if len(claims) == 1:
        if namespace.tenant_label != claims[0]:
            actions.append(_label(namespace, claims[0]))
        if not namespace.has_job_account:
            actions.append(CreateJobAccount(namespace=namespace.name))
    elif not claims and namespace.tenant_label and not _has_pods(snapshot, namespace.name):
        actions.append(_label(namespace, None))
    return actions


def _label(namespace: NamespaceFacts, tenant: str | None) -> LabelNamespace:
    return LabelNamespace(namespace=namespace.name, resource_version=namespace.resource_version, tenant=tenant)


def _has_pods(snapshot: Snapshot, namespace: str) -> bool:
    return any(pod.namespace == namespace for pod in snapshot.pods.values())


def _tenant(snapshot: Snapshot, tenant: Tenant) -> list[Action]:
    problem = _problem(snapshot, tenant)
    reason, message = problem or (reasons.ACCEPTED, f"{len(tenant.spec.namespaces)} namespaces")
    status = msgspec.structs.replace(
        tenant.status,
        observed_generation=tenant.metadata.generation,
        conditions=with_condition(
            tenant.status.conditions,
            reasons.CONDITION_READY,
            "False" if problem else "True",
            reason=reason,
            message=message,
            now=snapshot.now,
            generation=tenant.metadata.generation,
        ),
    )
    if status == tenant.status:
        return []
    notes = [Note(reason=reason, message=message, warning=True)] if problem else []
    return [WriteTenantStatus(tenant=tenant, status=status, notes=notes)]


def _problem(snapshot: Snapshot, tenant: Tenant) -> tuple[str, str] | None:
    for name in tenant.spec.namespaces:
        if name in snapshot.config.system_namespaces:
            return reasons.NAMESPACE_OF_THE_SYSTEM, f"namespace {name} is one of the chart's systemNamespaces"
        if len(snapshot.tenants_of(name)) > 1:
            return reasons.NAMESPACE_CLAIMED_TWICE, f"namespace {name} is claimed by another tenant too"
        if name not in snapshot.namespaces:
            return reasons.NAMESPACE_NOT_FOUND, f"namespace {name} does not exist"
    return None
