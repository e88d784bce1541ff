"""Reads a sealed dataset one file at a time: what training code uses.

1. `EncryptedFiles` is a map-style dataset: `len(files)`, `files[3]`, `files["train/0003.png"]`, and `__getitems__`,
   which PyTorch's DataLoader calls with a whole batch. A file is verified before a byte of it is returned.
2. It opens at its first use, in each process, and pickles without keys: a worker reads them from the memory volume.
3. Whole data objects are fetched and kept, still encrypted, until `cache_bytes` are full; objects beyond that are read
   by range, file by file. So nothing is fetched twice that was kept, and nothing is thrown out to make room.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from lethe.crypto.aead import RecordCipher
from lethe.data.access import Access, read_keys
from lethe.data.objects import open_records, sealed_piece
from lethe.formats.header import HEADER_BYTES
from lethe.formats.index import Index
from lethe.formats.layout import Piece, sealed_size
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
        opened = self._open()
        return [opened.read(item) for item in items]

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
    root = Path(os.environ.get(DATASETS_VARIABLE, DATASETS_PATH))
    folder = root / source
    if not source or "/" in source or not (folder / SOURCE_FILE).is_file():
        there = sorted(path.parent.name for path in root.glob(f"*/{SOURCE_FILE}"))
        raise InputError(f"this pod has no dataset {source!r}, found {', '.join(there) or 'none'} in {root}")
    described = msgspec.json.decode((folder / SOURCE_FILE).read_bytes(), type=DatasetSource)
    return EncryptedFiles(described, keys or folder, cache_bytes=cache_bytes)


class _Opened:
    """Index, ciphers and cached objects of one process."""

    def __init__(self, access: Access, cache_bytes: int) -> None:
        self.index: Index = access.load_index()
        self._access = access
        self._room = cache_bytes
        self._ciphers: dict[int, RecordCipher] = {}
        self._objects: dict[int, memoryview] = {}

    def read(self, item: int | str) -> bytes:
        parts = [self._read_piece(number, piece) for number, piece in self.index.pieces(self._number(item))]
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _number(self, item: int | str) -> int:
        if isinstance(item, str):
            return self.index.find(item)
        number = item + len(self.index) if item < 0 else item
        if not 0 <= number < len(self.index):
            raise IndexError(f"file {item} of a dataset of {len(self.index)} files")
        return number

    def _read_piece(self, number: int, piece: Piece) -> bytes:
        entry, record_size = self.index.objects[number], self.index.record_size
        data = self._whole_object(number)
        if data is None:
            cipher = self._cipher(number)
            length = sealed_size(piece.size, record_size)
            sealed = memoryview(self._access.store.get_range(entry.id, piece.offset, length))
        else:
            cipher = self._ciphers[number]
            sealed = sealed_piece(data, piece, record_size)
        return open_records(cipher, entry, piece, sealed, record_size)

    def _whole_object(self, number: int) -> memoryview | None:
        if number in self._objects:
            return self._objects[number]
        entry = self.index.objects[number]
        if entry.length > self._room:
            return None
        self._room -= entry.length
        try:
            self._ciphers[number], self._objects[number] = self._access.fetch(entry, self.index.record_bits)
        except BaseException:
            self._room += entry.length
            raise
        return self._objects[number]

    def _cipher(self, number: int) -> RecordCipher:
        if number not in self._ciphers:
            entry = self.index.objects[number]
            header = self._access.store.get_range(entry.id, 0, HEADER_BYTES)
            self._ciphers[number] = self._access.open(header, entry, self.index.record_bits)
        return self._ciphers[number]
