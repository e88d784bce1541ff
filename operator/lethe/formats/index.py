"""The index of a dataset: every file's name, size, mode and place, and every data object's commitment.

Columns, so that a million files load in a fraction of a second. Plaintext, big-endian:

| bytes | what |
|---|---|
| 8 | number of files F |
| 4 | number of data objects K |
| 1 | log2 of the record size of the data objects |
| 3 | zero |
| 8, 8 | length of all names; length of the same, deflated |
| 64 × K | per object: id 16, length 8, content records 4, key epoch 4, key commitment 32 |
| 8 × F, 2 × F, 4 × F, 4 × F, 4 × F | sizes; modes; object numbers; offsets; first record numbers |
| … | names: UTF-8, a zero byte between two, deflated (zlib, RFC 1950) |
| … | zeros up to the padded length |

1. Names are relative paths in ascending order of their bytes, kept byte for byte: no Unicode normalisation. Refused:
   empty, absolute, `.`, `..`, an empty component, a zero byte, more than 4,095 bytes in all or 255 in a component,
   two equal names, and a name that is also another one's folder.
2. Every length that follows from a number in the plaintext is checked against what is there before it is used; names
   may unfold to 1 KiB a file on average, and no more.
3. Where a file lies is checked when it is looked up (`pieces`, `place`) and, for a whole object, by
   `lethe.formats.contents`.
4. The index object is pinned by its SHA-256, and pins every data object by its commitment; so an older version of any
   of them is refused.
"""

import re
import sys
import zlib
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from operator import lt
from struct import Struct
from typing import Final

from lethe.crypto.aead import TAG_BYTES
from lethe.crypto.derive import is_equal, sha256
from lethe.formats.header import (
    COMMITMENT_BYTES,
    HEADER_BYTES,
    ID_BYTES,
    MAX_RECORD_BITS,
    MIN_RECORD_BITS,
    Kind,
)
from lethe.formats.layout import MAX_OBJECT_BYTES, Piece, record_count, sealed_size
from lethe.formats.padding import padme
from lethe.formats.stream import open_whole, seal_whole, sealed_length
from lethe.model.errors import DatasetIndexError, InputError, IntegrityError
from lethe.model.resources import IndexPin

INDEX_RECORD_BITS: Final = 16
MAX_INDEX_BYTES: Final = 2 << 30
MAX_NAME_BYTES: Final = 4095
MAX_COMPONENT_BYTES: Final = 255
MODE_MASK: Final = 0o777
MAX_FILE_BYTES: Final = 1 << 60

_FIXED: Final = Struct(">QIB3sQQ")
_OBJECT: Final = Struct(f">{ID_BYTES}sQII{COMMITMENT_BYTES}s")
_COLUMNS: Final = "QHIII"
_WIDTHS: Final = {"Q": 8, "H": 2, "I": 4}
_AVERAGE_NAME: Final = 1024
_NAME_ALLOWANCE: Final = 64 << 10


@dataclass(frozen=True, slots=True)
class ObjectEntry:
    """One data object."""

    id: str
    """32 hex digits: its name on storage."""
    length: int
    records: int
    epoch: int
    commitment: bytes


