"""`lethe-setup keys`: certificate authority, certificate of the key service, receipt key, and who may trust them.

1. What exists is kept: a second run changes nothing, so that receipts and pods go on verifying after an upgrade.
2. The key service's certificate is the exception: it is renewed while half of its life is still left.
3. ConfigMap lethe-trust holds public halves only. A receipt key that was ever trusted stays in it, or older receipts
   would stop verifying; a new one is appended with the next version.
4. Something of ours that does not parse is an error, never replaced: it may be the only copy of a key.
"""

import base64
import binascii
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec

from lethe.adapters.kube import CONFIGMAP, SECRET, Kube
from lethe.crypto.certificates import Authority, Credentials
from lethe.crypto.sign import Signer
from lethe.model.errors import CryptoError, InputError
from lethe.model.names import (
    CA_SECRET,
    KEYSERVICE_ID,
    KEYSERVICE_TLS_SECRET,
    RECEIPT_KEY_SECRET,
    SYSTEM_NAMESPACE,
    TRUST_CA,
    TRUST_CONFIGMAP,
    TRUST_RECEIPT_KEYS,
)

Say = Callable[[str], None]
Object = dict[str, Any]

SERVER_NAMES: Final = (
    f"{KEYSERVICE_ID}.{SYSTEM_NAMESPACE}.svc",
    f"{KEYSERVICE_ID}.{SYSTEM_NAMESPACE}.svc.cluster.local",
    f"{KEYSERVICE_ID}.{SYSTEM_NAMESPACE}",
    KEYSERVICE_ID,
)
RECEIPT_KEY_FILE: Final = "private.pem"

_AUTHORITY_NAME: Final = "Lethe"
_WARN_BEFORE: Final = timedelta(days=365)


