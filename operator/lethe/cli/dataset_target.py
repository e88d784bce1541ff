"""Which dataset a command is about, and how it is reached: options that several commands share."""

import asyncio
import functools
import inspect
import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import typer
import yaml

from lethe.adapters.objectstore import CREDENTIAL_NAMES, SERVICE_ACCOUNT
from lethe.cli.key import read_identity
from lethe.data.access import Access, Place
from lethe.formats.index import check_dataset_id, check_pin
from lethe.model.errors import InputError, UsageError
from lethe.model.names import JobUid, outputs_dataset, outputs_url
from lethe.model.resources import EncryptedDataset, IndexPin, SecureTrainingJob, Storage

LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")

Endpoint = Annotated[
    str | None, typer.Option(help="https://host:port of the storage server; default: that of AWS, Google or Azure.")
]
Region = Annotated[str | None, typer.Option(help="Region of the S3 server.")]
CaFile = Annotated[Path | None, typer.Option(help="PEM certificates that vouch for the endpoint.")]
CredentialsDir = Annotated[
    Path | None,
    typer.Option(help="Folder with a file per credential, such as AWS_ACCESS_KEY_ID; default: the environment."),
]
Identity = Annotated[Path, typer.Option("--identity", "-i", help="Private key file of `lethe key generate`.")]
OptionalIdentity = Annotated[
    Path | None, typer.Option("--identity", "-i", help="Private key file of `lethe key generate`.")
]
OutputFormat = Annotated[Literal["text", "json"], typer.Option("--output", "-o", help="text or json.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Processes; default: by size and processors.")]


@dataclass(frozen=True)
class Target:
    """What pins a dataset, and what reaches it."""

    storage: Storage
    dataset_id: str
    pin: IndexPin | None
    """None for outputs of which nothing but what lies on storage tells the newest index."""
    credentials: str | Mapping[str, str] | None = field(default=None, repr=False)
    manifest: Mapping[str, Any] | None = None
    """The document that it was read from."""

    @property
    def place(self) -> Place:
        """Return where the dataset's objects lie."""
        return Place(self.storage, self.credentials)

    def open(self, identity: Path) -> Access:
        """Return what reads the dataset, with the keys that a private key opens."""
        if self.pin is not None:
            return Access.of_identity(self.place, self.dataset_id, self.pin, read_identity(identity))
        access = Access.of_newest(self.place, self.dataset_id, read_identity(identity))
        say(f"not pinned: this is the newest snapshot that {self.storage.url} shows, index {access.pin.object}")
        return access

    def require_pin(self) -> IndexPin:
        """Return the pin; raise UsageError for a command that does not work without."""
        if self.pin is None:
            raise UsageError("--index and --sha256 are missing: this needs a dataset that is pinned")
        return self.pin


def takes_dataset(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command all options that say which dataset it is about; it gets them as `target`."""
    shared = inspect.signature(_find_target).parameters
    own = inspect.signature(command).parameters

    @functools.wraps(command)
    def run(**options: object) -> None:
        command(target=_find_target(**{name: options.pop(name) for name in shared}), **options)  # type: ignore[arg-type]

    parameters = [*(own[name] for name in own if name != "target"), *shared.values()]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in parameters]
    )
    return run


def _find_target(
    manifest: Annotated[Path | None, typer.Option("--manifest", "-f", help="EncryptedDataset as YAML.")] = None,
    job: Annotated[str | None, typer.Option(help="NAMESPACE/NAME of a job: its outputs.")] = None,
    url: Annotated[str | None, typer.Option(help="Storage URL, with --dataset-id, and --index and --sha256.")] = None,
    dataset_id: Annotated[str | None, typer.Option(help="Dataset id, 32 hex digits.")] = None,
    index: Annotated[str | None, typer.Option("--index", help="Object id of the index, 32 hex digits.")] = None,
    sha256: Annotated[str | None, typer.Option("--sha256", help="SHA-256 of the index object, 64 hex digits.")] = None,
    endpoint: Endpoint = None,
    region: Region = None,
    ca_file: CaFile = None,
    credentials_dir: CredentialsDir = None,
) -> Target:
    if sum(source is not None for source in (manifest, job, url)) != 1:
        raise UsageError("say which dataset: exactly one of --manifest FILE, --job NAMESPACE/NAME, --url URL")
    if manifest is not None:
        target = _from_manifest(manifest)
    elif job is not None:
        target = _from_job(job)
    elif url is not None and dataset_id and bool(index) == bool(sha256):
        pin = IndexPin(object=index, sha256=sha256) if index and sha256 else None
        target = Target(Storage(url=url), dataset_id, pin)
    else:
        raise UsageError(
            "--url needs --dataset-id, --index and --sha256 too: they pin the dataset's version. Only outputs of a job "
            "that still runs, or was lost, are read without the last two"
        )
    check_dataset_id(target.dataset_id)
    if target.pin is not None:
        check_pin(target.pin, target.dataset_id)
    changes = {"endpoint": endpoint, "region": region, "ca_bundle": read_ca(ca_file)}
    storage = msgspec.structs.replace(target.storage, **{key: value for key, value in changes.items() if value})
    return replace(target, storage=storage, credentials=find_credentials(credentials_dir, storage.url))


def _from_manifest(path: Path) -> Target:
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
    return Target(dataset.spec.storage, dataset.spec.dataset_id, dataset.spec.index, manifest=datasets[0])


def _from_job(text: str) -> Target:
    namespace, _, name = text.partition("/")
    if not (LABEL.fullmatch(namespace) and NAME.fullmatch(name)):
        raise UsageError(f"--job {text!r} is not NAMESPACE/NAME")
    job = asyncio.run(_read_job(namespace, name))
    if job is None:
        raise UsageError(f"there is no job {text}")
    if job.spec.outputs is None:
        raise UsageError(f"job {text} has no outputs: it was made without spec.outputs")
    storage, outputs = job.spec.outputs.storage, job.status.outputs
    if outputs is not None:
        return Target(msgspec.structs.replace(storage, url=outputs.url), outputs.dataset_id, outputs.index)
    if not job.status.attempt:
        raise UsageError(f"job {text} has not begun: its phase is {job.status.phase}")
    dataset_id = outputs_dataset(JobUid(job.metadata.uid), job.status.attempt)
    return Target(msgspec.structs.replace(storage, url=outputs_url(storage.url, dataset_id)), dataset_id, None)


async def _read_job(namespace: str, name: str) -> SecureTrainingJob | None:
    from lethe.adapters.kube import JOB_CR, Kube

    async with await Kube.connect() as kube:
        item = await kube.get(JOB_CR, name, namespace)
    return None if item is None else msgspec.convert(item, SecureTrainingJob)


def find_credentials(folder: Path | None, url: str) -> str | dict[str, str] | None:
    """Return the folder with credentials, or those that the environment has for storage of this kind."""
    if folder is not None:
        return str(folder)
    names = CREDENTIAL_NAMES.get(url.partition("://")[0], ())
    found = {name: os.environ[name] for name in names if os.environ.get(name)}
    path = found.get(SERVICE_ACCOUNT, "{")
    if not path.startswith("{"):
        try:
            found[SERVICE_ACCOUNT] = Path(path).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{SERVICE_ACCOUNT} is {path}, which cannot be read: {error}") from error
    return found or None


def read_ca(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the CA file {path} cannot be read: {error}") from error


def say(sentence: str) -> None:
    print(sentence, file=sys.stderr)
