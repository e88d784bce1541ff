"""Keyrings, and HPKE as the specification and RFC 9180 say, from X25519, ML-KEM-768, SHA-3 and AES-GCM."""

import base64
import hashlib
import hmac
import re
from dataclasses import dataclass
from itertools import pairwise

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tests.vectors.decoder.primitives import (
    AuthenticationError,
    Bytes,
    InputError,
    KeyringError,
    UnwrapError,
    demand,
    expand,
    prefixed,
)

MAGIC = bytes.fromhex("6c657468656b7201")
NAME = re.compile(rb"[a-z0-9]([a-z0-9.-]*[a-z0-9])?")
CRITICALITIES = {1: b"standard", 2: b"sensitive", 3: b"critical"}
SCHEMES = {1: b"provider"}
SEALED_BYTES = {1: 80, 2: 1168}
ENCAPSULATION_BYTES = {1: 32, 2: 1120}
KEMS = {1: 0x0020, 2: 0x647A}
SUITE_NAMES = {"X25519": 1, "MLKEM768-X25519": 2}


@dataclass(frozen=True)
class PrivateKey:
    suite: int
    raw: bytes


def read_private_key(text: str) -> PrivateKey:
    word, suite, encoded = text.split(":")
    demand(word == "lethe-key-1" and suite in SUITE_NAMES, InputError, "not a private key")
    return PrivateKey(SUITE_NAMES[suite], base64.b64decode(encoded, validate=True))


def kem_secret(key: PrivateKey, encapsulation: bytes) -> bytes:
    """Decapsulate; raise ValueError when that is impossible."""
    scalar = X25519PrivateKey.from_private_bytes(key.raw[-32:])
    own = scalar.public_key().public_bytes_raw()
    ephemeral = encapsulation[-32:]
    shared = scalar.exchange(X25519PublicKey.from_public_bytes(ephemeral))
    if key.suite == 1:
        suite_id = b"KEM" + (0x0020).to_bytes(2, "big")
        extracted = labeled_extract(suite_id, b"", b"eae_prk", shared)
        return labeled_expand(suite_id, extracted, b"shared_secret", ephemeral + own, 32)
    lattice = MLKEM768PrivateKey.from_seed_bytes(key.raw[:64]).decapsulate(encapsulation[:1088])
    return hashlib.sha3_256(lattice + shared + ephemeral + own + bytes.fromhex("5c2e2f2f5e5c")).digest()


def labeled_extract(suite_id: bytes, salt: bytes, label: bytes, secret: bytes) -> bytes:
    return hmac.digest(salt, b"HPKE-v1" + suite_id + label + secret, "sha256")


def labeled_expand(suite_id: bytes, key: bytes, label: bytes, info: bytes, length: int) -> bytes:
    return expand("sha256", key, length.to_bytes(2, "big") + b"HPKE-v1" + suite_id + label + info, length)


def hpke_open(key: PrivateKey, sealed: bytes, info: bytes) -> bytes | None:
    """RFC 9180, base mode, first message. None when it does not open."""
    encapsulated = ENCAPSULATION_BYTES[key.suite]
    suite_id = b"HPKE" + KEMS[key.suite].to_bytes(2, "big") + bytes.fromhex("00010002")
    try:
        shared = kem_secret(key, sealed[:encapsulated])
    except ValueError:
        return None
    context = (
        b"\x00"
        + labeled_extract(suite_id, b"", b"psk_id_hash", b"")
        + labeled_extract(suite_id, b"", b"info_hash", info)
    )
    secret = labeled_extract(suite_id, shared, b"secret", b"")
    aead = AESGCM(labeled_expand(suite_id, secret, b"key", context, 32))
    try:
        return aead.decrypt(labeled_expand(suite_id, secret, b"base_nonce", context, 12), sealed[encapsulated:], b"")
    except InvalidTag:
        return None


