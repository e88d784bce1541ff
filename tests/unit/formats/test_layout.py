import pytest
from hypothesis import given
from hypothesis import strategies as st

from lethe.formats.header import HEADER_BYTES, MIN_RECORD_BITS
from lethe.formats.layout import (
    ObjectPlan,
    Piece,
    clip,
    fill_sizes,
    plan_objects,
    record_count,
    record_sizes,
    sealed_size,
)
from lethe.formats.padding import padme
from lethe.model.errors import InputError

RECORD = 1 << MIN_RECORD_BITS
FULL = RECORD + 16
sizes_lists = st.lists(st.one_of(st.integers(0, 40), st.integers(RECORD - 20, RECORD + 20), st.integers(0, 9 * RECORD)))


def end_of(plan: ObjectPlan) -> int:
    last = plan.pieces[-1]
    return last.offset + sealed_size(last.size, RECORD)


@given(sizes=sizes_lists, slack=st.integers(16, 3 * FULL))
def test_files_are_laid_out_whole_and_without_gaps(sizes: list[int], slack: int) -> None:
    object_bytes = HEADER_BYTES + FULL + slack
    plans = plan_objects(sizes, MIN_RECORD_BITS, object_bytes)
    placed: dict[int, int] = {}
    for number, plan in enumerate(plans):
        offset, record = HEADER_BYTES, 0
        for piece in plan.pieces:
            assert (piece.offset, piece.record) == (offset, record)
            assert piece.start == placed.get(piece.file, 0)
            placed[piece.file] = piece.start + piece.size
            if placed[piece.file] < sizes[piece.file]:
                assert piece.size % RECORD == 0 and piece is plan.pieces[-1]
            offset += sealed_size(piece.size, RECORD)
            record += record_count(piece.size, RECORD)
        assert plan.records == record
        room = plan.length - offset
        assert room == 0 or room >= 16
        assert plan.length == object_bytes if number < len(plans) - 1 else plan.length <= object_bytes
    assert placed == dict(enumerate(sizes))


@given(
    before=st.integers(0, 3),
    size=st.integers(0, 5 * RECORD),
    start=st.integers(0, 9 * RECORD),
    length=st.integers(0, 9 * RECORD),
)
def test_a_clipped_piece_is_the_records_of_a_range_and_no_more(before: int, size: int, start: int, length: int) -> None:
    piece, end = Piece(7, before * RECORD, size, 1000, 40), start + length
    part = clip(piece, start, end, RECORD)
    first, stop = max(start, piece.start), min(end, piece.start + size)
    if first >= stop:
        assert part is None
        return
    assert part is not None and part.file == 7
    assert part.start <= first < part.start + RECORD and part.start % RECORD == 0
    assert part.start + part.size in (-(-stop // RECORD) * RECORD, piece.start + size)
    skipped = (part.start - piece.start) // RECORD
    assert (part.record, part.offset) == (40 + skipped, 1000 + skipped * FULL)


@given(room=st.one_of(st.just(0), st.integers(16, 5 * FULL)))
def test_fill_takes_exactly_the_room(room: int) -> None:
    sizes = fill_sizes(room, RECORD)
    assert sum(sizes) + 16 * len(sizes) == room
    assert all(0 <= size <= RECORD for size in sizes)


@given(size=st.integers(0, 5 * RECORD))
def test_record_sizes_agree_with_their_count(size: int) -> None:
    sizes = list(record_sizes(size, RECORD))
    assert sum(sizes) == size
    assert len(sizes) == record_count(size, RECORD)


def test_the_last_object_has_a_padme_length() -> None:
    (plan,) = plan_objects([1000, 20_000], MIN_RECORD_BITS)
    assert plan.length == padme(plan.length) >= end_of(plan)


def test_no_files_make_no_objects() -> None:
    assert plan_objects([], MIN_RECORD_BITS) == ()


@pytest.mark.parametrize(("bits", "length"), [(11, 1 << 20), (25, 1 << 30), (16, 1 << 16), (16, 1 << 31)])
def test_impossible_sizes_are_refused(bits: int, length: int) -> None:
    with pytest.raises(InputError, match="refused"):
        plan_objects([1], bits, length)
