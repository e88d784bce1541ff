"""`lethe key`: the tenant's own recovery key, and the keys of the key service.

1. A recovery key is made and kept offline: whoever has its file opens every dataset and result that was sealed to it.
2. Its file has mode 0600, is never overwritten, and is refused when others may read it.
"""

import asyncio
import os
import stat
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from lethe.crypto.hpke import PrivateKey, PublicKey, SuiteName, parse_private, parse_public
from lethe.model.errors import CryptoError, InputError, UsageError
from lethe.model.resources import TenantKey

app = typer.Typer(help="Keys: generate a recovery key, list the key service's keys.", no_args_is_help=True)

PUBLIC_SUFFIX = ".pub"
SUITES: tuple[SuiteName, ...] = ("MLKEM768-X25519", "X25519")
PIPE_COLUMNS = 200


@app.command()
def generate(
    out: Annotated[Path, typer.Option("--out", "-o", help="File for the private key; the public one gets .pub.")],
    suite: Annotated[str, typer.Option(help=f"One of {', '.join(SUITES)}.")] = SUITES[0],
) -> None:
    """Make a recovery key: FILE with the private key, and FILE's name with .pub for `lethe dataset seal`."""
    chosen = next((known for known in SUITES if known == suite), None)
    if chosen is None:
        raise UsageError(f"suite {suite!r} is unknown, expected one of {', '.join(SUITES)}")
    public_path = out.with_suffix(PUBLIC_SUFFIX)
    if public_path == out:
        raise UsageError(f"{out} is the name of a public key: choose another for the private one")
    for path in (out, public_path):
        if path.exists() or path.is_symlink():
            raise UsageError(f"{path} exists, and a key is never overwritten: choose another name")
    private_key = PrivateKey.generate(chosen)
    _write_new(out, private_key.encode(), 0o600)
    _write_new(public_path, private_key.public_key().encode(), 0o644)
    console = Console(stderr=True, soft_wrap=True)
    console.print(f"Private key {out}: keep it offline, with a copy. Public key {public_path}:", markup=False)
    print(private_key.public_key().encode())


@app.command("list")
def list_keys(
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="Only this namespace.")] = "",
) -> None:
    """List the TenantKeys of the cluster, with the version and id of each public key."""
    keys = asyncio.run(_read_tenant_keys(namespace))
    table = Table(box=None, pad_edge=False)
    for column in ("NAMESPACE", "NAME", "SUITE", "VERSION", "KEY ID", "READY"):
        table.add_column(column)
    for key in sorted(keys, key=lambda key: (key.metadata.namespace, key.metadata.name)):
        ready = next((item.status for item in key.status.conditions if item.type == "Ready"), "Unknown")
        has_key = bool(key.status.public_key)
        table.add_row(
            key.metadata.namespace,
            key.metadata.name,
            key.status.suite or key.spec.suite,
            str(key.status.version) if has_key else "-",
            public_key_of(key).key_id if has_key else "-",
            ready,
        )
    console = Console(markup=False)
    if not console.is_terminal:
        console = Console(markup=False, width=PIPE_COLUMNS)
    console.print(table)


async def _read_tenant_keys(namespace: str) -> list[TenantKey]:
    from lethe.adapters.kube import TENANT_KEY, Kube

    async with await Kube.connect() as kube:
        return [msgspec.convert(item, TenantKey) for item in await kube.list(TENANT_KEY, namespace)]


async def _read_tenant_key(namespace: str, name: str) -> TenantKey | None:
    from lethe.adapters.kube import TENANT_KEY, Kube

    async with await Kube.connect() as kube:
        item = await kube.get(TENANT_KEY, name, namespace)
    return None if item is None else msgspec.convert(item, TenantKey)


def fetch_tenant_key(namespace: str, name: str) -> tuple[PublicKey, int]:
    """Return public key and version of a key of the key service; raise UsageError when it has none."""
    key = asyncio.run(_read_tenant_key(namespace, name))
    if key is None:
        raise UsageError(f"there is no TenantKey {namespace}/{name}: make one, or name the public key's file")
    if not key.status.public_key:
        raise UsageError(f"TenantKey {namespace}/{name} has no public key yet: is the key service running?")
    return public_key_of(key), key.status.version


def public_key_of(key: TenantKey) -> PublicKey:
    """Return the public key in a TenantKey's status."""
    return parse_public(key.status.public_key)


def read_public_key(path: Path) -> PublicKey:
    """Read the .pub file of a recovery key, or of a key of the key service."""
    try:
        return parse_public(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the public key {path} cannot be read: {error}") from error
    except CryptoError as error:
        raise InputError(f"{path}: {error}") from error


def read_identity(path: Path) -> PrivateKey:
    """Read a private key; raise InputError when others may read the file."""
    try:
        mode = path.stat().st_mode
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the private key {path} cannot be read: {error}") from error
    if stat.S_IMODE(mode) & 0o077:
        raise InputError(f"the private key {path} may be read by others ({stat.filemode(mode)}): chmod 600 {path}")
    try:
        return parse_private(text)
    except CryptoError as error:
        raise InputError(f"{path}: {error}") from error


def _write_new(path: Path, text: str, mode: int) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}") from error
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(text + "\n")
