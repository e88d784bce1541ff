import json
from typing import Any

import msgspec
import pytest

from lethe.crypto.sign import Signer
from lethe.formats.receipt import envelope_sha256, verify_chain, verify_receipt
from lethe.formats.receiptkeys import build_receipt_key, encode_receipt_keys, parse_receipt_keys
from lethe.model.errors import CryptoError, ReceiptError, SignatureError
from tests.common.scrubs import build_chain, build_envelope, build_predicate, build_report, trusted_keys

SIGNER = Signer.generate()
RETIRED = "2030-01-02T03:04:10Z"
"""When the builders' receipts are issued."""


def entry(**changes: Any) -> dict[str, Any]:
    return {**msgspec.to_builtins(build_receipt_key(SIGNER.public_key, version=1)), **changes}


def parse(*entries: dict[str, Any]) -> dict[str, Any]:
    return parse_receipt_keys(json.dumps(entries).encode())


def test_a_list_comes_back() -> None:
    keys = trusted_keys(SIGNER, Signer.generate())
    assert parse_receipt_keys(encode_receipt_keys([*keys.values()]).encode()) == keys


def test_a_key_that_signs_has_no_end() -> None:
    assert "retiredAt" not in encode_receipt_keys([*trusted_keys(SIGNER).values()])


@pytest.mark.parametrize(
    "entries",
    [
        pytest.param([entry(keyId="00" * 8)], id="under another id"),
        pytest.param([entry(publicKey="AAAA")], id="no key"),
        pytest.param([entry(), entry(version=2)], id="twice"),
        pytest.param([entry(retiredAt="yesterday")], id="retired at no time"),
        pytest.param([{"keyId": "x"}], id="fields missing"),
    ],
)
def test_a_wrong_entry_is_refused(entries: list[dict[str, Any]]) -> None:
    with pytest.raises((CryptoError, ReceiptError)):
        parse(*entries)


@pytest.mark.parametrize("data", [b"", b"{}", b"\xff"])
def test_what_is_no_list_is_refused(data: bytes) -> None:
    with pytest.raises(ReceiptError):
        parse_receipt_keys(data)


@pytest.mark.parametrize("issued", ["2030-01-01T00:00:00Z", RETIRED, "2030-01-02T04:04:10+01:00"])
def test_a_receipt_of_a_time_before_the_retirement_verifies(issued: str) -> None:
    keys = parse(entry(retiredAt=RETIRED))
    assert verify_receipt(build_envelope(SIGNER, build_predicate(issued_at=issued)), keys).issued_at == issued


@pytest.mark.parametrize("issued", ["2030-01-02T03:04:11Z", "2031-01-01T00:00:00Z", "2030-01-02T03:04:10.5Z"])
def test_a_retired_key_signs_nothing_more(issued: str) -> None:
    keys = parse(entry(retiredAt=RETIRED))
    with pytest.raises(SignatureError, match="retired"):
        verify_receipt(build_envelope(SIGNER, build_predicate(issued_at=issued)), keys)


def test_a_retired_key_signs_nothing_without_a_time() -> None:
    keys = parse(entry(retiredAt=RETIRED))
    with pytest.raises(ReceiptError, match="issuedAt"):
        verify_receipt(build_envelope(SIGNER, build_predicate(issued_at="soon")), keys)


def test_a_chain_goes_across_a_rotation() -> None:
    old, new = SIGNER, Signer.generate()
    first = build_chain(old, epochs=(1, 2))
    later = build_predicate(build_report(), previous=envelope_sha256(first[-1]), issued_at="2030-02-01T00:00:00Z")
    keys = parse(entry(retiredAt=RETIRED), msgspec.to_builtins(build_receipt_key(new.public_key, version=2)))
    assert [predicate.epoch for predicate in verify_chain([*first, build_envelope(new, later)], keys)] == [1, 2, 3]
    with pytest.raises(SignatureError, match="retired"):
        verify_chain([*first, build_envelope(old, later)], keys)
