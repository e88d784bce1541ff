"""Receipts that we sealed, verified by a DSSE library, an in-toto library, and OpenSSL as the specification says."""

import base64
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from securesystemslib.exceptions import VerificationError
from sigstore.errors import Error as StatementError

from lethe.crypto.sign import Signer
from lethe.formats.receipt import build_statement, envelope_sha256, seal_receipt
from lethe.formats.receiptkeys import encode_receipt_keys
from lethe.model.posture import Posture
from lethe.model.resources import Envelope, PastHolder
from lethe.model.scrub import (
    GpuFacts,
    GpuReport,
    KilledProcess,
    Leapfrog,
    ReceiptPredicate,
    Residue,
    ScrubReport,
    SharedMemory,
)
from tests.common.scrubs import (
    HELD,
    TOTAL,
    build_chain,
    build_envelope,
    build_gpu,
    build_holder,
    build_predicate,
    build_report,
    trusted_keys,
)
from tests.common.stock import stock_statement

SPECIFICATION = Path(__file__).parents[3] / "docs" / "spec" / "receipt.md"
SIGNER, OTHER = Signer.generate(), Signer.generate()
KEYS = encode_receipt_keys([*trusted_keys(OTHER, SIGNER).values()])
RESIDUE = Residue(nonzero_bytes=327680, nonzero_pages=5, digest="ab")
KILLED = [KilledProcess(pid=7, name='"train"', pod_uid="pod-uid")]

Object = dict[str, Any]


def plain(envelope: Envelope) -> Object:
    built: Object = msgspec.to_builtins(envelope)
    return built


SEALED = {
    "first of its node": build_chain(SIGNER)[0],
    "chained": build_chain(SIGNER)[-1],
    "by another key of the list": build_envelope(OTHER),
    "with residue and killed processes": build_envelope(
        SIGNER, build_predicate(build_report(gpus=[build_gpu(0, residue=RESIDUE, killed=KILLED), build_gpu(1)]))
    ),
    "with letters beyond ASCII": build_envelope(SIGNER, build_predicate(holder=build_holder(jobs=["größe-模型"]))),
    "of a failed scrub": build_envelope(SIGNER, build_predicate(build_report(verdict="Failed", reason="GPULost"))),
}


@pytest.mark.parametrize("envelope", SEALED.values(), ids=SEALED.keys())
def test_a_sealed_receipt_verifies(envelope: Envelope) -> None:
    statement = stock_statement(plain(envelope), KEYS)
    assert statement["predicateType"] == "https://lethe.dev/scrub-receipt/v1"
    assert [subject["name"] for subject in statement["subject"]] == ["gpu:GPU-00000000", "gpu:GPU-00000001"]


def changed(data: str, position: int) -> str:
    """Return base64 text with one bit of one byte changed."""
    raw = bytearray(base64.b64decode(data))
    raw[position] ^= 1
    return base64.b64encode(raw).decode()


def test_every_changed_byte_of_the_statement_fails() -> None:
    envelope = plain(SEALED["with residue and killed processes"])
    length = len(base64.b64decode(envelope["payload"]))
    assert length > 1000
    for position in range(length):
        with pytest.raises(VerificationError):
            stock_statement({**envelope, "payload": changed(envelope["payload"], position)}, KEYS)


def test_every_changed_byte_of_the_signature_fails() -> None:
    envelope = plain(SEALED["chained"])
    (signature,) = envelope["signatures"]
    for position in range(64):
        forged = {**envelope, "signatures": [{**signature, "sig": changed(signature["sig"], position)}]}
        with pytest.raises(VerificationError):
            stock_statement(forged, KEYS)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda e: {"payloadType": "application/json"}, id="payload type"),
        pytest.param(lambda e: {"signatures": [{**e["signatures"][0], "keyid": OTHER.key_id}]}, id="another key's id"),
        pytest.param(lambda e: {"signatures": plain(build_envelope(OTHER))["signatures"]}, id="another's signature"),
        pytest.param(lambda e: plain(build_envelope(Signer.generate())), id="a stranger's receipt"),
    ],
)
def test_a_changed_envelope_fails(change: Callable[[Object], Object]) -> None:
    envelope = plain(build_envelope(SIGNER, build_predicate(image="another")))
    stock_statement(envelope, KEYS)
    with pytest.raises(VerificationError):
        stock_statement({**envelope, **change(envelope)}, KEYS)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"https://in-toto.io/Statement/v1", b"https://in-toto.io/Statement/v0.1"),
        (b'"digest":{"sha256"', b'"digest":{"crc32"'),
        (b'"predicateType":', b'"predicatetype":'),
        (b'"subject":[', b'"objects":['),
    ],
    ids=["statement type", "digest", "no predicate type", "no subject"],
)
def test_a_signed_document_that_is_no_statement_fails(old: bytes, new: bytes) -> None:
    payload = build_statement(build_predicate())
    assert old in payload
    with pytest.raises(StatementError):
        stock_statement(plain(seal_receipt(payload.replace(old, new), SIGNER)), KEYS)


