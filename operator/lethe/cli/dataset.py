"""`lethe dataset`: seal a folder; list, verify and unseal a dataset or a job's outputs.

1. `seal` prints the manifest to apply. The key of the key service comes from the cluster, or from a file; the recovery
   key is always a file, so that its owner can open the dataset without anybody's help.
2. The others need the recovery key (`--identity`) and what pins the dataset: its manifest, the job whose outputs it is,
   or storage URL, dataset id and index.
3. Storage credentials are `--credentials-dir`, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY of the environment.
"""

import asyncio
import os
import re
import sys
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
import yaml

from lethe.adapters.objectstore import ACCESS_KEY, SECRET_KEY, SESSION_TOKEN
from lethe.cli.key import fetch_tenant_key, read_identity, read_public_key
from lethe.cli.progress import ProgressReport
from lethe.data.access import Access, Place
from lethe.data.seal import KeyPolicy, Sealed, seal_folder
from lethe.data.tree import printable
from lethe.data.unpack import unseal as unseal_dataset
from lethe.data.unpack import verify as verify_dataset
from lethe.formats.index import check_pin
from lethe.model.agentconfig import OutputRecipient
from lethe.model.errors import InputError, UsageError
from lethe.model.names import API_VERSION
from lethe.model.resources import (
    DatasetSpec,
    EncryptedDataset,
    IndexPin,
    Metadata,
    SecretRef,
    SecureTrainingJob,
    Storage,
)

app = typer.Typer(help="Encrypted datasets: seal, ls, verify, unseal.", no_args_is_help=True)

CRITICALITIES = ("standard", "sensitive", "critical")
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_RECIPIENT = re.compile(r"(?P<namespace>[^/@=]+)/(?P<name>[^/@=]+)(@(?P<version>[1-9][0-9]{0,8}))?(=(?P<file>.+))?")

Endpoint = Annotated[str | None, typer.Option(help="https://host[:port] of the S3 server; default: AWS.")]
Region = Annotated[str | None, typer.Option(help="Region of the S3 server.")]
CaFile = Annotated[Path | None, typer.Option(help="PEM certificates that vouch for the endpoint.")]
CredentialsDir = Annotated[Path | None, typer.Option(help="Folder with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.")]
Identity = Annotated[Path, typer.Option("--identity", "-i", help="Private key file of `lethe key generate`.")]
Manifest = Annotated[Path | None, typer.Option("--manifest", "-f", help="EncryptedDataset as YAML.")]
Job = Annotated[str | None, typer.Option(help="NAMESPACE/NAME of a job: its outputs.")]
Url = Annotated[str | None, typer.Option(help="Storage URL, with --dataset-id, --index and --sha256.")]
DatasetId = Annotated[str | None, typer.Option(help="Dataset id, 32 hex digits.")]
IndexObject = Annotated[str | None, typer.Option("--index", help="Object id of the index, 32 hex digits.")]
IndexHash = Annotated[str | None, typer.Option("--sha256", help="SHA-256 of the index object, 64 hex digits.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Processes; default: by size and processors.")]


@app.command()
def seal(
    folder: Annotated[Path, typer.Argument(help="Folder whose files are sealed.")],
    url: Annotated[str, typer.Argument(help="Empty prefix: s3://bucket/prefix or file:///path.")],
    name: Annotated[str, typer.Option(help="Name of the EncryptedDataset.")],
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="Namespace of the EncryptedDataset.")],
    tenant: Annotated[str, typer.Option(help="Tenant that owns the namespace.")],
    recipient: Annotated[
        list[str],
        typer.Option(
            "--recipient",
            "--recipient-key",
            help="NAMESPACE/NAME of a TenantKey, read from the cluster; NAMESPACE/NAME[@VERSION]=FILE takes a file.",
        ),
    ],
    recovery_key: Annotated[list[Path], typer.Option(help="Public recovery key, a .pub file of `lethe key generate`.")],
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
) -> None:
    """Encrypt a folder into an empty prefix and print the manifest to apply."""
    _check_names(name, namespace, tenant)
    level = next((known for known in CRITICALITIES if known == criticality), None)
    if level is None:
        raise UsageError(f"criticality {criticality!r} is unknown, expected one of {', '.join(CRITICALITIES)}")
    if output is not None and output.exists():
        raise UsageError(f"{output} exists; it may hold the only pin of another dataset: choose another name")
    storage = Storage(
        url=url.rstrip("/"),
        endpoint=endpoint,
        region=region,
        ca_bundle=_read_ca(ca_file),
        secret_ref=SecretRef(name=secret_ref) if secret_ref else None,
    )
    policy = KeyPolicy(
        tenant=tenant,
        namespace=namespace,
        recipients=(
            *(_parse_recipient(text, namespace) for text in recipient),
            *(OutputRecipient(public_key=read_public_key(path).encode()) for path in recovery_key),
        ),
        criticality=msgspec.convert(level, DatasetSpec.__annotations__["criticality"]),
    )
    with ProgressReport("sealing") as progress:
        sealed = seal_folder(folder, storage, _credentials(credentials_dir), policy, workers=workers, progress=progress)
    _say(
        f"sealed {sealed.files} files, {sealed.bytes} bytes, into {sealed.objects} objects, {sealed.stored_bytes} bytes"
    )
    if url.startswith("s3://") and secret_ref is None:
        _say("the manifest names no Secret: a job reads this storage without credentials (--secret-ref)")
    manifest = build_manifest(name, storage, policy, sealed)
    if output is None:
        sys.stdout.write(manifest)
    else:
        output.write_text(manifest, encoding="utf-8")