@dataclass(frozen=True, slots=True)
class Index:
    """All columns have one entry per file, in the order of the names."""

    record_bits: int
    objects: tuple[ObjectEntry, ...]
    names: Sequence[str]
    sizes: "array[int]"
    modes: "array[int]"
    object_numbers: "array[int]"
    offsets: "array[int]"
    first_records: "array[int]"

    def __len__(self) -> int:
        return len(self.names)

    @property
    def record_size(self) -> int:
        """Return the plaintext bytes of a full record."""
        return 1 << self.record_bits

    @property
    def total_bytes(self) -> int:
        """Return the plaintext bytes of all files."""
        return sum(self.sizes)

    def find(self, name: str) -> int:
        """Return the number of the file with this name; raise KeyError."""
        number = bisect_left(self.names, name)
        if number == len(self.names) or self.names[number] != name:
            raise KeyError(name)
        return number

    def pieces(self, file: int) -> Iterator[tuple[int, Piece]]:
        """Yield object number and piece of every part of a file; raise DatasetIndexError for an impossible place."""
        size, number = self.sizes[file], self.object_numbers[file]
        offset, record, start = self.offsets[file], self.first_records[file], 0
        while True:
            entry = self._object(file, number)
            left = size - start
            count = min(record_count(left, self.record_size), entry.records - record)
            length = min(left, count * self.record_size)
            end = offset + sealed_size(length, self.record_size)
            if count < 1 or offset < HEADER_BYTES or end > entry.length:
                raise self._misplaced(file, entry)
            yield number, Piece(file, start, length, offset, record)
            start += length
            if start == size:
                return
            number, offset, record = number + 1, HEADER_BYTES, 0

    def place(self, file: int) -> tuple[int, int, int] | None:
        """Return object number, record number and offset of a file that lies in one object, None for any other."""
        size, number, record, offset = (
            self.sizes[file],
            self.object_numbers[file],
            self.first_records[file],
            self.offsets[file],
        )
        entry, count = self._object(file, number), -(-size >> self.record_bits) or 1
        if record + count > entry.records or not HEADER_BYTES <= offset <= entry.length - size - TAG_BYTES * count:
            return None
        return number, record, offset

    def _misplaced(self, file: int, entry: ObjectEntry) -> DatasetIndexError:
        return DatasetIndexError(f"{self.names[file]!r} does not lie inside object {entry.id}: wrong index")

    def _object(self, file: int, number: int) -> ObjectEntry:
        if number >= len(self.objects):
            raise DatasetIndexError(
                f"{self.names[file]!r} lies in object {number}, and there are {len(self.objects)}: the index is wrong"
            )
        return self.objects[number]


def check_name(name: str) -> None:
    """Raise DatasetIndexError for a name that a dataset may not hold."""
    try:
        raw = name.encode()
    except UnicodeEncodeError as error:
        raise DatasetIndexError(f"the name {name!r} is not UTF-8: rename the file") from error
    parts = raw.split(b"/")
    if b"\0" in raw:
        raise DatasetIndexError(f"the name {name!r} has a zero byte")
    if raw.startswith(b"/"):
        raise DatasetIndexError(f"the name {name!r} is absolute, expected a path below the dataset's folder")
    if any(part in (b"", b".", b"..") for part in parts):
        raise DatasetIndexError(f"the name {name!r} has an empty component, '.' or '..'")
    if len(raw) > MAX_NAME_BYTES or any(len(part) > MAX_COMPONENT_BYTES for part in parts):
        raise DatasetIndexError(
            f"the name {name[:64]!r}… is too long: at most {MAX_NAME_BYTES} bytes, {MAX_COMPONENT_BYTES} a component"
        )


def encode_index(index: Index) -> bytes:
    """Return the plaintext, padded so that the sealed object gets a Padmé length. Equal indexes give equal bytes."""
    try:
        names = "\0".join(index.names).encode()
    except UnicodeEncodeError as error:
        raise DatasetIndexError("a name is not UTF-8: rename the file") from error
    _check_names(index.names, names)
    deflated = zlib.compress(names, 6)
    if len(names) > _names_limit(len(index)):
        raise DatasetIndexError(
            f"the names have {len(names)} bytes, more than {_names_limit(len(index))}: shorten them"
        )
    parts = [
        _FIXED.pack(len(index), len(index.objects), index.record_bits, bytes(3), len(names), len(deflated)),
        *(
            _OBJECT.pack(bytes.fromhex(entry.id), entry.length, entry.records, entry.epoch, entry.commitment)
            for entry in index.objects
        ),
        *(_to_wire(column) for column in _columns(index)),
        deflated,
    ]
    plain = b"".join(parts)
    return plain + bytes(_padded_length(len(plain)) - len(plain))


