"""Sealed data that is read in place, beside plaintext on the same file system: shuffled files, a long file, its parts.

All lies on tmpfs. What AES-256-GCM alone can do on this processor stands as a row of its own: nothing that decrypts is
faster.
"""

import json
import os
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import lethe.data
from lethe.crypto.aead import TAG_BYTES, RecordCipher
from tests.cluster.errors import NotSupported
from tests.cluster.folders import PROJECT
from tests.performance.report import Part, Row, quantile, spread
from tests.performance.trees import (
    BIG_BYTES,
    SMALL_FILES,
    SealedTree,
    folder_in_memory,
    in_turn,
    run,
    seal_tree,
    write_big,
    write_small,
)

ROUNDS = 5
INTEGRATIONS = PROJECT / ".venv-integrations" / "bin" / "python"
STEP = 1 << 20
SMALL_READ = 4096
SMALL_READS = 20_000
GIBIBYTE = 1 << 30


def measure_loader(folder: Path, part: Part) -> None:
    """Time epochs of a DataLoader."""
    if not INTEGRATIONS.is_file():
        raise NotSupported("torch is not here: run `make integrations` once, which makes an environment with it")
    with folder_in_memory(4 * GIBIBYTE) as memory:
        total = write_small(memory / "plain")
        tree = seal_tree(memory / "plain", memory)
        command = [INTEGRATIONS, "-m", "tests.performance.loader", memory / "plain", tree.pod, str(ROUNDS)]
        environment = {**os.environ, "PYTHONPATH": f"{PROJECT / 'operator'}:{PROJECT}"}
        done = subprocess.run(command, cwd=PROJECT, env=environment, stdout=subprocess.PIPE, check=True)
        found = json.loads(done.stdout)
    for workers in (0, 2):
        plain, ours = found[f"plain {workers}"], found[f"lethe {workers}"]
        assert {round_["bytes"] for round_ in [*plain, *ours]} == {total}
        for epoch in ("first", "later"):
            part.rows.append(
                _row(
                    f"DataLoader, {workers} workers, {epoch} epoch of {SMALL_FILES:,} files, beside plain files",
                    [round_[epoch] for round_ in ours],
                    [round_[epoch] for round_ in plain],
                    goal=1 / 0.9,
                )
            )
        part.rows.append(
            Row(
                measure=f"memory of a process that reads, {workers} workers, beside plain files",
                value=quantile([round_["memory"] for round_ in ours], 0.5),
                unit="MB",
                n=ROUNDS,
                beside=quantile([round_["memory"] for round_ in plain], 0.5),
            )
        )
    part.notes.append(
        "Batches of 64, shuffled, bytes only. A ratio of 1.11 is 90 % of the plaintext's rate. The memory of mapped "
        "objects is shared among the processes, and is the file system's."
    )


def measure_long(folder: Path, part: Part) -> None:
    """Time a long file from its beginning to its end, and small reads anywhere in it."""
    with folder_in_memory(6 * GIBIBYTE) as memory:
        write_big(memory / "plain")
        for bits, name in ((16, "64 KiB"), (20, "1 MiB")):
            tree = seal_tree(memory / "plain", memory / name, record_bits=bits)
            _read_through(memory, tree, bits, name, part)
            if bits == 16:
                _small_reads(memory, tree, part)
            shutil.rmtree(memory / name)
    part.notes.append("One process. AES alone decrypts one record that lies in the cache, again and again.")


def _read_through(memory: Path, tree: SealedTree, bits: int, name: str, part: Part) -> None:
    """Time reading the long file into one buffer, beside pread and beside the cipher alone."""
    files, buffer = lethe.data.EncryptedFiles(tree.source, tree.deks()), memoryview(bytearray(STEP))
    with _open(memory / "plain" / "big") as plain:
        times = in_turn(
            {
                "plain": partial(_read_plain, plain, buffer),
                "lethe": partial(_read_sealed, files, buffer),
                "aes": _aes_alone(1 << bits),
            },
            ROUNDS,
        )
    what = f"1 GiB from end to end, records of {name}"
    part.rows.append(_row(f"{what}, beside pread", times["lethe"], times["plain"], goal=1 / 0.9))
    part.rows.append(_row(f"{what}, beside AES-256-GCM alone", times["lethe"], times["aes"]))