# ---- the specification


def verify_by_hand(folder: Path, envelope: Object, keys: str = KEYS) -> subprocess.CompletedProcess[str]:
    """Run what the specification tells a reader to run."""
    for program in ("bash", "jq", "openssl", "sha256sum"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not on the PATH")
    # As an API server keeps it: other fields beside, in another order.
    stored = {"spec": {"node": "gpu-1", "envelope": dict(sorted(envelope.items()))}}
    (folder / "receipt.json").write_text(json.dumps(stored, indent=2))
    (folder / "receipt-keys.json").write_text(keys)
    (script,) = re.findall(r"```sh\n(.*?)```", SPECIFICATION.read_text(encoding="utf-8"), re.DOTALL)
    return subprocess.run(["bash", "-c", script], cwd=folder, capture_output=True, text=True)


@pytest.mark.parametrize("envelope", SEALED.values(), ids=SEALED.keys())
def test_the_specification_verifies_a_sealed_receipt(envelope: Envelope, tmp_path: Path) -> None:
    done = verify_by_hand(tmp_path, plain(envelope))
    assert done.returncode == 0, done.stderr
    assert "Signature Verified Successfully" in done.stdout
    assert done.stdout.splitlines()[-1].split()[0] == envelope_sha256(envelope)


def retired(envelope: Object) -> tuple[Object, str]:
    keys = [msgspec.structs.replace(key, retired_at="2029-01-01T00:00:00Z") for key in trusted_keys(SIGNER).values()]
    return envelope, encode_receipt_keys(keys)


def resealed(old: bytes, new: bytes) -> Callable[[Object], tuple[Object, str]]:
    """Return a change under the operator's own signature."""

    def change(envelope: Object) -> tuple[Object, str]:
        payload = base64.b64decode(envelope["payload"])
        assert old in payload
        return plain(seal_receipt(payload.replace(old, new, 1), SIGNER)), KEYS

    return change


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda e: ({**e, "payload": changed(e["payload"], 99)}, KEYS), id="a changed byte"),
        pytest.param(lambda e: ({**e, "signatures": e["signatures"] * 2}, KEYS), id="two signatures"),
        pytest.param(
            lambda e: (e, encode_receipt_keys([*trusted_keys(OTHER).values()])), id="a key that is not in the list"
        ),
        pytest.param(lambda e: (e, KEYS.replace(SIGNER.key_id, OTHER.key_id)), id="another key under the id"),
        pytest.param(retired, id="a retired key"),
        pytest.param(resealed(b"scrub-receipt/v1", b"scrub-receipt/v9"), id="another predicate type"),
        pytest.param(resealed(b'"name":"gpu:GPU-00000000"', b'"name":"gpu:GPU-00000009"'), id="another GPU"),
        pytest.param(resealed(b'"bytesHeld":%d' % HELD, b'"bytesHeld":%d' % TOTAL), id="a report after its hash"),
        pytest.param(resealed(b'"nonce":"5a', b'"nonce":"5b'), id="a nonce beside the report"),
    ],
)
def test_the_specification_refuses(change: Callable[[Object], tuple[Object, str]], tmp_path: Path) -> None:
    envelope, keys = change(plain(build_envelope(SIGNER)))
    assert verify_by_hand(tmp_path, envelope, keys).returncode != 0


@pytest.mark.parametrize(
    "kind",
    [
        ReceiptPredicate,
        PastHolder,
        ScrubReport,
        Posture,
        GpuReport,
        SharedMemory,
        Leapfrog,
        GpuFacts,
        Residue,
        KilledProcess,
    ],
    ids=lambda kind: kind.__name__,
)
def test_the_specification_names_every_field(kind: type[msgspec.Struct]) -> None:
    text = SPECIFICATION.read_text(encoding="utf-8")
    names = {field.encode_name for field in msgspec.structs.fields(kind)}
    assert {name for name in names if f"`{name}`" not in text} == set()
