"""Seals a folder as a dataset: data objects, keyring, and last the index.

1. A fresh dataset id and a fresh key (DEK) per dataset; a fresh salt per object. All randomness comes from `random`.
2. The plan (which bytes of which file lie where) follows from names and sizes alone; each object is then sealed and
   uploaded by one process. A file that changes meanwhile is an error, never a mixture.
3. The index is written last and is the mark of completeness. When anything fails, what was written is removed again.
4. The prefix must be empty: two datasets under one prefix would share one keyring.
"""

import contextlib
import os
import stat
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from lethe.crypto.aead import KEY_BYTES
from lethe.crypto.derive import random_bytes, sha256
from lethe.crypto.hpke import parse_public
from lethe.data.access import Place
from lethe.data.objects import ObjectWriter
from lethe.data.pool import choose_workers, run_tasks
from lethe.data.tree import SourceFile, printable, scan_tree
from lethe.formats.binding import Binding
from lethe.formats.header import DEFAULT_RECORD_BITS, ID_BYTES, SALT_BYTES
from lethe.formats.index import Index, ObjectEntry, seal_index
from lethe.formats.keyring import KEYRING_NAME, build_keyring
from lethe.formats.layout import DEFAULT_OBJECT_BYTES, ObjectPlan, plan_objects, record_sizes
from lethe.model.agentconfig import OutputRecipient
from lethe.model.errors import InputError, LetheError
from lethe.model.ports import ObjectStore
from lethe.model.resources import Criticality, IndexPin, Scheme, Storage

FIRST_EPOCH = 1
MENTIONED = 3


@dataclass(frozen=True)
class KeyPolicy:
    """To whom the dataset's key is sealed, and what the stanzas are bound to."""

    tenant: str
    namespace: str
    recipients: tuple[OutputRecipient, ...]
    criticality: Criticality = "standard"
    scheme: Scheme = "provider"


@dataclass(frozen=True)
class Sealed:
    """A dataset that is complete on storage."""

    dataset_id: str
    index: IndexPin
    files: int
    bytes: int
    objects: int
    stored_bytes: int
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class Progress:
    """How far a long run has come, in plaintext bytes."""

    done_bytes: int
    total_bytes: int
    files: int


@dataclass(frozen=True)
class _State:
    """What every process needs to seal objects."""

    root: Path
    place: Place
    dek: bytes = field(repr=False)
    dataset_id: bytes
    record_bits: int


@dataclass(frozen=True, slots=True)
class _Part:
    file: SourceFile
    start: int
    size: int


@dataclass(frozen=True, slots=True)
class _Task:
    number: int
    object_id: bytes
    salt: bytes
    length: int
    parts: tuple[_Part, ...]


@dataclass(frozen=True, slots=True)
class _Done:
    number: int
    commitment: bytes
    records: int
    plain_bytes: int


def seal_folder(
    folder: Path,
    storage: Storage,
    credentials: str | Mapping[str, str] | None,
    policy: KeyPolicy,
    *,
    dataset_id: bytes | None = None,
    record_bits: int = DEFAULT_RECORD_BITS,
    object_bytes: int = DEFAULT_OBJECT_BYTES,
    workers: int | None = None,
    skip: Callable[[str], bool] | None = None,
    is_fresh_prefix: bool = False,
    progress: Callable[[Progress], None] | None = None,
    random: Callable[[int], bytes] = random_bytes,
) -> Sealed:
    """Seal all files of a folder and return what a manifest must pin.

    `skip` as in `scan_tree`; `is_fresh_prefix` says that the caller has just made the prefix up, so that it need not be
    listed. Raise InputError for files or a prefix that cannot be used, and StorageError or UnavailableError.
    """
    recipients = [(recipient, parse_public(recipient.public_key)) for recipient in policy.recipients]
    if not recipients:
        raise InputError("a dataset needs at least one recipient, or nobody could open it")
    place = Place(storage, credentials)
    tree = scan_tree(folder, skip=skip)
    total = sum(file.size for file in tree.files)
    plans = plan_objects([file.size for file in tree.files], record_bits, object_bytes)
    dataset = dataset_id or random(ID_BYTES)
    dek = random(KEY_BYTES)
    state = _State(folder, place, dek, dataset, record_bits)
    if not is_fresh_prefix:
        _check_empty(place.store, storage.url)
    tasks = [
        _Task(number, random(ID_BYTES), random(SALT_BYTES), plan.length, _parts(plan, tree.files))
        for number, plan in enumerate(plans)
    ]
    bindings = [
        (
            Binding(
                dataset_id=dataset.hex(),
                epoch=FIRST_EPOCH,
                tenant=policy.tenant,
                namespace=policy.namespace,
                key=recipient.key,
                version=recipient.version,
                criticality=policy.criticality,
                scheme=policy.scheme,
            ),
            public_key,
        )
        for recipient, public_key in recipients
    ]
    keyring = build_keyring(dataset.hex(), {FIRST_EPOCH: dek}, bindings)
    index_id = random(ID_BYTES)
    place.store.put_new(KEYRING_NAME, keyring)
    with _removed_on_failure(place.store, [KEYRING_NAME, *(task.object_id.hex() for task in tasks), index_id.hex()]):
        done: dict[int, _Done] = {}
        sealed_bytes = 0
        for result in run_tasks(_seal_object, state, tasks, workers or choose_workers(len(tasks), total)):
            done[result.number] = result
            sealed_bytes += result.plain_bytes
            if progress:
                progress(Progress(sealed_bytes, total, len(tree.files)))
        index = _build_index(tree.files, plans, tasks, done, record_bits)
        index_object = seal_index(
            index, dek, epoch=FIRST_EPOCH, dataset_id=dataset, object_id=index_id, salt=random(SALT_BYTES)
        )
        place.store.put(index_id.hex(), index_object)
    return Sealed(
        dataset_id=dataset.hex(),
        index=IndexPin(object=index_id.hex(), sha256=sha256(index_object).hex()),
        files=len(tree.files),
        bytes=total,
        objects=len(plans),
        stored_bytes=sum(plan.length for plan in plans) + len(index_object) + len(keyring),
        left_out=tree.left_out,
    )


