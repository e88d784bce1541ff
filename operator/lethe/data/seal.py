"""Seals a folder as a dataset: keyring, data objects, and last the index.

1. A fresh dataset id and a fresh key (DEK) per dataset; a fresh name and salt per object, at each attempt. All
   randomness comes from `random`.
2. The index is written last and is the mark of completeness.
3. With a journal (`lethe.data.journal`), a run that ends early leaves what is complete, and the next one goes on: an
   object is used again when storage has it in full length and everything that it is made from is unchanged; all else
   that the earlier run wrote is removed. Without one, what was written is removed when anything fails.
4. The prefix must be empty but for what the journal says: two datasets under one prefix would share one keyring.
"""

import contextlib
from array import array
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from lethe.crypto.aead import KEY_BYTES
from lethe.crypto.derive import random_bytes, sha256
from lethe.crypto.hpke import parse_public
from lethe.data.access import Place
from lethe.data.journal import Begun, Completed, Finished, Journal, Listed, Opened
from lethe.data.object_writer import SealState, SealTask, content_digest, parts_of, seal_object
from lethe.data.pool import choose_workers, run_tasks
from lethe.data.tree import SourceFile, Tree, printable, scan_tree
from lethe.formats.binding import Binding
from lethe.formats.header import DEFAULT_RECORD_BITS, ID_BYTES, SALT_BYTES
from lethe.formats.index import Index, ObjectEntry, seal_index
from lethe.formats.keyring import KEYRING_NAME, MAX_KEYRING, build_keyring, parse_keyring
from lethe.formats.layout import DEFAULT_OBJECT_BYTES, ObjectPlan, plan_objects
from lethe.model.agentconfig import OutputRecipient, OutputsConfig
from lethe.model.errors import InputError, KeyringError, LetheError
from lethe.model.ports import LEFTOVER_PREFIX, ObjectStore
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

    @classmethod
    def of_outputs(cls, config: OutputsConfig) -> "KeyPolicy":
        """Return the policy for what a job leaves."""
        return cls(config.tenant, config.namespace, tuple(config.recipients), config.criticality, config.scheme)

    def keyring(self, dataset_id: str, epoch: int, dek: bytes) -> bytes:
        """Return a new keyring with this key; raise InputError without a recipient, or for one that is no key."""
        if not self.recipients:
            raise InputError("a dataset needs at least one recipient, or nobody could open it")
        keys = [(self.binding(one, dataset_id, epoch), parse_public(one.public_key)) for one in self.recipients]
        return build_keyring(dataset_id, {epoch: dek}, keys)

    def binding(self, recipient: OutputRecipient, dataset_id: str, epoch: int) -> Binding:
        """Return what the stanza of a recipient is bound to."""
        return Binding(
            dataset_id=dataset_id,
            epoch=epoch,
            tenant=self.tenant,
            namespace=self.namespace,
            key=recipient.key,
            version=recipient.version,
            criticality=self.criticality,
            scheme=self.scheme,
        )


@dataclass(frozen=True)
class Sealed:
    """A dataset that is complete on storage."""

    dataset_id: str
    index: IndexPin
    files: int
    bytes: int
    objects: int
    stored_bytes: int


@dataclass(frozen=True)
class Progress:
    """How far a long run has come, in plaintext bytes."""

    done_bytes: int
    total_bytes: int
    files: int


