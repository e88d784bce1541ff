"""Object storage behind `lethe.model.ports.ObjectStore`: a folder (`file:///path`) or a bucket (`s3://bucket/prefix`).

1. Credentials are what the caller names: a folder with one file per key, as Kubernetes mounts a Secret, or a mapping.
   The environment is never searched, so a pod uses the Secret that its owner meant, or none.
2. Every failure is of the StorageError family, or UnavailableError when a later attempt may succeed. The message names
   the object and what to check; secrets are in no message.
3. A store may be used after `fork`, and by several threads: data loaders do both.
"""

import contextlib
import fcntl
import hashlib
import mmap
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

from lethe.adapters.localfiles import is_unchanging
from lethe.adapters.s3 import BucketStore, Credentials
from lethe.adapters.whole import too_long, too_short
from lethe.model.errors import (
    ConflictError,
    CredentialsError,
    InputError,
    IntegrityError,
    ObjectMissingError,
    StorageError,
)
from lethe.model.ports import LEFTOVER_PREFIX, ObjectStore
from lethe.model.resources import Storage

ACCESS_KEY = "AWS_ACCESS_KEY_ID"
SECRET_KEY = "AWS_SECRET_ACCESS_KEY"
SESSION_TOKEN = "AWS_SESSION_TOKEN"


def open_store(storage: Storage, credentials: str | Mapping[str, str] | None) -> ObjectStore:
    """Return the objects below `storage.url`; raise InputError for a URL of another form.

    `credentials` is a folder, a mapping, or None for storage that asks for none.
    """
    url = urlsplit(storage.url)
    if url.scheme == "file" and url.netloc in ("", "localhost") and url.path.startswith("/"):
        return FolderStore(Path(unquote(url.path)))
    if url.scheme == "s3" and url.netloc and not url.query and not url.fragment:
        return BucketStore(
            bucket=url.netloc,
            prefix=unquote(url.path).strip("/"),
            endpoint=storage.endpoint,
            region=storage.region,
            ca_bundle=storage.ca_bundle,
            credentials=read_credentials(credentials),
        )
    raise InputError(f"storage URL {storage.url!r} is not supported: use s3://bucket/prefix or file:///absolute/path")


def read_credentials(source: str | Mapping[str, str] | None) -> Credentials | None:
    """Return the credentials in a folder or mapping; raise CredentialsError when a key is missing."""
    if not source:
        return None
    if isinstance(source, str):
        values, place = _read_folder(Path(source)), f"folder {source}"
    else:
        values, place = dict(source), "the credentials"
    for key in (ACCESS_KEY, SECRET_KEY):
        if not values.get(key):
            raise CredentialsError(f"{place} has no {key}: the storage Secret needs {ACCESS_KEY} and {SECRET_KEY}")
    return Credentials(values[ACCESS_KEY], values[SECRET_KEY], values.get(SESSION_TOKEN) or None)


