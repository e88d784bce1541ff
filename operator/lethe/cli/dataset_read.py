"""`lethe dataset info`, `ls`, `cat`, `verify`, `unseal`: read a dataset or a job's outputs.

What a private key opens needs `--identity`; `info` says without one what storage and keyring tell, unverified.
"""

import sys
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.filesize import decimal

from lethe.cli.dataset_target import (
    Identity,
    OptionalIdentity,
    OutputFormat,
    Target,
    Workers,
    say,
    takes_dataset,
)
from lethe.cli.progress import ProgressReport
from lethe.data.file_records import iterate_file
from lethe.data.recipients import list_recipients, read_keyring
from lethe.data.tree import printable
from lethe.data.unpack import unseal as unseal_dataset
from lethe.data.unpack import verify as verify_dataset
from lethe.formats.head import HEAD_NAME
from lethe.formats.header import HEADER_BYTES
from lethe.formats.index import Index
from lethe.formats.keyring import KEYRING_NAME
from lethe.formats.layout import sealed_size
from lethe.model.errors import UsageError

Names = Annotated[
    list[str] | None, typer.Argument(help="Only these files, folders or patterns ('train/*.png'); default: all.")
]


@takes_dataset
def info(target: Target, identity: OptionalIdentity = None, output_format: OutputFormat = "text") -> None:
    """Say what a dataset is: its id, keys and recipients, and with --identity its files and sizes."""
    store = target.place.store
    keyring, _ = read_keyring(store, target.dataset_id)
    facts: dict[str, Any] = {
        "datasetId": target.dataset_id,
        "url": target.storage.url,
        "index": target.pin.object if target.pin is not None else None,
        "epochs": keyring.epochs(),
        "recipients": [recipient.name for recipient in list_recipients(keyring)],
    }
    if identity is not None:
        access = target.open(identity)
        facts |= {"index": access.pin.object, **_sizes(access.load_index())}
    elif not target.storage.url.startswith("https://"):
        lengths = dict(store.list())
        objects = [key for key in lengths if key not in (KEYRING_NAME, HEAD_NAME, facts["index"])]
        facts |= {"objects": len(objects), "storedBytes": sum(lengths.values())}
    if output_format == "json":
        print(msgspec.json.format(msgspec.json.encode(facts)).decode())
        return
    for name, value in facts.items():
        print(f"{_LABELS[name]:<18} {_text(name, value)}")
    if identity is None:
        say("not checked: only a recipient's private key (--identity) tells files, sizes and whether this is genuine")


_LABELS = {
    "datasetId": "dataset id",
    "url": "storage",
    "index": "index object",
    "epochs": "key epochs",
    "recipients": "recipients",
    "objects": "data objects",
    "files": "files",
    "bytes": "bytes",
    "recordBytes": "record size",
    "storedBytes": "stored bytes",
    "overhead": "overhead",
    "paddingBytes": "of it padding",
}


def _sizes(index: Index) -> dict[str, Any]:
    stored = sum(entry.length for entry in index.objects)
    content = sum(sealed_size(size, index.record_size) for size in index.sizes)
    return {
        "files": len(index),
        "bytes": index.total_bytes,
        "objects": len(index.objects),
        "recordBytes": index.record_size,
        "storedBytes": stored,
        "overhead": round(stored / index.total_bytes - 1, 4) if index.total_bytes else None,
        "paddingBytes": sum(entry.length - HEADER_BYTES for entry in index.objects) - content,
    }


def _text(name: str, value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if name == "overhead":
        return "-" if value is None else f"{value:.1%}"
    return f"{value} ({decimal(value)})" if name.lower().endswith("bytes") else str(value)


@takes_dataset
def list_files(target: Target, identity: Identity, names: Names = None, output_format: OutputFormat = "text") -> None:
    """List mode, size and name of every file."""
    index = target.open(identity).load_index()
    chosen = _choose(index, names) if names else range(len(index))
    if output_format == "json":
        rows = [{"name": index.names[file], "size": index.sizes[file], "mode": index.modes[file]} for file in chosen]
        print(msgspec.json.encode(rows).decode())
        return
    for file in chosen:
        print(f"{index.modes[file]:04o} {index.sizes[file]:>12} {printable(index.names[file])}")


@takes_dataset
def cat(
    target: Target,
    names: Annotated[list[str], typer.Argument(help="Names of files, as `ls` prints them.")],
    identity: Identity,
) -> None:
    """Write files to standard output, one after the other.

    Every name is found before the first byte is written, and every record is verified before its bytes are: what has
    been written is genuine, even when a later record is not and the command fails.
    """
    access = target.open(identity)
    index = access.load_index()
    for file in [_find(index, name) for name in names]:
        for record in iterate_file(access, index, file):
            sys.stdout.buffer.write(record)
    sys.stdout.buffer.flush()


@takes_dataset
def verify(target: Target, identity: Identity, workers: Workers = None) -> None:
    """Read every byte of every object and check it."""
    access = target.open(identity)
    with ProgressReport("verifying") as progress:
        result = verify_dataset(access, workers=workers, progress=progress)
    print(f"verified {result.files} files, {result.bytes} bytes: dataset {access.dataset_id} is whole and authentic")


@takes_dataset
def unseal(
    target: Target,
    folder: Annotated[Path, typer.Argument(help="New or empty folder for the files.")],
    identity: Identity,
    workers: Workers = None,
) -> None:
    """Decrypt a dataset, or a job's outputs, into a folder: all files, or none."""
    access = target.open(identity)
    with ProgressReport("unsealing") as progress:
        result = unseal_dataset(access, folder, workers=workers, progress=progress)
    print(f"unsealed {result.files} files, {result.bytes} bytes, into {folder}")


def _find(index: Index, name: str) -> int:
    try:
        return index.find(name)
    except KeyError as error:
        raise UsageError(f"the dataset has no file {printable(name)!r}: `lethe dataset ls` names them") from error


def _choose(index: Index, patterns: list[str]) -> list[int]:
    chosen: set[int] = set()
    for pattern in patterns:
        below = f"{pattern.rstrip('/')}/"
        found = {
            file
            for file, name in enumerate(index.names)
            if name == pattern or name.startswith(below) or fnmatchcase(name, pattern)
        }
        if not found:
            raise UsageError(f"no file of the dataset is {pattern!r}, lies below it, or matches it")
        chosen |= found
    return sorted(chosen)
