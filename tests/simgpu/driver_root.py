"""The kernel driver's parameters as a container sees them, with the one line that a scrub is interested in.

NVIDIA's driver shows them at /proc/driver/nvidia/params. A container runtime mounts nothing below /proc, so the CDI
spec mounts this folder elsewhere and says where.
"""

import os
from collections.abc import Iterable
from pathlib import Path

from tests.simgpu.faults import claims_to_scrub


def write_parameters(folder: Path, gpu_folders: Iterable[Path]) -> None:
    """Write `params` into folder; scrub-on-free is off there unless every GPU's faults say that it is on."""
    registry = "" if all(claims_to_scrub(gpu) for gpu in gpu_folders) else "RMDisableScrubOnFree=1"
    text = f'EnableGpuFirmware: 18\nRegistryDwords: "{registry}"\nRegistryDwordsPerDevice: ""\n'
    parameters = folder / "params"
    if parameters.exists() and parameters.read_text() == text:
        return
    folder.mkdir(parents=True, exist_ok=True)
    new = folder / "params.new"
    new.write_text(text)
    os.replace(new, parameters)