@app.command("ls")
def list_files(
    identity: Identity,
    manifest: Manifest = None,
    job: Job = None,
    url: Url = None,
    dataset_id: DatasetId = None,
    index: IndexObject = None,
    sha256: IndexHash = None,
    endpoint: Endpoint = None,
    region: Region = None,
    ca_file: CaFile = None,
    credentials_dir: CredentialsDir = None,
) -> None:
    """List mode, size and name of every file."""
    target = _find(manifest, job, url, dataset_id, index, sha256, endpoint, region, ca_file)
    opened = _open(target, identity, credentials_dir).load_index()
    for name, size, mode in zip(opened.names, opened.sizes, opened.modes, strict=True):
        print(f"{mode:04o} {size:>12} {printable(name)}")


@app.command()
def verify(
    identity: Identity,
    manifest: Manifest = None,
    job: Job = None,
    url: Url = None,
    dataset_id: DatasetId = None,
    index: IndexObject = None,
    sha256: IndexHash = None,
    endpoint: Endpoint = None,
    region: Region = None,
    ca_file: CaFile = None,
    credentials_dir: CredentialsDir = None,
    workers: Workers = None,
) -> None:
    """Read every byte of every object and check it."""
    target = _find(manifest, job, url, dataset_id, index, sha256, endpoint, region, ca_file)
    access = _open(target, identity, credentials_dir)
    with ProgressReport("verifying") as progress:
        result = verify_dataset(access, workers=workers, progress=progress)
    print(f"verified {result.files} files, {result.bytes} bytes: dataset {access.dataset_id} is whole and authentic")


@app.command()
def unseal(
    folder: Annotated[Path, typer.Argument(help="New or empty folder for the files.")],
    identity: Identity,
    manifest: Manifest = None,
    job: Job = None,
    url: Url = None,
    dataset_id: DatasetId = None,
    index: IndexObject = None,
    sha256: IndexHash = None,
    endpoint: Endpoint = None,
    region: Region = None,
    ca_file: CaFile = None,
    credentials_dir: CredentialsDir = None,
    workers: Workers = None,
) -> None:
    """Decrypt a dataset, or a job's outputs, into a folder: all files, or none."""
    target = _find(manifest, job, url, dataset_id, index, sha256, endpoint, region, ca_file)
    access = _open(target, identity, credentials_dir)
    with ProgressReport("unsealing") as progress:
        result = unseal_dataset(access, folder, workers=workers, progress=progress)
    print(f"unsealed {result.files} files, {result.bytes} bytes, into {folder}")


def build_manifest(name: str, storage: Storage, policy: KeyPolicy, sealed: Sealed) -> str:
    """Return the EncryptedDataset as YAML."""
    dataset = EncryptedDataset(
        metadata=Metadata(name=name, namespace=policy.namespace),
        spec=DatasetSpec(
            storage=storage,
            dataset_id=sealed.dataset_id,
            index=sealed.index,
            scheme=policy.scheme,
            criticality=policy.criticality,
        ),
    )
    body: dict[str, Any] = {"apiVersion": API_VERSION, "kind": "EncryptedDataset", **msgspec.to_builtins(dataset)}
    body["spec"] |= {"scheme": policy.scheme, "criticality": policy.criticality}
    return yaml.dump(body, Dumper=_BlockText, sort_keys=False, allow_unicode=True)