def parse_index(plain: bytes) -> Index:
    """Read what `encode_index` wrote; raise DatasetIndexError."""
    view = memoryview(plain)
    if len(view) < _FIXED.size:
        raise DatasetIndexError(f"the index has {len(view)} bytes, fewer than its first {_FIXED.size}")
    files, object_count, record_bits, zero, names_length, deflated_length = _FIXED.unpack_from(view)
    if any(zero):
        raise DatasetIndexError(
            "a reserved byte of the index is not zero: a newer version of Lethe may have written it"
        )
    if not MIN_RECORD_BITS <= record_bits <= MAX_RECORD_BITS:
        raise DatasetIndexError(f"record size 2^{record_bits} is refused")
    columns_at = _FIXED.size + object_count * _OBJECT.size
    names_at = columns_at + files * sum(_WIDTHS[code] for code in _COLUMNS)
    end = names_at + deflated_length
    if end > len(view):
        raise DatasetIndexError(f"the index says that it has {end} bytes, found {len(view)}")
    if names_length > _names_limit(files):
        raise DatasetIndexError(f"the index claims names of {names_length} bytes for {files} files: refused")
    if _has_nonzero(view[end:]):
        raise DatasetIndexError("the padding of the index is not zero")
    objects = tuple(
        ObjectEntry(id.hex(), length, records, epoch, commitment)
        for id, length, records, epoch, commitment in _OBJECT.iter_unpack(view[_FIXED.size : columns_at])
    )
    _check_objects(objects)
    columns = list(_from_wire(view[columns_at:names_at], files))
    if files and max(columns[0]) > MAX_FILE_BYTES:
        raise DatasetIndexError(f"a file of {max(columns[0])} bytes is refused")
    if files and max(columns[1]) > MODE_MASK:
        raise DatasetIndexError("a file's mode has more than permission bits")
    if files and max(columns[2]) >= object_count:
        raise DatasetIndexError(f"a file lies in object {max(columns[2])}, and there are {object_count}")
    return Index(record_bits, objects, _inflate_names(view[names_at:end], names_length, files), *columns)


def seal_index(index: Index, dek: bytes, *, epoch: int, dataset_id: bytes, object_id: bytes, salt: bytes) -> bytes:
    """Return the whole index object."""
    return seal_whole(
        encode_index(index),
        dek,
        kind=Kind.INDEX,
        record_bits=INDEX_RECORD_BITS,
        epoch=epoch,
        dataset_id=dataset_id,
        object_id=object_id,
        salt=salt,
    )


def open_index(data: bytes | memoryview, pin: IndexPin, dataset_id: str, deks: Mapping[int, bytes]) -> Index:
    """Return the index that is pinned.

    Raise IntegrityError when the bytes are not the pinned ones, UnwrapError when the key of its epoch is not at hand.
    """
    check_pin(pin, dataset_id)
    verify_pin(data, pin)
    object_id = bytes.fromhex(pin.object)
    return parse_index(
        open_whole(data, deks, what="index", kind=Kind.INDEX, dataset_id=dataset_id, object_id=object_id)
    )


def check_pin(pin: IndexPin, dataset_id: str) -> None:
    """Raise InputError unless pin and dataset id have the form that a manifest demands."""
    check_dataset_id(dataset_id)
    _check_hex("index", pin.object, 32)
    _check_hex("sha256", pin.sha256, 64)


def check_dataset_id(dataset_id: str) -> None:
    """Raise InputError unless it has the form of one."""
    _check_hex("dataset id", dataset_id, 32)


def _check_hex(what: str, value: str, digits: int) -> None:
    if not re.fullmatch(f"[0-9a-f]{{{digits}}}", value):
        raise InputError(f"{what} {value!r} is not {digits} lower-case hex digits: copy it from the manifest")


def verify_pin(data: bytes | memoryview, pin: IndexPin) -> None:
    """Raise IntegrityError unless these are the pinned bytes."""
    found = sha256(bytes(data))
    if not is_equal(found, bytes.fromhex(pin.sha256)):
        raise IntegrityError(
            f"index object {pin.object} has SHA-256 {found.hex()}, pinned is {pin.sha256}: it was changed, cut off, or "
            "replaced by another version"
        )