def _check_empty(store: ObjectStore, url: str) -> None:
    found = [f"{key} ({size} bytes)" for key, size in islice(store.list(), MENTIONED + 1)]
    if found:
        more = ", …" if len(found) > MENTIONED else ""
        raise InputError(f"{url} is not empty: it holds {', '.join(found[:MENTIONED])}{more}. Choose a new prefix")


@contextlib.contextmanager
def _removed_on_failure(store: ObjectStore, keys: Sequence[str]) -> Iterator[None]:
    try:
        yield
    except BaseException:
        for key in keys:
            with contextlib.suppress(LetheError):
                store.delete(key)
        raise


def _parts(plan: ObjectPlan, files: Sequence[SourceFile]) -> tuple[_Part, ...]:
    return tuple(_Part(files[piece.file], piece.start, piece.size) for piece in plan.pieces)


def _build_index(
    files: Sequence[SourceFile],
    plans: Sequence[ObjectPlan],
    tasks: Sequence[_Task],
    done: Mapping[int, _Done],
    record_bits: int,
) -> Index:
    first = [(number, piece) for number, plan in enumerate(plans) for piece in plan.pieces if piece.start == 0]
    return Index(
        record_bits=record_bits,
        objects=tuple(
            ObjectEntry(task.object_id.hex(), plan.length, plan.records, FIRST_EPOCH, done[number].commitment)
            for number, (plan, task) in enumerate(zip(plans, tasks, strict=True))
        ),
        names=[file.name for file in files],
        sizes=array("Q", [file.size for file in files]),
        modes=array("H", [file.mode for file in files]),
        object_numbers=array("I", [number for number, _ in first]),
        offsets=array("I", [piece.offset for _, piece in first]),
        first_records=array("I", [piece.record for _, piece in first]),
    )


def _seal_object(state: _State, task: _Task) -> _Done:
    writer = ObjectWriter(
        state.dek,
        dataset_id=state.dataset_id,
        object_id=task.object_id,
        epoch=FIRST_EPOCH,
        record_bits=state.record_bits,
        salt=task.salt,
        length=task.length,
    )
    record_size = 1 << state.record_bits
    buffer = memoryview(bytearray(record_size))
    for part in task.parts:
        _seal_part(state.root, part, writer, buffer, record_size)
    records = writer.records
    state.place.store.put(task.object_id.hex(), writer.finish())
    return _Done(task.number, writer.commitment, records, sum(part.size for part in task.parts))


def _seal_part(root: Path, part: _Part, writer: ObjectWriter, buffer: memoryview, record_size: int) -> None:
    try:
        descriptor = os.open(root / part.file.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise InputError(f"{printable(part.file.name)} cannot be read: {error.strerror}") from error
    try:
        _check_unchanged(descriptor, part.file)
        position = part.start
        for size in record_sizes(part.size, record_size):
            _read_exactly(descriptor, buffer[:size], position, part.file)
            writer.append(buffer[:size])
            position += size
        _check_unchanged(descriptor, part.file)
    finally:
        os.close(descriptor)


def _read_exactly(descriptor: int, buffer: memoryview, position: int, file: SourceFile) -> None:
    filled = 0
    while filled < len(buffer):
        count = os.preadv(descriptor, [buffer[filled:]], position + filled)
        if count == 0:
            raise InputError(f"{printable(file.name)} became shorter while it was sealed: seal again")
        filled += count


def _check_unchanged(descriptor: int, file: SourceFile) -> None:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or (status.st_size, status.st_mtime_ns) != (file.size, file.mtime_ns):
        raise InputError(
            f"{printable(file.name)} changed while the folder was sealed: seal again when nothing writes to it"
        )
