"""The manifest of a dataset: what a job names, and what pins it."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
import yaml

from lethe.cli.dataset_target import LABEL, NAME, Identity, Target, takes_dataset
from lethe.cli.key import read_identity
from lethe.data.recipients import open_for_change
from lethe.model.errors import InputError, UsageError
from lethe.model.names import API_VERSION
from lethe.model.resources import DatasetSpec, EncryptedDataset, Metadata, SecretRef


@takes_dataset
def manifest(
    target: Target,
    identity: Identity,
    name: Annotated[str, typer.Option(help="Name of the EncryptedDataset.")],
    secret_ref: Annotated[
        str | None, typer.Option(help="Secret with the storage credentials; default: the outputs' own.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File for the manifest; default: print.")
    ] = None,
) -> None:
    """Print a job's outputs as a dataset that the next job can name, to go on from a checkpoint.

    Of a job that was lost these are the outputs of its last snapshot. Of one that still runs it is good until the next.
    """
    check_kubernetes_names({"--name": name}, {})
    check_output(output)
    access = target.open(identity)
    opened = open_for_change(target.place.store, target.dataset_id, read_identity(identity))
    stanza = opened.keyring.stanzas[0]
    reference = SecretRef(name=secret_ref) if secret_ref else target.storage.secret_ref
    dataset = EncryptedDataset(
        metadata=Metadata(name=name, namespace=stanza.namespace),
        spec=DatasetSpec(
            storage=msgspec.structs.replace(target.storage, secret_ref=reference),
            dataset_id=target.dataset_id,
            index=access.pin,
            scheme=stanza.scheme,
            criticality=stanza.criticality,
        ),
    )
    write_manifest(encode_manifest(dataset), output)


def encode_manifest(dataset: EncryptedDataset) -> str:
    """Return an EncryptedDataset as YAML, with scheme and criticality even where they are the defaults."""
    body: dict[str, Any] = {"apiVersion": API_VERSION, "kind": "EncryptedDataset", **msgspec.to_builtins(dataset)}
    body["spec"] |= {"scheme": dataset.spec.scheme, "criticality": dataset.spec.criticality}
    return dump_manifest(body)


def check_kubernetes_names(names: Mapping[str, str], labels: Mapping[str, str]) -> None:
    """Raise UsageError for the value of an option that cannot be the name of an object, or of a namespace."""
    for options, pattern in ((names, NAME), (labels, LABEL)):
        for option, value in options.items():
            if not pattern.fullmatch(value):
                raise UsageError(f"{option} {value!r} is not a Kubernetes name: lower-case letters, digits and '-'")


def dump_manifest(body: dict[str, Any]) -> str:
    """Return a manifest as YAML that people can read."""
    return yaml.dump(body, Dumper=_BlockText, sort_keys=False, allow_unicode=True)


def check_output(path: Path | None) -> None:
    """Raise UsageError when a file for a manifest is there already."""
    if path is not None and path.exists():
        raise UsageError(f"{path} exists; it may hold the only pin of another dataset: choose another name")


def write_manifest(manifest: str, path: Path | None) -> None:
    """Write a manifest into a new file that is on disk when this returns, or print it."""
    if path is None:
        sys.stdout.write(manifest)
        sys.stdout.flush()
        return
    aside = path.with_name(f".{path.name}.partial")
    try:
        with aside.open("w", encoding="utf-8") as file:
            file.write(manifest)
            file.flush()
            os.fsync(file.fileno())
        aside.rename(path)
    except OSError as error:
        raise InputError(f"the manifest {path} cannot be written: {error.strerror}") from error


class _BlockText(yaml.SafeDumper):
    """Writes certificates as block text, so that people can read the manifest."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_BlockText.add_representer(str, _represent_text)