@dataclass(frozen=True)
class Stanza:
    epoch: int
    suite: int
    criticality: bytes
    scheme: bytes
    version: int
    tenant: bytes
    namespace: bytes
    key: bytes
    sealed: bytes

    def info(self, dataset: bytes) -> bytes:
        return hashlib.sha512(
            prefixed(
                b"lethe/v1 stanza",
                dataset,
                self.epoch.to_bytes(4, "big"),
                self.tenant,
                self.namespace,
                self.key,
                self.version.to_bytes(4, "big"),
                self.criticality,
                self.scheme,
            )
        ).digest()


@dataclass(frozen=True)
class Keyring:
    dataset: bytes
    stanzas: list[Stanza]
    macs: dict[int, bytes]
    body: bytes


def parse_stanza(data: Bytes) -> Stanza:
    epoch, kind, suite = data.number(4), data.number(1), data.number(1)
    criticality, scheme, version = data.number(1), data.number(1), data.number(4)
    demand(kind == 1, KeyringError, "stanza kind (R2)")
    demand(suite in SEALED_BYTES, KeyringError, "HPKE suite (R2)")
    demand(criticality in CRITICALITIES and scheme in SCHEMES, KeyringError, "criticality or scheme (R2)")
    tenant, namespace, key = (data.take(data.number(1)) for _ in range(3))
    for text, optional in ((tenant, False), (namespace, False), (key, True)):
        good = len(text) <= 253 and NAME.fullmatch(text) is not None
        demand(good or (optional and text == b""), KeyringError, "name in a stanza (R2)")
    demand((key == b"") == (version == 0), KeyringError, "key name and version (R2)")
    sealed = data.take(SEALED_BYTES[suite])
    return Stanza(epoch, suite, CRITICALITIES[criticality], SCHEMES[scheme], version, tenant, namespace, key, sealed)


def parse_keyring(raw: bytes) -> Keyring:
    data = Bytes(raw, KeyringError)
    demand(data.take(8) == MAGIC, KeyringError, "keyring magic (R2)")
    dataset, stanza_count, epoch_count = data.take(16), data.number(2), data.number(2)
    demand(stanza_count <= 512, KeyringError, "stanzas (R2)")
    stanzas = [parse_stanza(data) for _ in range(stanza_count)]
    body = raw[: data.at]
    entries = [(data.number(4), data.take(64)) for _ in range(epoch_count)]
    demand(data.at == len(raw), KeyringError, "bytes left over (R2)")
    epochs = [epoch for epoch, _ in entries]
    demand(all(low < high for low, high in pairwise([0, *epochs])), KeyringError, "epochs do not ascend from 1 (R2)")
    demand(set(epochs) == {stanza.epoch for stanza in stanzas}, KeyringError, "epochs of stanzas and MACs differ (R2)")
    seen = set()
    for stanza in stanzas:
        if stanza.key:
            who = (stanza.epoch, stanza.namespace, stanza.key, stanza.version)
            demand(who not in seen, KeyringError, "a key twice (R2)")
            seen.add(who)
    return Keyring(dataset, stanzas, dict(entries), body)


def mac_key(dek: bytes, dataset: bytes, epoch: int) -> bytes:
    return expand("sha512", dek, prefixed(b"lethe/v1 keyring", dataset, epoch.to_bytes(4, "big")), 64)


def open_keyring(keyring: Keyring, key: PrivateKey) -> dict[int, bytes]:
    """Return the DEKs by epoch (R4, R5)."""
    deks: dict[int, bytes] = {}
    epochs = b"".join(epoch.to_bytes(4, "big") for epoch in keyring.macs)
    for stanza in keyring.stanzas:
        if stanza.suite != key.suite or stanza.epoch in deks:
            continue
        dek = hpke_open(key, stanza.sealed, stanza.info(keyring.dataset))
        if dek is None:
            continue
        mac = hmac.digest(mac_key(dek, keyring.dataset, stanza.epoch), prefixed(keyring.body, epochs), "sha512")
        demand(hmac.compare_digest(mac, keyring.macs[stanza.epoch]), AuthenticationError, "keyring MAC (R5)")
        deks[stanza.epoch] = dek
    demand(bool(deks), UnwrapError, "no stanza opens (R4)")
    return deks