class FolderStore:
    """Objects as files of one folder. A write is complete or not there."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, key: str, limit: int | None = None) -> bytes:
        """Return a whole object."""
        with self._errors(key), self._path(key).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if limit is not None and size > limit:
                raise IntegrityError(f"object {key} has {size} bytes, expected at most {limit}")
            return file.read()

    def get_tagged(self, key: str, limit: int | None = None) -> tuple[bytes, str]:
        """Return a whole object and a tag of this version of it."""
        data = self.get(key, limit)
        return data, _tag(data)

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """Return exactly `length` bytes from `start`."""
        with self._errors(key), self._path(key).open("rb", buffering=0) as file:
            data = os.pread(file.fileno(), length, start)
            if len(data) < length:
                data += _read_rest(file.fileno(), start + len(data), length - len(data))
        if len(data) != length:
            raise IntegrityError(
                f"object {key} ends at byte {start + len(data)}, expected {start + length}: it was cut off"
            )
        return data

    def view(self, key: str) -> memoryview | None:
        """Return an object as a mapping of its file, if nobody but this user and root can change that."""
        with self._errors(key), self._path(key).open("rb", buffering=0) as file:
            status = os.fstat(file.fileno())
            if not status.st_size or not is_unchanging(status):
                return None
            return memoryview(mmap.mmap(file.fileno(), status.st_size, mmap.MAP_SHARED, mmap.PROT_READ))

    @contextlib.contextmanager
    def create(self, key: str, length: int) -> Iterator[Callable[[memoryview], object]]:
        """Give what takes the bytes of an object, and writes each piece at once."""
        with self._errors(key), self._partial() as (file, temporary):
            end = 0

            def take(piece: memoryview) -> None:
                nonlocal end
                end += file.write(piece)
                if end > length:
                    raise too_long(length)

            yield take
            if end != length:
                raise too_short(end, length)
            _finish(file)
            os.replace(temporary, self._path(key))

    def put(self, key: str, data: bytes | bytearray | memoryview) -> None:
        """Write a whole object, replacing what was there."""
        with self._errors(key), self._written(data) as temporary:
            os.replace(temporary, self._path(key))

    def put_new(self, key: str, data: bytes | bytearray | memoryview) -> None:
        """Write a whole object; raise StorageError when one is there already."""
        with self._errors(key), self._written(data) as temporary:
            try:
                os.link(temporary, self._path(key))
            except FileExistsError as error:
                raise StorageError(f"object {key} is there already in {self._folder}") from error
            os.unlink(temporary)

    def replace(self, key: str, data: bytes | bytearray | memoryview, tag: str) -> None:
        """Write a whole object in place of the one with this tag; raise ConflictError when another is there by now."""
        with self._errors(key), self._path(key).open("rb") as current:
            # Whoever replaces this file waits here, and then finds that it is not there under its name any more.
            fcntl.flock(current, fcntl.LOCK_EX)
            is_named = os.path.samestat(os.fstat(current.fileno()), os.stat(self._path(key)))
            if not is_named or _tag(current.read()) != tag:
                raise ConflictError(f"object {key} in {self._folder} was written by another meanwhile: read it again")
            with self._written(data) as temporary:
                os.replace(temporary, self._path(key))

    def list(self) -> Iterable[tuple[str, int]]:
        """Yield key and size of every object."""
        with self._errors(str(self._folder)):
            for path in sorted(self._folder.rglob("*")):
                if path.is_file():
                    yield path.relative_to(self._folder).as_posix(), path.stat().st_size

    def delete(self, key: str) -> None:
        """Remove an object; a missing one is no error."""
        with self._errors(key):
            self._path(key).unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        if not key or key.startswith("/") or ".." in key.split("/"):
            raise InputError(f"object key {key!r} is not a name below {self._folder}")
        return self._folder / key

    @contextlib.contextmanager
    def _written(self, data: bytes | bytearray | memoryview) -> Iterator[str]:
        with self._partial() as (file, temporary):
            file.write(data)
            _finish(file)
            yield temporary

    @contextlib.contextmanager
    def _partial(self) -> Iterator[tuple[BinaryIO, str]]:
        """Give a file under another name, which is gone when something fails."""
        self._folder.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=LEFTOVER_PREFIX, dir=self._folder)
        try:
            with open(descriptor, "wb") as file:
                yield file, temporary
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise

    @contextlib.contextmanager
    def _errors(self, key: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise ObjectMissingError(f"object {key} is not in {self._folder}") from error
        except PermissionError as error:
            raise CredentialsError(f"object {key} in {self._folder} may not be used: {error.strerror}") from error
        except OSError as error:
            raise StorageError(f"object {key} in {self._folder}: {error.strerror}") from error


def _read_folder(folder: Path) -> dict[str, str]:
    try:
        return {
            key: (folder / key).read_text(encoding="utf-8").strip()
            for key in (ACCESS_KEY, SECRET_KEY, SESSION_TOKEN)
            if (folder / key).is_file()
        }
    except OSError as error:
        raise CredentialsError(f"the credentials in folder {folder} cannot be read: {error.strerror}") from error


def _finish(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
    os.fchmod(file.fileno(), 0o644)


def _tag(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _read_rest(descriptor: int, start: int, length: int) -> bytes:
    parts = []
    while length:
        part = os.pread(descriptor, length, start)
        if not part:
            break
        parts.append(part)
        start, length = start + len(part), length - len(part)
    return b"".join(parts)
