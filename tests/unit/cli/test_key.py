import stat
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from lethe.cli import key
from lethe.crypto.hpke import PrivateKey, parse_private, parse_public
from lethe.model.errors import InputError, UsageError
from lethe.model.resources import Condition, Metadata, TenantKey, TenantKeyStatus


def run(*arguments: str) -> Result:
    return CliRunner().invoke(key.app, list(arguments), catch_exceptions=False)


@pytest.mark.parametrize("suite", key.SUITES)
def test_generate_writes_a_private_file_and_a_public_one(tmp_path: Path, suite: str) -> None:
    result = run("generate", "--out", f"{tmp_path}/recovery.key", "--suite", suite)
    private = parse_private((tmp_path / "recovery.key").read_text())
    assert private.suite == suite
    assert parse_public((tmp_path / "recovery.pub").read_text()) == private.public_key()
    assert stat.S_IMODE((tmp_path / "recovery.key").stat().st_mode) == 0o600
    assert result.stdout.strip() == private.public_key().encode()
    assert private.encode() not in result.output


@pytest.mark.parametrize("existing", ["recovery.key", "recovery.pub"])
def test_generate_never_overwrites(tmp_path: Path, existing: str) -> None:
    (tmp_path / existing).write_text("precious")
    with pytest.raises(UsageError, match=f"{existing} exists"):
        run("generate", "--out", f"{tmp_path}/recovery.key")
    assert [path.name for path in tmp_path.iterdir()] == [existing]
    assert (tmp_path / existing).read_text() == "precious"


def test_generate_refuses_the_public_keys_name_and_unknown_suites(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="name of a public key"):
        run("generate", "--out", f"{tmp_path}/recovery.pub")
    with pytest.raises(UsageError, match="'RSA' is unknown"):
        run("generate", "--out", f"{tmp_path}/recovery.key", "--suite", "RSA")
    with pytest.raises(InputError, match="cannot be written"):
        run("generate", "--out", f"{tmp_path}/nowhere/recovery.key")
    assert list(tmp_path.iterdir()) == []


def test_an_identity_that_others_may_read_is_refused(tmp_path: Path) -> None:
    run("generate", "--out", f"{tmp_path}/recovery.key")
    assert key.read_identity(tmp_path / "recovery.key").suite == key.SUITES[0]
    (tmp_path / "recovery.key").chmod(0o640)
    with pytest.raises(InputError, match="chmod 600"):
        key.read_identity(tmp_path / "recovery.key")


def test_halves_are_not_taken_for_each_other(tmp_path: Path) -> None:
    run("generate", "--out", f"{tmp_path}/recovery.key")
    (tmp_path / "recovery.pub").chmod(0o600)
    with pytest.raises(InputError, match="not a private key"):
        key.read_identity(tmp_path / "recovery.pub")
    with pytest.raises(InputError, match="not a public key") as caught:
        key.read_public_key(tmp_path / "recovery.key")
    assert (tmp_path / "recovery.key").read_text().strip() not in str(caught.value)
    with pytest.raises(InputError, match="cannot be read"):
        key.read_public_key(tmp_path / "nothing")


PUBLIC = PrivateKey.generate("X25519").public_key()


def tenant_key(name: str, **status: Any) -> TenantKey:
    return TenantKey(metadata=Metadata(name=name, namespace="acme"), status=TenantKeyStatus(**status))


def test_list_shows_version_and_id(monkeypatch: pytest.MonkeyPatch) -> None:
    ready = Condition(type="Ready", status="True", reason="Ready", last_transition_time="2024-01-01T00:00:00Z")
    keys = [
        tenant_key("second"),
        tenant_key("default", public_key=PUBLIC.encode(), suite="X25519", version=4, conditions=[ready]),
    ]

    async def read(namespace: str) -> list[TenantKey]:
        assert namespace == "acme"
        return keys

    monkeypatch.setattr(key, "_read_tenant_keys", read)
    lines = run("list", "--namespace", "acme").stdout.splitlines()
    assert lines[1].split() == ["acme", "default", "X25519", "4", PUBLIC.key_id, "True"]
    assert lines[2].split() == ["acme", "second", "MLKEM768-X25519", "-", "-", "Unknown"]


@pytest.mark.parametrize(
    ("found", "message"), [(None, "there is no TenantKey acme/default"), (tenant_key("default"), "no public key yet")]
)
def test_a_key_that_is_not_there_is_named(
    monkeypatch: pytest.MonkeyPatch, found: TenantKey | None, message: str
) -> None:
    async def read(namespace: str, name: str) -> TenantKey | None:
        return found

    monkeypatch.setattr(key, "_read_tenant_key", read)
    with pytest.raises(UsageError, match=message):
        key.fetch_tenant_key("acme", "default")
