"""Keyrings that are changed, cut off, swapped, or wrong in form. The reader is the owner of the recovery key.

The keyring of `small` holds a stanza of the key service and one of the recovery key. Where a form is wrong, the MAC is
right: it does not save a reader that takes the form.
"""

from dataclasses import replace

from tests.vectors.forge import ACME, ACME_PQ, GLOBEX, Forged, Stanza, Stored, fixed, forge, service_stanza
from tests.vectors.scenarios.base import SMALL, Scenarios, cut, flip, put, small
from tests.vectors.sealed_keys import SealedKeys

HEAD = 28
SERVICE_STANZA = 12 + 3 + len("acme") + len("acme-train") + len("default") + 80
OWN = HEAD + SERVICE_STANZA
"""Where the reader's own stanza begins."""
OWN_TEXTS = OWN + 12
OWN_SEALED = OWN_TEXTS + 3 + len("acme") + len("acme-train")
MACS = OWN_SEALED + 80


def keyring(keys: SealedKeys) -> Scenarios:
    """Yield name and vector."""
    yield from _flips(keys)
    yield from _cuts(keys)
    yield from _forms(keys)
    yield from _epochs(keys)
    yield from _swaps(keys)


def _flips(keys: SealedKeys) -> Scenarios:
    for name, at, mask, error, rule in (
        ("magic", 0, 0x01, "KeyringError", "R2"),
        ("version", 7, 0x03, "KeyringError", "R2"),
        ("dataset-id", 8, 0x01, "IntegrityError", "R3"),
        ("stanza-count", 25, 0x01, "KeyringError", "R2"),
        ("stanza-count-one-less", 25, 0x03, "KeyringError", "R2"),
        ("epoch-count", 27, 0x02, "KeyringError", "R2"),
        ("own-epoch", OWN + 3, 0x02, "KeyringError", "R2"),
        ("own-kind", OWN + 4, 0x02, "KeyringError", "R2"),
        ("own-suite-unknown", OWN + 5, 0x80, "KeyringError", "R2"),
        ("own-suite-other", OWN + 5, 0x03, "KeyringError", "R2"),
        ("own-criticality-unknown", OWN + 6, 0x10, "KeyringError", "R2"),
        ("own-criticality-other", OWN + 6, 0x03, "UnwrapError", "R4"),
        ("own-scheme", OWN + 7, 0x02, "KeyringError", "R2"),
        ("own-key-version", OWN + 11, 0x01, "KeyringError", "R2"),
        ("own-tenant-length", OWN_TEXTS, 0x01, "KeyringError", "R2"),
        ("own-tenant", OWN_TEXTS + 1, 0x02, "UnwrapError", "R4"),
        ("own-namespace", OWN_TEXTS + 6, 0x02, "UnwrapError", "R4"),
        ("own-encapsulation", OWN_SEALED, 0x01, "UnwrapError", "R4"),
        ("own-sealed-key", OWN_SEALED + 32, 0x01, "UnwrapError", "R4"),
        ("own-sealed-key-tag", OWN_SEALED + 79, 0x80, "UnwrapError", "R4"),
        ("other-key-version", HEAD + 11, 0x01, "AuthenticationError", "R5"),
        ("other-key-name", HEAD + 12 + 5 + 11 + 1, 0x01, "AuthenticationError", "R5"),
        ("other-sealed-key", OWN - 1, 0x01, "AuthenticationError", "R5"),
        ("mac-epoch", MACS + 3, 0x02, "KeyringError", "R2"),
        ("mac", MACS + 4, 0x01, "AuthenticationError", "R5"),
        ("mac-last", MACS + 67, 0x80, "AuthenticationError", "R5"),
    ):
        stored = small().seal(keys).change("keyring", flip(at, mask))
        yield f"keyring-flip-{name}", stored.vector(f"A bit of the keyring is flipped: {name}.", rule, error)


