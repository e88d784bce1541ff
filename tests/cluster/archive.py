"""Image archives in the form that `docker save` writes: read by containerd, by kind and by Docker."""

import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .errors import ClusterError


def references(archive: Path) -> list[str]:
    """Return the names of the images in an archive."""
    try:
        with tarfile.open(archive) as tar:
            member = tar.extractfile("manifest.json")
            assert member is not None
            manifest = json.load(member)
    except (KeyError, tarfile.TarError, json.JSONDecodeError) as error:
        raise ClusterError(f"{archive} is no image archive as `docker save` writes it ({error}); build it again.") from error
    return [reference for image in manifest for reference in image["RepoTags"]]


def write(archive: Path, *, reference: str, files: Mapping[str, Path], config: Mapping[str, Any]) -> None:
    """Write an image of one layer that holds just these files (path in the image -> file), all executable.

    The same input gives the same bytes; `config` is the image's configuration as Docker names it (Entrypoint, User).
    """
    layer = archive.with_name(archive.name + ".layer")
    with tarfile.open(layer, "w") as tar:
        for target, source in sorted(files.items()):
            info = tarfile.TarInfo(target.lstrip("/"))
            info.size, info.mode = source.stat().st_size, 0o755
            with source.open("rb") as content:
                tar.addfile(info, content)
    with layer.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    document = {
        "architecture": "amd64",
        "os": "linux",
        "config": dict(config),
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
    }
    image = json.dumps(document, sort_keys=True).encode()
    name = hashlib.sha256(image).hexdigest()
    manifest = [{"Config": f"{name}.json", "RepoTags": [reference], "Layers": [f"{digest}.tar"]}]
    part = archive.with_name(archive.name + ".part")
    with tarfile.open(part, "w") as tar:
        tar.add(layer, arcname=f"{digest}.tar", filter=_anonymous)
        _add(tar, f"{name}.json", image)
        _add(tar, "manifest.json", json.dumps(manifest).encode())
    layer.unlink()
    part.rename(archive)


def import_into_node(archive: Path, ctr: Callable[..., str], *, seen_as: str | None = None) -> None:
    """Import an archive by a node's `ctr` and give each of its images a name by digest too.

    An image that came from an archive has no such name, and for a pod that asks for `name@sha256:...` the kubelet
    would turn to a registry. `seen_as` is the archive's path on the node where that is another.
    """
    ctr("images", "import", seen_as or str(archive))
    name_by_digest(references(archive), ctr)


def name_by_digest(names: Sequence[str], ctr: Callable[..., str]) -> None:
    """Name each image of a node by `repository@digest` too."""
    for name in names:
        lines = ctr("images", "list", f"name=={name}").splitlines()[1:]
        if len(lines) != 1:
            raise ClusterError(f"The node has {len(lines)} images named {name} after the import; expected one.")
        digest = lines[0].split()[2]
        ctr("images", "tag", "--force", name, f"{name.rpartition(':')[0]}@{digest}")


def _anonymous(info: tarfile.TarInfo) -> tarfile.TarInfo:
    info.mtime, info.uid, info.gid, info.uname, info.gname = 0, 0, 0, "", ""
    return info


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))
