"""Files that change under a running process: certificates and trusted keys, which Kubernetes swaps in its volumes.

What was read is kept while the files stay the same, and also when new contents are unusable: a half-written or wrong
file never takes away what worked, but is logged at every look.
"""

import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Final, Generic, TypeVar

import structlog

from lethe.crypto.derive import sha256
from lethe.formats.receiptkeys import ReceiptKeys, parse_receipt_keys
from lethe.model.errors import InputError, LetheError
from lethe.model.names import TRUST_RECEIPT_KEYS

_Value = TypeVar("_Value")

RELOAD_SECONDS: Final = 10.0

_log = structlog.get_logger()


class Watched(Generic[_Value]):
    """What `parse` makes of some files, read again when their contents differ."""

    def __init__(self, files: tuple[Path, ...], parse: Callable[[tuple[bytes, ...]], _Value]) -> None:
        """Read the files; raise InputError when they are missing or wrong at the start."""
        self._files = files
        self._parse = parse
        contents = self._read()
        self._value = parse(contents)
        self._seen = _digest(contents)

    @property
    def value(self) -> _Value:
        """Return the newest usable value, as of the last `refresh`."""
        return self._value

    def refresh(self) -> _Value:
        """Look at the files again and return the newest usable value."""
        try:
            contents = self._read()
            digest = _digest(contents)
            if digest != self._seen:
                self._value = self._parse(contents)
                self._seen = digest
                _log.info("read again", files=[str(file) for file in self._files])
        except LetheError as error:
            _log.error("changed files are unusable, the old contents stay in force", error=str(error))
        return self._value

    def _read(self) -> tuple[bytes, ...]:
        try:
            return tuple(file.read_bytes() for file in self._files)
        except OSError as error:
            raise InputError(f"{error.filename} cannot be read: {error.strerror}") from error


def watch_receipt_keys(folder: Path) -> Watched[ReceiptKeys]:
    """Return the keys that receipts may be signed with."""

    def parse(contents: tuple[bytes, ...]) -> ReceiptKeys:
        return parse_receipt_keys(contents[0])

    return Watched((folder / TRUST_RECEIPT_KEYS,), parse)


def watch_certificate(folder: Path) -> Watched[ssl.SSLContext]:
    """Return a server's TLS context, which gives every new connection the newest certificate.

    TLS 1.3 only. It is the same context object for ever, since a listening socket keeps the one that it got.
    """
    files = (folder / "tls.crt", folder / "tls.key")
    context = _server_context()

    def load(_contents: tuple[bytes, ...]) -> ssl.SSLContext:
        try:
            # On a context of its own first: a certificate without its key must not stick to the one in use.
            _server_context().load_cert_chain(files[0], files[1])
            context.load_cert_chain(files[0], files[1])
        except (ssl.SSLError, OSError) as error:
            raise InputError(f"{files[0]} and {files[1]} are no certificate and its key, as PEM: {error}") from error
        return context

    return Watched(files, load)


def _server_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


def _digest(contents: tuple[bytes, ...]) -> bytes:
    return b"".join(sha256(content) for content in contents)
