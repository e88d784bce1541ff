"""`lethe-setup keys`: certificate authority, certificate of the key service, receipt key, and who may trust them.

1. What exists is kept: a second run changes nothing, so that receipts and pods go on verifying after an upgrade.
2. The key service's certificate is the exception: it is renewed while half of its life is still left.
3. ConfigMap lethe-trust holds public halves only. A receipt key that was ever trusted stays in it, or older receipts
   would stop verifying; a new one is appended with the next version, and the others retire.
4. A new receipt key is made when a higher version is asked for. The private half of the old one is overwritten. The old
   key retires a little later: by then every process has the new one, whatever its clock says.
5. The key is replaced before its public half is published: who is stopped in between finds, when run again, a key that
   is not in the list, and appends it. The operator signs nothing with it before.
6. Something of ours that does not parse is an error, never replaced: it may be the only copy of a key.
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
from lethe.formats.quantity import format_time
from lethe.formats.receiptkeys import (
    ReceiptKey,
    ReceiptKeys,
    build_receipt_key,
    encode_receipt_keys,
    parse_receipt_keys,
)
from lethe.model.errors import CryptoError, InputError, ReceiptError
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
_OVERLAP: Final = timedelta(minutes=10)
"""From a rotation to the retirement of the old key: kubelets take a minute or two to swap files, and clocks differ."""


async def make_keys(kube: Kube, now: datetime, say: Say, receipt_key_version: int = 1) -> None:
    """Make what is missing, renew what is about to end, and publish the public halves.

    A receipt key of an earlier version than `receipt_key_version` is replaced by a new one.
    """
    authority = await _authority(kube, now, say)
    await _server_certificate(kube, authority, now, say)
    trust = await kube.get(CONFIGMAP, TRUST_CONFIGMAP, SYSTEM_NAMESPACE)
    known = _parse_trusted((trust or {}).get("data", {}).get(TRUST_RECEIPT_KEYS, "[]"))
    signer = await _receipt_key(kube, known, receipt_key_version, say)
    await _publish(kube, trust, authority, with_receipt_key(known, signer, receipt_key_version, now), say)


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


async def _receipt_key(kube: Kube, known: ReceiptKeys, version: int, say: Say) -> Signer:
    secret = await kube.get(SECRET, RECEIPT_KEY_SECRET, SYSTEM_NAMESPACE)
    if secret is None:
        signer = Signer.generate()
        await kube.create(SECRET, {**_secret(RECEIPT_KEY_SECRET, _receipt_data(signer)), "type": "Opaque"})
        say(f"made receipt key {signer.key_id}")
        return signer
    try:
        old = Signer.from_pem(_read(secret, RECEIPT_KEY_FILE))
    except CryptoError as error:
        raise _unreadable(secret, RECEIPT_KEY_FILE, str(error)) from error
    listed = known.get(old.key_id)
    if listed is None or (listed.version >= version and not listed.retired_at):
        say(f"kept receipt key {old.key_id}")
        return old
    signer = Signer.generate()
    await kube.replace(SECRET, {**secret, "data": _secret(RECEIPT_KEY_SECRET, _receipt_data(signer))["data"]})
    say(f"made receipt key {signer.key_id} in the place of {old.key_id}, which retires")
    return signer


async def _publish(kube: Kube, found: Object | None, authority: Authority, keys: list[ReceiptKey], say: Say) -> None:
    data = {TRUST_CA: authority.certificate.decode(), TRUST_RECEIPT_KEYS: encode_receipt_keys(keys)}
    if found is None:
        metadata = {"name": TRUST_CONFIGMAP, "namespace": SYSTEM_NAMESPACE, "labels": _LABELS}
        await kube.create(CONFIGMAP, {"metadata": metadata, "data": data})
        say(f"published both in ConfigMap {TRUST_CONFIGMAP}")
    elif found.get("data") != data:
        await kube.replace(CONFIGMAP, {**found, "data": data})
        say(f"updated ConfigMap {TRUST_CONFIGMAP}")


def with_receipt_key(known: ReceiptKeys, signer: Signer, version: int, now: datetime) -> list[ReceiptKey]:
    """Return the trusted keys with this signer's among them; those that were there stay, and all others retire."""
    retired_at = format_time(now + _OVERLAP)
    keys = [
        key if key.retired_at or key.key_id == signer.key_id else msgspec.structs.replace(key, retired_at=retired_at)
        for key in known.values()
    ]
    if signer.key_id in known:
        return keys
    highest = max((key.version for key in keys), default=0)
    return [*keys, build_receipt_key(signer.public_key, max(version, highest + 1))]


def _receipt_data(signer: Signer) -> dict[str, bytes]:
    return {RECEIPT_KEY_FILE: signer.to_pem()}


def _parse_trusted(text: str) -> ReceiptKeys:
    try:
        return parse_receipt_keys(text.encode())
    except (ReceiptError, CryptoError) as error:
        raise InputError(
            f"{TRUST_RECEIPT_KEYS} of ConfigMap {SYSTEM_NAMESPACE}/{TRUST_CONFIGMAP} is of no use: {error}. Restore it "
            "from a backup: receipts verify only against the keys that it lists"
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
