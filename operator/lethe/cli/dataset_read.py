"""`lethe dataset ls`, `verify`, `unseal`: read a dataset or a job's outputs, with a private key and what pins them."""

from pathlib import Path
from typing import Annotated

import typer

from lethe.cli.dataset_target import Identity, Target, Workers, takes_dataset
from lethe.cli.progress import ProgressReport
from lethe.data.tree import printable
from lethe.data.unpack import unseal as unseal_dataset
from lethe.data.unpack import verify as verify_dataset


@takes_dataset
def list_files(target: Target, identity: Identity) -> None:
    """List mode, size and name of every file."""
    opened = target.open(identity).load_index()
    for name, size, mode in zip(opened.names, opened.sizes, opened.modes, strict=True):
        print(f"{mode:04o} {size:>12} {printable(name)}")


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
