"""A key vault in a file, for development: whoever can read the volume can read every tenant's keys.

1. The master key is 32 random bytes in `master.key`, mode 0600, made once and never replaced. Where wrapped keys exist
   already, a missing file is an error: a new one would open none of them.
2. A tenant's wrapping key is HKDF-Expand of it, bound to the tenant's name; no tenant's secrets open as another's.
3. The file is written under another name and linked into place, so that a crash leaves it whole or absent and two
   processes agree on one.
"""

import os
from pathlib import Path
from typing import Final

from lethe.crypto.aead import KEY_BYTES, unwrap, wrap
from lethe.crypto.derive import hkdf_expand, length_prefixed, random_bytes
from lethe.model.errors import InputError, UnavailableError

_LABEL: Final = b"lethe/v1 file vault"
_OWNER_ONLY: Final = 0o600
_WORLD: Final = 0o007
_GROUP: Final = 0o070


class FileVault:
    """Implements `lethe.model.ports.KeyVault`."""

    kind: str = "file"
    is_for_development: bool = True

    def __init__(self, folder: Path, *, may_create: bool) -> None:
        """Open the vault in `folder`; make it when there is none and `may_create` says that nothing depends on it."""
        self._file = folder / "master.key"
        if not self._file.exists():
            if not may_create:
                raise InputError(
                    f"the file vault's master key {self._file} is missing, but the database holds keys that were "
                    "wrapped with it: restore the file from the backup of the volume; nothing is made in its place"
                )
            _create(self._file)
        self._master = _read(self._file)

    def wrap(self, tenant: str, secret: bytes, context: bytes) -> bytes:
        """Return `secret` encrypted under the tenant's wrapping key and bound to `context`."""
        return wrap(self._wrapping_key(tenant), secret, context)

    def unwrap(self, tenant: str, wrapped: bytes, context: bytes) -> bytes:
        """Return what `wrap` was given; raise AuthenticationError."""
        return unwrap(self._wrapping_key(tenant), wrapped, context)

    def check(self) -> None:
        """Raise UnavailableError when the master key's file is gone: after a restart nothing would open."""
        if not self._file.is_file():
            raise UnavailableError(f"the file vault's master key {self._file} is gone: restore it before a restart")

    def _wrapping_key(self, tenant: str) -> bytes:
        return hkdf_expand(self._master, length_prefixed(_LABEL, tenant.encode()), KEY_BYTES)


def _create(file: Path) -> None:
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = file.with_name(f".{file.name}.{random_bytes(8).hex()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _OWNER_ONLY)
    try:
        os.write(descriptor, random_bytes(KEY_BYTES))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    try:
        os.link(draft, file)
    except FileExistsError:
        pass  # another process was first, and its key is the one
    finally:
        draft.unlink()
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _read(file: Path) -> bytes:
    status = file.stat()
    if status.st_mode & _WORLD:
        raise InputError(f"{file} may be read or written by everybody, expected mode 0600: treat its keys as known")
    if status.st_mode & _GROUP and status.st_uid == os.geteuid():
        # A volume with fsGroup comes back with group rights on every file.
        file.chmod(_OWNER_ONLY)
    master = file.read_bytes()
    if len(master) != KEY_BYTES:
        raise InputError(f"{file} has {len(master)} bytes, expected {KEY_BYTES}: restore it from the volume's backup")
    return master
