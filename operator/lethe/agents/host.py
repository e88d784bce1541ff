"""What the scrub reads from the node that it runs on.

1. The boot id is the kernel's, read where the pod can see the node's own.
2. The driver clears freed memory unless its parameters say otherwise, and has done so since version 515. What cannot be
   read is None: an unknown driver makes no claim that residue could contradict.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lethe.model import reasons
from lethe.model.errors import GpuError

_FIRST_SCRUBBING_DRIVER: Final = 515
_PARAMETER: Final = re.compile(r'^(\w+):[ \t]*(?:"(.*)"|(\S*))[ \t]*$', re.MULTILINE)
_DISABLED: Final = re.compile(r"(?:^|;)\s*RMDisableScrubOnFree=(?:0x)?0*[1-9a-f][0-9a-f]*\s*(?:;|$)", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class HostPaths:
    """Where the node's own files show in this container."""

    boot_id: Path = Path("/proc/sys/kernel/random/boot_id")
    driver: Path = Path("/proc/driver/nvidia")
    """Folder with the kernel driver's `params`."""
    proc: Path = Path("/proc")
    """With the host's PID namespace, all processes of the node."""
    sys: Path = Path("/sys")
    kernel: Path = Path("/sys/kernel")
    """The node's, with securityfs."""

    @classmethod
    def from_environment(cls, boot_id: Path, kernel: Path) -> "HostPaths":
        """Return the paths; LETHE_DRIVER_ROOT names the driver's folder where the installation put it elsewhere."""
        return cls(boot_id=boot_id, kernel=kernel, driver=Path(os.environ.get("LETHE_DRIVER_ROOT") or cls.driver))


def read_boot_id(paths: HostPaths) -> str:
    """Return the node's boot id; raise GpuError."""
    try:
        return paths.boot_id.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise GpuError(reasons.SCRUB_FAILED, f"the node's boot id cannot be read: {error}") from error


def read_driver_parameters(paths: HostPaths) -> dict[str, str] | None:
    """Return the kernel driver's parameters by name; None when they cannot be read."""
    try:
        text = (paths.driver / "params").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    return {name: quoted or plain for name, quoted, plain in _PARAMETER.findall(text)}


def read_scrubs_on_free(paths: HostPaths, driver_version: str | None) -> bool | None:
    """Say whether the driver clears memory when it is freed; None when that cannot be told."""
    parameters = read_driver_parameters(paths)
    major = re.match(r"\d+", driver_version or "")
    if parameters is None or "RegistryDwords" not in parameters or major is None:
        return None
    # Off for one device is off.
    overrides = f"{parameters['RegistryDwords']};{parameters.get('RegistryDwordsPerDevice', '')}"
    return int(major[0]) >= _FIRST_SCRUBBING_DRIVER and _DISABLED.search(overrides) is None
