"""Where the sealed bytes of a dataset's data objects come from.

1. An object that lies in a file of this machine, which nobody but this user and root can change, is mapped: all
   processes that read it share one copy, and nothing is fetched or kept.
2. Of other storage, whole objects are fetched and kept, still encrypted, until `cache_bytes` are full; objects beyond
   that are read by range. So nothing is fetched twice that was kept, and nothing is thrown out to make room.
3. An object's header is checked once, before anything of it is opened.
"""

from lethe.crypto.aead import TAG_BYTES, RecordCipher
from lethe.data.access import Access
from lethe.data.objects import open_into, open_record
from lethe.formats.header import HEADER_BYTES
from lethe.formats.index import Index, ObjectEntry
from lethe.formats.layout import sealed_size
from lethe.model.ports import ObjectStore


class Source:
    """One data object whose header is genuine."""

    __slots__ = ("_cipher", "_data", "_entry", "_record_size", "_store")

    def __init__(
        self,
        entry: ObjectEntry,
        cipher: RecordCipher,
        record_size: int,
        data: memoryview | None,
        store: ObjectStore,
    ) -> None:
        self._entry = entry
        self._cipher = cipher
        self._record_size = record_size
        self._data = data
        self._store = store

    def read(self, record: int, offset: int, size: int) -> bytes:
        """Return the plaintext of the record that begins at `offset`."""
        return open_record(self._cipher, self._entry, record, self._sealed(offset, size + TAG_BYTES))

    def read_into(self, record: int, offset: int, out: memoryview) -> None:
        """Fill `out` with the plaintext of consecutive records, the first of which begins at `offset`."""
        sealed = self._sealed(offset, sealed_size(len(out), self._record_size))
        open_into(self._cipher, self._entry, record, sealed, out, self._record_size)

    def _sealed(self, offset: int, length: int) -> memoryview:
        if self._data is not None:
            return self._data[offset : offset + length]
        return memoryview(self._store.get_range(self._entry.id, offset, length))


class Sources:
    """The data objects of one dataset, each opened at its first use."""

    def __init__(self, access: Access, index: Index, cache_bytes: int) -> None:
        self._access = access
        self._index = index
        self._room = cache_bytes
        self._opened: list[Source | None] = [None] * len(index.objects)

    def __getitem__(self, number: int) -> Source:
        """Return a data object; `number` is its place in the index."""
        source = self._opened[number]
        if source is None:
            source = self._opened[number] = self._open(self._index.objects[number])
        return source

    def _open(self, entry: ObjectEntry) -> Source:
        bits, store = self._index.record_bits, self._access.store
        data = store.view(entry.id)
        if data is not None:
            cipher = self._access.open_whole(data, entry, bits)
        elif entry.length <= self._room:
            cipher, data = self._access.fetch(entry, bits)
            self._room -= entry.length
        else:
            cipher = self._access.open(store.get_range(entry.id, 0, HEADER_BYTES), entry, bits)
        return Source(entry, cipher, self._index.record_size, data, store)
