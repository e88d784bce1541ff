from pathlib import Path

import pytest
from typer.testing import CliRunner

from lethe.cli import key
from tests.common.dataset_command import FILES, seal
from tests.common.datasets import write_tree


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", f"{tmp_path}/state")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A tenant's machine: recovery key, the service's public key, files."""
    for name in ("recovery", "service"):
        CliRunner().invoke(key.app, ["generate", "--out", f"{tmp_path}/{name}.key", "--suite", "X25519"])
    write_tree(tmp_path / "images", FILES)
    return tmp_path


@pytest.fixture
def manifest(home: Path) -> Path:
    seal(home, "--output", home / "digits.yaml", "--secret-ref", "s3-read")
    return home / "digits.yaml"
