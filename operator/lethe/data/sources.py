"""Where the sealed bytes of a dataset's data objects come from.

1. An object that lies in a file of this machine, which nobody but this user and root can change, is mapped: all
   processes that read it share one copy, and nothing is fetched or kept.
2. Of other storage, whole objects are fetched and kept, still encrypted, until `cache_bytes` are full; objects beyond
   that are read by range. So nothing is fetched twice that was kept, and nothing is thrown out to make room.
3. Objects are fetched by threads, several at a time, and the next one ahead. Threads do not survive `fork`: a child has
   its own, and fetches itself what its parent was fetching.
4. An object's header is checked once, before anything of it is opened.
"""

import io
import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, TypeVar

from lethe.crypto.aead import TAG_BYTES, RecordCipher
from lethe.data.access import Access
from lethe.data.objects import open_into, open_range_into, open_record
from lethe.formats.header import HEADER_BYTES
from lethe.formats.index import Index, ObjectEntry
from lethe.formats.layout import Piece, sealed_size
from lethe.model.ports import ObjectStore

Item = TypeVar("Item")

CONNECTIONS: Final = 8


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

    @property
    def is_kept(self) -> bool:
        """Say whether the whole object is in memory."""
        return self._data is not None

    def read(self, record: int, offset: int, size: int) -> bytes:
        """Return `size` bytes of plaintext, whose records begin with this one, at `offset`."""
        if size <= self._record_size:
            return open_record(self._cipher, self._entry, record, self._sealed(offset, size + TAG_BYTES))
        sealed = self._sealed(offset, sealed_size(size, self._record_size))
        return filled(size, lambda out: open_into(self._cipher, self._entry, record, sealed, out, self._record_size))

    def read_into(self, part: Piece, skipped: int, out: memoryview) -> None:
        """Fill `out` with the plaintext of these records, from the byte `skipped`, which is of the first one."""
        sealed = self._sealed(part.offset, sealed_size(part.size, self._record_size))
        open_range_into(self._cipher, self._entry, part, sealed, skipped, out, self._record_size)

    def _sealed(self, offset: int, length: int) -> memoryview:
        if self._data is not None:
            return self._data[offset : offset + length]
        return memoryview(self._store.get_range(self._entry.id, offset, length))


def filled(size: int, fill: Callable[[memoryview], None]) -> bytes:
    """Return `size` bytes that `fill` writes. BytesIO hands its own bytes out, so that they are not copied."""
    whole = io.BytesIO()
    whole.seek(size - 1)
    whole.write(b"\0")
    with whole.getbuffer() as out:
        fill(out)
    return whole.getvalue()


class Sources:
    """The data objects of one dataset, each opened at its first use."""

    def __init__(self, access: Access, index: Index, cache_bytes: int) -> None:
        self._access = access
        self._index = index
        self._room = cache_bytes
        self._opened: list[Source | None] = [None] * len(index.objects)
        self._kept = 0
        self._network = _Network()

    def __getitem__(self, number: int) -> Source:
        """Return a data object; `number` is its place in the index."""
        source = self._opened[number] or self._map(number)
        return source if source is not None else self._wait_for(number)

    def are_at_hand(self, numbers: Iterable[int]) -> bool:
        """Say whether reading these objects asks nothing of the network."""
        return self._kept == len(self._opened) or all(
            (source := self._opened[number] or self._map(number)) is not None and source.is_kept for number in numbers
        )

    def at_once(self, work: Callable[[Item], bytes], items: Iterable[Item]) -> list[bytes]:
        """Do something that waits for the network with several items at a time."""
        return list(self._mine().readers.map(work, items))

    def _map(self, number: int) -> Source | None:
        """Open an object in place, where that is possible."""
        entry, store = self._index.objects[number], self._access.store
        data = store.view(entry.id)
        if data is None:
            return None
        cipher = self._access.open_whole(data, entry, self._index.record_bits)
        return self._keep(number, Source(entry, cipher, self._index.record_size, data, store))

    def _wait_for(self, number: int) -> Source:
        """Open an object; if it is kept, begin to fetch the one after it: most programs want it next, and all once."""
        source, following = self._begin(number).result(), number + 1
        if source.is_kept and following < len(self._opened) and self._opened[following] is None:
            self._begin(following)
        return source

    def _begin(self, number: int) -> Future[Source]:
        """Have an object fetched, unless that has begun."""
        network = self._mine()
        with network.lock:
            if (source := self._opened[number]) is not None:  # by another thread, since it was looked for
                there: Future[Source] = Future()
                there.set_result(source)
                return there
            if number not in network.coming:
                length = self._index.objects[number].length
                is_kept = length <= self._room
                if is_kept:
                    self._room -= length
                network.coming[number] = network.fetchers.submit(self._fetch, network, number, is_kept)
            return network.coming[number]

    def _fetch(self, network: "_Network", number: int, is_kept: bool) -> Source:
        entry, bits, store = self._index.objects[number], self._index.record_bits, self._access.store
        try:
            if is_kept:
                cipher, data = self._access.fetch(entry, bits)
            else:
                cipher, data = self._access.open(store.get_range(entry.id, 0, HEADER_BYTES), entry, bits), None
            return self._keep(number, Source(entry, cipher, self._index.record_size, data, store))
        except BaseException:
            with network.lock:
                self._room += entry.length if is_kept else 0
            raise
        finally:
            # Whoever asks again after a failure tries again.
            with network.lock:
                network.coming.pop(number, None)

    def _keep(self, number: int, source: Source) -> Source:
        if self._opened[number] is None:
            self._opened[number] = source
            self._kept += source.is_kept
        return source

    def _mine(self) -> "_Network":
        """Return what this process fetches by. After `fork` that is new, and what its parent was fetching is not."""
        if self._network.pid != os.getpid():
            self._room += sum(self._index.objects[number].length for number in self._network.coming)
            self._network = _Network()
        return self._network


class _Network:
    """The threads of one process. Some wait for whole objects, and others for files, which wait for the former."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.lock = threading.Lock()
        self.coming: dict[int, Future[Source]] = {}
        self.fetchers = ThreadPoolExecutor(CONNECTIONS, "lethe-fetch")
        self.readers = ThreadPoolExecutor(CONNECTIONS, "lethe-read")
