"""Two ways to build an image from a Containerfile: buildah with a base of Debian packages, or a Docker engine.

1. As root on Debian: buildah, without a daemon and without a registry. The base is made by mmdebstrap.
2. Else a Docker engine, with the base that the Containerfile names (LETHE_BASE_IMAGE takes another).
3. LETHE_IMAGE_BUILDER=buildah or docker decides otherwise.
"""

import os
import shutil
from pathlib import Path
from typing import Protocol

from . import debian, folders
from .commands import attempt, run
from .errors import ClusterError
from .hashing import content_hash
from .progress import step

BASE_IMAGE = "localhost/lethe-base:dev"
SUITE = "bookworm"
BASE_PACKAGES = ("python3", "python3-pip", "ca-certificates")
UNREAD = ("/usr/share/man/*", "/usr/share/doc/*", "/usr/share/locale/*", "/usr/share/info/*")
SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Builder(Protocol):
    """Builds images from a folder that holds a Containerfile and all that it copies."""

    def base(self) -> str:
        """Return words that tell the base image apart from every other: they go into the images' hashes."""

    def build(self, context: Path, *, reference: str, archive: Path) -> None:
        """Build the image and write it as an archive."""


def choose() -> Builder:
    """Return the builder for this machine."""
    wanted = os.environ.get("LETHE_IMAGE_BUILDER", "")
    if wanted not in ("", "buildah", "docker"):
        raise ClusterError(f"LETHE_IMAGE_BUILDER is {wanted!r}; expected `buildah` or `docker`.")
    debian_root = os.geteuid() == 0 and shutil.which("dpkg-query") is not None
    if wanted == "buildah" or (not wanted and debian_root):
        return Buildah()
    if wanted == "docker" or docker_answers():
        return Docker()
    raise ClusterError(
        "Images are built by buildah as root on Debian, or by a Docker engine; this user is "
        "not root there, and no engine answers `docker info`."
    )


def docker_answers() -> bool:
    """Say whether a Docker engine can be reached."""
    return shutil.which("docker") is not None and attempt(["docker", "info"], timeout=30).returncode == 0


class Buildah:
    """buildah with a store of its own in the cache."""

    def __init__(self) -> None:
        self.folder = folders.cache() / "images" / "buildah"

    def base(self) -> str:
        return content_hash(SUITE, *BASE_PACKAGES, *UNREAD, SEARCH_PATH)

    def build(self, context: Path, *, reference: str, archive: Path) -> None:
        debian.require(debian.IMAGES)
        with folders.exclusive(self.folder / "lock"):
            self._make_base()
            self._run(
                "build", "--isolation=chroot", "--layers", f"--build-arg=BASE={BASE_IMAGE}", "--pull-never",
                f"--tag={reference}", f"--file={context}/Containerfile", str(context),
            )  # fmt: skip
            part = archive.with_name(archive.name + ".part")
            part.unlink(missing_ok=True)
            self._run(
                "push",
                "--compression-format=zstd",
                "--compression-level=1",
                reference,
                f"oci-archive:{part}:{reference}",
            )
            part.rename(archive)

    def _make_base(self) -> None:
        labelled = f"lethe.dev/base={self.base()}"
        if self._run("images", "--quiet", f"--filter=label={labelled}").strip():
            return
        with step("Making the base image from Debian packages"):
            rootfs = self.folder / "rootfs.tar"
            slim = [f"--dpkgopt=path-exclude={pattern}" for pattern in UNREAD]
            run(
                [
                    "mmdebstrap",
                    "--quiet",
                    "--variant=minbase",
                    *slim,
                    f"--include={','.join(BASE_PACKAGES)}",
                    SUITE,
                    rootfs,
                ]
            )
            container = self._run("from", "scratch").strip()
            self._run("add", "--quiet", container, str(rootfs), "/")
            self._run("config", f"--label={labelled}", f"--env=PATH={SEARCH_PATH}", container)
            self._run("commit", "--quiet", "--rm", container, BASE_IMAGE)
            rootfs.unlink()

    def _run(self, *words: str) -> str:
        store: list[str | Path] = [
            "--root",
            self.folder / "store",
            "--runroot",
            self.folder / "run",
            "--storage-driver",
            self._driver(),
        ]
        return run(["buildah", *store, *words])

    def _driver(self) -> str:
        # overlay cannot lie on overlay (a machine that is itself a container): then plain copies.
        file_system = run(["stat", "--file-system", "--format=%T", folders.cache()]).strip()
        return "vfs" if file_system == "overlayfs" else "overlay"


class Docker:
    """The Docker engine of this user."""

    def base(self) -> str:
        return f"docker {os.environ.get('LETHE_BASE_IMAGE', '')}"

    def build(self, context: Path, *, reference: str, archive: Path) -> None:
        other = os.environ.get("LETHE_BASE_IMAGE")
        base = [f"--build-arg=BASE={other}"] if other else []
        run(["docker", "build", *base, f"--tag={reference}", f"--file={context}/Containerfile", context])
        part = archive.with_name(archive.name + ".part")
        run(["docker", "save", f"--output={part}", reference])
        part.rename(archive)
