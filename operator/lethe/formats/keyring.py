"""The keyring of a dataset: its keys (DEKs), one per epoch, each sealed to every recipient.

Big-endian. The texts of a stanza are tenant, namespace and key, each after its length in one byte:

| bytes | what |
|---|---|
| 8 | magic, its last byte is the major version |
| 16 | dataset id |
| 2, 2 | number of stanzas; number of epochs |
| … | per stanza: epoch 4, kind 1, HPKE suite 1, criticality 1, scheme 1, key version 4, texts, sealed key |
| 68 × epochs | per epoch, ascending: epoch 4, MAC 64 |

1. A sealed key has the exact length of its suite; kind 1 (*whole*) seals the 32-byte DEK to one recipient.
2. HPKE's `info` is the stanza's binding (`lethe.formats.binding`): a stanza opens only for the dataset, epoch, tenant,
   namespace, key, version, criticality and scheme that it names.
3. The MAC of an epoch is HMAC-SHA-512, under a key derived from that epoch's DEK, over everything before the first
   epoch's MAC entry and the list of epochs. Whoever opens a stanza can tell that no other stanza was added or changed.
4. A keyring can be rewritten for other recipients while all data objects stay; so it is not pinned by the index.
5. Refused: what is unknown, a length that does not fit, bytes left over, an epoch without a stanza or MAC, a key twice.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from struct import Struct
from typing import Final

from lethe.crypto.aead import KEY_BYTES
from lethe.crypto.derive import hkdf_expand, is_equal, length_prefixed, mac
from lethe.crypto.hpke import PrivateKey, PublicKey, SuiteName, sealed_length, suite_of
from lethe.formats.binding import Binding
from lethe.model.errors import AuthenticationError, CryptoError, KeyringError, UnwrapError
from lethe.model.resources import Criticality, Scheme

KEYRING_NAME: Final = "keyring"
MAGIC: Final = b"lethekr\x01"
MAX_KEYRING: Final = 1 << 20
MAC_BYTES: Final = 64
MAX_STANZAS: Final = 512

_HEAD: Final = Struct(">8s16sHH")
_STANZA: Final = Struct(">IBBBBI")
_MAC_ENTRY: Final = Struct(f">I{MAC_BYTES}s")
_WHOLE: Final = 1
_SUITE_BYTES: Final[dict[int, SuiteName]] = {1: "X25519", 2: "MLKEM768-X25519"}
_MAC_LABEL: Final = b"lethe/v1 keyring"
_CRITICALITIES: Final[dict[int, Criticality]] = {1: "standard", 2: "sensitive", 3: "critical"}
_SCHEMES: Final[dict[int, Scheme]] = {1: "provider"}
_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class Stanza:
    """The key of one epoch, sealed to one recipient. `key` is empty and `version` 0 for an offline recovery key."""

    epoch: int
    suite: SuiteName
    tenant: str
    namespace: str
    key: str
    version: int
    criticality: Criticality
    scheme: Scheme
    sealed: bytes

    def binding(self, dataset_id: str) -> Binding:
        """Return what the stanza says that it is bound to."""
        return Binding(
            dataset_id=dataset_id,
            epoch=self.epoch,
            tenant=self.tenant,
            namespace=self.namespace,
            key=self.key,
            version=self.version,
            criticality=self.criticality,
            scheme=self.scheme,
        )


@dataclass(frozen=True, slots=True)
class Keyring:
    """A keyring that has been checked for form; `verify_keyring` says whether it is genuine."""

    dataset_id: str
    """32 hex digits."""
    stanzas: tuple[Stanza, ...]
    macs: Mapping[int, bytes]
    """By epoch."""

    def epochs(self) -> list[int]:
        """Return the epochs, ascending."""
        return sorted(self.macs)

    def stanzas_for(self, *, namespace: str, key: str | None = None) -> list[Stanza]:
        """Return the stanzas for keys of the key service in a namespace, or for the one key named."""
        return [
            stanza
            for stanza in self.stanzas
            if stanza.key and stanza.namespace == namespace and key in (None, stanza.key)
        ]


def build_keyring(dataset_id: str, deks: Mapping[int, bytes], recipients: Sequence[tuple[Binding, PublicKey]]) -> bytes:
    """Seal each epoch's key to the recipients whose binding names that epoch, and return the whole object."""
    stanzas = []
    for binding, public_key in recipients:
        if binding.dataset_id != dataset_id or binding.epoch not in deks:
            raise KeyringError(
                f"a recipient is bound to epoch {binding.epoch} of {binding.dataset_id}, not of {dataset_id}"
            )
        stanzas.append(seal_stanza(binding, public_key, deks[binding.epoch]))
    return encode_keyring(dataset_id, stanzas, deks)


