"""Images of one file, for programs of ours that need no file system: pause, cluster DNS, the S3 server."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from . import archive, folders, tools


def archive_path(reference: str, key: str) -> Path:
    """Return where the archive of an image lies whose inputs have this hash."""
    folder = folders.cache() / "images"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{reference.rpartition('/')[2].replace(':', '-')}-{key}.tar"


def scratch_image(reference: str, files: Mapping[str, Path]) -> Path:
    """Return the archive of an image that holds just these built programs; the first one is its entry point."""
    key = hashlib.sha256("\0".join([tools.source_hash(), *files]).encode()).hexdigest()[:16]
    target = archive_path(reference, key)
    if not target.exists():
        archive.write(target, reference=reference, files=files, config={"Entrypoint": [next(iter(files))]})
    return target
