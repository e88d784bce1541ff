from pathlib import Path

import pytest

from lethe.adapters.keyvault_file import FileVault
from lethe.model.errors import AuthenticationError, InputError, UnavailableError


def test_what_was_wrapped_opens_again_after_a_restart(tmp_path: Path) -> None:
    wrapped = FileVault(tmp_path, may_create=True).wrap("acme", b"secret", b"context")
    assert FileVault(tmp_path, may_create=False).unwrap("acme", wrapped, b"context") == b"secret"


@pytest.mark.parametrize(("tenant", "context"), [("globex", b"context"), ("acme", b"other")])
def test_another_tenant_or_context_opens_nothing(tmp_path: Path, tenant: str, context: bytes) -> None:
    vault = FileVault(tmp_path, may_create=True)
    wrapped = vault.wrap("acme", b"secret", b"context")
    with pytest.raises(AuthenticationError):
        vault.unwrap(tenant, wrapped, context)


def test_every_flipped_byte_is_found(tmp_path: Path) -> None:
    vault = FileVault(tmp_path, may_create=True)
    wrapped = vault.wrap("acme", b"secret", b"")
    for position in range(len(wrapped)):
        changed = bytearray(wrapped)
        changed[position] ^= 1
        with pytest.raises(AuthenticationError):
            vault.unwrap("acme", bytes(changed), b"")


def test_a_missing_master_key_is_not_made_again(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="restore the file"):
        FileVault(tmp_path, may_create=False)
    assert not (tmp_path / "master.key").exists()


def test_an_existing_master_key_is_kept(tmp_path: Path) -> None:
    FileVault(tmp_path, may_create=True)
    before = (tmp_path / "master.key").read_bytes()
    FileVault(tmp_path, may_create=True)
    assert (tmp_path / "master.key").read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["master.key"]


def test_modes(tmp_path: Path) -> None:
    FileVault(tmp_path, may_create=True)
    file = tmp_path / "master.key"
    assert file.stat().st_mode & 0o777 == 0o600
    file.chmod(0o660)  # as a volume with fsGroup gives it back
    FileVault(tmp_path, may_create=False)
    assert file.stat().st_mode & 0o777 == 0o600
    file.chmod(0o604)
    with pytest.raises(InputError, match="0600"):
        FileVault(tmp_path, may_create=False)


def test_a_cut_master_key_is_refused(tmp_path: Path) -> None:
    FileVault(tmp_path, may_create=True)
    (tmp_path / "master.key").write_bytes(bytes(31))
    with pytest.raises(InputError, match="31 bytes"):
        FileVault(tmp_path, may_create=False)


def test_check_misses_the_file(tmp_path: Path) -> None:
    vault = FileVault(tmp_path, may_create=True)
    vault.check()
    (tmp_path / "master.key").unlink()
    with pytest.raises(UnavailableError):
        vault.check()
