"""Seals what a job leaves in its outputs folder, as a dataset of its own that grows while the job runs.

1. Files and folders named `.*` or `*.partial` are not finished: they are left out and named. So are links and special
   files; the rest of the results is not lost for them. `.metadata` is finished: PyTorch's distributed checkpoints give
   their last and most needed file that name, when all is written.
2. While the job runs, a file is taken when nobody has it open for writing and it is what it was at the look before;
   until then, what was taken of its name stays. At the end nobody writes any more, and all finished files are taken.
3. A snapshot is new objects, then a new index, then the head, which names it (`lethe.formats.head`). What it does not
   need any more is removed after that: from the first one on, storage holds a whole dataset at every moment.
4. An object is never changed and holds nothing but files of the index. Small files are sealed in groups; when one of a
   group is replaced or removed, the others are sealed once more. A large file is a group of its own.
5. The state holds the dataset's key. It is saved before anything is written and after each snapshot, so that a process
   that was killed is followed by one that goes on; what it had begun is removed, and no name is written to twice.
"""

import contextlib
import ctypes
import errno
import fcntl
import os
import signal
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

from lethe.crypto.aead import KEY_BYTES
from lethe.crypto.derive import random_bytes, sha256
from lethe.data.access import Place
from lethe.data.object_writer import Part, SealState, SealTask, parts_of, seal_object
from lethe.data.pool import choose_workers, run_tasks
from lethe.data.seal import FIRST_EPOCH, KeyPolicy
from lethe.data.tree import SourceFile, scan_tree
from lethe.formats.head import HEAD_NAME, seal_head
from lethe.formats.header import DEFAULT_RECORD_BITS, ID_BYTES, SALT_BYTES
from lethe.formats.index import Index, ObjectEntry, seal_index
from lethe.formats.keyring import KEYRING_NAME, MAX_KEYRING
from lethe.formats.layout import DEFAULT_OBJECT_BYTES, plan_objects
from lethe.model.agentconfig import OutputsConfig, OutputsMessage
from lethe.model.errors import StorageError
from lethe.model.names import PARTIAL_SUFFIX
from lethe.model.resources import IndexPin

CHECKPOINT_METADATA = ".metadata"
SMALL_FILE_BYTES = 1 << 20
GROUP_BYTES = 8 << 20
"""Of small files that are sealed together."""
_F_SETSIG = 10
"""Of fcntl(2); Python does not name it."""


class SealedFile(msgspec.Struct, frozen=True):
    """A file as it was sealed, and where it begins."""

    source: SourceFile
    object: int
    """Number of the object in the group."""
    offset: int
    first_record: int


class Group(msgspec.Struct, frozen=True):
    """Files that were sealed together, and the objects that hold them and nothing else."""

    files: tuple[SealedFile, ...]
    objects: tuple[ObjectEntry, ...]


class Sealing(msgspec.Struct, frozen=True):
    """How far a sealing is. It holds the dataset's key, and does not print."""

    dek: bytes
    groups: tuple[Group, ...] = ()
    pin: IndexPin | None = None
    """The newest index that is complete on storage."""
    unneeded: tuple[str, ...] = ()
    """Objects that may be on storage and are of no use, or not yet."""

    def __repr__(self) -> str:
        return f"Sealing({len(self.groups)} groups)"


@dataclass(frozen=True)
class OutputsResult:
    """A snapshot that is complete on storage."""

    message: OutputsMessage
    left_out: tuple[str, ...]


def is_unfinished(name: str) -> bool:
    """Say whether a file or folder of this name is not to be sealed."""
    return name != CHECKPOINT_METADATA and (name.startswith(".") or name.endswith(PARTIAL_SUFFIX))


