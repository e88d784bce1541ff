"""Scrub report, statement and envelope: bytes and types of scrub.md, Receipt.

1. A report is one line of compact JSON that begins with its schema. Its SHA-256 is taken over that line and over
   nothing else, and the statement carries the line unchanged: whoever has the receipt can compute the hash again.
2. A statement is in-toto's Statement v1 with one subject for each GPU; the digest of a subject is the SHA-256 of the
   length-prefixed UUID, serial number and PCI address, the empty string standing for what the driver does not tell.
3. An envelope is DSSE with exactly one Ed25519 signature. Exactly one, and only canonical base64, so that nobody can
   make a second envelope of the same receipt: the chain goes over the envelope's hash.
4. `verify_receipt` checks in this order: payload type, signature, statement, subjects, report hash, that the
   predicate repeats what the report says, and that the key had not retired when the receipt was issued. A payload is
   parsed only after its signature has been verified.
5. A chain is one node's receipts by epoch; each names the SHA-256 of its predecessor's envelope. It may begin later
   than the node's first receipt where retention has deleted what was before, and nowhere else.

Specification: docs/spec/receipt.md.

It decides nothing: whether a report clears a node stands in `lethe.decisions.receipts`.
"""

import base64
import binascii
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Final

import msgspec

from lethe.crypto.derive import length_prefixed, sha256
from lethe.crypto.sign import Signer, decode_public_key, verify
from lethe.formats.receiptkeys import ReceiptKeys, was_retired
from lethe.model.errors import ReceiptError, SignatureError
from lethe.model.resources import Envelope, LastReceipt, Signature
from lethe.model.scrub import GpuFacts, ReceiptPredicate, ScrubReport, ScrubSummary

REPORT_SCHEMA: Final = "lethe.dev/scrub-report/v1"
PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE: Final = "https://lethe.dev/scrub-receipt/v1"
MAX_REPORT_BYTES: Final = 1 << 20
MAX_SUMMARY_BYTES: Final = 4096
"""What the kubelet keeps of a termination message."""


