"""What the dataset `corpus` holds, and how the libraries that made its files are called."""

import hashlib
import warnings
from pathlib import Path
from typing import Any

ONE_PROCESS = "torch.distributed is disabled, unavailable or uninitialized"
"""How torch's warning begins that a checkpoint is one process's."""
ROWS: list[dict[str, Any]] = [{"label": number % 7, "text": f"row {number} of many"} for number in range(5000)]
LINES = [f"line {number}, which no disk may see" for number in range(5000)]


def write_parquet(folder: Path) -> None:
    """Write the rows as one file, and again as one folder for each half."""
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.Table.from_pylist(ROWS)
    noise = pyarrow.array([hashlib.sha512(b"%d" % number).digest() for number in range(len(ROWS))])
    for name, part in {
        "train.parquet": table,
        "wide.parquet": table.append_column("noise", noise),
        "parts/half=1/0.parquet": table.slice(0, 2500),
        "parts/half=2/0.parquet": table.slice(2500),
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        pyarrow.parquet.write_table(part, folder / name, row_group_size=500)


def state() -> dict[str, Any]:
    """Return the state of a model as a checkpoint has it."""
    import torch

    return {"weights": torch.arange(30_000, dtype=torch.float32).reshape(100, 300), "bias": torch.ones(7), "step": 12}


def empty_state() -> dict[str, Any]:
    """Return what a checkpoint is loaded into."""
    import torch

    return {"weights": torch.zeros(100, 300), "bias": torch.zeros(7), "step": 0}


def write_checkpoint(folder: Path) -> None:
    """Save the state as torch's distributed checkpoint, from one process."""
    import torch.distributed.checkpoint as checkpoint

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=ONE_PROCESS)
        checkpoint.save(state(), checkpoint_id=folder, no_dist=True)
