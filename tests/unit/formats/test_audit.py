import pytest

from lethe.formats.audit import AuditEvent, ChainHead, encode_record, verify_chain
from lethe.model.errors import FormatError, IntegrityError


def build_chain(count: int, chain: str = "acme") -> tuple[list[bytes], list[ChainHead]]:
    records, heads = [], [ChainHead()]
    for number in range(count):
        event = AuditEvent(event="refused", time=f"t{number}", tenant=chain, check="pod")
        record, head = encode_record(chain, heads[-1], event)
        records.append(record)
        heads.append(head)
    return records, heads[1:]


def test_a_chain_verifies_to_its_head() -> None:
    records, heads = build_chain(5)
    assert verify_chain("acme", records) == heads[-1]
    assert verify_chain("acme", records, seen=heads[2]) == heads[-1]
    assert verify_chain("acme", []) == ChainHead()


@pytest.mark.parametrize("number", range(5))
def test_an_edit_is_found(number: int) -> None:
    records, heads = build_chain(5)
    records[number] = records[number].replace(b"refused", b"failed")
    with pytest.raises(IntegrityError):
        verify_chain("acme", records, seen=heads[-1])


@pytest.mark.parametrize("number", range(5))
def test_a_gap_is_found(number: int) -> None:
    records, heads = build_chain(5)
    del records[number]
    with pytest.raises(IntegrityError):
        verify_chain("acme", records, seen=heads[-1])


@pytest.mark.parametrize("number", range(4))
def test_a_swap_is_found(number: int) -> None:
    records, _ = build_chain(5)
    records[number], records[number + 1] = records[number + 1], records[number]
    with pytest.raises(IntegrityError):
        verify_chain("acme", records)


@pytest.mark.parametrize("left", range(5))
def test_truncation_shows_against_a_head_that_was_seen(left: int) -> None:
    records, heads = build_chain(5)
    with pytest.raises(IntegrityError, match="cut short"):
        verify_chain("acme", records[:left], seen=heads[-1])


def test_a_rewritten_chain_shows_against_a_head_that_was_seen() -> None:
    _, heads = build_chain(5)
    records = []
    head = ChainHead()
    for _ in range(6):
        record, head = encode_record("acme", head, AuditEvent(event="confirmed", time="t", tenant="acme"))
        records.append(record)
    assert verify_chain("acme", records) == head
    with pytest.raises(IntegrityError, match="rewritten"):
        verify_chain("acme", records, seen=heads[3])


def test_a_record_of_another_chain_is_found() -> None:
    records, _ = build_chain(2, "globex")
    with pytest.raises(IntegrityError, match="moved"):
        verify_chain("acme", records)


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b'{"chain":"acme","sequence":0,"previous":"","event":{}}'])
def test_what_is_no_record_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        verify_chain("acme", [data])
