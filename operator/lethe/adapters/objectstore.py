"""Object storage behind `lethe.model.ports.ObjectStore`, by the scheme of its URL.

| URL | what | credentials |
|---|---|---|
| file:///path | a folder | |
| s3://bucket/prefix | S3 | AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN |
| gs://bucket/prefix | Google Cloud Storage | GOOGLE_APPLICATION_CREDENTIALS: a service account's key (JSON) |
| abfss://container@account.dfs.core.windows.net/prefix | Azure Blob Storage | one of `AZURE_WAYS` |
| https://host/folder | a web server, read only | |

1. Credentials are what the caller names: a folder with one file per key, as Kubernetes mounts a Secret, or a mapping.
   The environment is never searched, so a pod uses the Secret that its owner meant, or none.
2. Every failure is of the StorageError family, or UnavailableError when a later attempt may succeed. The message names
   the object and what to check; secrets are in no message.
3. A client is loaded when its URL is opened: it takes longer to load than a small dataset to read.
4. A store may be used by several threads; and after `fork`, which data loaders do, but for gs:// and abfss://, which
   say so (`lethe.adapters.cloud`).
"""

import contextlib
import fcntl
import hashlib
import mmap
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import unquote, urlsplit

from lethe.adapters.localfiles import is_unchanging
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

if TYPE_CHECKING:
    from lethe.adapters.s3 import Credentials

ACCESS_KEY = "AWS_ACCESS_KEY_ID"
SECRET_KEY = "AWS_SECRET_ACCESS_KEY"
SESSION_TOKEN = "AWS_SESSION_TOKEN"
SERVICE_ACCOUNT = "GOOGLE_APPLICATION_CREDENTIALS"
AZURE_HOST = ".dfs.core.windows.net"
AZURE_WAYS = (
    {"AZURE_STORAGE_KEY": "account_key"},
    {"AZURE_STORAGE_SAS_TOKEN": "sas_key"},
    {"AZURE_TENANT_ID": "tenant_id", "AZURE_CLIENT_ID": "client_id", "AZURE_CLIENT_SECRET": "client_secret"},
)
"""Names of credentials, and of the settings of obstore that they are: one of these ways is complete."""
CREDENTIAL_NAMES = {
    "s3": (ACCESS_KEY, SECRET_KEY, SESSION_TOKEN),
    "gs": (SERVICE_ACCOUNT,),
    "abfss": tuple(name for way in AZURE_WAYS for name in way),
}
"""By scheme of the URL."""
URLS = (
    "s3://bucket/prefix, gs://bucket/prefix, abfss://container@account.dfs.core.windows.net/prefix, "
    "https://host/folder (read only) or file:///absolute/path"
)


def open_store(storage: Storage, credentials: str | Mapping[str, str] | None) -> ObjectStore:
    """Return the objects below `storage.url`; raise InputError for a URL of another form.

    `credentials` is a folder, a mapping, or None for storage that asks for none.
    """
    url = urlsplit(storage.url)
    prefix = unquote(url.path).strip("/")
    if url.scheme == "file" and url.netloc in ("", "localhost") and url.path.startswith("/"):
        return FolderStore(Path(unquote(url.path)))
    if url.netloc and not url.query and not url.fragment:
        if url.scheme == "s3":
            from lethe.adapters.s3 import BucketStore

            return BucketStore(
                bucket=url.netloc,
                prefix=prefix,
                endpoint=storage.endpoint,
                region=storage.region,
                ca_bundle=storage.ca_bundle,
                credentials=read_credentials(credentials),
            )
        if url.scheme == "gs":
            from lethe.adapters.cloud import open_google

            return open_google(
                url=storage.url,
                bucket=url.netloc,
                prefix=prefix,
                endpoint=storage.endpoint,
                ca_bundle=storage.ca_bundle,
                service_account=read_service_account(credentials),
            )
        if url.scheme == "abfss" and url.username and (url.hostname or "").endswith(AZURE_HOST):
            from lethe.adapters.cloud import open_azure

            return open_azure(
                url=storage.url,
                account=(url.hostname or "").removesuffix(AZURE_HOST),
                container=url.username,
                prefix=prefix,
                endpoint=storage.endpoint,
                ca_bundle=storage.ca_bundle,
                credentials=read_azure_credentials(credentials),
            )
        if url.scheme == "https" and "@" not in url.netloc:
            from lethe.adapters.web import WebStore

            return WebStore(origin=f"https://{url.netloc}", folder=prefix, ca_bundle=storage.ca_bundle)
    raise InputError(f"storage URL {storage.url!r} is not supported: use {URLS}")


def read_credentials(source: str | Mapping[str, str] | None) -> "Credentials | None":
    """Return the credentials of S3 in a folder or mapping; raise CredentialsError when a key is missing."""
    if not source:
        return None
    values, place = _read(source, CREDENTIAL_NAMES["s3"])
    for key in (ACCESS_KEY, SECRET_KEY):
        if not values.get(key):
            raise CredentialsError(f"{place} has no {key}: the storage Secret needs {ACCESS_KEY} and {SECRET_KEY}")
    from lethe.adapters.s3 import Credentials

    return Credentials(values[ACCESS_KEY], values[SECRET_KEY], values.get(SESSION_TOKEN) or None)


def read_service_account(source: str | Mapping[str, str] | None) -> str | None:
    """Return the key of a Google service account, as JSON; raise CredentialsError when there is none."""
    if not source:
        return None
    values, place = _read(source, CREDENTIAL_NAMES["gs"])
    key = values.get(SERVICE_ACCOUNT, "")
    if not key:
        raise CredentialsError(f"{place} has no {SERVICE_ACCOUNT}: the storage Secret needs a service account's key")
    if not key.startswith("{"):
        raise CredentialsError(
            f"{SERVICE_ACCOUNT} of {place} is not a service account's key: put the JSON itself there"
        )
    return key


def read_azure_credentials(source: str | Mapping[str, str] | None) -> dict[str, str]:
    """Return obstore's settings for the credentials in a folder or mapping; raise CredentialsError when none are."""
    if not source:
        return {}
    values, place = _read(source, CREDENTIAL_NAMES["abfss"])
    for way in AZURE_WAYS:
        if all(values.get(name) for name in way):
            return {setting: values[name] for name, setting in way.items()}
    ways = "; or ".join(" and ".join(way) for way in AZURE_WAYS)
    raise CredentialsError(f"{place} has no credentials for Azure: the storage Secret needs {ways}")


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


def _read(source: str | Mapping[str, str], names: Iterable[str]) -> tuple[dict[str, str], str]:
    """Return the values that are there, and what to call their place."""
    if not isinstance(source, str):
        return dict(source), "the credentials"
    folder = Path(source)
    try:
        found = {name: folder / name for name in names}
        values = {name: path.read_text(encoding="utf-8").strip() for name, path in found.items() if path.is_file()}
    except (OSError, UnicodeDecodeError) as error:
        raise CredentialsError(f"the credentials in folder {folder} cannot be read: {error}") from error
    return values, f"folder {source}"


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