def _columns(index: Index) -> tuple["array[int]", ...]:
    return index.sizes, index.modes, index.object_numbers, index.offsets, index.first_records


def _to_wire(column: "array[int]") -> bytes:
    if sys.byteorder == "big":
        return column.tobytes()
    swapped = array(column.typecode, column)
    swapped.byteswap()
    return swapped.tobytes()


def _from_wire(view: memoryview, files: int) -> Iterator["array[int]"]:
    position = 0
    for code in _COLUMNS:
        length = files * _WIDTHS[code]
        column: array[int] = array(code)
        column.frombytes(view[position : position + length])
        if sys.byteorder == "little":
            column.byteswap()
        yield column
        position += length


def _inflate_names(deflated: memoryview, length: int, files: int) -> list[str]:
    stream = zlib.decompressobj()
    try:
        raw = stream.decompress(deflated, length + 1)
    except zlib.error as error:
        raise DatasetIndexError(f"the names of the index do not inflate: {error}") from error
    if len(raw) != length or not stream.eof or stream.unused_data:
        raise DatasetIndexError(f"the names of the index do not inflate to the {length} bytes that it claims")
    try:
        names = raw.decode().split("\0") if files else []
    except UnicodeDecodeError as error:
        raise DatasetIndexError("a name in the index is not UTF-8") from error
    if len(names) != files or (not files and raw):
        raise DatasetIndexError(f"the index has {len(names)} names for {files} files")
    _check_names(names, raw)
    return names


def _check_names(names: Sequence[str], joined: bytes) -> None:
    """Check all names at once; look for the culprit only when there is one."""
    if not names:
        return
    bounded = b"/" + joined.replace(b"\0", b"/\0/") + b"/"
    if (
        any(bad in bounded for bad in (b"//", b"/./", b"/../"))
        or max(map(len, joined.split(b"\0"))) > MAX_NAME_BYTES
        or max(map(len, joined.replace(b"\0", b"/").split(b"/"))) > MAX_COMPONENT_BYTES
        or joined.count(b"\0") != len(names) - 1
    ):
        for name in names:
            check_name(name)
    if not all(map(lt, names, islice(names, 1, None))):
        raise DatasetIndexError("the names of the index are not in ascending order, or one is there twice")
    both = folders_of(names).intersection(names)
    if both:
        raise DatasetIndexError(f"{min(both)!r} is a file and a folder at once")


def folders_of(names: Iterable[str]) -> set[str]:
    """Return every folder that files of these names lie in, but the topmost."""
    folders: set[str] = set()
    for folder in {name.rpartition("/")[0] for name in names}:
        while folder and folder not in folders:
            folders.add(folder)
            folder = folder.rpartition("/")[0]
    return folders


def _check_objects(objects: Sequence[ObjectEntry]) -> None:
    if len({entry.id for entry in objects}) != len(objects):
        raise DatasetIndexError("the index names one object twice")
    for entry in objects:
        if not HEADER_BYTES <= entry.length <= MAX_OBJECT_BYTES or entry.epoch < 1 or entry.records < 1:
            raise DatasetIndexError(f"object {entry.id} has an impossible length, epoch or number of records")


def _names_limit(files: int) -> int:
    return min(files * (MAX_NAME_BYTES + 1), files * _AVERAGE_NAME + _NAME_ALLOWANCE)


def _has_nonzero(view: memoryview) -> bool:
    return view.tobytes().count(0) != len(view)


def _padded_length(plain: int) -> int:
    """Return the smallest plaintext length whose sealed object has a Padmé length; some lengths cannot be reached."""
    record = 1 << INDEX_RECORD_BITS
    target = padme(HEADER_BYTES + sealed_length(plain, record))
    while True:
        sealed = target - HEADER_BYTES
        length = sealed - TAG_BYTES * (sealed // (record + TAG_BYTES) + 1)
        if length >= plain and sealed_length(length, record) == sealed:
            return length
        target = padme(target + 1)