class TrustedReceiptKey(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One entry of `receipt-keys.json`."""

    key_id: str
    version: int
    public_key: str
    """Base64 of the raw Ed25519 key."""


async def make_keys(kube: Kube, now: datetime, say: Say) -> None:
    """Make what is missing, renew what is about to end, and publish the public halves."""
    authority = await _authority(kube, now, say)
    await _server_certificate(kube, authority, now, say)
    signer = await _receipt_key(kube, say)
    await _trust(kube, authority, signer, say)


async def _authority(kube: Kube, now: datetime, say: Say) -> Authority:
    secret = await kube.get(SECRET, CA_SECRET, SYSTEM_NAMESPACE)
    if secret is None:
        authority = Authority.generate(_AUTHORITY_NAME, now)
        await kube.create(SECRET, _tls_secret(CA_SECRET, authority))
        say("made the certificate authority")
        return authority
    authority = Authority(certificate=_read(secret, "tls.crt"), private_key=_read(secret, "tls.key"))
    try:
        ends_at = authority.ends_at()
    except CryptoError as error:
        raise _unreadable(secret, "tls.crt", str(error)) from error
    if ends_at - now < _WARN_BEFORE:
        say(
            f"WARNING: the certificate authority ends on {ends_at:%Y-%m-%d}. Delete Secret {CA_SECRET} and upgrade the "
            "release while no job runs: a new one is made"
        )
    return authority


async def _server_certificate(kube: Kube, authority: Authority, now: datetime, say: Say) -> None:
    secret = await kube.get(SECRET, KEYSERVICE_TLS_SECRET, SYSTEM_NAMESPACE)
    if secret is None:
        await kube.create(SECRET, _tls_secret(KEYSERVICE_TLS_SECRET, authority.issue(SERVER_NAMES, now)))
        say("made the certificate of the key service")
        return
    why = authority.why_renew(_read(secret, "tls.crt"), SERVER_NAMES, now)
    if why is None:
        say("kept the certificate of the key service")
        return
    await kube.replace(SECRET, {**secret, "data": _tls_data(authority.issue(SERVER_NAMES, now))})
    say(f"renewed the certificate of the key service: {why}")


async def _receipt_key(kube: Kube, say: Say) -> Signer:
    secret = await kube.get(SECRET, RECEIPT_KEY_SECRET, SYSTEM_NAMESPACE)
    if secret is None:
        signer = Signer.generate()
        await kube.create(
            SECRET, {**_secret(RECEIPT_KEY_SECRET, {RECEIPT_KEY_FILE: signer.to_pem()}), "type": "Opaque"}
        )
        say(f"made receipt key {signer.key_id}")
        return signer
    try:
        signer = Signer.from_pem(_read(secret, RECEIPT_KEY_FILE))
    except CryptoError as error:
        raise _unreadable(secret, RECEIPT_KEY_FILE, str(error)) from error
    say(f"kept receipt key {signer.key_id}")
    return signer


async def _trust(kube: Kube, authority: Authority, signer: Signer, say: Say) -> None:
    found = await kube.get(CONFIGMAP, TRUST_CONFIGMAP, SYSTEM_NAMESPACE)
    known = _parse_trusted(found.get("data", {}).get(TRUST_RECEIPT_KEYS, "[]")) if found is not None else []
    data = {
        TRUST_CA: authority.certificate.decode(),
        TRUST_RECEIPT_KEYS: msgspec.json.encode(add_receipt_key(known, signer)).decode(),
    }
    if found is None:
        metadata = {"name": TRUST_CONFIGMAP, "namespace": SYSTEM_NAMESPACE, "labels": _LABELS}
        await kube.create(CONFIGMAP, {"metadata": metadata, "data": data})
        say(f"published both in ConfigMap {TRUST_CONFIGMAP}")
    elif found.get("data") != data:
        await kube.replace(CONFIGMAP, {**found, "data": data})
        say(f"updated ConfigMap {TRUST_CONFIGMAP}")


def add_receipt_key(known: list[TrustedReceiptKey], signer: Signer) -> list[TrustedReceiptKey]:
    """Return the trusted keys with this signer's among them; those that were there stay."""
    if any(key.key_id == signer.key_id for key in known):
        return known
    version = max((key.version for key in known), default=0) + 1
    public_key = base64.b64encode(signer.public_key).decode()
    return [*known, TrustedReceiptKey(key_id=signer.key_id, version=version, public_key=public_key)]


def _parse_trusted(text: str) -> list[TrustedReceiptKey]:
    try:
        return msgspec.json.decode(text, type=list[TrustedReceiptKey])
    except msgspec.DecodeError as error:
        raise InputError(
            f"{TRUST_RECEIPT_KEYS} of ConfigMap {SYSTEM_NAMESPACE}/{TRUST_CONFIGMAP} does not parse ({error}); restore "
            "it from a backup: receipts verify only against the keys that it lists"
        ) from error


_LABELS: Final = {"app.kubernetes.io/name": "lethe", "app.kubernetes.io/part-of": "lethe"}


def _secret(name: str, data: dict[str, bytes]) -> Object:
    encoded = {key: base64.b64encode(value).decode() for key, value in data.items()}
    return {"metadata": {"name": name, "namespace": SYSTEM_NAMESPACE, "labels": _LABELS}, "data": encoded}


def _tls_secret(name: str, credentials: Credentials) -> Object:
    return {**_secret(name, {}), "type": "kubernetes.io/tls", "data": _tls_data(credentials)}


def _tls_data(credentials: Credentials) -> dict[str, str]:
    return {
        "tls.crt": base64.b64encode(credentials.certificate).decode(),
        "tls.key": base64.b64encode(credentials.private_key).decode(),
    }


def _read(secret: Object, key: str) -> bytes:
    try:
        return base64.b64decode(secret.get("data", {})[key], validate=True)
    except (KeyError, binascii.Error) as error:
        raise _unreadable(secret, key, "it is missing or not base64") from error


def _unreadable(secret: Object, key: str, why: str) -> InputError:
    name = secret["metadata"]["name"]
    return InputError(
        f"{key} of Secret {SYSTEM_NAMESPACE}/{name} is of no use: {why}. Restore the Secret from a backup, or delete "
        "it to have a new one made"
    )