def seal_stanza(binding: Binding, public_key: PublicKey, dek: bytes) -> Stanza:
    """Seal one epoch's key to one recipient."""
    return Stanza(
        epoch=binding.epoch,
        suite=public_key.suite,
        tenant=binding.tenant,
        namespace=binding.namespace,
        key=binding.key,
        version=binding.version,
        criticality=binding.criticality,
        scheme=binding.scheme,
        sealed=public_key.seal(dek, binding.info()),
    )


def encode_keyring(dataset_id: str, stanzas: Sequence[Stanza], deks: Mapping[int, bytes]) -> bytes:
    """Return the whole object for stanzas that are sealed already. The same input gives the same bytes."""
    body = _encode_body(dataset_id, stanzas, sorted(deks))
    data = body + b"".join(
        _MAC_ENTRY.pack(epoch, _mac(body, epoch, sorted(deks), deks[epoch])) for epoch in sorted(deks)
    )
    parse_keyring(data)
    return data


def parse_keyring(data: bytes) -> Keyring:
    """Read the form of a keyring; raise KeyringError. Nothing in it is authentic yet."""
    if not _HEAD.size <= len(data) <= MAX_KEYRING:
        raise KeyringError(f"a keyring has {_HEAD.size} to {MAX_KEYRING} bytes, found {len(data)}")
    magic, dataset_id, count, epoch_count = _HEAD.unpack_from(data)
    if magic != MAGIC:
        raise KeyringError(
            f"this is not a keyring of dataset format 1: it begins with {magic.hex()}, not {MAGIC.hex()}"
        )
    if count > MAX_STANZAS:
        raise KeyringError(f"the keyring has {count} stanzas, expected at most {MAX_STANZAS}")
    cursor = _Cursor(data, _HEAD.size)
    stanzas = tuple(_parse_stanza(cursor) for _ in range(count))
    entries = [_MAC_ENTRY.unpack(cursor.take(_MAC_ENTRY.size)) for _ in range(epoch_count)]
    if cursor.position != len(data):
        raise KeyringError(f"the keyring has {len(data) - cursor.position} bytes too many")
    epochs = [epoch for epoch, _ in entries]
    if epochs != sorted(set(epochs)) or set(epochs) != {stanza.epoch for stanza in stanzas} or 0 in epochs:
        raise KeyringError("the keyring's epochs are not ascending from 1, or one has no stanza or no MAC")
    named = [(stanza.epoch, stanza.namespace, stanza.key, stanza.version) for stanza in stanzas if stanza.key]
    if len(set(named)) != len(named):
        raise KeyringError("the keyring names one key twice in one epoch")
    return Keyring(dataset_id.hex(), stanzas, dict(entries))


def verify_keyring(keyring: Keyring, epoch: int, dek: bytes) -> None:
    """Check the MAC of one epoch; raise AuthenticationError, or KeyringError for an epoch that is not there."""
    if epoch not in keyring.macs:
        raise KeyringError(f"the keyring has no epoch {epoch}, found {keyring.epochs()}")
    body = _encode_body(keyring.dataset_id, keyring.stanzas, keyring.epochs())
    if not is_equal(_mac(body, epoch, keyring.epochs(), dek), keyring.macs[epoch]):
        raise AuthenticationError(
            f"the keyring of dataset {keyring.dataset_id} is not authentic: a stanza was added, removed or changed"
        )


def open_stanza(stanza: Stanza, dataset_id: str, private_key: PrivateKey) -> bytes:
    """Return the DEK; raise UnwrapError."""
    dek = private_key.open(stanza.sealed, stanza.binding(dataset_id).info())
    if len(dek) != KEY_BYTES:
        raise UnwrapError(f"a stanza holds {len(dek)} bytes, a dataset key has {KEY_BYTES}")
    return dek


