"""Google Cloud Storage and Azure Blob Storage, through obstore, the Python face of the Rust crate object_store.

1. obstore is an extra of the package (`lethe-operator[clouds]`), imported when such a URL is used.
2. Credentials are what the caller names. obstore would look for others in the environment: it is made while none of
   their variables are there, and without credentials it signs nothing.
3. In a process made by `fork` after the parent has used obstore, every call would wait for ever for threads that are
   not there. Such a call is an error that says what to do.
4. obstore tries again what may pass; what is left is UnavailableError. Its messages may quote addresses with a
   signature in them: no query of a URL gets into ours.
"""

import contextlib
import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from datetime import timedelta
from functools import cached_property
from typing import Any, Final

import msgspec

from lethe.adapters.whole import collected
from lethe.model.errors import (
    ConflictError,
    CredentialsError,
    InputError,
    IntegrityError,
    LetheError,
    ObjectMissingError,
    StorageError,
    UnavailableError,
)

CONNECT: Final = timedelta(seconds=5)
READ: Final = timedelta(seconds=60)
WHOLE: Final = timedelta(hours=1)
RETRIES: Final = 5
FIRST_PAUSE: Final = timedelta(seconds=0.5)
RETRY_SECONDS: Final = timedelta(seconds=180)

_ENVIRONMENT: Final = re.compile(r"(AZURE|GOOGLE|MSI|IDENTITY)_.*", re.IGNORECASE)
_STATUS: Final = re.compile(r"status code: (\d{3})")
_CODE: Final = re.compile(r"<Code>(\w+)</Code>")
_QUERY: Final = re.compile(r"\?[^\s\"')]*")
_SHORT: Final = re.compile(r"(Wanted|Requested) range")
_MESSAGE_LENGTH: Final = 160
_MAY_PASS: Final = frozenset({"429", "500", "502", "503", "504"})

_lock = threading.Lock()
_user: int | None = None
"""Process in which obstore was first used, if this process or one that it was forked from did."""


class CloudStore:
    """Objects below one prefix of a bucket or container."""

    def __init__(self, url: str, make: Callable[[], Any]) -> None:
        """`make` imports obstore and returns its store."""
        self._url = url.rstrip("/")
        self._make = make

    def get(self, key: str, limit: int | None = None) -> bytes:
        """Return a whole object."""
        return self._fetch(key, limit)[0]

    def get_tagged(self, key: str, limit: int | None = None) -> tuple[bytes, str]:
        """Return a whole object and a tag of this version of it."""
        data, meta = self._fetch(key, limit)
        return data, msgspec.json.encode((meta["e_tag"], meta["version"])).decode()

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """Return exactly `length` bytes from `start`."""
        if length == 0:
            return b""
        with self._errors(key):
            data = bytes(self._store.get_range(key, start=start, length=length))
        if len(data) != length:
            raise IntegrityError(f"object {self._name(key)} ends at byte {start + len(data)}: it was cut off")
        return data

    def view(self, key: str) -> None:
        """Say that objects of a bucket have to be fetched."""

    def create(self, key: str, length: int) -> AbstractContextManager[Callable[[memoryview], object]]:
        """Give what takes the bytes of an object; they are sent together."""
        return collected(lambda whole: self.put(key, whole), length)

    def put(self, key: str, data: bytes | bytearray | memoryview) -> None:
        """Write a whole object, replacing what was there."""
        self._write(key, data, "overwrite")

    def put_new(self, key: str, data: bytes | bytearray | memoryview) -> None:
        """Write a whole object; raise StorageError when one is there already."""
        self._write(key, data, "create")

    def replace(self, key: str, data: bytes | bytearray | memoryview, tag: str) -> None:
        """Write a whole object in place of the one with this tag; raise ConflictError when another is there by now."""
        e_tag, version = msgspec.json.decode(tag, type=tuple[str | None, str | None])
        self._write(key, data, {"e_tag": e_tag, "version": version} if version else {"e_tag": e_tag})

    def list(self) -> Iterable[tuple[str, int]]:
        """Yield key and size of every object."""
        with self._errors(""):
            for batch in self._store.list():
                for meta in batch:
                    yield meta["path"], meta["size"]

    def delete(self, key: str) -> None:
        """Remove an object; a missing one is no error."""
        with contextlib.suppress(ObjectMissingError), self._errors(key):
            self._store.delete(key)

    @cached_property
    def _store(self) -> Any:
        return self._make()

    def _fetch(self, key: str, limit: int | None) -> tuple[bytes, Mapping[str, Any]]:
        with self._errors(key):
            result = self._store.get(key)
            meta = result.meta
            if limit is not None and meta["size"] > limit:
                raise IntegrityError(f"object {self._name(key)} has {meta['size']} bytes, expected at most {limit}")
            return bytes(result.bytes()), meta

    def _write(self, key: str, data: bytes | bytearray | memoryview, mode: str | Mapping[str, str | None]) -> None:
        with self._errors(key):
            self._store.put(key, data, mode=mode, use_multipart=False)

    @contextlib.contextmanager
    def _errors(self, key: str) -> Iterator[None]:
        _check_process(self._url)
        from obstore import exceptions

        name = self._name(key)
        try:
            yield
        except LetheError:
            raise
        except (FileNotFoundError, exceptions.NotFoundError) as error:
            raise ObjectMissingError(f"object {name} does not exist, or its bucket does not") from error
        except exceptions.AlreadyExistsError as error:
            raise StorageError(f"object {name} is there already: choose an empty prefix") from error
        except exceptions.PreconditionError as error:
            raise ConflictError(f"object {name} was written by another meanwhile: read it again") from error
        except (PermissionError, exceptions.PermissionDeniedError, exceptions.UnauthenticatedError) as error:
            raise CredentialsError(
                f"storage refuses {name} ({_message(str(error))}): check the keys of the storage Secret, and what they "
                "may do here"
            ) from error
        except (OSError, exceptions.BaseError) as error:
            raise _failure(name, str(error)) from error

    def _name(self, key: str) -> str:
        return f"{self._url}/{key}"


