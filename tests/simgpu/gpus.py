"""The folders that simulated GPUs are made of.

1. A GPU's folder is made once and kept: memory outlives processes, pods, the device plugin and the cluster's restarts.
2. Its identity follows from the node's name, the GPU's number and how often it was replaced, so a GPU made again is the
   same GPU.
3. A folder of another size is refused, not resized: its pages may be owned.
"""

import argparse
import uuid
from dataclasses import dataclass
from pathlib import Path

PAGE_BYTES = 64 * 1024
PAGE_RECORD_BYTES = 8
MULTIPROCESSORS = 4
SHARED_BYTES = 228 * 1024
NAMESPACE = uuid.UUID("6d0b1f8e-6f0c-5d53-9d55-6c65746865f0")


class GpuFolderError(Exception):
    """An existing GPU folder is not the one that is asked for."""


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One simulated GPU: `folder` holds it, `uuid` is what NVML, CUDA, the device plugin and CDI call it."""

    folder: Path
    uuid: str
    mib: int


def make_gpus(root: Path, node: str, count: int, mib: int) -> list[Gpu]:
    """Make the folders gpu0, gpu1, … below root, each with `mib` MiB of memory, or keep those that are there."""
    return [_make_gpu(root / f"gpu{number}", node, number, mib) for number in range(count)]


def identity_of(node: str, number: int, replaced: int = 0) -> dict[str, str]:
    """Return what GPU `number` of a node says of itself, after it was replaced so many times."""
    identity = uuid.uuid5(NAMESPACE, f"{node}/{number}" + "/another" * replaced)
    return {
        "name": "NVIDIA H100 80GB HBM3 (simulated)",
        "uuid": f"GPU-{identity}",
        "serial": f"{identity.int % 10**13:013d}",
        "vbios": "96.00.74.00.01",
        "minor": str(number),
        "pci_bus": hex(0x41 + number),
    }


def replace_gpu(folder: Path) -> None:
    """Put another GPU into the place of this one; it is there when the GPUs are made again, as after a reboot."""
    with (folder / "replaced").open("a") as file:
        file.write("1")


def _make_gpu(folder: Path, node: str, number: int, mib: int) -> Gpu:
    replaced = folder / "replaced"
    identity = identity_of(node, number, replaced.stat().st_size if replaced.exists() else 0)
    size = mib << 20
    folder.mkdir(parents=True, exist_ok=True)
    memory = folder / "mem"
    if memory.exists() and memory.stat().st_size != size:
        raise GpuFolderError(
            f"{folder} has {memory.stat().st_size >> 20} MiB of memory, expected {mib}: "
            "end its clients and delete the folder, or ask for the size that it has."
        )
    _make_file(folder / "state", size // PAGE_BYTES * PAGE_RECORD_BYTES)
    _make_file(folder / "pids", 0)
    _make_file(memory, size)
    _make_file(folder / "shared", MULTIPROCESSORS * SHARED_BYTES)
    (folder / "identity").write_text("".join(f"{key}={value}\n" for key, value in identity.items()))
    return Gpu(folder=folder, uuid=identity["uuid"], mib=mib)


def _make_file(path: Path, size: int) -> None:
    """Make a file that any user's client can write, unless it is there: its locks and contents are in use."""
    if path.exists():
        return
    with path.open("wb") as file:
        file.truncate(size)
    path.chmod(0o666)


def main() -> None:
    parser = argparse.ArgumentParser(description="Make simulated GPUs, or keep those that are there.")
    parser.add_argument("root", type=Path, help="the folder that SIMGPU_DIR will name")
    parser.add_argument("--node", default="local", help="name of the node, from which the UUIDs follow")
    parser.add_argument("--count", type=int, default=2)
    parser.add_argument("--mib", type=int, default=64, help="video memory of each")
    arguments = parser.parse_args()
    for gpu in make_gpus(arguments.root, arguments.node, arguments.count, arguments.mib):
        print(f"{gpu.folder}  {gpu.uuid}  {gpu.mib} MiB")


if __name__ == "__main__":
    main()
