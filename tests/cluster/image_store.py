"""Containerd's folder with all images in it, made once; every new node starts with a copy.

1. Unpacking some hundred megabytes on each node takes a minute; the copy is made of hard links and takes a second.
   Files of images are never changed in place (a container writes to a layer of its own), so nodes may share them.
2. Databases are copied for real: each node writes its own.
3. The folder is named by the archives that it holds.
"""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from . import archive, folders, waiting
from .commands import attempt, run
from .errors import ClusterError
from .hashing import content_hash
from .progress import step

CONFIGURATION = """\
version = 3
root = "{root}"
state = "{state}"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime"]

[grpc]
address = "{socket}"
"""


def filled(archives: Sequence[Path], bin: Path) -> Path:
    """Return the folder that holds these archives' images."""
    key = content_hash(*sorted(each.name for each in archives))
    stores = folders.cache() / "images" / "stores"
    with folders.exclusive(stores.with_name("stores.lock")):
        return _filled(stores / key, archives, bin)


def copy(store: Path, target: Path) -> None:
    """Make a node's folder from the filled one."""
    part = target.with_name(target.name + ".part")
    if part.exists():
        shutil.rmtree(part)
    linked = attempt(["cp", "--archive", "--link", store, part])
    if linked.returncode != 0:
        # Another file system: hard links cannot reach it.
        shutil.rmtree(part, ignore_errors=True)
        run(["cp", "--archive", store, part])
    for database in part.rglob("*.db"):
        if "snapshots" in database.relative_to(part).parts:
            continue
        own = database.with_suffix(".own")
        shutil.copyfile(database, own)
        own.rename(database)
    part.rename(target)


def _filled(store: Path, archives: Sequence[Path], bin: Path) -> Path:
    if not store.exists():
        store.parent.mkdir(parents=True, exist_ok=True)
        with step("Unpacking images, once for all nodes"):
            part = Path(tempfile.mkdtemp(dir=store.parent, prefix="part-"))
            _fill(part, archives, bin)
            part.rename(store)
        for older in store.parent.iterdir():
            if older != store:
                shutil.rmtree(older)
    return store


def _fill(root: Path, archives: Sequence[Path], bin: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="lethe-images-") as folder:
        socket = Path(folder) / "containerd.sock"
        config = Path(folder) / "containerd.toml"
        config.write_text(CONFIGURATION.format(root=root, state=Path(folder) / "state", socket=socket))
        log = Path(folder) / "log"
        with log.open("wb") as file:
            path = {**os.environ, "PATH": f"{bin}:{os.environ.get('PATH', '')}"}
            daemon = subprocess.Popen([bin / "containerd", "--config", config], stdout=file, stderr=file, env=path)
        try:
            client = _client(bin, socket)
            waiting.until(lambda: _answers(client), what="containerd, which unpacks the images", seconds=60)
            for each in archives:
                archive.import_into_node(each, client)
        except ClusterError as error:
            end = "\n".join(log.read_text(errors="replace").splitlines()[-10:])
            raise ClusterError(f"{error}\nThe end of containerd's log:\n{end}") from error
        finally:
            daemon.send_signal(signal.SIGTERM)
            daemon.wait()


def _client(bin: Path, socket: Path) -> Callable[..., str]:
    return lambda *words: run([bin / "ctr", "--address", socket, "--namespace", "k8s.io", *words])


def _answers(client: Callable[..., str]) -> bool:
    try:
        client("version")
    except ClusterError:
        return False
    return True
