"""What lies in each data object: every record of it, each in one file."""

from array import array
from dataclasses import replace

import pytest

from lethe.formats.contents import Contents
from lethe.formats.index import Index, ObjectEntry
from lethe.formats.layout import ObjectPlan, plan_objects
from lethe.model.errors import DatasetIndexError

RECORD_BITS = 12
RECORD = 1 << RECORD_BITS
OBJECT = 4 * (RECORD + 16) + 200


def make_index(*batches: dict[str, int]) -> Index:
    """Return the index of files that were sealed in batches, each into objects of its own."""
    plans: list[ObjectPlan] = []
    places = {}
    for batch in batches:
        names = sorted(batch)
        for plan in plan_objects([batch[name] for name in names], RECORD_BITS, OBJECT):
            for piece in plan.pieces:
                if piece.start == 0:
                    places[names[piece.file]] = len(plans), piece, batch[names[piece.file]]
            plans.append(plan)
    names = sorted(places)
    found = [places[name] for name in names]
    return Index(
        record_bits=RECORD_BITS,
        objects=tuple(
            ObjectEntry(f"{number:032x}", plan.length, plan.records, 1, bytes(32)) for number, plan in enumerate(plans)
        ),
        names=names,
        sizes=array("Q", [size for _, _, size in found]),
        modes=array("H", [0o644] * len(names)),
        object_numbers=array("I", [number for number, _, _ in found]),
        offsets=array("I", [piece.offset for _, piece, _ in found]),
        first_records=array("I", [piece.record for _, piece, _ in found]),
    )


def covered(index: Index) -> dict[str, list[tuple[int, int, int]]]:
    """Return object, beginning and size of every piece of each file, as they lie in the objects."""
    contents, result = Contents(index), {name: [] for name in index.names}
    for number in range(len(index.objects)):
        for piece in contents.pieces(number):
            result[index.names[piece.file]].append((number, piece.start, piece.size))
    return result


def test_every_byte_of_every_file_lies_in_one_object() -> None:
    sizes = {"a": 5, "b": 0, "c": 9 * RECORD + 1, "d": RECORD, "e": 3 * RECORD}
    for name, pieces in covered(make_index(sizes)).items():
        assert [start for _, start, _ in pieces] == [sum(size for _, _, size in pieces[:n]) for n in range(len(pieces))]
        assert sum(size for _, _, size in pieces) == sizes[name]


def test_files_of_one_batch_may_lie_between_those_of_another() -> None:
    first = {"b": 100, "d": 6 * RECORD + 3, "f": 10}
    second = {"a": 7, "c": 5 * RECORD, "e": RECORD}
    found = covered(make_index(first, second))
    assert {name: sum(size for _, _, size in pieces) for name, pieces in found.items()} == first | second
    assert {number for name in first for number, _, _ in found[name]}.isdisjoint(
        number for name in second for number, _, _ in found[name]
    )


@pytest.mark.parametrize("column", ["offsets", "first_records"])
def test_gaps_and_overlaps_are_refused(column: str) -> None:
    index = make_index({"a": 10, "b": 20, "c": 30})
    getattr(index, column)[1] += 1
    with pytest.raises(DatasetIndexError):
        list(Contents(index).pieces(0))


def test_a_file_that_leaves_its_object_with_nothing_after_it_is_refused() -> None:
    index = make_index({"a": 10})
    index.sizes[0] = 1 << 40
    with pytest.raises(DatasetIndexError, match="'a'"):
        Contents(index)


def test_records_that_no_file_has_are_refused() -> None:
    index = make_index({"a": 10, "b": 20})
    for column in (index.sizes, index.modes, index.object_numbers, index.offsets, index.first_records, index.names):
        column.pop()
    with pytest.raises(DatasetIndexError, match="has 2 records, its files have 1"):
        list(Contents(index).pieces(0))


def test_a_file_goes_on_where_an_object_has_room_but_no_more_records() -> None:
    roomy = ObjectEntry(f"{0:032x}", 10 * RECORD, 1, 1, bytes(32))
    index = make_index({"a": 4 * RECORD})
    index = replace(index, objects=(roomy, *index.objects), sizes=array("Q", [5 * RECORD]))
    assert covered(index)["a"] == [(0, 0, RECORD), (1, RECORD, 4 * RECORD)]
