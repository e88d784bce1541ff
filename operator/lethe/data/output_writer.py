"""Seals what a job left in its outputs folder, as a dataset of its own.

1. Each sealing goes under `<url>/<dataset id>`: a later attempt, or another job, never overwrites an earlier result.
2. Files and folders named `.*` or `*.partial` are not finished: they are left out and named. So are links and special
   files; the rest of the results is not lost for them. `.metadata` is finished: PyTorch's distributed checkpoints give
   their last and most needed file that name, when all is written.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from lethe.crypto.derive import random_bytes
from lethe.data.seal import KeyPolicy, seal_folder
from lethe.formats.header import ID_BYTES
from lethe.model.agentconfig import OutputsConfig, OutputsMessage
from lethe.model.resources import Storage

PARTIAL_SUFFIX = ".partial"
CHECKPOINT_METADATA = ".metadata"


@dataclass(frozen=True)
class OutputsResult:
    """A sealing that is complete on storage."""

    message: OutputsMessage
    left_out: tuple[str, ...]


def is_unfinished(name: str) -> bool:
    """Say whether a file or folder of this name is not to be sealed."""
    return name != CHECKPOINT_METADATA and (name.startswith(".") or name.endswith(PARTIAL_SUFFIX))


def seal_outputs(
    folder: Path,
    storage: Storage,
    credentials: str | Mapping[str, str] | None,
    config: OutputsConfig,
    *,
    workers: int | None = None,
    random: Callable[[int], bytes] = random_bytes,
) -> OutputsResult:
    """Seal and upload all finished files, the index last."""
    dataset_id = random(ID_BYTES)
    place = msgspec.structs.replace(storage, url=f"{storage.url.rstrip('/')}/{dataset_id.hex()}")
    policy = KeyPolicy(config.tenant, config.namespace, tuple(config.recipients), config.criticality, config.scheme)
    sealed = seal_folder(
        folder,
        place,
        credentials,
        policy,
        dataset_id=dataset_id,
        workers=workers,
        skip=is_unfinished,
        is_fresh_prefix=True,
        random=random,
    )
    message = OutputsMessage(
        dataset_id=sealed.dataset_id, index=sealed.index, files=sealed.files, bytes=sealed.bytes, url=place.url
    )
    return OutputsResult(message, sealed.left_out)
