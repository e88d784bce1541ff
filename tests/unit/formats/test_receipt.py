import base64
import hashlib
import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from lethe.crypto.sign import Signer
from lethe.formats.receipt import (
    MAX_SUMMARY_BYTES,
    PAYLOAD_TYPE,
    build_statement,
    encode_report,
    encode_summary,
    envelope_sha256,
    gpu_digest,
    parse_envelopes,
    parse_report,
    parse_summary,
    seal_receipt,
    verify_chain,
    verify_receipt,
)
from lethe.model.errors import ReceiptError, SignatureError
from lethe.model.resources import Envelope, Signature
from tests.common.scrubs import (
    HELD,
    TOTAL,
    build_chain,
    build_envelope,
    build_facts,
    build_gpu,
    build_predicate,
    build_report,
    build_summary,
    trusted_keys,
)

SIGNER = Signer.generate()
KEYS = trusted_keys(SIGNER)


class TestReport:
    def test_is_found_behind_progress(self) -> None:
        report = build_report()
        line = encode_report(report)
        log = b"GPU-0: probe\n" + line + b"\nCleared\n"
        assert parse_report(log) == (report, hashlib.sha256(line).hexdigest())

    def test_is_the_last_one_in_the_log(self) -> None:
        first, last = build_report(), build_report(driver="580.0")
        log = encode_report(first) + b"\n" + encode_report(last) + b"\n"
        assert parse_report(log)[0] == last

    def test_carries_its_schema_first(self) -> None:
        assert next(iter(json.loads(encode_report(build_report())).items())) == ("schema", "lethe.dev/scrub-report/v1")

    @pytest.mark.parametrize(
        "log",
        [
            pytest.param(b"", id="empty"),
            pytest.param(b"Traceback (most recent call last):\n", id="crash"),
            pytest.param(b'{"node": "gpu-1"}\n', id="other JSON"),
            pytest.param(encode_report(build_report())[:-20], id="cut"),
            pytest.param(
                encode_report(build_report()).replace(b'"epoch":3', b'"epoch":3,"more":1'), id="unknown field"
            ),
            pytest.param(encode_report(build_report()).replace(b'"epoch":3', b'"epoch":2,"epoch":3'), id="field twice"),
            pytest.param(encode_report(build_report()).replace(b'"epoch":3', b'"epoch": 3'), id="another spelling"),
            pytest.param(encode_report(build_report()).replace(b'"Cleared"', b'"Perfect"'), id="unknown verdict"),
            pytest.param(encode_report(build_report()).replace(b'"575.0"', b'"\xff"'), id="no UTF-8"),
        ],
    )
    def test_is_refused(self, log: bytes) -> None:
        with pytest.raises(ReceiptError):
            parse_report(log)

    def test_a_broken_last_report_is_not_skipped_for_an_older_one(self) -> None:
        line = encode_report(build_report())
        with pytest.raises(ReceiptError):
            parse_report(line + b"\n" + line[:-1])


class TestSummary:
    def test_comes_back(self) -> None:
        summary = build_summary(build_report())
        assert parse_summary(encode_summary(summary)) == summary

    @pytest.mark.parametrize("character", ["x", "\u20ac", "\x07", "\U0001f512"])
    def test_fits_a_termination_message(self, character: str) -> None:
        summary = build_summary(build_report(), verdict="Failed", reason="DriverError", message=character * 9000)
        text = encode_summary(summary)
        assert len(text.encode()) <= MAX_SUMMARY_BYTES
        assert parse_summary(text).report_sha256 == summary.report_sha256

    @pytest.mark.parametrize("message", ["", "Error", "{}", '{"verdict": "Cleared"}', "[]"])
    def test_is_refused(self, message: str) -> None:
        with pytest.raises(ReceiptError):
            parse_summary(message)