def seal_folder(
    folder: Path,
    storage: Storage,
    credentials: str | Mapping[str, str] | None,
    policy: KeyPolicy,
    *,
    journal: Journal | None = None,
    record_bits: int = DEFAULT_RECORD_BITS,
    object_bytes: int = DEFAULT_OBJECT_BYTES,
    workers: int | None = None,
    progress: Callable[[Progress], None] | None = None,
    say: Callable[[str], None] | None = None,
    random: Callable[[int], bytes] = random_bytes,
) -> Sealed:
    """Seal all files of a folder and return what a manifest must pin.

    `say` is told what an earlier run left, and what has changed since. Raise InputError for files or a prefix
    that cannot be used, and StorageError or UnavailableError.
    """
    place = Place(storage, credentials)
    tree = scan_tree(folder)
    plans = plan_objects([file.size for file in tree.files], record_bits, object_bytes)
    if journal and journal.opened:
        opened = journal.opened
        _check_same(opened, record_bits, object_bytes)
        _say_changes(journal, tree, say)
        if journal.completed:
            return _sealed(opened, journal.completed)
        listed = list_own(place.store, opened, journal.begun)
    else:
        dataset, dek = random(ID_BYTES), random(KEY_BYTES)
        opened = Opened(printable(str(folder)), storage.url, dataset, FIRST_EPOCH, dek, record_bits, object_bytes)
        listed = {}
        _check_empty(place.store, storage.url)
    run = _Run.of(tree, plans, opened, journal.finished if journal else {}, listed, random)
    keyring = policy.keyring(opened.dataset_id.hex(), opened.epoch, opened.dek)
    if journal:
        if journal.opened is None:
            journal.add(opened)
        elif say:
            say(f"going on where an earlier run ended: {len(run.kept)} of {len(plans)} objects are on storage")
        journal.add(Listed.of(tree.files))
        journal.add(Begun((*(task.object_id for task in run.tasks), run.index_id)))
    with contextlib.nullcontext() if journal else _removed_on_failure(place.store, run.names()):
        for key in listed.keys() - run.kept_names() - {KEYRING_NAME}:
            place.store.delete(key)
        (place.store.put if KEYRING_NAME in listed else place.store.put_new)(KEYRING_NAME, keyring)
        state = SealState(folder, place, opened.dek, opened.dataset_id, opened.epoch, opened.record_bits)
        entries = _seal_objects(state, run, journal, workers, progress)
        index = _build_index(tree.files, plans, entries, opened.record_bits)
        index_object = seal_index(
            index,
            opened.dek,
            epoch=opened.epoch,
            dataset_id=opened.dataset_id,
            object_id=bytes.fromhex(run.index_id),
            salt=random(SALT_BYTES),
        )
        place.store.put(run.index_id, index_object)
    completed = Completed(
        index=IndexPin(object=run.index_id, sha256=sha256(index_object).hex()),
        files=len(tree.files),
        bytes=index.total_bytes,
        objects=len(plans),
        stored_bytes=sum(plan.length for plan in plans) + len(index_object) + len(keyring),
    )
    if journal:
        journal.add(completed)
    return _sealed(opened, completed)


def abandon_sealing(storage: Storage, credentials: str | Mapping[str, str] | None, journal: Journal) -> int:
    """Remove what runs that did not end have written, and their journal; return how many objects that were."""
    if journal.opened is None:
        raise InputError(f"no sealing of this folder into {storage.url} has begun: there is nothing to abandon")
    if journal.completed:
        raise InputError(
            f"the dataset in {storage.url} is complete: run the same command without --abandon for its manifest"
        )
    store = Place(storage, credentials).store
    listed = list_own(store, journal.opened, journal.begun)
    for key in listed:
        store.delete(key)
    journal.remove()
    return len(listed)


@dataclass(frozen=True)
class _Run:
    """What there is already, and what is left to do."""

    tree: Tree
    plans: Sequence[ObjectPlan]
    contents: Sequence[bytes]
    """What each object is made from, as `content_digest`."""
    kept: Mapping[int, ObjectEntry]
    """Objects that an earlier run has completed, by number."""
    tasks: Sequence[SealTask]
    index_id: str

    @classmethod
    def of(
        cls,
        tree: Tree,
        plans: Sequence[ObjectPlan],
        opened: Opened,
        finished: Mapping[bytes, Finished],
        listed: Mapping[str, int],
        random: Callable[[int], bytes],
    ) -> "_Run":
        """Decide which objects are used again, and give names and salts to the others."""
        contents, kept, tasks = [], {}, []
        for number, plan in enumerate(plans):
            parts = parts_of(plan, tree.files)
            contents.append(content_digest(parts, opened.record_bits, plan.length))
            found = finished.get(contents[number])
            if found and listed.get(found.id) == plan.length:
                kept[number] = ObjectEntry(found.id, plan.length, plan.records, opened.epoch, found.commitment)
            else:
                tasks.append(SealTask(number, random(ID_BYTES).hex(), random(SALT_BYTES), plan.length, parts))
        return cls(tree, plans, contents, kept, tasks, random(ID_BYTES).hex())

    def names(self) -> list[str]:
        """Return every name that this run writes to."""
        return [KEYRING_NAME, *(task.object_id for task in self.tasks), self.index_id]

    def kept_names(self) -> set[str]:
        """Return the names of the objects that are used again."""
        return {entry.id for entry in self.kept.values()}


