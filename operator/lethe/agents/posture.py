"""The posture of the node that a scrub runs on (scrub.md, Node posture).

1. It is read from files, as the kernel shows them in this container. None of these is masked there and none belongs to
   a namespace, but for securityfs, which a container's own /sys lacks: `HostPaths.kernel` leads to the node's.
2. What cannot be read, or does not say what was expected, is None.
3. Of several GPUs the worst counts; one that does not tell makes it unknown, unless another is known to be bad.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from lethe.agents.host import HostPaths, read_driver_parameters
from lethe.model.posture import Posture
from lethe.model.scrub import GpuFacts

_KSM: Final = {"0": "off", "1": "on", "2": "unmerged"}
_CORE_KINDS: Final = {"|": "pipe", "@": "socket"}
_CHOSEN: Final = re.compile(r"\[([\w-]+)\]")
_SWAPS_HEADING: Final = "Filename"
_PCI_ADDRESS: Final = re.compile(r"([0-9a-f]{4,8}):([0-9a-f]{2}:[0-9a-f]{2}\.[0-7])", re.IGNORECASE)
_DRIVER_PARAMETERS: Final = (
    "RegistryDwords",
    "RegistryDwordsPerDevice",
    "RmProfilingAdminOnly",
    "PreserveVideoMemoryAllocations",
    "TemporaryFilePath",
    "DmaRemapPeerMmio",
)
"""Overrides of every kind; who may count what a GPU does; whether its memory is written to a file, and where; which
addresses reach other GPUs."""


def read_posture(
    paths: HostPaths, driver: str | None, scrubs_on_free: bool | None, gpus: Sequence[GpuFacts]
) -> Posture:
    """Return the node's posture; `driver`, `scrubs_on_free` and `gpus` are what NVML and the driver's files said."""
    sysctl = paths.proc / "sys"
    parameters = read_driver_parameters(paths) or {}
    return Posture(
        kernel=_read(sysctl / "kernel/osrelease"),
        driver=driver,
        ksm=_KSM.get(_read(paths.kernel / "mm/ksm/run") or ""),
        swap=_read_swap(paths.proc / "swaps"),
        core_dumps=_read_core_dumps(sysctl / "kernel"),
        transparent_hugepages=_chosen(_read(paths.kernel / "mm/transparent_hugepage/enabled")),
        hugepages=_number(_read(sysctl / "vm/nr_hugepages")),
        ptrace_scope=_number(_read(sysctl / "kernel/yama/ptrace_scope")),
        lockdown=_chosen(_read(paths.kernel / "security/lockdown")),
        iommu=_read_iommu(paths.sys, gpus),
        driver_parameters={name: parameters[name] for name in _DRIVER_PARAMETERS if name in parameters},
        scrub_on_free=scrubs_on_free,
        persistence=_worst(gpu.persistence for gpu in gpus),
        ecc=_worst(gpu.ecc_enabled for gpu in gpus),
    )


def _read(file: Path) -> str | None:
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() else None


def _chosen(text: str | None) -> str | None:
    """Return the one of several words that the kernel has put into brackets."""
    found = _CHOSEN.search(text or "")
    return None if found is None else found[1]


def _read_swap(file: Path) -> str | None:
    lines = (_read(file) or "").splitlines()
    # A file without the heading is not the kernel's: something hides it.
    if not lines or not lines[0].startswith(_SWAPS_HEADING):
        return None
    return ", ".join(line.split()[0] for line in lines[1:] if line.strip()) or "off"


def _read_core_dumps(folder: Path) -> str | None:
    """Return where the pattern leads that takes effect: `core_uses_pid` adds to a file's name, to an empty one too."""
    pattern, uses_pid = _read(folder / "core_pattern"), _read(folder / "core_uses_pid")
    if pattern is None or uses_pid is None:
        return None
    if (kind := _CORE_KINDS.get(pattern[:1])) is not None:
        return f"{kind} {pattern[1:].strip()}"
    if uses_pid != "0" and "%p" not in pattern:
        pattern += ".%p"
    return f"file {pattern}" if pattern else "off"


def _read_iommu(sys: Path, gpus: Iterable[GpuFacts]) -> str | None:
    """Return how the GPUs' addresses are translated; a unit that is there translates nothing for `identity`."""
    try:
        has_units = any((sys / "class/iommu").iterdir())
    except OSError:
        return None
    if not has_units:
        return "off"
    modes: set[str] = set()
    for gpu in gpus:
        address = _PCI_ADDRESS.fullmatch(gpu.pci_bus_id or "")
        if address is None:
            return None
        # NVML writes eight digits of the domain, the kernel four where they are enough.
        device = f"{int(address[1], 16):04x}:{address[2].lower()}"
        mode = _read(sys / "bus/pci/devices" / device / "iommu_group/type")
        if not mode:
            return None
        modes.add(mode)
    return ", ".join(sorted(modes)) or None


def _worst(values: Iterable[bool | None]) -> bool | None:
    found = list(values)
    if False in found:
        return False
    return None if not found or None in found else True
