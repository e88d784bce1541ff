"""Where things lie: what can be kept between runs (the cache) and what belongs to one cluster (its state)."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]


def cache() -> Path:
    """Return the folder of built binaries and images; it may be deleted at any time when no cluster is up."""
    return Path(os.environ.get("LETHE_CACHE") or Path.home() / ".cache" / "lethe").absolute()


def state(provider: str) -> Path:
    """Return the folder that holds all that belongs to the cluster of this provider."""
    return state_root() / provider


def state_root() -> Path:
    """Return the folder of all clusters; LETHE_STATE moves it."""
    return Path(os.environ.get("LETHE_STATE") or cache() / "cluster").absolute()


def kept_logs(provider: str) -> Path:
    """Return where the logs of a failed run are kept when its cluster is gone."""
    return state_root() / "logs" / provider


def empty(folder: Path) -> Path:
    """Return the folder, made anew with nothing in it."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    return folder


@contextmanager
def exclusive(lock: Path) -> Iterator[None]:
    """Wait until no other process holds the lock file, and hold it: the cache is shared by all runs of this user."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def write_if_changed(path: Path, text: str) -> None:
    """Write a file unless it says the same already: kube-proxy, for one, ends when its configuration is touched."""
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only its owner can read, so that no reader ever sees half of it."""
    part = path.with_name(path.name + ".part")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
    part.rename(path)
