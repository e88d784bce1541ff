"""What a long run notes on the sealer's own disk, so that one that was killed can be continued.

1. One file per folder and storage URL, mode 0600 in a folder of mode 0700. It is made before anything is on storage and
   removed when the manifest is out. It holds the dataset's new key: the private keys that open the keyring are not
   here. Whoever can read it can read the dataset, like whoever can read the folder: it belongs on a disk no worse.
2. Lines are only added, each on disk before the run goes on. The names of objects are noted before they are written,
   and that an object is complete after storage has said so. A last line that was cut off never was.
3. The name of an object and its salt belong to one run: what is not noted as complete is removed and sealed again
   under a new name and salt. So no key and nonce are used twice, whatever half of an object was sent, and whichever
   process of the killed run is still sending.
4. A run locks its journal (`flock`, which ends with the process, however it ends); a second one is refused.
"""

import contextlib
import fcntl
import os
import zlib
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import msgspec

from lethe.crypto.derive import length_prefixed, sha256
from lethe.data.tree import SourceFile
from lethe.model.errors import ConflictError, InputError
from lethe.model.resources import IndexPin, Storage

FORMAT = 1
STATE_VARIABLE = "XDG_STATE_HOME"
DEFAULT_STATE = ".local/state"


class Opened(msgspec.Struct, frozen=True, tag="opened"):
    """What a run was begun with."""

    source: str
    """Folder, or object id of the index whose dataset is encrypted anew."""
    url: str
    dataset_id: bytes
    epoch: int
    dek: bytes
    record_bits: int
    object_bytes: int
    format: int = FORMAT

    def __repr__(self) -> str:
        return f"Opened({self.url!r})"


class Listed(msgspec.Struct, frozen=True, tag="listed"):
    """The files that a run found. Each line replaces the one before it."""

    names: bytes
    times: bytes

    @classmethod
    def of(cls, files: Sequence[SourceFile]) -> "Listed":
        """Return the line for these files."""
        times = array("q", [value for file in files for value in (file.size, file.mtime_ns, file.ctime_ns)])
        return cls(zlib.compress("\0".join(file.name for file in files).encode(), 1), zlib.compress(times.tobytes(), 1))

    def versions(self) -> dict[str, tuple[int, ...]]:
        """Return size and times of each file, by name."""
        names = zlib.decompress(self.names).decode()
        values = array("q", zlib.decompress(self.times))
        return {
            name: tuple(values[3 * number : 3 * number + 3])
            for number, name in enumerate(names.split("\0") if names else [])
        }


class Begun(msgspec.Struct, frozen=True, tag="begun"):
    """Names of objects that may be on storage from now on."""

    ids: tuple[str, ...]


class Finished(msgspec.Struct, frozen=True, tag="finished"):
    """An object that is complete on storage."""

    id: str
    content: bytes
    """SHA-256 of what the object is made from; it is used again where the same is to be sealed."""
    commitment: bytes


class Completed(msgspec.Struct, frozen=True, tag="completed"):
    """The dataset is whole; its manifest may not have been printed."""

    index: IndexPin
    files: int
    bytes: int
    objects: int
    stored_bytes: int


Line = Opened | Listed | Begun | Finished | Completed


class Journal:
    """The lines of one run and of those before it. `open_journal` makes it."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file = file
        self._path = path
        self.opened: Opened | None = None
        self.listed: Listed | None = None
        self.begun: set[str] = set()
        self.finished: dict[bytes, Finished] = {}
        self.completed: Completed | None = None

    def add(self, line: Line) -> None:
        """Note a line; it is on disk when this returns."""
        try:
            self._file.write(msgspec.json.encode(line) + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise InputError(f"{self._path} cannot be written: {error.strerror}") from error
        self.apply(line)

    def apply(self, line: Line) -> None:
        """Take in a line that is on disk."""
        match line:
            case Opened():
                self.opened = line
            case Listed():
                self.listed = line
            case Begun():
                self.begun.update(line.ids)
            case Finished():
                self.finished[line.content] = line
            case Completed():
                self.completed = line

    def remove(self) -> None:
        """Forget the run: it is over."""
        self._path.unlink(missing_ok=True)


def journal_path(work: str, storage: Storage, folder: Path | None = None) -> Path:
    """Return where the journal of one kind of work, on a storage URL and a folder, lies."""
    state = Path(os.environ.get(STATE_VARIABLE, ""))
    root = state if state.is_absolute() else Path.home() / DEFAULT_STATE
    source = b"" if folder is None else os.fsencode(folder.resolve())
    key = sha256(length_prefixed(source, storage.url.encode(), (storage.endpoint or "").encode()))
    return root / "lethe" / f"{work}-{key.hex()[:32]}"


@contextlib.contextmanager
def open_journal(path: Path) -> Iterator[Journal]:
    """Lock and read a journal, a new one where there is none; raise ConflictError while another run has it."""
    file = _lock(path)
    try:
        journal = Journal(file, path)
        _read(journal, file, path)
        yield journal
    finally:
        if os.fstat(file.fileno()).st_size == 0:
            path.unlink(missing_ok=True)
        file.close()


def _lock(path: Path) -> BinaryIO:
    while True:
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
            file = open(os.open(path, flags, 0o600), "a+b")  # noqa: SIM115
        except OSError as error:
            raise InputError(
                f"{path}, which keeps what a killed run needs to go on, cannot be written: {error.strerror}. "
                f"Set {STATE_VARIABLE} to a folder of your own"
            ) from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.close()
            raise ConflictError(
                f"another process is at work on the same folder and storage (it has locked {path}): let it finish"
            ) from error
        # Whoever had the lock before may have removed the file that was opened here.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                return file
        file.close()


def _read(journal: Journal, file: BinaryIO, path: Path) -> None:
    file.seek(0)
    whole = 0
    for number, raw in enumerate(file, start=1):
        if not raw.endswith(b"\n"):
            break
        try:
            journal.apply(msgspec.json.decode(raw, type=Line))
        except msgspec.MsgspecError as error:
            raise InputError(
                f"line {number} of {path} cannot be read ({error}): another version of Lethe wrote it, or it is "
                "damaged. Remove it to begin anew, in a new prefix"
            ) from error
        whole += len(raw)
    file.truncate(whole)