def _small_reads(memory: Path, tree: SealedTree, part: Part) -> None:
    """Time small reads at random places, beside gocryptfs."""
    draw = random.Random(2)
    places = [draw.randrange(BIG_BYTES - SMALL_READ) for _ in range(SMALL_READS)]
    files, small = lethe.data.EncryptedFiles(tree.source, tree.deks()), memoryview(bytearray(SMALL_READ))

    def ours() -> None:
        for place in places:
            files.read_into(0, small, place)

    def read_from(descriptor: int, *, is_cold: bool = False) -> Callable[[], None]:
        def work() -> None:
            if is_cold:
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            for place in places:
                os.preadv(descriptor, [small], place)

        return work

    with gocryptfs(memory) as mounted:
        run("cp", memory / "plain" / "big", mounted / "big")
        with _open(memory / "plain" / "big") as plain, _open(mounted / "big") as peer:
            times = in_turn(
                {
                    "lethe": ours,
                    "plain": read_from(plain),
                    "gocryptfs": read_from(peer, is_cold=True),
                    "kept": read_from(peer),
                },
                ROUNDS,
            )
    what = f"{SMALL_READS:,} reads of 4 KiB anywhere in 1 GiB"
    part.rows.append(
        _row(f"{what}, beside gocryptfs, whose kernel keeps none", times["lethe"], times["gocryptfs"], goal=0.5)
    )
    part.rows.append(_row(f"{what}, beside gocryptfs, whose kernel keeps them all", times["lethe"], times["kept"]))
    part.rows.append(_row(f"{what}, beside pread", times["lethe"], times["plain"]))


@contextmanager
def gocryptfs(memory: Path) -> Iterator[Path]:
    """Mount an empty gocryptfs whose ciphertext lies in memory; raise NotSupported where it cannot be."""
    cipher, mounted, password = memory / "gocryptfs", memory / "mounted", memory / "password"
    cipher.mkdir()
    mounted.mkdir()
    password.write_text("bench\n")
    try:
        run("gocryptfs", "-q", "-init", "-scryptn=10", "-passfile", password, cipher)
        run("gocryptfs", "-q", "-passfile", password, cipher, mounted)
    except FileNotFoundError as error:
        raise NotSupported("gocryptfs is not here: apt-get install gocryptfs") from error
    try:
        yield mounted
    finally:
        run("fusermount3", "-u", mounted)


@contextmanager
def _open(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _read_plain(descriptor: int, buffer: memoryview) -> None:
    for start in range(0, BIG_BYTES, len(buffer)):
        assert os.preadv(descriptor, [buffer], start) == len(buffer)


def _read_sealed(files: lethe.data.EncryptedFiles, buffer: memoryview) -> None:
    for start in range(0, BIG_BYTES, len(buffer)):
        assert files.read_into(0, buffer, start) == len(buffer)


def _aes_alone(size: int) -> Callable[[], None]:
    cipher = RecordCipher(os.urandom(32), os.urandom(12))
    sealed, out = memoryview(cipher.seal(0, bytes(size))), memoryview(bytearray(size))
    assert len(sealed) == size + TAG_BYTES

    def work() -> None:
        for _ in range(BIG_BYTES // size):
            cipher.open_into(0, sealed, out)

    return work


def _row(measure: str, ours: list[float], beside: list[float], goal: float | None = None) -> Row:
    milliseconds = [1000 * seconds for seconds in ours]
    return Row(
        measure=measure,
        value=quantile(milliseconds, 0.5),
        unit="ms",
        n=len(ours),
        spread=spread(milliseconds, "ms"),
        beside=1000 * quantile(beside, 0.5),
        goal=None if goal is None else round(goal, 2),
        goal_of="ratio",
    )