class _Subject(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: str
    digest: dict[str, str]


class _Statement(
    msgspec.Struct, frozen=True, kw_only=True, rename={"type": "_type", "predicate_type": "predicateType"}
):
    type: str
    subject: list[_Subject]
    predicate_type: str
    predicate: msgspec.Raw


class _ReportSlice(msgspec.Struct, frozen=True):
    """The predicate's report as the very bytes that were signed."""

    report: msgspec.Raw


def encode_report(report: ScrubReport) -> bytes:
    """Return a report's one line, without the newline."""
    return msgspec.json.encode({"schema": REPORT_SCHEMA, **msgspec.to_builtins(report)})


def encode_summary(summary: ScrubSummary) -> str:
    """Return a termination message; a long sentence is cut so that the whole fits."""
    text = msgspec.json.encode(summary)
    if len(text) > MAX_SUMMARY_BYTES:
        # One character of the sentence takes up to six bytes on the wire, as an escape.
        text = msgspec.json.encode(msgspec.structs.replace(summary, message=summary.message[: MAX_SUMMARY_BYTES // 8]))
    return text.decode()


def parse_report(log: bytes) -> tuple[ScrubReport, str]:
    """Find the report in a scrub container's log: the last line that calls itself one. Return it and its SHA-256.

    Raise ReceiptError when there is none, or when that line is not exactly what `encode_report` writes.
    """
    for raw in reversed(log.split(b"\n")):
        line = raw.strip()
        if _is_report(line):
            return _parse_report_line(line), sha256(line).hex()
    raise ReceiptError(
        f"the scrub's log of {len(log)} bytes holds no report: expected a line of JSON with schema {REPORT_SCHEMA}; "
        "look at the scrub pod's log for why it stopped"
    )


def parse_summary(message: str) -> ScrubSummary:
    """Read a scrub container's termination message; raise ReceiptError."""
    try:
        return msgspec.json.decode(message, type=ScrubSummary)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise ReceiptError(
            f"the scrub's termination message is not a summary ({error}): found {message[:200]!r}, expected JSON with "
            "verdict, nonce and reportSha256"
        ) from error


def gpu_digest(facts: GpuFacts) -> str:
    """Return the digest that names a GPU in a statement, hex."""
    parts = (facts.uuid, facts.serial or "", facts.pci_bus_id or "")
    return sha256(length_prefixed(*(part.encode() for part in parts))).hex()


def build_statement(predicate: ReceiptPredicate) -> bytes:
    """Return the in-toto statement of a receipt.

    Raise ReceiptError when the predicate's `report_sha256` is not that of its report: what was hashed and what is
    signed would differ.
    """
    report = encode_report(predicate.report)
    if sha256(report).hex() != predicate.report_sha256:
        raise ReceiptError(
            f"the report's SHA-256 is {sha256(report).hex()}, the receipt would say {predicate.report_sha256}: the "
            "report was written by another version of Lethe; run operator and scrub from one image"
        )
    fields = {**msgspec.to_builtins(predicate), "grade": predicate.grade, "report": msgspec.Raw(report)}
    subjects = [
        _Subject(name=f"gpu:{gpu.facts.uuid}", digest={"sha256": gpu_digest(gpu.facts)})
        for gpu in predicate.report.gpus
    ]
    return msgspec.json.encode(
        _Statement(
            type=STATEMENT_TYPE,
            subject=subjects,
            predicate_type=PREDICATE_TYPE,
            predicate=msgspec.Raw(msgspec.json.encode(fields)),
        )
    )


def seal_receipt(statement: bytes, signer: Signer) -> Envelope:
    """Sign a statement and return its DSSE envelope."""
    signature = Signature(keyid=signer.key_id, sig=_encode_base64(signer.sign(PAYLOAD_TYPE, statement)))
    return Envelope(payload_type=PAYLOAD_TYPE, payload=_encode_base64(statement), signatures=[signature])


def envelope_sha256(envelope: Envelope) -> str:
    """Return the SHA-256 of an envelope's compact JSON with its fields in DSSE's order, hex."""
    return sha256(msgspec.json.encode(envelope)).hex()


def parse_envelopes(data: bytes) -> list[Envelope]:
    """Read what an auditor's file holds: an envelope, a ScrubReceipt object, or a list of objects as kubectl prints it.

    Raise ReceiptError for anything else.
    """
    try:
        document: Any = msgspec.json.decode(data)
        objects = document["items"] if isinstance(document, dict) and "items" in document else [document]
        return [_parse_envelope(found) for found in objects]
    except (msgspec.DecodeError, UnicodeError, KeyError, TypeError) as error:
        raise ReceiptError(
            f"this is not a receipt ({type(error).__name__}: {error}): expected a DSSE envelope, a ScrubReceipt object "
            "or a list of these objects, as JSON"
        ) from error


def verify_receipt(envelope: Envelope, keys: ReceiptKeys) -> ReceiptPredicate:
    """Check one receipt against the trusted keys and return what it says.

    Raise SignatureError when no trusted key signed it or its key had retired, ReceiptError when what was signed is not
    a sound receipt.
    """
    if envelope.payload_type != PAYLOAD_TYPE:
        raise ReceiptError(f"the envelope's payload type is {envelope.payload_type!r}, expected {PAYLOAD_TYPE}")
    payload = _decode_base64(envelope.payload, "payload")
    if len(envelope.signatures) != 1:
        raise ReceiptError(f"the envelope has {len(envelope.signatures)} signatures, expected exactly one")
    signature = envelope.signatures[0]
    if signature.keyid not in keys:
        raise SignatureError(
            f"the receipt is signed by key {signature.keyid}, which is not among the trusted keys "
            f"({', '.join(sorted(keys)) or 'none'}): it is forged, or the list of keys is out of date"
        )
    key = keys[signature.keyid]
    public_key = decode_public_key(key.public_key)
    verify(public_key, envelope.payload_type, payload, _decode_base64(signature.sig, "signature"))
    predicate = _parse_statement(payload)
    if was_retired(key, predicate.issued_at):
        raise SignatureError(
            f"the receipt was issued at {predicate.issued_at} with key {key.key_id}, which retired at "
            f"{key.retired_at}: somebody goes on signing with a key that was replaced; find out who"
        )
    return predicate


def verify_chain(
    envelopes: Sequence[Envelope],
    keys: ReceiptKeys,
    *,
    complete: bool = True,
    pruned: LastReceipt | None = None,
) -> list[ReceiptPredicate]:
    """Check the receipts of one node, in any order, and that each names its predecessor; return them by epoch.

    With `complete` the first must be the node's first ever, or follow `pruned`, the newest that retention has deleted.
    Raise as `verify_receipt`, and ReceiptError for a gap.
    """
    verified = sorted(
        ((verify_receipt(envelope, keys), envelope_sha256(envelope)) for envelope in envelopes),
        key=lambda pair: pair[0].epoch,
    )
    for (earlier, earlier_sha256), (later, _) in pairwise(verified):
        if earlier.node != later.node:
            raise ReceiptError(f"receipts of two nodes, {earlier.node} and {later.node}, make no chain")
        if earlier.epoch == later.epoch:
            raise ReceiptError(f"node {later.node} has two receipts for epoch {later.epoch}, expected one")
        if later.previous != earlier_sha256:
            raise ReceiptError(
                f"the chain of node {later.node} is broken: epoch {later.epoch} follows envelope "
                f"{later.previous or '(none)'}, but the receipt before it, of epoch {earlier.epoch}, is "
                f"{earlier_sha256}: a receipt is missing or was replaced"
            )
    first = verified[0][0] if verified else None
    if complete and first is not None and first.previous and not _follows(first, pruned):
        raise ReceiptError(
            f"the chain of node {first.node} begins with epoch {first.epoch}, which follows envelope "
            f"{first.previous}: the receipts before it are missing"
        )
    return [predicate for predicate, _ in verified]


def _follows(first: ReceiptPredicate, pruned: LastReceipt | None) -> bool:
    """Say whether all that is missing before a receipt was deleted by retention, of which some may still be there."""
    return pruned is not None and (first.epoch <= pruned.epoch or first.previous == pruned.sha256)


def _parse_envelope(found: Any) -> Envelope:
    return msgspec.convert(found["spec"]["envelope"] if "spec" in found else found, Envelope)


def _is_report(line: bytes) -> bool:
    """Say whether a line calls itself a report, however broken the rest of it is."""
    return line.startswith(b'{"schema":"%b"' % REPORT_SCHEMA.encode())


def _parse_report_line(line: bytes) -> ScrubReport:
    if len(line) > MAX_REPORT_BYTES:
        raise ReceiptError(f"the scrub's report has {len(line)} bytes, expected at most {MAX_REPORT_BYTES}")
    try:
        report = msgspec.json.decode(line, type=ScrubReport)
        again = encode_report(report)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise ReceiptError(f"the scrub's report does not parse: {error}") from error
    if again != line:
        raise ReceiptError(
            "the scrub's report holds fields or spellings that this version does not write: run operator and scrub "
            "from one image"
        )
    return report


def _parse_statement(payload: bytes) -> ReceiptPredicate:
    try:
        statement = msgspec.json.decode(payload, type=_Statement)
        predicate = msgspec.json.decode(statement.predicate, type=ReceiptPredicate)
        report_bytes = bytes(msgspec.json.decode(statement.predicate, type=_ReportSlice).report)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise ReceiptError(f"the signed statement does not parse as a scrub receipt: {error}") from error
    for name, found, expected in (
        ("_type", statement.type, STATEMENT_TYPE),
        ("predicateType", statement.predicate_type, PREDICATE_TYPE),
    ):
        if found != expected:
            raise ReceiptError(f"the signed statement's {name} is {found!r}, expected {expected}")
    _check_subjects(statement.subject, predicate)
    if sha256(report_bytes).hex() != predicate.report_sha256:
        raise ReceiptError(
            f"the receipt's report has SHA-256 {sha256(report_bytes).hex()}, but it says {predicate.report_sha256}"
        )
    _check_repetition(predicate)
    return predicate


def _check_subjects(subjects: list[_Subject], predicate: ReceiptPredicate) -> None:
    found = [(subject.name, subject.digest.get("sha256")) for subject in subjects]
    expected = [(f"gpu:{gpu.facts.uuid}", gpu_digest(gpu.facts)) for gpu in predicate.report.gpus]
    if found != expected:
        raise ReceiptError(f"the statement's subjects are {found}, its report speaks of {expected}")


def _check_repetition(predicate: ReceiptPredicate) -> None:
    for name in ("node", "node_uid", "boot_id", "epoch", "nonce", "verdict"):
        stated, reported = getattr(predicate, name), getattr(predicate.report, name)
        if stated != reported:
            raise ReceiptError(f"the receipt says {name} {stated!r}, the report in it {reported!r}")


def _encode_base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _decode_base64(text: str, name: str) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ReceiptError(f"the envelope's {name} is not standard base64") from error
    if _encode_base64(data) != text:
        raise ReceiptError(f"the envelope's {name} is not canonical base64")
    return data
