"""A folder of a web server, read only: a dataset that somebody publishes, or serves from a cache.

1. `https://host/folder`; `caBundle` as for S3. Requests carry no credentials: a dataset is ciphertext.
2. It connects, tries again and reports as the S3 client does (`lethe.adapters.s3`), and survives `fork` like that.
3. A web server neither lists nor writes: whatever needs that is refused by name.
"""

from collections.abc import Iterable
from datetime import datetime

from lethe.adapters.s3 import BucketStore, Response
from lethe.model.errors import CredentialsError, IntegrityError, ObjectMissingError, StorageError


class WebStore(BucketStore):
    """The objects below one address."""

    def __init__(self, *, origin: str, folder: str, ca_bundle: str | None) -> None:
        super().__init__(bucket="", prefix=folder, endpoint=origin, region=None, ca_bundle=ca_bundle, credentials=None)

    def put(self, key: str, data: bytes | bytearray | memoryview) -> None:
        """Refuse: a web server is read only."""
        raise self._read_only(key)

    def put_new(self, key: str, data: bytes | bytearray | memoryview) -> None:
        """Refuse: a web server is read only."""
        raise self._read_only(key)

    def replace(self, key: str, data: bytes | bytearray | memoryview, tag: str) -> None:
        """Refuse: a web server is read only."""
        raise self._read_only(key)

    def delete(self, key: str) -> None:
        """Refuse: a web server is read only."""
        raise self._read_only(key)

    def list(self) -> Iterable[tuple[str, int]]:
        """Refuse: a web server does not say what it has."""
        raise StorageError(f"{self._name(None)} cannot be listed: use the storage that this server shows")

    def _read_only(self, key: str) -> StorageError:
        return StorageError(
            f"{self._name(key)} cannot be written: https:// is for reading, use s3://, gs:// or abfss://"
        )

    def _sign(self, method: str, path: str, query: str, payload_hash: str, now: datetime) -> dict[str, str]:
        return {}

    def _refusal(self, response: Response, key: str | None) -> StorageError | IntegrityError:
        name = self._name(key)
        match response.status:
            case 401 | 403:
                return CredentialsError(f"{name} is refused ({response.status}): it must be readable by everyone")
            case 404 | 410:
                return ObjectMissingError(f"object {name} does not exist ({response.status})")
            case 416:
                return IntegrityError(f"object {name} is shorter than expected: it was cut off")
            case status if 300 <= status < 400:
                return StorageError(f"{name} is somewhere else ({status}): use the address that it redirects to")
        return StorageError(f"the server refuses {name}: {response.status}")

    def _path(self, key: str | None) -> str:
        return f"/{self._prefix}{key or ''}"

    def _name(self, key: str | None) -> str:
        return f"{self._endpoint}{self._path(key)}"