def open_keyring(keyring: Keyring, private_key: PrivateKey) -> dict[int, bytes]:
    """Return the DEK of each epoch that this key opens, the keyring verified with each; raise UnwrapError for none."""
    deks: dict[int, bytes] = {}
    for stanza in keyring.stanzas:
        if stanza.suite != private_key.suite or stanza.epoch in deks:
            continue
        try:
            deks[stanza.epoch] = open_stanza(stanza, keyring.dataset_id, private_key)
        except UnwrapError:
            continue
        verify_keyring(keyring, stanza.epoch, deks[stanza.epoch])
    if not deks:
        raise UnwrapError(
            f"none of the {len(keyring.stanzas)} stanzas of dataset {keyring.dataset_id} opens with key "
            f"{private_key.public_key().key_id}: it was sealed to other keys"
        )
    return deks


class _Cursor:
    def __init__(self, data: bytes, position: int) -> None:
        self.data = data
        self.position = position

    def take(self, count: int) -> bytes:
        if self.position + count > len(self.data):
            raise KeyringError(f"the keyring ends after {len(self.data)} bytes, inside an entry: it was cut off")
        self.position += count
        return self.data[self.position - count : self.position]

    def text(self, what: str, *, optional: bool = False) -> str:
        raw = self.take(self.take(1)[0])
        value = raw.decode("latin-1")
        if not (_NAME.fullmatch(value) or (optional and not value)):
            raise KeyringError(f"{what} {value!r} in the keyring is not a Kubernetes name")
        return value


def _parse_stanza(cursor: _Cursor) -> Stanza:
    epoch, kind, suite_byte, criticality, scheme, version = _STANZA.unpack(cursor.take(_STANZA.size))
    if kind != _WHOLE:
        raise KeyringError(
            f"unknown stanza kind {kind}, expected {_WHOLE}: a newer version of Lethe may have written this"
        )
    if criticality not in _CRITICALITIES or scheme not in _SCHEMES:
        raise KeyringError(f"unknown criticality {criticality} or scheme {scheme} in the keyring")
    try:
        suite = suite_of(suite_byte)
    except CryptoError as error:
        raise KeyringError(f"a stanza of the keyring has an {error}") from error
    tenant, namespace = cursor.text("tenant"), cursor.text("namespace")
    key = cursor.text("key", optional=True)
    if bool(key) != bool(version):
        raise KeyringError(
            f"key {key!r} with version {version}: a named key counts from 1, a recovery key has version 0"
        )
    return Stanza(
        epoch=epoch,
        suite=suite,
        tenant=tenant,
        namespace=namespace,
        key=key,
        version=version,
        criticality=_CRITICALITIES[criticality],
        scheme=_SCHEMES[scheme],
        sealed=cursor.take(sealed_length(suite, KEY_BYTES)),
    )


def _encode_body(dataset_id: str, stanzas: Sequence[Stanza], epochs: Sequence[int]) -> bytes:
    return _HEAD.pack(MAGIC, bytes.fromhex(dataset_id), len(stanzas), len(epochs)) + b"".join(
        _encode_stanza(stanza) for stanza in stanzas
    )


def _encode_stanza(stanza: Stanza) -> bytes:
    return (
        _STANZA.pack(
            stanza.epoch,
            _WHOLE,
            _number(_SUITE_BYTES, stanza.suite),
            _number(_CRITICALITIES, stanza.criticality),
            _number(_SCHEMES, stanza.scheme),
            stanza.version,
        )
        + _text(stanza.tenant)
        + _text(stanza.namespace)
        + _text(stanza.key)
        + stanza.sealed
    )


def _text(value: str) -> bytes:
    raw = value.encode()
    if len(raw) > 253:
        raise KeyringError(f"the name {value[:40]!r}… has {len(raw)} bytes, expected at most 253")
    return bytes([len(raw)]) + raw


def _number(table: Mapping[int, str], value: str) -> int:
    for number, known in table.items():
        if known == value:
            return number
    raise KeyringError(f"{value!r} cannot be written into a keyring, expected one of {', '.join(table.values())}")


def _mac(body: bytes, epoch: int, epochs: Sequence[int], dek: bytes) -> bytes:
    key = hkdf_expand(dek, length_prefixed(_MAC_LABEL, body[8:24], epoch.to_bytes(4, "big")), MAC_BYTES)
    return mac(key, length_prefixed(body, b"".join(number.to_bytes(4, "big") for number in epochs)))