def _seal_objects(
    state: SealState,
    run: _Run,
    journal: Journal | None,
    workers: int | None,
    progress: Callable[[Progress], None] | None,
) -> dict[int, ObjectEntry]:
    files, entries = len(run.tree.files), dict(run.kept)
    total = sum(file.size for file in run.tree.files)
    done = sum(piece.size for number in entries for piece in run.plans[number].pieces)
    names = {task.number: task.object_id for task in run.tasks}
    if progress:
        progress(Progress(done, total, files))
    for sealed in run_tasks(seal_object, state, run.tasks, workers or choose_workers(len(run.tasks), total - done)):
        plan, name = run.plans[sealed.number], names[sealed.number]
        entries[sealed.number] = ObjectEntry(name, plan.length, plan.records, state.epoch, sealed.commitment)
        if journal:
            journal.add(Finished(name, run.contents[sealed.number], sealed.commitment))
        done += sealed.plain_bytes
        if progress:
            progress(Progress(done, total, files))
    return entries


def _sealed(opened: Opened, completed: Completed) -> Sealed:
    return Sealed(
        opened.dataset_id.hex(),
        completed.index,
        completed.files,
        completed.bytes,
        completed.objects,
        completed.stored_bytes,
    )


def _check_empty(store: ObjectStore, url: str) -> None:
    found = [f"{key} ({size} bytes)" for key, size in islice(store.list(), MENTIONED + 1)]
    if found:
        raise InputError(f"{url} is not empty: it holds {mention(found)}. Choose a new prefix")


def list_own(store: ObjectStore, opened: Opened, begun: Collection[str]) -> dict[str, int]:
    """Return name and length of what earlier runs wrote; raise InputError when anything else lies there."""
    listed = dict(store.list())
    strange = [
        key for key in listed if key not in begun and key != KEYRING_NAME and not key.startswith(LEFTOVER_PREFIX)
    ]
    if not strange and KEYRING_NAME in listed:
        try:
            found = parse_keyring(store.get(KEYRING_NAME, MAX_KEYRING)).dataset_id
        except KeyringError:
            found = ""
        strange = [KEYRING_NAME] if found != opened.dataset_id.hex() else []
    if strange:
        raise InputError(
            f"{opened.url} holds {mention(strange)}, which the run that began here did not write. Move it away, or "
            "choose a new prefix"
        )
    return listed


def _check_same(opened: Opened, record_bits: int, object_bytes: int) -> None:
    if (opened.record_bits, opened.object_bytes) != (record_bits, object_bytes):
        raise InputError(
            f"this sealing was begun with records of {1 << opened.record_bits} and objects of {opened.object_bytes} "
            f"bytes, not {1 << record_bits} and {object_bytes}: go on with those, or abandon it"
        )


def _say_changes(journal: Journal, tree: Tree, say: Callable[[str], None] | None) -> None:
    if say is None or journal.listed is None:
        return
    before, now = journal.listed.versions(), {file.name: file.version for file in tree.files}
    changed = [printable(name) for name in now if before.get(name, now[name]) != now[name]]
    added = [printable(name) for name in now if name not in before]
    removed = [printable(name) for name in before if name not in now]
    for names, what in ((changed, "changed"), (added, "added"), (removed, "removed")):
        if names:
            result = "the complete dataset is without this" if journal.completed else "it is sealed as it is now"
            say(f"{what} since the earlier run: {mention(names)}; {result}")


def mention(names: Sequence[str]) -> str:
    """Return the first few of many names, for a message."""
    more = f" and {len(names) - MENTIONED} more" if len(names) > MENTIONED else ""
    return ", ".join(names[:MENTIONED]) + more


@contextlib.contextmanager
def _removed_on_failure(store: ObjectStore, keys: Sequence[str]) -> Iterator[None]:
    try:
        yield
    except BaseException:
        for key in keys:
            with contextlib.suppress(LetheError):
                store.delete(key)
        raise


def _build_index(
    files: Sequence[SourceFile], plans: Sequence[ObjectPlan], entries: Mapping[int, ObjectEntry], record_bits: int
) -> Index:
    first = [(number, piece) for number, plan in enumerate(plans) for piece in plan.pieces if piece.start == 0]
    return Index(
        record_bits=record_bits,
        objects=tuple(entries[number] for number in range(len(plans))),
        names=[file.name for file in files],
        sizes=array("Q", [file.size for file in files]),
        modes=array("H", [file.mode for file in files]),
        object_numbers=array("I", [number for number, _ in first]),
        offsets=array("I", [piece.offset for _, piece in first]),
        first_records=array("I", [piece.record for _, piece in first]),
    )
