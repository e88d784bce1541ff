"""Reads a sealed dataset one file at a time: what training code uses.

1. `EncryptedFiles` is a map-style dataset: `len(files)`, `files[3]`, `files["train/0003.png"]`, and `__getitems__`,
   which PyTorch's DataLoader calls with a whole batch. A file is verified before a byte of it is returned.
2. It opens at its first use, in each process, and pickles without keys: a worker reads them from the memory volume.
3. Where the sealed bytes come from, and what is kept of them in memory, is `lethe.data.sources`.
"""

import os
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from lethe.data.access import Access, read_keys
from lethe.data.sources import Sources, filled
from lethe.formats.index import Index
from lethe.formats.layout import Piece, clip
from lethe.model.dataset import DatasetSource
from lethe.model.errors import InputError
from lethe.model.names import DATASETS_PATH

DATASETS_VARIABLE = "LETHE_DATASETS"
SOURCE_FILE = "source.json"
DEFAULT_CACHE_BYTES = 512 << 20


class EncryptedFiles(Sequence[bytes]):
    """The files of one dataset, in the order of their names."""

    def __init__(
        self, source: DatasetSource, keys: Path | Mapping[int, bytes], *, cache_bytes: int = DEFAULT_CACHE_BYTES
    ) -> None:
        """`keys` is the folder where keyfetch left them, or the keys by epoch; with the latter it does not pickle."""
        self._source = source
        self._keys = keys
        self._cache_bytes = cache_bytes
        self._opened: _Opened | None = None

    def __repr__(self) -> str:
        return f"EncryptedFiles({self._source.name!r})"

    def __len__(self) -> int:
        return len(self._open().index)

    def __getitem__(self, item: int | str) -> bytes:  # type: ignore[override]
        return self._open().read(item)

    def __getitems__(self, items: Iterable[int]) -> list[bytes]:
        """Return several files at once."""
        return self._open().read_many(list(items))

    def read_into(self, item: int | str, out: bytearray | memoryview, start: int = 0) -> int:
        """Fill `out` with a file's bytes from `start`, and return how many there were: fewer at the file's end.

        Only the records that hold them are opened. `out` is a buffer of bytes and may be used again.
        """
        return self._open().read_into(item, start, memoryview(out))

    def read_range(self, item: int | str, start: int, length: int) -> bytes:
        """Return `length` bytes of a file from `start`, fewer at its end; only the records that hold them are read."""
        return self._open().read_range(item, start, length)

    def __contains__(self, name: object) -> bool:
        if not isinstance(name, str):
            return False
        try:
            self._open().index.find(name)
        except KeyError:
            return False
        return True

    @property
    def names(self) -> Sequence[str]:
        """Return the files' names, in order."""
        return self._open().index.names

    @property
    def sizes(self) -> Sequence[int]:
        """Return the files' sizes in bytes, in the order of the names."""
        return self._open().index.sizes

    @property
    def record_size(self) -> int:
        """Return how many bytes are verified at once: ranges that begin and end at multiples of it cost the least."""
        return self._open().index.record_size

    @property
    def version(self) -> str:
        """Return what tells this version of the dataset from any other, without opening it."""
        return self._source.index.sha256

    def __getstate__(self) -> tuple[DatasetSource, Path, int]:
        if not isinstance(self._keys, Path):
            raise TypeError(
                "EncryptedFiles with keys in memory does not pickle: keys never go through a pipe or a file"
            )
        return self._source, self._keys, self._cache_bytes

    def __setstate__(self, state: tuple[DatasetSource, Path, int]) -> None:
        self._source, self._keys, self._cache_bytes = state
        self._opened = None

    def _open(self) -> "_Opened":
        if self._opened is None:
            deks = read_keys(self._keys) if isinstance(self._keys, Path) else self._keys
            self._opened = _Opened(Access.of(self._source, deks), self._cache_bytes)
        return self._opened


