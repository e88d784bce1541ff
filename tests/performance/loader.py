"""Epochs of a PyTorch DataLoader over plain and over sealed files.

1. Runs in an environment with torch: `python -m tests.performance.loader PLAIN POD ROUNDS`. Each item is read whole; a
   batch is reduced to its length in the worker, so that neither side hides behind what goes through pipes.
2. Both sides take turns. Loaders are new in each round: their first epoch starts the workers, the second finds them.
"""

import json
import os
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader

import lethe.data

BATCH = 64


class PlainFiles(Sequence[bytes]):
    """Files of a folder, as a map-style dataset."""

    def __init__(self, root: Path) -> None:
        self._paths = sorted(str(path) for path in root.rglob("*") if path.is_file())

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, item: int) -> bytes:  # type: ignore[override]
        with open(self._paths[item], "rb") as file:
            return file.read()


def measure(dataset: Sequence[bytes], workers: int) -> dict[str, float]:
    """Return the seconds of a first and of a second epoch, the bytes read, and the megabytes of who reads them."""
    loader: Any = DataLoader(
        dataset,  # type: ignore[arg-type]
        batch_size=BATCH,
        shuffle=True,
        num_workers=workers,
        collate_fn=total,
        persistent_workers=workers > 0,
    )
    result: dict[str, float] = {}
    for epoch in ("first", "later"):
        began = time.perf_counter()
        result["bytes"] = sum(loader)
        result[epoch] = time.perf_counter() - began
    readers = [worker.pid for worker in loader._iterator._workers] if workers else [os.getpid()]
    result["memory"] = max(_own_megabytes(pid) for pid in readers)
    return result


def total(batch: list[bytes]) -> int:
    """Return the bytes of a batch."""
    return sum(map(len, batch))


def _own_megabytes(pid: int) -> float:
    """Return what a process has in memory, its share of what it shares with others."""
    [kilobytes] = re.findall(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    return int(kilobytes) / 1000


def main() -> None:
    plain, pod, rounds = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    os.environ["LETHE_DATASETS"] = pod
    found: dict[str, list[dict[str, float]]] = {}
    for workers in (0, 2):
        for _ in range(rounds):
            for side, dataset in (("plain", PlainFiles(plain)), ("lethe", lethe.data.open("bench"))):
                found.setdefault(f"{side} {workers}", []).append(measure(dataset, workers))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
