"""Folders of plain files for the benchmarks of data, and the same sealed, on a file system in memory."""

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from lethe.crypto.hpke import PrivateKey
from lethe.data.access import Access, Place
from lethe.data.seal import Sealed, seal_folder
from lethe.formats.header import DEFAULT_RECORD_BITS
from lethe.model.dataset import DatasetSource
from lethe.model.resources import Storage
from tests.cluster.errors import NotSupported
from tests.common.datasets import policy_for

MEMORY = Path("/dev/shm")
SMALL_FILES = 20_000
SMALL_SIZES = (10_000, 100_000)
BIG_BYTES = 1 << 30
FOLDERS = 100


@contextmanager
def folder_in_memory(needed: int) -> Iterator[Path]:
    """Give a folder on tmpfs with so many bytes free; raise NotSupported where there is none."""
    if not MEMORY.is_dir():
        raise NotSupported(f"{MEMORY} is not there: these measurements need a file system in memory")
    status = os.statvfs(MEMORY)
    free = status.f_bavail * status.f_frsize
    if free < needed:
        raise NotSupported(f"{MEMORY} has {free} bytes free, these measurements need {needed}")
    with TemporaryDirectory(prefix="lethe-bench-", dir=MEMORY) as folder:
        yield Path(folder)


def write_small(root: Path) -> int:
    """Write many files as pictures are: of random size and contents; return their bytes."""
    draw, pool, total = random.Random(1), os.urandom(8 << 20), 0
    for number in range(FOLDERS):
        (root / f"{number:02d}").mkdir(parents=True)
    for number in range(SMALL_FILES):
        size = draw.randint(*SMALL_SIZES)
        begin = draw.randrange(len(pool) - size)
        (root / f"{number % FOLDERS:02d}" / f"{number:05d}.jpg").write_bytes(pool[begin : begin + size])
        total += size
    return total


def write_big(root: Path) -> int:
    """Write one large file; return its bytes."""
    root.mkdir(parents=True)
    block = os.urandom(64 << 20)
    with (root / "big").open("wb") as file:
        for _ in range(BIG_BYTES // len(block)):
            file.write(block)
    return BIG_BYTES


@dataclass(frozen=True)
class SealedTree:
    """A sealed folder with what opens it, as a pod finds it and as a person does."""

    sealed: Sealed
    source: DatasetSource
    pod: Path
    """The folder that LETHE_DATASETS names; the dataset is called `bench`."""
    identity: Path
    """File of the private key."""

    def deks(self) -> dict[int, bytes]:
        """Return the keys by epoch."""
        return {1: (self.pod / "bench" / "dek.1").read_bytes()}


def seal_tree(plain: Path, folder: Path, *, record_bits: int = DEFAULT_RECORD_BITS) -> SealedTree:
    """Seal a folder into `folder`/sealed."""
    key = PrivateKey.generate("X25519")
    storage = Storage(url=f"file://{folder}/sealed")
    sealed = seal_folder(plain, storage, None, policy_for(key), record_bits=record_bits)
    access = Access.of_identity(Place(storage, None), sealed.dataset_id, sealed.index, key)
    source = DatasetSource(name="bench", dataset_id=sealed.dataset_id, index=sealed.index, storage=storage)
    pod = folder / "run"
    (pod / "bench").mkdir(parents=True)
    (pod / "bench" / "source.json").write_bytes(msgspec.json.encode(source))
    for epoch, dek in access.deks.items():
        (pod / "bench" / f"dek.{epoch}").write_bytes(dek)
    identity = folder / "identity"
    identity.write_text(key.encode())
    identity.chmod(0o600)
    return SealedTree(sealed, source, pod, identity)


def timed(work: Callable[[], object]) -> float:
    """Return the seconds that this takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def in_turn(works: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Time all of it in turn, so that all sides meet the same load; return seconds of each round."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            times[name].append(timed(work))
    return times


def run(*words: str | Path, cwd: Path | None = None, **environment: str) -> None:
    """Run a program to its end; its output is shown only when it fails."""
    done = subprocess.run(
        [str(word) for word in words], cwd=cwd, env={**os.environ, **environment}, capture_output=True, check=False
    )
    if done.returncode:
        raise NotSupported(f"{' '.join(map(str, words[:3]))} failed: {done.stderr.decode(errors='replace')[-500:]}")


def run_together(commands: Sequence[Sequence[str | Path]]) -> None:
    """Run programs side by side and wait for all."""
    running = [subprocess.Popen([str(word) for word in words], stdout=subprocess.DEVNULL) for words in commands]
    for process in running:
        if process.wait():
            raise NotSupported(f"{process.args!r} failed with {process.returncode}")


def lethe() -> Path:
    """Return the command `lethe` of this environment."""
    return Path(sys.executable).with_name("lethe")