class _BlockText(yaml.SafeDumper):
    """Writes certificates as block text, so that people can read the manifest."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_BlockText.add_representer(str, _represent_text)


class _Target(msgspec.Struct, frozen=True):
    """What pins a dataset."""

    storage: Storage
    dataset_id: str
    pin: IndexPin


def _find(
    manifest: Path | None,
    job: str | None,
    url: str | None,
    dataset_id: str | None,
    index: str | None,
    sha256: str | None,
    endpoint: str | None,
    region: str | None,
    ca_file: Path | None,
) -> _Target:
    if sum(source is not None for source in (manifest, job, url)) != 1:
        raise UsageError("say which dataset: exactly one of --manifest FILE, --job NAMESPACE/NAME, --url URL")
    if manifest is not None:
        target = _from_manifest(manifest)
    elif job is not None:
        target = _from_job(job)
    elif url is not None and dataset_id and index and sha256:
        target = _Target(Storage(url=url), dataset_id, IndexPin(object=index, sha256=sha256))
    else:
        raise UsageError("--url needs --dataset-id, --index and --sha256 too: they pin the dataset's version")
    check_pin(target.pin, target.dataset_id)
    changes = {"endpoint": endpoint, "region": region, "ca_bundle": _read_ca(ca_file)}
    storage = msgspec.structs.replace(target.storage, **{key: value for key, value in changes.items() if value})
    return msgspec.structs.replace(target, storage=storage)


def _from_manifest(path: Path) -> _Target:
    try:
        documents = [item for item in yaml.safe_load_all(path.read_text(encoding="utf-8")) if item]
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"the manifest {path} cannot be read: {error}") from error
    datasets = [item for item in documents if isinstance(item, dict) and item.get("kind") == "EncryptedDataset"]
    if len(datasets) != 1:
        raise InputError(f"{path} holds {len(datasets)} EncryptedDatasets, expected one")
    try:
        dataset = msgspec.convert(datasets[0], EncryptedDataset)
    except msgspec.ValidationError as error:
        raise InputError(f"{path} is not an EncryptedDataset: {error}") from error
    return _Target(dataset.spec.storage, dataset.spec.dataset_id, dataset.spec.index)


def _from_job(text: str) -> _Target:
    namespace, _, name = text.partition("/")
    if not (_LABEL.fullmatch(namespace) and _NAME.fullmatch(name)):
        raise UsageError(f"--job {text!r} is not NAMESPACE/NAME")
    job = asyncio.run(_read_job(namespace, name))
    if job is None:
        raise UsageError(f"there is no job {text}")
    if job.spec.outputs is None or job.status.outputs is None:
        raise UsageError(f"job {text} has no sealed outputs: its phase is {job.status.phase}")
    outputs = job.status.outputs
    storage = msgspec.structs.replace(job.spec.outputs.storage, url=outputs.url)
    return _Target(storage, outputs.dataset_id, outputs.index)


async def _read_job(namespace: str, name: str) -> SecureTrainingJob | None:
    from lethe.adapters.kube import JOB_CR, Kube

    async with await Kube.connect() as kube:
        item = await kube.get(JOB_CR, name, namespace)
    return None if item is None else msgspec.convert(item, SecureTrainingJob)


def _open(target: _Target, identity: Path, credentials_dir: Path | None) -> Access:
    private_key = read_identity(identity)
    place = Place(target.storage, _credentials(credentials_dir))
    return Access.of_identity(place, target.dataset_id, target.pin, private_key)


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


def _check_names(name: str, namespace: str, tenant: str) -> None:
    for what, value, pattern in (
        ("--name", name, _NAME),
        ("--namespace", namespace, _LABEL),
        ("--tenant", tenant, _NAME),
    ):
        if not pattern.fullmatch(value):
            raise UsageError(f"{what} {value!r} is not a Kubernetes name: lower-case letters, digits and '-'")


def _credentials(folder: Path | None) -> str | dict[str, str] | None:
    if folder is not None:
        return str(folder)
    found = {key: os.environ[key] for key in (ACCESS_KEY, SECRET_KEY, SESSION_TOKEN) if os.environ.get(key)}
    return found or None


def _read_ca(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the CA file {path} cannot be read: {error}") from error


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr)
