"""A dataset of 200,000 files of 1 KB: seal, list, read, unseal, each as a user does it, in processes of their own.

1. Everything lies in memory (tmpfs): nothing waits for a disk. `cp -r`, `find -ls` and plain reads stand beside.
2. Time is that of the whole command, with the start of Python. Memory is the peak of the largest process of a command;
   what it maps of libraries counts in full.
"""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from lethe.crypto.hpke import PrivateKey, parse_private
from lethe.data.access import KEY_FILE_PREFIX, Place
from lethe.data.reader import DATASETS_VARIABLE, SOURCE_FILE
from lethe.formats.keyring import KEYRING_NAME, open_keyring, parse_keyring
from lethe.model.dataset import DatasetSource
from lethe.model.resources import EncryptedDataset
from tests.cluster.folders import PROJECT
from tests.performance.report import Part, Row, quantile, spread

FILES, BYTES = 200_000, 1_000
FOLDERS = 200
ROUNDS = 3
MEMORY = Path("/dev/shm")
SECONDS = {"seal": 60.0, "list": 6.0, "read": 20.0, "unseal": 60.0}
MIB = {"seal": 512.0, "list": 256.0, "read": 768.0, "unseal": 512.0}
"""What is promised for each on two cores."""
_LETHE = [sys.executable, "-c", "from lethe.cli.main import main; main()", "dataset"]


@dataclass(frozen=True)
class _Ran:
    seconds: float
    mib: float
    out: bytes


def measure(folder: Path, part: Part) -> None:
    """Seal, list, read and unseal, several times, with the plain counterpart of each in turn."""
    with TemporaryDirectory(prefix="lethe-many-", dir=MEMORY if MEMORY.is_dir() else folder) as memory:
        root = Path(memory)
        _write_files(root / "plain")
        keys = _write_keys(root)
        ran: dict[str, list[_Ran]] = {}
        plain: dict[str, list[_Ran]] = {}
        for number in range(ROUNDS):
            manifest, back = root / f"{number}.yaml", root / "back"
            opening = ["--manifest", str(manifest), "--identity", str(root / "recovery.key")]
            sealing = [str(root / "plain"), f"file://{root}/sealed-{number}", *keys, "--output", str(manifest)]
            for name, command in {
                "seal": [*_LETHE, "seal", *sealing],
                "list": [*_LETHE, "ls", *opening],
                "unseal": [*_LETHE, "unseal", str(back), *opening],
            }.items():
                ran.setdefault(name, []).append(_run(command, root))
            subprocess.run(["rm", "-r", back], check=True)
            _release(root, manifest)
            ran.setdefault("read", []).append(_read("dataset", "many", root))
            subprocess.run(["rm", "-r", root / f"sealed-{number}"], check=True)
            plain.setdefault("list", []).append(_run(["find", str(root / "plain"), "-type", "f", "-ls"], root))
            plain.setdefault("read", []).append(_read("folder", str(root / "plain"), root))
            copied = _run(["cp", "-r", str(root / "plain"), str(root / "copy")], root)
            for name in ("seal", "unseal"):
                plain.setdefault(name, []).append(copied)
            subprocess.run(["rm", "-r", root / "copy"], check=True)
        for name in ("seal", "list", "read", "unseal"):
            _add(part, name, ran[name], plain[name])
    part.notes.append(
        f"{FILES:,} files of {BYTES:,} bytes in {FOLDERS} folders, objects of 64 MiB, records of 64 KiB. Beside seal "
        "and unseal: `cp -r`; beside list: `find -ls`; beside read: open and read each file, in Python."
    )


def _add(part: Part, name: str, ran: Sequence[_Ran], plain: Sequence[_Ran]) -> None:
    for what, unit, values, others, goal in (
        ("time", "s", [one.seconds for one in ran], [one.seconds for one in plain], SECONDS[name]),
        ("peak memory of a process", "MiB", [one.mib for one in ran], None, MIB[name]),
    ):
        part.rows.append(
            Row(
                measure=f"{name}: {what}",
                value=quantile(values, 0.5),
                unit=unit,
                n=len(values),
                spread=spread(values, unit),
                beside=quantile(others, 0.5) if others else None,
                goal=goal,
            )
        )


def _write_files(root: Path) -> None:
    for folder in range(FOLDERS):
        below = root / f"{folder:03}"
        below.mkdir(parents=True)
        for number in range(FILES // FOLDERS):
            (below / f"{number:05}.bin").write_bytes(os.urandom(BYTES))


def _write_keys(root: Path) -> list[str]:
    identity = PrivateKey.generate("MLKEM768-X25519")
    (root / "recovery.key").write_text(identity.encode())
    (root / "recovery.key").chmod(0o600)
    (root / "recovery.pub").write_text(identity.public_key().encode())
    named = ["--name", "many", "--namespace", "acme", "--tenant", "acme"]
    return [*named, "--recipient", f"acme/default={root}/recovery.pub", "--recovery-key", f"{root}/recovery.pub"]


def _release(root: Path, manifest: Path) -> None:
    """Leave source and keys as keyfetch leaves them in a pod."""
    spec = msgspec.yaml.decode(manifest.read_bytes(), type=EncryptedDataset).spec
    identity = parse_private((root / "recovery.key").read_text())
    keyring = parse_keyring(Place(spec.storage, None).store.get(KEYRING_NAME))
    folder = root / "datasets/many"
    folder.mkdir(parents=True, exist_ok=True)
    source = DatasetSource(name="many", dataset_id=spec.dataset_id, index=spec.index, storage=spec.storage)
    (folder / SOURCE_FILE).write_bytes(msgspec.json.encode(source))
    for epoch, dek in open_keyring(keyring, identity).items():
        (folder / f"{KEY_FILE_PREFIX}{epoch}").write_bytes(dek)


def _read(what: str, where: str, root: Path) -> _Ran:
    ran = _run([sys.executable, "-m", "tests.performance.read_all", what, where], root)
    seconds, total = ran.out.split()
    if int(total) != FILES * BYTES:
        raise AssertionError(f"read {total.decode()} bytes, expected {FILES * BYTES}")
    return _Ran(float(seconds), ran.mib, b"")


def _run(command: Sequence[str], root: Path) -> _Ran:
    environment = {
        **os.environ,
        "PYTHONPATH": f"{PROJECT}/operator:{PROJECT}",
        "XDG_STATE_HOME": f"{root}/state",
        DATASETS_VARIABLE: f"{root}/datasets",
    }
    with (root / "out").open("w+b") as out, (root / "err").open("w+b") as err:
        began = time.perf_counter()
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=err)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        if process.returncode:
            raise AssertionError(f"{command[0]} failed: {err.read()[-2000:].decode(errors='replace')}")
        return _Ran(seconds, usage.ru_maxrss / 1024, out.read())
