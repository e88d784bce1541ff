"""The scenarios: what each vector is about."""

from itertools import chain

from tests.vectors.scenarios.data import data
from tests.vectors.scenarios.good import good
from tests.vectors.scenarios.head import head
from tests.vectors.scenarios.index import index
from tests.vectors.scenarios.keyring import keyring
from tests.vectors.scenarios.plaintext import plaintext
from tests.vectors.sealed_keys import SealedKeys
from tests.vectors.vector import Vector


def all_vectors(keys: SealedKeys) -> dict[str, Vector]:
    """Return every vector by name."""
    vectors: dict[str, Vector] = {}
    for name, vector in chain(*(scenarios(keys) for scenarios in (good, keyring, head, index, plaintext, data))):
        if name in vectors:
            raise AssertionError(f"two scenarios are called {name}")
        vectors[name] = vector
    return vectors