class OutputsWriter:
    """Seals the outputs of one pod, again and again."""

    def __init__(
        self,
        folder: Path,
        config: OutputsConfig,
        credentials: str | Mapping[str, str] | None,
        *,
        state: Sealing | None = None,
        save: Callable[[Sealing], None] = lambda _: None,
        object_bytes: int = DEFAULT_OBJECT_BYTES,
        random: Callable[[int], bytes] = random_bytes,
    ) -> None:
        """`state` is what an earlier process has given to `save`."""
        self._folder = folder
        self._config = config
        self._place = Place(msgspec.structs.replace(config.storage, url=config.url), credentials)
        self._dataset_id = bytes.fromhex(config.dataset_id)
        self._object_bytes = object_bytes
        self._random = random
        self._save = save
        self._is_restarted = state is not None
        self._state = state or Sealing(random(KEY_BYTES))
        self._seen: dict[str, SourceFile] = {}

    def snapshot(self) -> OutputsResult | None:
        """Seal what is complete, while others write on; None when there is nothing new.

        Raise InputError for a file that changed meanwhile, StorageError and UnavailableError.
        """
        files, left_out = self._look()
        sealed = {file.source.name: file.source for group in self._state.groups for file in group.files}
        settled = {name for name, file in files.items() if file != sealed.get(name) and self._is_settled(file)}
        self._seen = files
        kept, taken = self._choose(files, settled)
        if len(kept) == len(self._state.groups) and not taken:
            return None
        return self._publish(kept, taken, left_out)

    def finish(self) -> OutputsResult:
        """Seal all that is finished, when nobody writes any more."""
        files, left_out = self._look()
        kept, taken = self._choose(files, files.keys())
        if len(kept) == len(self._state.groups) and not taken and self._state.pin is not None:
            return OutputsResult(self._message(self._state.pin), left_out)
        return self._publish(kept, taken, left_out)

    # ---- what to seal

    def _look(self) -> tuple[dict[str, SourceFile], tuple[str, ...]]:
        tree = scan_tree(self._folder, skip=is_unfinished)
        return {file.name: file for file in tree.files}, tree.left_out

    def _is_settled(self, file: SourceFile) -> bool:
        before = self._seen.get(file.name)
        return before is not None and before.version == file.version and not is_open_for_writing(self._folder, file)

    def _choose(self, files: Mapping[str, SourceFile], settled: Iterable[str]) -> tuple[list[Group], list[SourceFile]]:
        """Return the groups that stay as they are, and the files to seal."""
        kept, takeable = [], set(settled)
        for group in self._state.groups:
            names = {file.source.name for file in group.files}
            unchanged = {file.source.name for file in group.files if files.get(file.source.name) == file.source}
            takeable |= unchanged
            is_waiting = any(name in files and name not in takeable for name in names)
            if is_waiting or len(unchanged) == len(names):
                kept.append(group)
        there = {file.source.name for group in kept for file in group.files}
        return kept, [file for name, file in files.items() if name in takeable and name not in there]

    # ---- sealing

    def _publish(self, kept: list[Group], files: list[SourceFile], left_out: tuple[str, ...]) -> OutputsResult:
        store, before = self._place.store, self._state
        for name in before.unneeded:
            store.delete(name)
        drafts = [self._draft(group) for group in _grouped(files)]
        index_id = self._random(ID_BYTES)
        self._change(unneeded=(*(entry.id for draft in drafts for entry in draft.objects), index_id.hex()))
        if before.pin is None:
            self._put_keyring()
        groups = (*kept, *self._seal(drafts))
        index = seal_index(
            _build_index(groups),
            before.dek,
            epoch=FIRST_EPOCH,
            dataset_id=self._dataset_id,
            object_id=index_id,
            salt=self._random(SALT_BYTES),
        )
        store.put(index_id.hex(), index)
        pin = IndexPin(object=index_id.hex(), sha256=sha256(index).hex())
        salt = self._random(SALT_BYTES)
        store.put(HEAD_NAME, seal_head(pin, before.dek, epoch=FIRST_EPOCH, dataset_id=self._dataset_id, salt=salt))
        there = {entry.id for group in groups for entry in group.objects}
        unneeded = [entry.id for group in before.groups for entry in group.objects if entry.id not in there]
        if before.pin is not None:
            unneeded.append(before.pin.object)
        self._change(groups=groups, pin=pin, unneeded=tuple(unneeded))
        for name in unneeded:
            store.delete(name)
        self._change(unneeded=())
        return OutputsResult(self._message(pin), left_out)

    @cached_property
    def _keyring(self) -> bytes:
        """Return the keyring, the same at each try: sealing it again gives other bytes."""
        policy = KeyPolicy.of_outputs(self._config)
        return policy.keyring(self._config.dataset_id, FIRST_EPOCH, self._state.dek)

    def _put_keyring(self) -> None:
        """Write the keyring, but not over somebody else's. A try that failed may have written it all the same."""
        store = self._place.store
        if self._is_restarted:
            store.put(KEYRING_NAME, self._keyring)
            return
        try:
            store.put_new(KEYRING_NAME, self._keyring)
        except StorageError:
            if store.get(KEYRING_NAME, MAX_KEYRING) != self._keyring:
                raise

    def _draft(self, files: tuple[SourceFile, ...]) -> "_Draft":
        plans = plan_objects([file.size for file in files], DEFAULT_RECORD_BITS, self._object_bytes)
        ids = [self._random(ID_BYTES).hex() for _ in plans]
        first = [(number, piece) for number, plan in enumerate(plans) for piece in plan.pieces if piece.start == 0]
        return _Draft(
            files=[SealedFile(files[piece.file], number, piece.offset, piece.record) for number, piece in first],
            objects=[
                ObjectEntry(name, plan.length, plan.records, FIRST_EPOCH, b"")
                for name, plan in zip(ids, plans, strict=True)
            ],
            parts=[parts_of(plan, files) for plan in plans],
        )

    def _seal(self, drafts: list["_Draft"]) -> list[Group]:
        """Seal the objects of all drafts, and return them with their commitments."""
        planned = [(entry, parts) for draft in drafts for entry, parts in zip(draft.objects, draft.parts, strict=True)]
        tasks = [
            SealTask(number, entry.id, self._random(SALT_BYTES), entry.length, parts)
            for number, (entry, parts) in enumerate(planned)
        ]
        state = SealState(
            self._folder, self._place, self._state.dek, self._dataset_id, FIRST_EPOCH, DEFAULT_RECORD_BITS
        )
        workers = choose_workers(len(tasks), sum(entry.length for entry, _ in planned))
        done = {
            planned[sealed.number][0].id: sealed.commitment for sealed in run_tasks(seal_object, state, tasks, workers)
        }
        return [
            Group(tuple(draft.files), tuple(replace(entry, commitment=done[entry.id]) for entry in draft.objects))
            for draft in drafts
        ]

    def _change(self, **changes: Any) -> None:
        self._state = msgspec.structs.replace(self._state, **changes)
        self._save(self._state)

    def _message(self, pin: IndexPin) -> OutputsMessage:
        files = [file.source.size for group in self._state.groups for file in group.files]
        return OutputsMessage(
            dataset_id=self._config.dataset_id, index=pin, files=len(files), bytes=sum(files), url=self._config.url
        )