class TestStatement:
    def test_names_every_gpu(self) -> None:
        statement = json.loads(build_statement(build_predicate()))
        assert statement["_type"] == "https://in-toto.io/Statement/v1"
        assert statement["predicateType"] == "https://lethe.dev/scrub-receipt/v1"
        assert [subject["name"] for subject in statement["subject"]] == ["gpu:GPU-00000000", "gpu:GPU-00000001"]

    def test_digest_follows_its_definition(self) -> None:
        facts = build_facts(uuid="GPU-1", serial=None, pci_bus_id="41")
        parts = b"".join(len(part).to_bytes(8, "big") + part for part in (b"GPU-1", b"", b"41"))
        assert gpu_digest(facts) == hashlib.sha256(parts).hexdigest()

    def test_lets_anybody_compute_the_report_hash_again(self) -> None:
        predicate = build_predicate()
        payload = build_statement(predicate)
        begin = payload.index(b'"report":{') + len(b'"report":')
        line = payload[begin : payload.index(b',"reportSha256"')]
        assert hashlib.sha256(line).hexdigest() == predicate.report_sha256

    def test_refuses_a_hash_of_another_report(self) -> None:
        with pytest.raises(ReceiptError, match="SHA-256"):
            build_statement(build_predicate(report_sha256="00" * 32))


class TestEnvelope:
    def test_verifies_and_comes_back(self) -> None:
        predicate = build_predicate()
        assert verify_receipt(build_envelope(SIGNER, predicate), KEYS) == predicate

    def test_of_a_failed_scrub_verifies_too(self) -> None:
        report = build_report(verdict="Failed", reason="GPULost", gpus=[])
        assert verify_receipt(build_envelope(SIGNER, build_predicate(report)), KEYS).verdict == "Failed"

    def test_refuses_an_unknown_key(self) -> None:
        with pytest.raises(SignatureError, match="not among the trusted keys"):
            verify_receipt(build_envelope(Signer.generate()), KEYS)

    def test_refuses_another_key_under_a_trusted_name(self) -> None:
        envelope = build_envelope(Signer.generate())
        renamed = [Signature(keyid=SIGNER.key_id, sig=envelope.signatures[0].sig)]
        with pytest.raises(SignatureError):
            verify_receipt(msgspec.structs.replace(envelope, signatures=renamed), KEYS)

    @pytest.mark.parametrize(
        "change",
        [
            pytest.param(lambda e: {"payload_type": "application/json"}, id="payload type"),
            pytest.param(lambda e: {"signatures": []}, id="no signature"),
            pytest.param(lambda e: {"signatures": e.signatures * 2}, id="two signatures"),
            pytest.param(lambda e: {"payload": e.payload + "!"}, id="no base64"),
            pytest.param(lambda e: {"payload": "YR=="}, id="base64 that is not canonical"),
            pytest.param(
                lambda e: {"signatures": [Signature(keyid=SIGNER.key_id, sig=e.signatures[0].sig[:-3] + "x==")]},
                id="signature in another base64 spelling",
            ),
        ],
    )
    def test_refuses_a_changed_envelope(self, change: Callable[[Envelope], dict[str, Any]]) -> None:
        envelope = build_envelope(SIGNER)
        with pytest.raises((ReceiptError, SignatureError)):
            verify_receipt(msgspec.structs.replace(envelope, **change(envelope)), KEYS)

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            pytest.param(b"Statement/v1", b"Statement/v9", id="statement type"),
            pytest.param(b"scrub-receipt/v1", b"scrub-receipt/v9", id="predicate type"),
            pytest.param(b'"name":"gpu:GPU-00000000"', b'"name":"gpu:GPU-00000009"', id="subject name"),
            pytest.param(b'"nodeUid":"node-uid"', b'"nodeUid":"other"', id="node uid beside the report"),
            pytest.param(b'"bootId":"boot-1"', b'"bootId":"boot-2"', id="boot beside the report"),
            pytest.param(b'"epoch":3', b'"epoch":4', id="epoch beside the report"),
            pytest.param(b'"bytesVerified":%d' % HELD, b'"bytesVerified":%d' % TOTAL, id="report after its hash"),
            pytest.param(b'"reportSha256"', b'"reportSha257"', id="missing field"),
        ],
    )
    def test_refuses_a_signed_statement_that_contradicts_itself(self, old: bytes, new: bytes) -> None:
        payload = build_statement(build_predicate())
        assert old in payload
        with pytest.raises(ReceiptError):
            verify_receipt(seal_receipt(payload.replace(old, new, 1), SIGNER), KEYS)

    def test_refuses_a_document_of_another_kind_by_the_same_key(self) -> None:
        payload = b'{"anything": true}'
        signature = Signature(keyid=SIGNER.key_id, sig=base64.b64encode(SIGNER.sign(PAYLOAD_TYPE, payload)).decode())
        envelope = Envelope(
            payload_type=PAYLOAD_TYPE, payload=base64.b64encode(payload).decode(), signatures=[signature]
        )
        with pytest.raises(ReceiptError):
            verify_receipt(envelope, KEYS)

    def test_hash_is_over_compact_json_in_dsse_order(self) -> None:
        envelope = build_envelope(SIGNER)
        text = json.dumps(msgspec.to_builtins(envelope), separators=(",", ":"))
        assert list(json.loads(text)) == ["payloadType", "payload", "signatures"]
        assert envelope_sha256(envelope) == hashlib.sha256(text.encode()).hexdigest()


