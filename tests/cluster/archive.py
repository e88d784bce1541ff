"""Image archives: OCI layouts in a tar file, read by containerd and by kind (and, as `docker save` writes, by Docker).

Layers are named by their digests, so that a node that has a layer does not read it again.
"""

import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .errors import ClusterError

NAME = "io.containerd.image.name"
REFERENCE = "org.opencontainers.image.ref.name"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"


def references(archive: Path) -> list[str]:
    """Return the names of the images in an archive."""
    return list(manifests(archive))


def manifests(archive: Path) -> dict[str, str]:
    """Return the digest of each image's manifest, by the image's name."""
    try:
        with tarfile.open(archive) as tar:
            member = tar.extractfile("index.json")
            assert member is not None
            index = json.load(member)
    except (KeyError, tarfile.TarError, json.JSONDecodeError) as error:
        raise ClusterError(f"{archive} is no OCI image archive ({error}); remove it and build it again.") from error
    found = {}
    for manifest in index["manifests"]:
        annotations = manifest.get("annotations", {})
        name = annotations.get(NAME) or annotations.get(REFERENCE, "")
        if "/" in name:
            found[name] = manifest["digest"]
    return found


def write(archive: Path, *, reference: str, files: Mapping[str, Path], config: Mapping[str, Any]) -> None:
    """Write an image of one layer that holds just these files (path in the image -> file), all executable.

    The same input gives the same bytes; `config` is the image's configuration in OCI's words (Entrypoint, User).
    """
    layer = archive.with_name(archive.name + ".layer")
    with tarfile.open(layer, "w") as tar:
        for target, source in sorted(files.items()):
            info = tarfile.TarInfo(target.lstrip("/"))
            info.size, info.mode = source.stat().st_size, 0o755
            with source.open("rb") as content:
                tar.addfile(info, content)
    with layer.open("rb") as content:
        layer_digest = hashlib.file_digest(content, "sha256").hexdigest()
    image = _json(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": dict(config),
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer_digest}"]},
        }
    )
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": _descriptor(CONFIG_TYPE, image),
            "layers": [{"mediaType": LAYER_TYPE, "digest": f"sha256:{layer_digest}", "size": layer.stat().st_size}],
        }
    )
    entry = {**_descriptor(MANIFEST_TYPE, manifest), "annotations": {NAME: reference, REFERENCE: reference}}
    part = archive.with_name(archive.name + ".part")
    with tarfile.open(part, "w") as tar:
        _add(tar, "oci-layout", _json({"imageLayoutVersion": "1.0.0"}))
        _add(tar, "index.json", _json({"schemaVersion": 2, "manifests": [entry]}))
        for blob in (manifest, image):
            _add(tar, f"blobs/sha256/{hashlib.sha256(blob).hexdigest()}", blob)
        tar.add(layer, arcname=f"blobs/sha256/{layer_digest}", filter=_anonymous)
    layer.unlink()
    part.rename(archive)


def is_on_node(archive: Path, ctr: Callable[..., str]) -> bool:
    """Say whether a node has all images of the archive as they are in it."""
    return all(_digest_on_node(name, ctr) == digest for name, digest in manifests(archive).items())


def import_into_node(archive: Path, ctr: Callable[..., str]) -> None:
    """Import an archive by a node's `ctr`, unless the node has it, and name its images by digest too."""
    if not is_on_node(archive, ctr):
        ctr("images", "import", str(archive))
        name_by_digest(archive, ctr)


def name_by_digest(archive: Path, ctr: Callable[..., str]) -> None:
    """Name each image of an imported archive by `repository@digest` too.

    An image that came from an archive has no such name, and for a pod that asks for `name@sha256:...` the kubelet
    would turn to a registry.
    """
    for name in references(archive):
        digest = _digest_on_node(name, ctr)
        if not digest:
            raise ClusterError(f"The node has no image {name} after the import of {archive}; look at containerd's log.")
        ctr("images", "tag", "--force", name, f"{name.rpartition(':')[0]}@{digest}")


def _digest_on_node(name: str, ctr: Callable[..., str]) -> str:
    lines = ctr("images", "list", f"name=={name}").splitlines()[1:]
    return lines[0].split()[2] if lines else ""


def _json(document: object) -> bytes:
    return json.dumps(document, sort_keys=True).encode()


def _descriptor(media_type: str, blob: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": f"sha256:{hashlib.sha256(blob).hexdigest()}", "size": len(blob)}


def _anonymous(info: tarfile.TarInfo) -> tarfile.TarInfo:
    info.mtime, info.uid, info.gid, info.uname, info.gname = 0, 0, 0, "", ""
    return info


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))
