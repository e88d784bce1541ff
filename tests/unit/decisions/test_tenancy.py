"""A system namespace belongs to no tenant: its pods may be on every node."""

import msgspec
import pytest

from lethe.decisions.actions import LabelNamespace, WriteTenantStatus
from lethe.decisions.snapshot import NamespaceFacts
from lethe.decisions.tenancy import decide_tenancy
from lethe.decisions.validation import find_tenant
from lethe.model.config import OperatorConfig
from lethe.model.errors import ResourceError
from lethe.model.resources import Tenant
from tests.unit.decisions.worlds import world

CONFIG = OperatorConfig(image="lethe:test", system_namespaces=("kube-system", "lethe-system", "monitoring"))


def claim(namespace: str) -> dict[str, Tenant]:
    tenant = {"metadata": {"name": "acme"}, "spec": {"namespaces": [namespace]}}
    return {"acme": msgspec.convert(tenant, Tenant)}


@pytest.mark.parametrize("namespace", ["monitoring", "lethe-system"])
def test_a_system_namespace_is_not_given_away(namespace: str) -> None:
    snapshot = world(config=CONFIG, tenants=claim(namespace), namespaces={namespace: NamespaceFacts(name=namespace)})
    [action] = decide_tenancy(snapshot)
    assert isinstance(action, WriteTenantStatus)
    [ready] = action.status.conditions
    assert (ready.status, ready.reason) == ("False", "NamespaceOfTheSystem")
    with pytest.raises(ResourceError, match="systemNamespaces"):
        find_tenant(snapshot, namespace)


def test_a_namespace_that_becomes_the_systems_loses_its_label() -> None:
    facts = NamespaceFacts(name="monitoring", tenant_label="acme")
    snapshot = world(config=CONFIG, tenants=claim("monitoring"), namespaces={"monitoring": facts})
    assert LabelNamespace(namespace="monitoring", resource_version="", tenant=None) in decide_tenancy(snapshot)


def test_another_namespace_is_given_to_who_names_it() -> None:
    snapshot = world(config=CONFIG, tenants=claim("acme"), namespaces={"acme": NamespaceFacts(name="acme")})
    assert LabelNamespace(namespace="acme", resource_version="", tenant="acme") in decide_tenancy(snapshot)
    assert find_tenant(snapshot, "acme").metadata.name == "acme"
