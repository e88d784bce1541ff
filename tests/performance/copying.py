"""Folders that are sealed and unsealed, beside `cp -r` and beside others that encrypt, start of programs included.

All lies on tmpfs; every side uses as many processes as its row says.
"""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.cluster.errors import NotSupported
from tests.performance.reading import GIBIBYTE, gocryptfs
from tests.performance.report import Part, Row, quantile, spread
from tests.performance.trees import (
    SMALL_FILES,
    SealedTree,
    folder_in_memory,
    lethe,
    run,
    run_together,
    seal_tree,
    timed,
    write_small,
)

ROUNDS = 5
PEER_ROUNDS = 3


def measure(folder: Path, part: Part) -> None:
    """Time seal and unseal of many small files beside cp."""
    with folder_in_memory(8 * GIBIBYTE) as memory:
        write_small(memory / "plain")
        tree = seal_tree(memory / "plain", memory)
        (memory / "one").mkdir()
        (memory / "one" / "file").write_bytes(b"1")
        one = seal_tree(memory / "one", memory / "one-sealed")
        halves = _halves(memory)
        times: dict[str, list[float]] = {}
        for _ in range(ROUNDS):
            for name, work in {
                "cp": lambda: run("cp", "-r", memory / "plain", memory / "out"),
                "two cp": lambda: _copy_halves(halves, memory / "out"),
                "start": lambda: _unseal(one, memory / "out", 1),
                "unseal 1": lambda: _unseal(tree, memory / "out", 1),
                "unseal 2": lambda: _unseal(tree, memory / "out", 2),
                "seal 1": lambda: _seal(memory, 1),
                "seal 2": lambda: _seal(memory, 2),
            }.items():
                times.setdefault(name, []).append(timed(work))
                shutil.rmtree(memory / "out")
    what = f"{SMALL_FILES:,} files of 10 to 100 KB"
    part.rows += [
        _row(f"unseal {what}, 1 process, beside cp -r", times["unseal 1"], times["cp"], 1 / 0.8),
        _row(f"unseal {what}, 2 processes, beside two cp -r", times["unseal 2"], times["two cp"], 1 / 0.8),
        _row(f"seal {what}, 2 processes, beside one cp -r", times["seal 2"], times["cp"], 1.0),
        _row(f"seal {what}, 1 process, beside one cp -r", times["seal 1"], times["cp"], None),
        _row(
            "of each: the program's start, and one file of 1 byte, beside one cp -r", times["start"], times["cp"], None
        ),
    ]


def measure_peers(folder: Path, part: Part) -> None:
    """Time how others bring the same files back."""
    absent = [name for name in ("age", "rclone", "restic", "gocryptfs") if shutil.which(name) is None]
    if absent:
        raise NotSupported(f"{', '.join(absent)} are not here: apt-get install {' '.join(absent)}")
    with folder_in_memory(12 * GIBIBYTE) as memory:
        write_small(memory / "plain")
        tree = seal_tree(memory / "plain", memory)
        out = memory / "out"
        with gocryptfs(memory) as mounted:
            run("cp", "-r", memory / "plain", mounted / "files")
            peers = {"gocryptfs and cp -r": lambda: run("cp", "-r", mounted / "files", out), **_others(memory, out)}
            times: dict[str, list[float]] = {"lethe": []}
            for _ in range(PEER_ROUNDS):
                for name, work in {"lethe": lambda: _unseal(tree, out, 2), **peers}.items():
                    times.setdefault(name, []).append(timed(work))
                    shutil.rmtree(out)
    for name in peers:
        part.rows.append(
            _row(f"unseal {SMALL_FILES:,} files, 2 processes, beside {name}", times["lethe"], times[name], None)
        )
    part.notes.append(
        "age decrypts a tar; rclone copies from a crypt remote with 2 transfers; restic restores a snapshot."
    )


def _others(memory: Path, out: Path) -> dict[str, Callable[[], None]]:
    """Encrypt the files with age, rclone and restic, and return what brings them back."""
    run("age-keygen", "-o", memory / "age.key")
    recipient = next(
        line.rpartition(" ")[2] for line in (memory / "age.key").read_text().splitlines() if "public key" in line
    )
    run("sh", "-c", f"tar -cC {memory}/plain . | age -r {recipient} -o {memory}/files.age")
    obscured = subprocess.run(["rclone", "obscure", "bench"], capture_output=True, check=True, text=True).stdout
    rclone = {
        "RCLONE_CONFIG": "/dev/null",
        "RCLONE_CONFIG_BENCH_TYPE": "crypt",
        "RCLONE_CONFIG_BENCH_REMOTE": f"{memory}/rclone",
        "RCLONE_CONFIG_BENCH_PASSWORD": obscured.strip(),
    }
    run("rclone", "copy", "--transfers=2", memory / "plain", "bench:", **rclone)
    restic = {
        "RESTIC_PASSWORD": "bench",
        "RESTIC_REPOSITORY": f"{memory}/restic",
        "RESTIC_CACHE_DIR": f"{memory}/cache",
    }
    run("restic", "-q", "init", **restic)
    run("restic", "-q", "backup", ".", cwd=memory / "plain", **restic)
    return {
        "age and tar": lambda: run(
            "sh", "-c", f"mkdir {out} && age -d -i {memory}/age.key {memory}/files.age | tar -xC {out}"
        ),
        "rclone crypt": lambda: run("rclone", "copy", "--transfers=2", "bench:", out, **rclone),
        "restic": lambda: run("restic", "-q", "restore", "latest", "--target", out, **restic),
    }


def _unseal(tree: SealedTree, target: Path, workers: int) -> None:
    pin = tree.sealed.index
    run(
        *(lethe(), "dataset", "unseal", target, "--identity", tree.identity, "--url", tree.source.storage.url),
        *("--dataset-id", tree.sealed.dataset_id, "--index", pin.object, "--sha256", pin.sha256),
        *("--workers", str(workers)),
    )


def _seal(memory: Path, workers: int) -> None:
    key = memory / "recovery.pub"
    if not key.exists():
        run(lethe(), "key", "generate", "--out", memory / "recovery")
    run(
        *(lethe(), "dataset", "seal", memory / "plain", f"file://{memory}/out", "--name", "bench", "-n", "bench"),
        *("--tenant", "bench", "--recipient", f"bench/key={key}", "--recovery-key", key, "--workers", str(workers)),
    )


def _halves(memory: Path) -> list[list[Path]]:
    folders = sorted((memory / "plain").iterdir())
    return [folders[0::2], folders[1::2]]


def _copy_halves(halves: list[list[Path]], out: Path) -> None:
    out.mkdir()
    run_together([["cp", "-r", *folders, out] for folders in halves])


def _row(measure: str, ours: list[float], beside: list[float], goal: float | None) -> Row:
    return Row(
        measure=measure,
        value=quantile(ours, 0.5),
        unit="s",
        n=len(ours),
        spread=spread(ours, "s"),
        beside=quantile(beside, 0.5),
        goal=None if goal is None else round(goal, 2),
        goal_of="ratio",
    )
