"""The CDI spec: what a container that was given a GPU finds in its file system.

1. Devices are called by their GPU's UUID, as the device plugin calls them; `all` is every GPU of the node.
2. A container gets the folders of its GPUs, writable, and the libraries, read-only, at the place where Debian's loader
   looks. It gets no device it did not ask for.
3. NVIDIA_VISIBLE_DEVICES=void is what NVIDIA's own specs set, so that no other runtime hook adds devices.
"""

import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.simgpu.gpus import Gpu
from tests.simgpu.libraries import LIBRARIES

KIND = "nvidia.com/gpu"
GPU_ROOT = "/run/simgpu"
DRIVER_ROOT = f"{GPU_ROOT}/driver"
SPEC_NAME = "nvidia-simgpu.json"


def library_folder(machine: str) -> str:
    """Return the folder of shared libraries in Debian's images for an architecture as `uname -m` names it."""
    return f"/usr/lib/{machine}-linux-gnu"


def device_name(identifier: str) -> str:
    """Return the name by which a container runtime is asked for a GPU."""
    return f"{KIND}={identifier}"


def build_spec(host_root: Path, gpus: Sequence[Gpu], machine: str = platform.machine()) -> dict[str, Any]:
    """Return the spec for GPUs whose folders, with `lib` and `driver` beside them, the node sees below host_root."""
    folders = {gpu.uuid: _writable(host_root / gpu.folder.name, f"{GPU_ROOT}/{gpu.folder.name}") for gpu in gpus}
    libraries = library_folder(machine)
    return {
        "cdiVersion": "0.5.0",
        "kind": KIND,
        "devices": [
            *({"name": uuid, "containerEdits": {"mounts": [mount]}} for uuid, mount in folders.items()),
            {"name": "all", "containerEdits": {"mounts": list(folders.values())}},
        ],
        "containerEdits": {
            "env": ["NVIDIA_VISIBLE_DEVICES=void", f"LETHE_DRIVER_ROOT={DRIVER_ROOT}"],
            "mounts": [
                *(_read_only(host_root / "lib" / name, f"{libraries}/{name}") for name in LIBRARIES),
                _read_only(host_root / "driver", DRIVER_ROOT),
            ],
        },
    }


def write_spec(folder: Path, spec: dict[str, Any]) -> None:
    """Write the spec at once: a runtime that looks at the folder sees the old one or the new one."""
    folder.mkdir(parents=True, exist_ok=True)
    new = folder / f".{SPEC_NAME}.new"
    new.write_text(json.dumps(spec, indent=1))
    os.replace(new, folder / SPEC_NAME)


def _writable(host: Path, container: str) -> dict[str, Any]:
    return _mount(host, container, "rw", "noexec")


def _read_only(host: Path, container: str) -> dict[str, Any]:
    return _mount(host, container, "ro")


def _mount(host: Path, container: str, *options: str) -> dict[str, Any]:
    return {
        "hostPath": str(host),
        "containerPath": container,
        "options": [*options, "nosuid", "nodev", "rbind", "rprivate"],
    }
