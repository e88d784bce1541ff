"""Encrypts a dataset anew under a fresh key, a new epoch; removes what no longer belongs to a dataset.

1. Every object is opened, checked, and sealed again under the new epoch's key with a new name and salt. Files, their
   places and all lengths stay. The old version is not touched: its manifest goes on working until `prune`.
2. Objects, then the index, and last the keyring, with both epochs for the new recipients: until then, nothing says that
   there is a new version. A run that was killed goes on from its journal, as sealing does.
3. `prune` removes the objects and epochs that the pinned version does not need, once it has found all that it needs.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from lethe.crypto.aead import KEY_BYTES, TAG_BYTES
from lethe.crypto.derive import is_equal, random_bytes, sha256
from lethe.data.access import Access
from lethe.data.journal import Begun, Completed, Finished, Journal, Opened
from lethe.data.objects import ObjectWriter, open_record, verify_fill
from lethe.data.pool import choose_workers, run_tasks
from lethe.data.recipients import OpenKeyring, seal_for, write_keyring
from lethe.data.seal import Progress
from lethe.formats.contents import Contents
from lethe.formats.head import HEAD_NAME
from lethe.formats.header import HEADER_BYTES, ID_BYTES, SALT_BYTES, parse_header
from lethe.formats.index import MAX_INDEX_BYTES, Index, ObjectEntry, open_index, seal_index
from lethe.formats.keyring import KEYRING_NAME, Keyring
from lethe.formats.layout import Piece, record_sizes
from lethe.model.agentconfig import OutputRecipient
from lethe.model.errors import InputError, IntegrityError
from lethe.model.ports import LEFTOVER_PREFIX
from lethe.model.resources import IndexPin

_OBJECT_NAME = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class _State:
    access: Access
    dek: bytes = field(repr=False)
    epoch: int
    record_bits: int


@dataclass(frozen=True, slots=True)
class _Task:
    number: int
    entry: ObjectEntry
    pieces: tuple[Piece, ...]
    object_id: str
    salt: bytes


@dataclass(frozen=True, slots=True)
class _Resealed:
    number: int
    commitment: bytes
    plain_bytes: int


def rotate_key(
    access: Access,
    opened: OpenKeyring,
    recipients: Sequence[OutputRecipient],
    journal: Journal,
    *,
    workers: int | None = None,
    progress: Callable[[Progress], None] | None = None,
    say: Callable[[str], None] | None = None,
    random: Callable[[int], bytes] = random_bytes,
) -> IndexPin:
    """Encrypt a dataset anew for these recipients, and return what a manifest must pin."""
    if journal.completed:
        _check_same(journal, access)
        return journal.completed.index
    index, store = access.load_index(), access.store
    if journal.opened is None:
        epoch, dataset = max(opened.keyring.epochs()) + 1, bytes.fromhex(access.dataset_id)
        url = access.place.storage.url
        journal.add(Opened(access.pin.object, url, dataset, epoch, random(KEY_BYTES), index.record_bits, 0))
    run = _check_same(journal, access)
    if not is_equal(opened.deks.get(run.epoch, run.dek), run.dek):
        raise InputError(f"the keyring has another key for epoch {run.epoch} by now: abandon this rotation (--abandon)")
    listed = dict(store.list())
    kept = {
        number: ObjectEntry(found.id, entry.length, entry.records, run.epoch, found.commitment)
        for number, entry in enumerate(index.objects)
        if (found := journal.finished.get(entry.commitment)) and listed.get(found.id) == entry.length
    }
    if say and (journal.begun or kept):
        say(f"going on where an earlier run ended: {len(kept)} of {len(index.objects)} objects are on storage")
    stale = listed.keys() & journal.begun - {entry.id for entry in kept.values()}
    contents = Contents(index)
    tasks = [
        _Task(number, entry, tuple(contents.pieces(number)), random(ID_BYTES).hex(), random(SALT_BYTES))
        for number, entry in enumerate(index.objects)
        if number not in kept
    ]
    index_id = random(ID_BYTES).hex()
    journal.add(Begun((*(task.object_id for task in tasks), index_id)))
    for key in stale:
        store.delete(key)
    entries = _reseal(access, run, index, tasks, kept, journal, workers, progress)
    changed = replace(index, objects=tuple(entries[number] for number in range(len(entries))))
    index_object = seal_index(
        changed,
        run.dek,
        epoch=run.epoch,
        dataset_id=run.dataset_id,
        object_id=bytes.fromhex(index_id),
        salt=random(SALT_BYTES),
    )
    store.put(index_id, index_object)
    both = replace(
        opened,
        keyring=replace(opened.keyring, macs={**opened.keyring.macs, run.epoch: b""}),
        deks={**opened.deks, run.epoch: run.dek},
    )
    write_keyring(store, both, [stanza for recipient in recipients for stanza in seal_for(both, recipient)])
    pin = IndexPin(object=index_id, sha256=sha256(index_object).hex())
    stored = sum(entry.length for entry in changed.objects) + len(index_object)
    journal.add(Completed(pin, len(index), index.total_bytes, len(index.objects), stored))
    return pin


def abandon_rotation(access: Access, journal: Journal) -> int:
    """Remove what a rotation that did not end has written, and its journal; return how many objects that were."""
    if journal.opened is None:
        raise InputError("no rotation of this dataset's key has begun: there is nothing to abandon")
    if journal.completed:
        raise InputError("the rotation is complete: run the same command without --abandon for its manifest")
    written = sorted(dict(access.store.list()).keys() & journal.begun)
    for key in written:
        access.store.delete(key)
    journal.remove()
    return len(written)


@dataclass(frozen=True)
class Unneeded:
    """What lies beside a version of a dataset and does not belong to it."""

    objects: tuple[str, ...]
    bytes: int
    epochs: tuple[int, ...]
    strange: tuple[str, ...]
    """Names that no writer of datasets gives: never removed."""


def find_unneeded(access: Access, keyring: Keyring) -> Unneeded:
    """Return what the pinned version does not need; raise IntegrityError when something that it needs is missing."""
    data = access.store.get(access.pin.object, MAX_INDEX_BYTES)
    index = open_index(data, access.pin, access.dataset_id, access.deks)
    listed = dict(access.store.list())
    for entry in index.objects:
        if listed.get(entry.id) != entry.length:
            raise IntegrityError(
                f"object {entry.id} of this version is missing or has another length: nothing is removed before "
                "`lethe dataset verify` succeeds"
            )
    needed = {KEYRING_NAME, access.pin.object, *(entry.id for entry in index.objects)}
    others = sorted(listed.keys() - needed)
    # Who has this version's pin does not need the head, which may name an index that is removed.
    removable = [
        key for key in others if key == HEAD_NAME or _OBJECT_NAME.fullmatch(key) or key.startswith(LEFTOVER_PREFIX)
    ]
    epochs = {parse_header(data).epoch, *(entry.epoch for entry in index.objects)}
    return Unneeded(
        objects=tuple(removable),
        bytes=sum(listed[key] for key in removable),
        epochs=tuple(sorted(set(keyring.epochs()) - epochs)),
        strange=tuple(key for key in others if key not in removable),
    )


def prune(access: Access, opened: OpenKeyring, unneeded: Unneeded) -> None:
    """Remove epochs and objects; the keys first, so that no key is left for objects that are half gone."""
    if unneeded.epochs:
        left = {epoch: dek for epoch, dek in opened.deks.items() if epoch not in unneeded.epochs}
        stanzas = [stanza for stanza in opened.keyring.stanzas if stanza.epoch in left]
        write_keyring(access.store, replace(opened, deks=left), stanzas)
    for key in unneeded.objects:
        access.store.delete(key)


def _check_same(journal: Journal, access: Access) -> Opened:
    run = journal.opened
    if run is None or (run.source, run.dataset_id.hex()) != (access.pin.object, access.dataset_id):
        raise InputError(
            "a rotation of another version of this dataset has begun and not ended: go on with that version's "
            "manifest, or abandon it (--abandon)"
        )
    return run


def _reseal(
    access: Access,
    run: Opened,
    index: Index,
    tasks: Sequence[_Task],
    kept: Mapping[int, ObjectEntry],
    journal: Journal,
    workers: int | None,
    progress: Callable[[Progress], None] | None,
) -> dict[int, ObjectEntry]:
    entries, total = dict(kept), index.total_bytes
    done = total - sum(piece.size for task in tasks for piece in task.pieces)
    state = _State(access, run.dek, run.epoch, index.record_bits)
    names = {task.number: task.object_id for task in tasks}
    if progress:
        progress(Progress(done, total, len(index)))
    for sealed in run_tasks(_reseal_object, state, tasks, workers or choose_workers(len(tasks), total - done)):
        old, name = index.objects[sealed.number], names[sealed.number]
        entries[sealed.number] = ObjectEntry(name, old.length, old.records, run.epoch, sealed.commitment)
        journal.add(Finished(name, old.commitment, sealed.commitment))
        done += sealed.plain_bytes
        if progress:
            progress(Progress(done, total, len(index)))
    return entries


def _reseal_object(state: _State, task: _Task) -> _Resealed:
    entry, record_size = task.entry, 1 << state.record_bits
    cipher, data = state.access.fetch(entry, state.record_bits)
    with state.access.store.create(task.object_id, entry.length) as write:
        writer = ObjectWriter(
            write,
            state.dek,
            dataset_id=bytes.fromhex(state.access.dataset_id),
            object_id=bytes.fromhex(task.object_id),
            epoch=state.epoch,
            record_bits=state.record_bits,
            salt=task.salt,
            length=entry.length,
        )
        end = HEADER_BYTES
        for piece in task.pieces:
            for number, size in enumerate(record_sizes(piece.size, record_size), start=piece.record):
                begin, end = end, end + size + TAG_BYTES
                writer.append(open_record(cipher, entry, number, data[begin:end]))
        verify_fill(cipher, entry, data, end, record_size)
        writer.finish()
    return _Resealed(task.number, writer.commitment, sum(piece.size for piece in task.pieces))
