"""The images of Lethe and of its tests; an image whose inputs have not changed is not built again.

1. An image's inputs are its Containerfile, its wheels, the folders it copies, and the base image. Their hash is part
   of the archive's name.
2. Builds are hermetic: all that a Containerfile copies is put into one fresh folder, and nothing is downloaded inside.
"""

import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.simgpu.libraries import build_libraries, missing_build_tools

from . import builders, debian, wheels
from .errors import ClusterError
from .folders import PROJECT
from .hashing import content_files, content_hash
from .progress import step
from .scratch import archive_path


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """An image: its name, its Containerfile, what pip installs, and folders (place in the build -> place in the tree).

    `with_lethe` puts Lethe's own wheel into `dist/`; third-party wheels are in `wheels/`. `compiles` puts into `lib/`
    what this machine's C compiler makes of the folders: the base image has none.
    """

    reference: str
    containerfile: Path
    requirements: tuple[str, ...]
    with_lethe: bool = False
    folders: Mapping[str, Path] = field(default_factory=dict)
    compiles: Callable[[Path], object] | None = None


RECIPES = (
    Recipe(
        reference="localhost/lethe:dev",
        containerfile=PROJECT / "images" / "Containerfile",
        requirements=("lethe-operator[operator,keyservice,scrub,data,clouds]",),
        with_lethe=True,
    ),
    Recipe(
        reference="localhost/lethe-example-train:dev",
        containerfile=PROJECT / "examples" / "digits" / "Containerfile",
        requirements=("lethe-operator[data]", "numpy", "pillow", "cuda-bindings>=12.9,<13"),
        with_lethe=True,
        folders={"digits": PROJECT / "examples" / "digits"},
    ),
    Recipe(
        reference="localhost/lethe-simgpu:dev",
        containerfile=PROJECT / "tests" / "simgpu" / "Containerfile",
        requirements=("grpcio", "protobuf"),
        folders={
            "simgpu": PROJECT / "tests" / "simgpu",
            "kernels": PROJECT / "operator" / "lethe" / "agents" / "kernels",
        },
        compiles=build_libraries,
    ),
)


def recipe(reference: str) -> Recipe:
    """Return the recipe of an image, by its whole name or its last part without tag."""
    for each in RECIPES:
        if reference in (each.reference, each.reference.removeprefix("localhost/").removesuffix(":dev")):
            return each
    raise ClusterError(
        f"There is no image {reference!r}; the images are {', '.join(each.reference for each in RECIPES)}."
    )


def build(made: Recipe) -> Path:
    """Return the archive of an image that is up to date."""
    builder = builders.choose()
    if not made.containerfile.exists():
        raise ClusterError(f"{made.containerfile} is missing; the image {made.reference} cannot be built without it.")
    third_party = wheels.third_party(made.requirements)
    own = [wheels.own()] if made.with_lethe else []
    inputs = [made.containerfile, *own, *made.folders.values()]
    key = content_hash(
        builder.base(), *sorted(path.name for path in third_party.iterdir()), *made.folders, paths=inputs
    )
    target = archive_path(made.reference, key)
    if not target.exists():
        with (
            step(f"Building the image {made.reference}"),
            tempfile.TemporaryDirectory(prefix="lethe-image-") as context,
        ):
            _furnish(Path(context), made, third_party, own)
            builder.build(Path(context), reference=made.reference, archive=target)
        _remove_older(target, key)
    return target


def build_all() -> list[Path]:
    """Return the archives of all images, built where they are not up to date."""
    return [build(made) for made in RECIPES]


def _furnish(context: Path, made: Recipe, third_party: Path, own: list[Path]) -> None:
    shutil.copyfile(made.containerfile, context / "Containerfile")
    shutil.copytree(third_party, context / "wheels")
    (context / "dist").mkdir()
    for wheel in own:
        shutil.copyfile(wheel, context / "dist" / wheel.name)
    for place, folder in made.folders.items():
        for file in content_files(folder):
            copy = context / place / file.relative_to(folder)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, copy)
    if made.compiles is not None:
        if missing_build_tools():
            debian.require(debian.IMAGES)
        made.compiles(context / "lib")


def _remove_older(target: Path, key: str) -> None:
    for archive in target.parent.glob(target.name.replace(key, "*")):
        if archive != target:
            archive.unlink()