def _cuts(keys: SealedKeys) -> Scenarios:
    for name, length in (
        ("to-nothing", 0),
        ("in-head", HEAD - 1),
        ("after-head", HEAD),
        ("in-stanza", OWN + 11),
        ("between-stanzas", OWN),
        ("in-name", OWN_TEXTS + 3),
        ("in-sealed-key", OWN_SEALED + 79),
        ("after-stanzas", MACS),
        ("in-mac-epoch", MACS + 3),
        ("by-one-byte", -1),
    ):
        stored = small().seal(keys).change("keyring", cut(length))
        yield f"keyring-cut-{name}", stored.vector(f"The keyring is cut off: {name}.", "R2", "KeyringError")
    stored = small().seal(keys).change("keyring", lambda data: data + b"\0")
    yield "keyring-with-a-byte-more", stored.vector("One byte follows the keyring.", "R2", "KeyringError")
    stored = small().seal(keys)
    del stored.objects["keyring"]
    yield "keyring-missing", stored.vector("There is no keyring.", "R22", "ObjectMissingError")


def _forms(keys: SealedKeys) -> Scenarios:
    """Forms that a writer with the DEK could make."""
    own = Stanza(ACME)
    for name, stanza, about in (
        ("kind-split", replace(own, kind=2), "Stanza kind 2 is unknown."),
        ("kind-zero", replace(own, kind=0), "Stanza kind 0 is unknown."),
        ("suite-zero", replace(own, suite=0), "HPKE suite 0 is unknown."),
        ("tenant-empty", replace(own, tenant=b""), "A stanza without a tenant."),
        ("namespace-empty", replace(own, namespace=b""), "A stanza without a namespace."),
        ("tenant-upper-case", replace(own, tenant=b"Acme"), "A tenant's name with an upper-case letter."),
        ("tenant-newline", replace(own, tenant=b"acme\n"), "A tenant's name that ends with a line feed."),
        ("tenant-hyphen-last", replace(own, tenant=b"acme-"), "A tenant's name that ends with a hyphen."),
        ("tenant-too-long", replace(own, tenant=b"a" * 254), "A tenant's name of 254 bytes."),
        ("version-without-key", replace(own, version=1), "A recovery key with a version."),
        ("key-without-version", replace(own, key=b"default"), "A named key of version 0."),
    ):
        draft = small()
        stanza.sealed = own.seal(keys, draft.dataset_id, draft.dek(1))
        draft.stanzas = [service_stanza(), stanza]
        yield f"keyring-{name}", draft.seal(keys).vector(about, "R2", "KeyringError")
    draft = small()
    draft.stanzas = [Stanza(ACME, tenant="größe".encode(), sealed=bytes(80))]
    yield "keyring-tenant-not-ascii", draft.seal(keys).vector("Letters beyond ASCII.", "R2", "KeyringError")
    for name, count in (("short", 79), ("long", 81)):
        draft = small()
        sealed = (own.seal(keys, draft.dataset_id, draft.dek(1)) + b"\0")[:count]
        draft.stanzas = [service_stanza(), replace(own, sealed=sealed)]
        about = f"A sealed key of {count} bytes where the suite says 80."
        yield f"keyring-sealed-key-{name}", draft.seal(keys).vector(about, "R2", "KeyringError")
    draft = small()
    draft.stanzas = [service_stanza(), replace(service_stanza(), sealed=b"x" * 80), Stanza(ACME)]
    yield "keyring-key-twice", draft.seal(keys).vector("One named key twice in an epoch.", "R2", "KeyringError")
    draft = small()
    draft.stanzas, draft.mac_epochs = [], []
    yield "keyring-without-stanzas", draft.seal(keys).vector("A keyring for nobody.", "R4", "UnwrapError")
    draft = small()
    draft.change_body = put(24, (513).to_bytes(2, "big"))
    yield "keyring-too-many-stanzas", draft.seal(keys).vector("513 stanzas, it says.", "R2", "KeyringError")
    draft = small()
    draft.stanzas = [replace(own, sealed=bytes(80))]
    about = "The encapsulated key is a point of low order: the shared secret would be zero."
    yield "keyring-low-order-point", draft.seal(keys).vector(about, "R4", "UnwrapError")
    draft = small()
    draft.stanzas = [Stanza(ACME_PQ, sealed=bytes(1168))]
    stored = draft.seal(keys)
    stored.private_key = ACME_PQ
    about = "The same for MLKEM768-X25519."
    yield "keyring-low-order-point-mlkem768-x25519", stored.vector(about, "R4", "UnwrapError")


