"""Reads one file of a dataset record by record, whatever its size, without fetching the objects whole."""

from collections.abc import Iterator

from lethe.crypto.aead import TAG_BYTES
from lethe.data.access import Access
from lethe.data.objects import open_record
from lethe.formats.header import HEADER_BYTES
from lethe.formats.index import Index
from lethe.formats.layout import record_sizes, sealed_size

BLOCK_BYTES = 8 << 20
"""At most this much is fetched at once."""


def iterate_file(access: Access, index: Index, file: int) -> Iterator[bytes]:
    """Yield the plaintext of each record of a file, each verified before it is yielded."""
    record_size = index.record_size
    block = max(1, BLOCK_BYTES // record_size) * record_size
    for number, piece in index.pieces(file):
        entry = index.objects[number]
        cipher = access.open(access.store.get_range(entry.id, 0, HEADER_BYTES), entry, index.record_bits)
        for start in range(0, max(piece.size, 1), block):
            size, before = min(block, piece.size - start), start // record_size
            offset = piece.offset + before * (record_size + TAG_BYTES)
            sealed = memoryview(access.store.get_range(entry.id, offset, sealed_size(size, record_size)))
            end = 0
            for record, length in enumerate(record_sizes(size, record_size), start=piece.record + before):
                begin, end = end, end + length + TAG_BYTES
                yield open_record(cipher, entry, record, sealed[begin:end])
