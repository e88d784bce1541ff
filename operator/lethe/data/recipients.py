"""Who can open a dataset: reads its keyring, and rewrites it while all data objects stay as they are.

1. A recipient gets a stanza for every epoch. Its name is NAMESPACE/NAME@VERSION for a key of the key service, and
   recovery:N for the Nth recovery key: a keyring does not tell whose that is, only a private key that opens it does.
2. Whoever rewrites a keyring has the keys of all its epochs, from a recipient's private key: each has its own MAC.
3. A keyring is replaced whole, and only if it is still the one that was read: of two who write at once, one is told to
   begin again, and nobody's change is lost.
4. No epoch is left without a recipient.
"""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from lethe.crypto.hpke import PrivateKey, SuiteName, parse_public
from lethe.formats.keyring import (
    KEYRING_NAME,
    MAX_KEYRING,
    Keyring,
    Stanza,
    encode_keyring,
    open_keyring,
    open_stanza,
    parse_keyring,
    seal_stanza,
)
from lethe.model.agentconfig import OutputRecipient
from lethe.model.errors import InputError, IntegrityError, UnwrapError
from lethe.model.ports import ObjectStore
from lethe.model.resources import Criticality

RECOVERY = "recovery"


@dataclass(frozen=True)
class Recipient:
    """One who can open a dataset, as the keyring tells it."""

    name: str
    suite: SuiteName
    tenant: str
    criticality: Criticality
    epochs: tuple[int, ...]
    is_recovery: bool


@dataclass(frozen=True)
class OpenKeyring:
    """A keyring that is authentic, the keys in it, and the version of the object that it was read from."""

    keyring: Keyring
    deks: Mapping[int, bytes] = field(repr=False)
    tag: str


def read_keyring(store: ObjectStore, dataset_id: str) -> tuple[Keyring, str]:
    """Fetch a dataset's keyring and its tag; raise IntegrityError when it is of another dataset."""
    data, tag = store.get_tagged(KEYRING_NAME, MAX_KEYRING)
    keyring = parse_keyring(data)
    if keyring.dataset_id != dataset_id:
        raise IntegrityError(f"the keyring there is of dataset {keyring.dataset_id}, expected {dataset_id}")
    return keyring, tag


def open_for_change(store: ObjectStore, dataset_id: str, private_key: PrivateKey) -> OpenKeyring:
    """Fetch a keyring and open all its epochs; raise UnwrapError when the private key does not open every one."""
    keyring, tag = read_keyring(store, dataset_id)
    deks = open_keyring(keyring, private_key)
    if sorted(deks) != keyring.epochs():
        raise UnwrapError(
            f"key {private_key.public_key().key_id} opens epochs {sorted(deks)}, the keyring has {keyring.epochs()}: "
            "use the private key of a recipient of all of them"
        )
    return OpenKeyring(keyring, deks, tag)


def write_keyring(store: ObjectStore, opened: OpenKeyring, stanzas: Sequence[Stanza]) -> None:
    """Replace the keyring that was read; raise ConflictError when it is another by now."""
    data = encode_keyring(opened.keyring.dataset_id, stanzas, opened.deks)
    store.replace(KEYRING_NAME, data, opened.tag)


def list_recipients(keyring: Keyring) -> list[Recipient]:
    """Return all recipients, keys of the key service before recovery keys."""
    epochs: dict[str, list[Stanza]] = {}
    for name, stanza in _named(keyring):
        epochs.setdefault(name, []).append(stanza)
    recipients = [
        Recipient(
            name=name,
            suite=stanzas[0].suite,
            tenant=stanzas[0].tenant,
            criticality=stanzas[0].criticality,
            epochs=tuple(stanza.epoch for stanza in stanzas),
            is_recovery=not stanzas[0].key,
        )
        for name, stanzas in epochs.items()
    ]
    return sorted(recipients, key=lambda recipient: (recipient.is_recovery, recipient.name))


def opened_by(keyring: Keyring, private_key: PrivateKey) -> set[str]:
    """Return the names of the recipients whose stanzas a private key opens."""
    opened = set()
    for name, stanza in _named(keyring):
        with contextlib.suppress(UnwrapError):
            if stanza.suite == private_key.suite:
                open_stanza(stanza, keyring.dataset_id, private_key)
                opened.add(name)
    return opened


def seal_for(opened: OpenKeyring, recipient: OutputRecipient) -> list[Stanza]:
    """Return the stanzas of one more recipient, bound to what all others are bound to."""
    public_key = parse_public(recipient.public_key)
    model = opened.keyring.stanzas[0]
    return [
        seal_stanza(
            replace(model, epoch=epoch, key=recipient.key, version=recipient.version).binding(
                opened.keyring.dataset_id
            ),
            public_key,
            opened.deks[epoch],
        )
        for epoch in opened.keyring.epochs()
    ]


def add_recipients(store: ObjectStore, opened: OpenKeyring, recipients: Sequence[OutputRecipient]) -> list[str]:
    """Seal the dataset's keys to more recipients; return the names that these have now."""
    before = {recipient.name for recipient in list_recipients(opened.keyring)}
    for recipient in recipients:
        name = _name_of(opened.keyring.stanzas[0].namespace, recipient.key, recipient.version)
        if recipient.key and name in before:
            raise InputError(f"{name} is a recipient already: remove it first, or name another version")
    added = [stanza for recipient in recipients for stanza in seal_for(opened, recipient)]
    stanzas = (*opened.keyring.stanzas, *added)
    write_keyring(store, opened, stanzas)
    after = list_recipients(replace(opened.keyring, stanzas=stanzas))
    return [recipient.name for recipient in after if recipient.name not in before]


def remove_recipients(
    store: ObjectStore, opened: OpenKeyring, names: Sequence[str], *, is_last_recovery_key_expendable: bool
) -> None:
    """Take recipients out of the keyring; raise InputError for one that is not there, or that must stay."""
    there = {recipient.name for recipient in list_recipients(opened.keyring)}
    for name in names:
        if name not in there:
            raise InputError(f"{name} is not a recipient of this dataset: it has {', '.join(sorted(there))}")
    left = [(name, stanza) for name, stanza in _named(opened.keyring) if name not in names]
    if {stanza.epoch for _, stanza in left} != set(opened.keyring.epochs()):
        raise InputError(f"without {', '.join(names)} nobody could open the dataset: add another recipient first")
    had = any(not stanza.key for stanza in opened.keyring.stanzas)
    if had and all(stanza.key for _, stanza in left) and not is_last_recovery_key_expendable:
        raise InputError(
            f"without {', '.join(names)} no recovery key opens the dataset, and it is lost with the key service: add "
            "another recovery key first, or use --force"
        )
    write_keyring(store, opened, [stanza for _, stanza in left])


def replace_recipients(store: ObjectStore, opened: OpenKeyring, recipients: Sequence[OutputRecipient]) -> None:
    """Seal the dataset's keys to these recipients and nobody else."""
    write_keyring(store, opened, [stanza for recipient in recipients for stanza in seal_for(opened, recipient)])


def _named(keyring: Keyring) -> list[tuple[str, Stanza]]:
    recovery_keys: dict[int, int] = {}
    named = []
    for stanza in keyring.stanzas:
        if stanza.key:
            named.append((_name_of(stanza.namespace, stanza.key, stanza.version), stanza))
        else:
            recovery_keys[stanza.epoch] = number = recovery_keys.get(stanza.epoch, 0) + 1
            named.append((f"{RECOVERY}:{number}", stanza))
    return named


def _name_of(namespace: str, key: str, version: int) -> str:
    return f"{namespace}/{key}@{version}"
