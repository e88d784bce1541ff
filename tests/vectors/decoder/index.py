"""The plaintext of an index, and where files lie."""

import zlib
from dataclasses import dataclass
from itertools import pairwise

from tests.vectors.decoder.primitives import Bytes, DatasetIndexError, demand


@dataclass(frozen=True)
class Entry:
    id: bytes
    length: int
    records: int
    epoch: int
    commitment: bytes


@dataclass(frozen=True)
class File:
    name: str
    size: int
    mode: int
    object: int
    offset: int
    record: int


@dataclass(frozen=True)
class Index:
    record_size: int
    objects: list[Entry]
    files: list[File]


@dataclass(frozen=True)
class Piece:
    file: int
    object: int
    offset: int
    record: int
    records: int
    size: int


def parse_index(plain: bytes) -> Index:
    data = Bytes(plain, DatasetIndexError)
    files, objects, bits, zero = data.number(8), data.number(4), data.number(1), data.take(3)
    names_length, deflated_length = data.number(8), data.number(8)
    demand(12 <= bits <= 24 and zero == bytes(3), DatasetIndexError, "record bits or reserved byte (R13)")
    end = 32 + 64 * objects + 22 * files + deflated_length
    demand(end <= len(plain), DatasetIndexError, "the index ends before its parts do (R13)")
    demand(names_length <= min(4096 * files, 1024 * files + 65536), DatasetIndexError, "names too long (R14)")
    table = [
        Entry(data.take(16), data.number(8), data.number(4), data.number(4), data.take(32)) for _ in range(objects)
    ]
    demand(len({entry.id for entry in table}) == objects, DatasetIndexError, "one object twice (R13)")
    for entry in table:
        good = 128 <= entry.length <= 1 << 30 and entry.epoch and entry.records
        demand(bool(good), DatasetIndexError, "length, epoch or records of an object (R13)")
    sizes, modes, numbers, offsets, firsts = ([data.number(width) for _ in range(files)] for width in (8, 2, 4, 4, 4))
    demand(all(size <= 1 << 60 for size in sizes), DatasetIndexError, "size of a file (R13)")
    demand(all(mode <= 0o777 for mode in modes), DatasetIndexError, "mode of a file (R13)")
    demand(all(number < objects for number in numbers), DatasetIndexError, "object of a file (R13)")
    names = split_names(unfold(data.take(deflated_length), names_length), files)
    demand(plain[data.at :].strip(b"\x00") == b"", DatasetIndexError, "padding (R13)")
    rows = zip(names, sizes, modes, numbers, offsets, firsts, strict=True)
    return Index(1 << bits, table, [File(*row) for row in rows])


def unfold(deflated: bytes, length: int) -> bytes:
    stream = zlib.decompressobj()
    try:
        names = stream.decompress(deflated, length + 1)
    except zlib.error as error:
        raise DatasetIndexError(f"{error} (R14)") from None
    exact = len(names) == length and stream.eof and not stream.unused_data
    demand(exact, DatasetIndexError, "the names do not unfold to their length (R14)")
    return names


def split_names(joined: bytes, files: int) -> list[str]:
    raw = joined.split(b"\x00") if files else []
    demand(len(raw) == files, DatasetIndexError, "number of names (R15)")
    folders = set()
    for name in raw:
        parts = name.split(b"/")
        demand(len(name) <= 4095, DatasetIndexError, "name too long (R15)")
        for part in parts:
            demand(part not in (b"", b".", b"..") and len(part) <= 255, DatasetIndexError, "component (R15)")
        folders |= {b"/".join(parts[:count]) for count in range(1, len(parts))}
    demand(all(one < two for one, two in pairwise(raw)), DatasetIndexError, "names do not ascend (R15)")
    demand(folders.isdisjoint(raw), DatasetIndexError, "a file is a folder (R15)")
    try:
        return [name.decode("utf-8") for name in raw]
    except UnicodeDecodeError:
        raise DatasetIndexError("a name is not UTF-8 (R15)") from None


def pieces_of(index: Index, number: int) -> list[Piece]:
    """Where a file lies (R16)."""
    file, size = index.files[number], index.record_size
    place, offset, record, left = file.object, file.offset, file.record, file.size
    found = []
    while True:
        demand(place < len(index.objects), DatasetIndexError, "no such object (R16)")
        entry = index.objects[place]
        count = min(max(1, -(-left // size)), entry.records - record)
        length = min(left, count * size)
        demand(count >= 1 and offset >= 128, DatasetIndexError, "offset or record (R16)")
        demand(offset + length + 16 * count <= entry.length, DatasetIndexError, "outside of its object (R16)")
        found.append(Piece(number, place, offset, record, count, length))
        left -= length
        if left == 0:
            return found
        place, offset, record = place + 1, 128, 0


def all_pieces(index: Index) -> list[list[Piece]]:
    """The pieces of each object, which follow one another (R17)."""
    objects: list[list[Piece]] = [[] for _ in index.objects]
    ends = [(128, 0) for _ in index.objects]
    for number in range(len(index.files)):
        for piece in pieces_of(index, number):
            demand(ends[piece.object] == (piece.offset, piece.record), DatasetIndexError, "gap or overlap (R17)")
            ends[piece.object] = piece.offset + piece.size + 16 * piece.records, piece.record + piece.records
            objects[piece.object].append(piece)
    for entry, (_, records) in zip(index.objects, ends, strict=True):
        demand(records == entry.records, DatasetIndexError, "records of an object (R17)")
    return objects