def _epochs(keys: SealedKeys) -> Scenarios:
    def both() -> Forged:
        draft = small()
        draft.stanzas = [Stanza(ACME), Stanza(ACME, epoch=2)]
        return draft

    for name, epochs, about in (
        ("descend", [2, 1], "MACs of epochs 2 and 1, in this order."),
        ("twice", [1, 2, 2], "Two MACs of one epoch."),
        ("without-mac", [1], "A stanza of an epoch without a MAC."),
        ("without-stanza", [1, 2, 3], "A MAC of an epoch without a stanza."),
    ):
        draft = both()
        draft.mac_epochs = epochs
        yield f"keyring-epochs-{name}", draft.seal(keys).vector(about, "R2", "KeyringError")
    draft = small()
    draft.stanzas = [Stanza(ACME), Stanza(ACME, epoch=0)]
    yield "keyring-epoch-zero", draft.seal(keys).vector("Epochs count from 1.", "R2", "KeyringError")
    draft = small()
    draft.stanzas = [Stanza(ACME, epoch=2)]
    about = "Keys of epoch 2 only, for objects of epoch 1."
    yield "keyring-of-a-later-epoch", draft.seal(keys).vector(about, "R8", "UnwrapError")
    stored = small().seal(keys)
    draft = small()
    draft.deks = {1: fixed("another dek", 32)}
    stored.objects["keyring"] = draft.seal_keyring(keys)
    about = "Another DEK, with a right MAC: made with nothing but the recipient's public key."
    yield "keyring-forged-with-another-dek", stored.vector(about, "R10", "CommitmentError")


def _swaps(keys: SealedKeys) -> Scenarios:
    def swapped(other: Forged) -> Stored:
        stored = small().seal(keys)
        stored.objects["keyring"] = other.seal_keyring(keys)
        return stored

    about = "The keyring of another dataset, for the same recipients."
    yield "keyring-of-another-dataset", swapped(forge("other", SMALL)).vector(about, "R3", "IntegrityError")
    about = "The same, with this dataset's id written into it."
    stored = swapped(forge("other", SMALL)).change("keyring", put(8, small().dataset_id))
    yield "keyring-of-another-dataset-renamed", stored.vector(about, "R4", "UnwrapError")
    draft = small()
    draft.stanzas = [Stanza(GLOBEX, tenant=b"globex", namespace=b"globex")]
    about = "The key is sealed to another tenant only."
    yield "keyring-of-another-tenant", draft.seal(keys).vector(about, "R4", "UnwrapError")
    stored = small().seal(keys)
    stored.private_key = GLOBEX
    yield "keyring-read-by-a-stranger", stored.vector("The reader is no recipient.", "R4", "UnwrapError")
    stored = small().seal(keys)
    stored.private_key = ACME_PQ
    yield "keyring-read-in-another-suite", stored.vector("The reader's key is of suite 2.", "R4", "UnwrapError")
    draft = small()
    draft.stanzas = [Stanza(ACME, namespace=b"acme-other")]
    draft.stanzas[0].sealed = Stanza(ACME).seal(keys, draft.dataset_id, draft.dek(1))
    about = "A stanza names another namespace than the one that its key was sealed for."
    yield "keyring-stanza-of-another-namespace", draft.seal(keys).vector(about, "R4", "UnwrapError")
    for name, change, about in (
        ("added", lambda own, other: [other, own, Stanza(GLOBEX)], "A stanza more than the MAC knows."),
        ("removed", lambda own, other: [own], "A stanza less than the MAC knows."),
        ("reordered", lambda own, other: [own, other], "Stanzas in another order than the MAC knows."),
    ):
        draft = small()
        mac = draft.seal_keyring(keys)[-68:]
        own, other = draft.stanzas[1], draft.stanzas[0]
        draft.stanzas = change(own, other)
        stored = draft.seal(keys)
        stored.change("keyring", lambda data, mac=mac: data[:-68] + mac)
        yield f"keyring-stanza-{name}", stored.vector(about, "R5", "AuthenticationError")
