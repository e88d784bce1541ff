"""How large the image with the scrubber is, beyond the base image that it is built on."""

import json
import tarfile
import zipfile
from pathlib import Path
from typing import Any

from tests.cluster import images, wheels
from tests.cluster.archive import manifests
from tests.performance.report import Part, Row

GOAL_MB = 200
_REFERENCE = "localhost/lethe:dev"
_BASE_LAYERS = 1
"""The base image has one layer."""


def measure(folder: Path, part: Part) -> None:
    """Read it from the image's archive, and from the wheels that it holds."""
    recipe = images.recipe(_REFERENCE)
    layers = _layer_sizes(images.build(recipe))
    holds = [*wheels.third_party(recipe.requirements).iterdir(), wheels.own()]
    unpacked = sum(member.file_size for wheel in holds for member in zipfile.ZipFile(wheel).infolist())
    part.rows += [
        Row(measure="the image over its base, unpacked", value=unpacked / 1e6, unit="MB", n=1, goal=GOAL_MB),
        Row(measure="the image over its base, as it is pulled", value=sum(layers[_BASE_LAYERS:]) / 1e6, unit="MB", n=1),
    ]
    part.notes.append("One image holds all of Lethe's programs; layers are compressed with zstd, level 1.")


def _layer_sizes(archive: Path) -> list[int]:
    with tarfile.open(archive) as tar:
        algorithm, digest = manifests(archive)[_REFERENCE].split(":")
        file = tar.extractfile(f"blobs/{algorithm}/{digest}")
        assert file is not None
        manifest: dict[str, Any] = json.load(file)
    return [layer["size"] for layer in manifest["layers"]]
