"""A namespace that two tenants claim: the operator says so and gives it to neither."""

from tests.common.objects import Object, condition, find, remove, wait_until
from tests.common.world import World

NAMESPACE = "contested"
CLAIMANTS = ("first-claimant", "second-claimant")


def test_a_namespace_claimed_by_two_tenants(world: World, table: dict[str, tuple[str, str]]) -> None:
    kubectl = world.provider.kubectl()
    try:
        kubectl.apply([tenant(name) for name in CLAIMANTS])
        for name in CLAIMANTS:
            wait_until(
                kubectl,
                "tenant",
                name,
                lambda found: condition(found, "Ready").get("reason") == "NamespaceClaimedTwice",
                what=f"tenant {name} to be told that its namespace is claimed twice",
                seconds=60,
            )
        kubectl.apply([{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}])
        said = condition(find(kubectl, "tenant", CLAIMANTS[1]) or {}, "Ready")["message"]
        assert "lethe.dev/tenant" not in kubectl.read("get", "namespace", NAMESPACE)["metadata"]["labels"]
        table["claim: a namespace named by two Tenants"] = "no policy is concerned", f"refused by the operator: {said}"
        remove(kubectl, "tenant", CLAIMANTS[0])
        wait_until(
            kubectl,
            "namespace",
            NAMESPACE,
            lambda found: found["metadata"]["labels"].get("lethe.dev/tenant") == CLAIMANTS[1],
            what="the namespace to belong to the one tenant that is left",
            seconds=60,
        )
    finally:
        for name in CLAIMANTS:
            remove(kubectl, "tenant", name)
        remove(kubectl, "namespace", NAMESPACE)


def tenant(name: str) -> Object:
    """Return a Tenant that claims the namespace."""
    return {
        "apiVersion": "lethe.dev/v1alpha1",
        "kind": "Tenant",
        "metadata": {"name": name},
        "spec": {"namespaces": [NAMESPACE]},
    }