def open_dataset(
    source: str | DatasetSource,
    *,
    keys: Path | Mapping[int, bytes] | None = None,
    cache_bytes: int = DEFAULT_CACHE_BYTES,
) -> EncryptedFiles:
    """Return the files of a dataset of this job, by its name; nothing is fetched before the first use.

    Outside a pod, `source` says where the dataset lies and `keys` opens it.
    """
    if isinstance(source, DatasetSource):
        if keys is None:
            raise InputError("give `keys` together with a source, or the name of a dataset of this job")
        return EncryptedFiles(source, keys, cache_bytes=cache_bytes)
    root = datasets_folder()
    folder = root / source
    if not source or "/" in source or not (folder / SOURCE_FILE).is_file():
        there = ", ".join(dataset_names()) or "none"
        raise InputError(f"this pod has no dataset {source!r}, found {there} in {root}")
    described = msgspec.json.decode((folder / SOURCE_FILE).read_bytes(), type=DatasetSource)
    return EncryptedFiles(described, keys or folder, cache_bytes=cache_bytes)


def datasets_folder() -> Path:
    """Return where keyfetch leaves the datasets of this job."""
    return Path(os.environ.get(DATASETS_VARIABLE, DATASETS_PATH))


def dataset_names() -> list[str]:
    """Return the names of the datasets of this job."""
    return sorted(path.parent.name for path in datasets_folder().glob(f"*/{SOURCE_FILE}"))


class _Opened:
    """Index and data objects of one process."""

    def __init__(self, access: Access, cache_bytes: int) -> None:
        self.index: Index = access.load_index()
        self._sources = Sources(access, self.index, cache_bytes)
        self._sizes = self.index.sizes
        self._count = len(self.index)
        self._record_size = self.index.record_size
        self._long: dict[int, _Pieces] = {}
        """Of long files of which parts were read."""

    def read(self, item: int | str) -> bytes:
        file = self._number(item)
        size, place = self._sizes[file], self.index.place(file)
        if place is None:
            pieces = self._pieces(file)
            return filled(size, lambda out: self._fill(pieces, 0, out))
        number, record, offset = place
        return self._sources[number].read(record, offset, size)

    def read_many(self, items: Sequence[int | str]) -> list[bytes]:
        numbers = self.index.object_numbers
        if self._sources.are_at_hand(numbers[self._number(item)] for item in items):
            return [self.read(item) for item in items]
        return self._sources.at_once(self.read, items)

    def read_into(self, item: int | str, start: int, out: memoryview) -> int:
        file = self._number(item)
        length = self._length(file, start, len(out))
        self._fill(self._pieces(file), start, out[:length])
        return length

    def read_range(self, item: int | str, start: int, length: int) -> bytes:
        file = self._number(item)
        length = self._length(file, start, length)
        pieces = self._pieces(file)
        return filled(length, lambda out: self._fill(pieces, start, out)) if length else b""

    def _length(self, file: int, start: int, length: int) -> int:
        if start < 0 or length < 0:
            raise InputError(f"a range of {length} bytes from {start} is none: both must be at least 0")
        return max(0, min(length, self.index.sizes[file] - start))

    def _number(self, item: int | str) -> int:
        if isinstance(item, str):
            return self.index.find(item)
        number = item + self._count if item < 0 else item
        if not 0 <= number < self._count:
            raise IndexError(f"file {item} of a dataset of {self._count} files")
        return number

    def _fill(self, pieces: "_Pieces", start: int, out: memoryview) -> None:
        """Fill `out` with a file's bytes from `start`; they are all there."""
        while out:
            number, piece = pieces.parts[bisect_right(pieces.starts, start) - 1]
            part = clip(piece, start, start + len(out), self._record_size)
            assert part is not None
            length = min(len(out), part.start + part.size - start)
            self._sources[number].read_into(part, start - part.start, out[:length])
            start, out = start + length, out[length:]

    def _pieces(self, file: int) -> "_Pieces":
        """Return where a file lies, which is sure to be inside objects: before memory of its size is asked for."""
        if file not in self._long:
            parts = list(self.index.pieces(file))
            found = _Pieces([piece.start for _, piece in parts], parts)
            if self.index.sizes[file] <= self._record_size:
                return found
            self._long[file] = found
        return self._long[file]


class _Pieces(NamedTuple):
    """The parts of a file, each with its object's number, and where in the file each begins."""

    starts: list[int]
    parts: list[tuple[int, Piece]]
