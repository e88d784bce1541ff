"""What keyfetch leaves for the training container, in a memory volume that only the two mount.

1. For each dataset a folder with `dek.<epoch>`, 32 raw bytes, and `source.json`, all 0440: their group is the pod's
   fsGroup, which the volume's set-group-id bit passes on.
2. Each file appears whole, by rename, `source.json` last; a rerun replaces them.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from lethe.model.dataset import DatasetSource

SOURCE: Final = "source.json"
_READABLE_BY_GROUP: Final = 0o440
_FOLDER: Final = 0o750


def write_dataset(folder: Path, source: DatasetSource, deks: Mapping[int, bytes]) -> None:
    """Write keys and source of one dataset into its own folder below `folder`."""
    place = folder / source.name
    for path in (folder, place):
        # The volume itself is there; `mkdir` keeps the inherited group and set-group-id bit, a chmod would drop it.
        path.mkdir(mode=_FOLDER, exist_ok=True)
    for epoch, dek in sorted(deks.items()):
        _write(place / f"dek.{epoch}", dek)
    _write(place / SOURCE, msgspec.json.encode(source))


def _write(file: Path, data: bytes) -> None:
    draft = file.with_name(f".{file.name}.new")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o400)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fchmod(stream.fileno(), _READABLE_BY_GROUP)
        draft.replace(file)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