class TestChain:
    def test_verifies_in_any_order(self) -> None:
        chain = build_chain(SIGNER)
        assert [predicate.epoch for predicate in verify_chain(chain[::-1], KEYS)] == [1, 2, 4]

    def test_outlives_a_change_of_key(self) -> None:
        first = build_chain(SIGNER, epochs=(1,))
        other = Signer.generate()
        second = build_envelope(other, build_predicate(build_report(), previous=envelope_sha256(first[0])))
        assert len(verify_chain([*first, second], trusted_keys(SIGNER, other))) == 2

    @pytest.mark.parametrize(
        "change",
        [
            pytest.param(lambda chain: chain[:1] + chain[2:], id="one taken out"),
            pytest.param(lambda chain: chain[1:], id="beginning cut"),
            pytest.param(lambda chain: [*chain, chain[-1]], id="one twice"),
            pytest.param(lambda chain: [*chain[:2], *build_chain(SIGNER, epochs=(4,))], id="end replaced"),
            pytest.param(lambda chain: [*chain, *build_chain(SIGNER, node="gpu-2")], id="two nodes"),
        ],
    )
    def test_refuses(self, change: Callable[[list[Envelope]], list[Envelope]]) -> None:
        with pytest.raises(ReceiptError):
            verify_chain(change(build_chain(SIGNER)), KEYS)

    def test_of_a_part_verifies_when_asked_for(self) -> None:
        assert len(verify_chain(build_chain(SIGNER)[1:], KEYS, complete=False)) == 2


class TestFiles:
    def test_hold_envelopes_or_objects(self) -> None:
        envelope = build_envelope(SIGNER)
        plain = msgspec.to_builtins(envelope)
        scrub_receipt = {"kind": "ScrubReceipt", "metadata": {"name": "x"}, "spec": {"envelope": plain}}
        for document in (plain, scrub_receipt, {"kind": "List", "items": [scrub_receipt]}):
            assert parse_envelopes(json.dumps(document).encode()) == [envelope]

    @pytest.mark.parametrize(
        "data", [b"", b"[]", b"1", b"{}", b'{"items": 1}', b'{"spec": {}}', b'{"items": [1]}', b"\xff"]
    )
    def test_that_hold_something_else_are_refused(self, data: bytes) -> None:
        with pytest.raises(ReceiptError):
            parse_envelopes(data)


def test_a_report_without_gpus_has_no_subjects() -> None:
    predicate = build_predicate(build_report(gpus=[], verdict="Failed", reason="DriverMismatch"))
    assert json.loads(build_statement(predicate))["subject"] == []


def test_float_numbers_come_back_the_same() -> None:
    report = build_report(gpus=[build_gpu(0, coverage=0.1 + 0.2, durations={"hold": 1e-07, "probe": 3.0})])
    assert parse_report(encode_report(report))[0] == report
