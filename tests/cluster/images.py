"""Images made here, as archives in the cache; an image whose inputs have not changed is not built again.

1. The name of an archive holds the hash of all that goes into it.
2. Programs of ours that need no file system (pause, DNS, S3 server) are images of one file: no builder is needed.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from . import archive, folders, tools


def images_folder() -> Path:
    """Return the cache folder of image archives."""
    folder = folders.cache() / "images"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def archive_path(reference: str, key: str) -> Path:
    """Return where the archive of an image lies whose inputs have this hash."""
    name = reference.rpartition("/")[2].replace(":", "-")
    return images_folder() / f"{name}-{key}.tar"


def scratch_image(reference: str, files: Mapping[str, Path]) -> Path:
    """Return the archive of an image that holds just these programs of ours; the first one is its entry point."""
    key = hashlib.sha256("\0".join([tools.source_hash(), *files]).encode()).hexdigest()[:16]
    target = archive_path(reference, key)
    if not target.exists():
        archive.write(target, reference=reference, files=files, config={"Entrypoint": [next(iter(files))]})
    return target