@dataclass(frozen=True)
class _Draft:
    """A group that is to be sealed: its objects lack commitments."""

    files: list[SealedFile]
    objects: list[ObjectEntry]
    parts: list[tuple[Part, ...]]


def _grouped(files: list[SourceFile]) -> Iterator[tuple[SourceFile, ...]]:
    small: list[SourceFile] = []
    total = 0
    for file in files:
        if file.size > SMALL_FILE_BYTES:
            yield (file,)
            continue
        small.append(file)
        total += file.size
        if total > GROUP_BYTES:
            yield tuple(small)
            small, total = [], 0
    if small:
        yield tuple(small)


def _build_index(groups: Iterable[Group]) -> Index:
    objects: list[ObjectEntry] = []
    rows: list[tuple[str, int, int, int, int, int]] = []
    for group in groups:
        for file in group.files:
            source, number = file.source, len(objects) + file.object
            rows.append((source.name, source.size, source.mode, number, file.offset, file.first_record))
        objects += group.objects
    names, *columns = zip(*sorted(rows), strict=True) if rows else ((),) * 6
    arrays = (array(code, column) for code, column in zip("QHIII", columns, strict=True))
    return Index(DEFAULT_RECORD_BITS, tuple(objects), list(names), *arrays)


def is_open_for_writing(folder: Path, file: SourceFile) -> bool:
    """Say whether anybody has a file open for writing, or mapped so: such a file gets no read lease (fcntl(2)).

    Where the filesystem has no leases, or this process may not act for the file's owner, nobody can say, and the answer
    is no.
    """
    try:
        descriptor = os.open(f"{folder}/{file.name}", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return True
    try:
        with _acting_for(os.fstat(descriptor).st_uid):
            # Who opens it meanwhile makes the kernel send a signal here, and goes on when the descriptor is closed.
            fcntl.fcntl(descriptor, _F_SETSIG, signal.SIGURG)
            fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        return error.errno == errno.EAGAIN
    finally:
        os.close(descriptor)
    return False


@contextlib.contextmanager
def _acting_for(user: int) -> Iterator[None]:
    """Let this thread deal with files as another user does; without CAP_SETUID it stays who it is (setfsuid(2))."""
    libc = ctypes.CDLL(None)
    libc.setfsuid(user)
    try:
        yield
    finally:
        libc.setfsuid(os.geteuid())
