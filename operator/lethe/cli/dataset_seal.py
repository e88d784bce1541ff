"""`lethe dataset seal`: encrypt a folder and print the manifest to apply.

1. A run that ends early keeps what is complete, and the same command goes on (`lethe.data.journal`). The journal is
   removed when the manifest is out, or by `--abandon` together with what was written.
2. Recipients and names are those of the last command: they are in the keyring, which each run writes anew.
"""

import contextlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from lethe.cli.dataset_manifest import check_kubernetes_names, check_output, encode_manifest, write_manifest
from lethe.cli.dataset_target import (
    CaFile,
    CredentialsDir,
    Endpoint,
    Region,
    Workers,
    find_credentials,
    read_ca,
    say,
)
from lethe.cli.key import fetch_tenant_key, read_public_key
from lethe.cli.progress import ProgressReport
from lethe.data.journal import Journal, journal_path, open_journal
from lethe.data.seal import KeyPolicy, abandon_sealing, seal_folder
from lethe.formats.quantity import parse_quantity
from lethe.model.agentconfig import OutputRecipient
from lethe.model.errors import UsageError
from lethe.model.resources import DatasetSpec, EncryptedDataset, Metadata, SecretRef, Storage

CRITICALITIES = ("standard", "sensitive", "critical")
_RECIPIENT = re.compile(r"(?P<namespace>[^/@=]+)/(?P<name>[^/@=]+)(@(?P<version>[1-9][0-9]{0,8}))?(=(?P<file>.+))?")

Recipients = Annotated[
    list[str],
    typer.Option(
        "--recipient",
        "--recipient-key",
        help="NAMESPACE/NAME of a TenantKey, read from the cluster; NAMESPACE/NAME\\[@VERSION]=FILE takes a file.",
    ),
]
RecoveryKeys = Annotated[
    list[Path], typer.Option("--recovery-key", help="Public recovery key, a .pub file of `lethe key generate`.")
]


def seal(
    folder: Annotated[Path, typer.Argument(help="Folder whose files are sealed.")],
    url: Annotated[str, typer.Argument(help="Empty prefix: s3://…, gs://…, abfss://… or file:///path.")],
    name: Annotated[str, typer.Option(help="Name of the EncryptedDataset.")],
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="Namespace of the EncryptedDataset.")],
    tenant: Annotated[str, typer.Option(help="Tenant that owns the namespace.")],
    recipient: Recipients,
    recovery_key: RecoveryKeys,
    criticality: Annotated[str, typer.Option(help=f"One of {', '.join(CRITICALITIES)}.")] = "standard",
    secret_ref: Annotated[
        str | None, typer.Option(help="Secret with the storage credentials, for the manifest.")
    ] = None,
    endpoint: Endpoint = None,
    region: Region = None,
    ca_file: CaFile = None,
    credentials_dir: CredentialsDir = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File for the manifest; default: print.")
    ] = None,
    workers: Workers = None,
    record_size: Annotated[
        str, typer.Option(help="Plaintext of a record, a power of two: 1Mi reads faster in sequence, 64Ki at random.")
    ] = "64Ki",
    object_size: Annotated[str, typer.Option(help="Length of an object on storage.")] = "64Mi",
    abandon: Annotated[bool, typer.Option("--abandon", help="Remove what a run that did not end has written.")] = False,
) -> None:
    """Encrypt a folder into an empty prefix and print the manifest to apply. Run it again to go on after a kill."""
    check_kubernetes_names({"--name": name, "--tenant": tenant}, {"--namespace": namespace})
    level = next((known for known in CRITICALITIES if known == criticality), None)
    if level is None:
        raise UsageError(f"criticality {criticality!r} is unknown, expected one of {', '.join(CRITICALITIES)}")
    storage = Storage(
        url=url.rstrip("/"),
        endpoint=endpoint,
        region=region,
        ca_bundle=read_ca(ca_file),
        secret_ref=SecretRef(name=secret_ref) if secret_ref else None,
    )
    credentials = find_credentials(credentials_dir, storage.url)
    path = journal_path("seal", storage, folder)
    if abandon:
        with open_journal(path) as journal:
            say(f"removed {abandon_sealing(storage, credentials, journal)} objects from {storage.url}")
        return
    check_output(output)
    policy = KeyPolicy(
        tenant=tenant,
        namespace=namespace,
        recipients=parse_recipients(recipient, recovery_key, namespace),
        criticality=msgspec.convert(level, DatasetSpec.__annotations__["criticality"]),
    )
    with open_journal(path) as journal, _kept(journal):
        with ProgressReport("sealing") as progress:
            sealed = seal_folder(
                folder,
                storage,
                credentials,
                policy,
                journal=journal,
                record_bits=_parse_record_size(record_size),
                object_bytes=parse_quantity(object_size),
                workers=workers,
                progress=progress,
                say=say,
            )
        say(
            f"sealed {sealed.files} files, {sealed.bytes} bytes, into {sealed.objects} objects, "
            f"{sealed.stored_bytes} bytes"
        )
        if secret_ref is None and not url.startswith("file://"):
            say("the manifest names no Secret: a job reads this storage without credentials (--secret-ref)")
        dataset = EncryptedDataset(
            metadata=Metadata(name=name, namespace=namespace),
            spec=DatasetSpec(
                storage=storage,
                dataset_id=sealed.dataset_id,
                index=sealed.index,
                scheme=policy.scheme,
                criticality=policy.criticality,
            ),
        )
        write_manifest(encode_manifest(dataset), output)
        journal.remove()


@contextlib.contextmanager
def _kept(journal: Journal) -> Iterator[None]:
    try:
        yield
    except BaseException:
        if journal.opened:
            say("what is complete is kept: the same command goes on from there, and with --abandon it removes all")
        raise


def parse_recipients(
    recipients: Sequence[str], recovery_keys: Sequence[Path], namespace: str
) -> tuple[OutputRecipient, ...]:
    """Return the recipients that `--recipient` and `--recovery-key` name."""
    return (
        *(_parse_recipient(text, namespace) for text in recipients),
        *(OutputRecipient(public_key=read_public_key(path).encode()) for path in recovery_keys),
    )


def _parse_recipient(text: str, namespace: str) -> OutputRecipient:
    match = _RECIPIENT.fullmatch(text)
    if match is None:
        raise UsageError(f"--recipient {text!r} is not NAMESPACE/NAME or NAMESPACE/NAME[@VERSION]=FILE")
    if match["namespace"] != namespace:
        raise UsageError(
            f"--recipient {text!r} is not in namespace {namespace}: a dataset uses keys of its own namespace"
        )
    if match["file"]:
        public_key, version = read_public_key(Path(match["file"])), int(match["version"] or 1)
    elif match["version"]:
        raise UsageError(f"--recipient {text!r}: the cluster has the newest version only; an older one needs =FILE")
    else:
        public_key, version = fetch_tenant_key(namespace, match["name"])
    return OutputRecipient(key=match["name"], version=version, public_key=public_key.encode())


def _parse_record_size(text: str) -> int:
    size = parse_quantity(text)
    if size < 1 or size & (size - 1):
        raise UsageError(f"--record-size {text} is not a power of two: use 64Ki, or 1Mi for data read in sequence")
    return size.bit_length() - 1