def open_google(
    *, url: str, bucket: str, prefix: str, endpoint: str | None, ca_bundle: str | None, service_account: str | None
) -> CloudStore:
    """Return objects of a bucket of Google Cloud Storage; `service_account` is a service account's key, as JSON."""
    config: dict[str, Any] = {"bucket": bucket}
    if endpoint:
        config["base_url"] = endpoint
    if service_account:
        config["service_account_key"] = service_account
    else:
        config["skip_signature"] = True
    return CloudStore(url, lambda: _make("GCSStore", url, prefix, config, endpoint, ca_bundle))


def open_azure(
    *,
    url: str,
    account: str,
    container: str,
    prefix: str,
    endpoint: str | None,
    ca_bundle: str | None,
    credentials: Mapping[str, str],
) -> CloudStore:
    """Return objects of a container of Azure Blob Storage; `credentials` are obstore's settings, or empty."""
    config: dict[str, Any] = {"account_name": account, "container_name": container, **credentials}
    if endpoint:
        config["endpoint"] = endpoint
    if not credentials:
        config["skip_signature"] = True
    return CloudStore(url, lambda: _make("AzureStore", url, prefix, config, endpoint, ca_bundle))


def _make(
    kind: str, url: str, prefix: str, config: Mapping[str, Any], endpoint: str | None, ca_bundle: str | None
) -> Any:
    from obstore import exceptions, store

    options: dict[str, Any] = {
        "connect_timeout": CONNECT,
        "read_timeout": READ,
        "timeout": WHOLE,
        "allow_http": bool(endpoint and endpoint.startswith("http://")),
    }
    if ca_bundle:
        options["root_certificate"] = ca_bundle
    try:
        with _own_environment():
            return getattr(store, kind)(
                prefix=prefix or None,
                config=dict(config),
                client_options=options,
                retry_config={
                    "max_retries": RETRIES,
                    "retry_timeout": RETRY_SECONDS,
                    "backoff": {"init_backoff": FIRST_PAUSE, "max_backoff": 16 * FIRST_PAUSE, "base": 2},
                },
            )
    except (exceptions.BaseError, ValueError) as error:
        raise InputError(
            f"{url} cannot be opened: {_message(str(error))}. Check endpoint, caBundle and the Secret"
        ) from error


def _check_process(url: str) -> None:
    global _user
    try:
        import obstore  # noqa: F401
    except ImportError as error:
        raise InputError(f"{url} needs obstore: pip install 'lethe-operator[clouds]'") from error
    if _user is None:
        _user = os.getpid()
    elif _user != os.getpid():
        raise StorageError(
            f"{url} was used before this process was forked, and its client does not survive that: start workers anew, "
            'with multiprocessing_context="spawn" or "forkserver" (for a DataLoader as for multiprocessing)'
        )


@contextlib.contextmanager
def _own_environment() -> Iterator[None]:
    """Take the variables in which obstore looks for credentials and addresses out of the environment."""
    with _lock:
        found = {name: os.environ.pop(name) for name in list(os.environ) if _ENVIRONMENT.fullmatch(name)}
        try:
            yield
        finally:
            os.environ.update(found)


def _failure(name: str, text: str) -> LetheError:
    """Return the error for what obstore has no class of its own for."""
    found = _STATUS.search(text)
    status, message = found[1] if found else "", _message(text)
    if status == "404":
        return ObjectMissingError(f"object {name} does not exist, or its bucket does not")
    if status == "416" or _SHORT.search(text):
        return IntegrityError(f"object {name} is shorter than expected: it was cut off")
    if "certificate" in text:
        return StorageError(f"{name}: the server shows a certificate that is not trusted for it: set caBundle")
    if status in _MAY_PASS or (not status and "sending request" in text):
        return UnavailableError(f"storage is away ({message}) for {name}: try again later")
    return StorageError(f"storage refuses the request for {name}: {message}")


def _message(text: str) -> str:
    """Return status and code of an answer, or else the first line of the message, without secrets."""
    status, code = _STATUS.search(text), _CODE.search(text)
    if status:
        return f"{status[1]} {code[1]}" if code else status[1]
    line = _QUERY.sub("", text.strip().split("\n", 1)[0])
    return line.rpartition(" - ")[2][:_MESSAGE_LENGTH]
