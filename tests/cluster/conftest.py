"""Makes the cluster's fixtures known to the tests here."""

from tests.cluster.fixtures import object_store, provider

__all__ = ["object_store", "provider"]
