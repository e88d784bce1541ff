"""What lies in each data object of an index.

1. A data object is its files' records and nothing else: what goes on from the object before it, then files in the order
   of the index, each where the one before it ends.
2. Objects of one index may have been written at different times, so that files of one lie between those of another.
"""

from collections.abc import Iterator

from lethe.formats.header import HEADER_BYTES
from lethe.formats.index import Index
from lethe.formats.layout import Piece, record_count, sealed_size
from lethe.model.errors import DatasetIndexError


class Contents:
    """The pieces of every object; raise DatasetIndexError for a file in an impossible place."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._files: list[list[int]] = [[] for _ in index.objects]
        """By object: the files that have a piece in it, in order."""
        longer = []
        for file, number in enumerate(index.object_numbers):
            self._files[number].append(file)
            if index.place(file) is None:
                longer.append(file)
        for file in reversed(longer):
            for number in [number for number, _ in index.pieces(file)][1:]:
                self._files[number].insert(0, file)

    def pieces(self, number: int) -> Iterator[Piece]:
        """Yield the pieces of an object in order; raise DatasetIndexError unless they are all its records."""
        index, offset, record = self._index, HEADER_BYTES, 0
        entry = index.objects[number]
        for file in self._files[number]:
            whole = index.place(file)
            if whole is not None and whole[0] == number:
                piece = Piece(file, 0, index.sizes[file], whole[2], whole[1])
            else:
                piece = next(piece for found, piece in index.pieces(file) if found == number)
            if (piece.offset, piece.record) != (offset, record):
                raise DatasetIndexError(f"{index.names[file]!r} does not begin where the file before it ends")
            offset += sealed_size(piece.size, index.record_size)
            record += record_count(piece.size, index.record_size)
            yield piece
        if record != entry.records:
            raise DatasetIndexError(f"object {entry.id} has {entry.records} records, its files have {record}")
