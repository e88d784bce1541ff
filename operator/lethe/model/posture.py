"""The posture of a node: settings of its kernel and its driver that data in memory depends on (scrub.md, Node posture).

1. A value that could not be read is None: unknown, which no check takes for good.
2. What is good stands in `lethe.decisions.posture`; here are only what was found, and the names of the checks.
"""

from typing import Final

import msgspec

POSTURE_CHECKS: Final = (
    "swapOff",
    "coreDumpsOff",
    "ksmOff",
    "ptraceRestricted",
    "lockdown",
    "iommuOn",
    "eccOn",
    "scrubOnFree",
    "persistenceOn",
    "profilingRestricted",
)
"""What a criticality may demand of a node."""


# Written out, since the resources that build on `Resource` have a posture themselves.
class Posture(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Settings of one node, as its scrub found them. Of several GPUs, the worst counts."""

    kernel: str | None = None
    driver: str | None = None
    ksm: str | None = None
    """Merging of equal pages: off, on, or unmerged (off, and what was merged is apart again)."""
    swap: str | None = None
    """off, or the devices and files that memory may be written to."""
    core_dumps: str | None = None
    """Where the memory of a program that crashes is written: off, or `file`, `pipe` or `socket` and its name."""
    transparent_hugepages: str | None = None
    hugepages: int | None = None
    """Huge pages that are set aside (vm.nr_hugepages)."""
    ptrace_scope: int | None = None
    """0: any process may read the memory of any other of its user."""
    lockdown: str | None = None
    """What root may not do to the kernel: none, integrity, confidentiality."""
    iommu: str | None = None
    """off, or how the addresses that the GPUs use are translated: DMA, DMA-FQ, identity (not at all)."""
    driver_parameters: dict[str, str] = {}
    """Those of the kernel driver's parameters that bear on who may read a GPU's memory."""
    scrub_on_free: bool | None = None
    """Whether the driver says that it clears GPU memory when it is freed."""
    persistence: bool | None = None
    ecc: bool | None = None
