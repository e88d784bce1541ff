"""Which files are decrypted in place."""

import os
from pathlib import Path

import pytest

from lethe.adapters import localfiles
from lethe.adapters.localfiles import is_unchanging


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "object"
    path.write_bytes(b"sealed")
    path.chmod(0o644)
    return path


def test_this_users_own_file_is(file: Path) -> None:
    assert is_unchanging(file.stat())


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o666])
def test_one_that_others_may_write_is_not(file: Path, mode: int) -> None:
    file.chmod(mode)
    assert not is_unchanging(file.stat())


def test_one_of_another_user_is_not(file: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    os.chown(file, 65532, 65532)
    assert not is_unchanging(file.stat())


def test_a_folder_is_not(tmp_path: Path) -> None:
    assert not is_unchanging(tmp_path.stat())


@pytest.mark.parametrize("kind", ["nfs4", "fuse.sshfs", "9p", ""])
def test_one_that_another_machine_serves_is_not(file: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(localfiles, "_file_system", lambda device: kind)
    assert not is_unchanging(file.stat())
