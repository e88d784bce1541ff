"""Does a node's posture pass what a criticality demands? (scrub.md, Node posture)

The operator asks of the ledger's copy before it gives a node away, the key service of the signed receipt before it
releases a key, `lethe node show` for whoever looks: all of them here.

1. `_CHECKS` is the specification: of what a check looks at, what passes, and how a node comes to pass.
2. Unknown does not pass: neither a value that could not be read, nor a node whose scrub recorded no posture.
3. It says nothing about now, but about the moment of the last scrub: root of the node is trusted until the next one.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any, Final

import msgspec

from lethe.model.posture import POSTURE_CHECKS, Posture

REREAD: Final = (
    "the provider has to mend the node and to reboot it, or to release and enrol it (`lethe node`): its next scrub "
    "looks again"
)
"""What ends a wait for a posture."""

_NO_DUMPS: Final = (
    "off",
    "file /dev/null",
    *("pipe /bin/false", "pipe /usr/bin/false", "pipe /bin/true", "pipe /usr/bin/true"),
)
_TRANSLATED: Final = {"DMA", "DMA-FQ"}
_LONGEST: Final = 60


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """What one check says of one node."""

    check: str
    found: str
    """A word or two; `unknown` for what could not be read."""
    passed: bool
    expected: str
    advice: str


class _Check(msgspec.Struct, frozen=True, kw_only=True):
    found: Callable[[Posture], str | int | bool | None]
    passes: Callable[[Any], bool]
    """Of what was found; never asked of None."""
    expected: str
    advice: str


def judge(posture: Posture | None, checks: Collection[str] = POSTURE_CHECKS) -> list[Judgement]:
    """Return what these checks say of a node, in the order of POSTURE_CHECKS."""
    return [_judge(posture or Posture(), name) for name in POSTURE_CHECKS if name in checks]


def find_unmet(posture: Posture | None, demanded: Collection[str]) -> list[Judgement]:
    """Return the demanded checks that a node does not pass."""
    return [judgement for judgement in judge(posture, demanded) if not judgement.passed]


def sentence(unmet: Sequence[Judgement]) -> str:
    """Return checks that a node does not pass as part of a sentence."""
    return ", ".join(f"{one.check} (found {one.found}, expected {one.expected}: {one.advice})" for one in unmet)


def _judge(posture: Posture, name: str) -> Judgement:
    check = _CHECKS[name]
    found = check.found(posture)
    return Judgement(
        check=name,
        found=_word(found),
        passed=found is not None and check.passes(found),
        expected=check.expected,
        advice=check.advice,
    )


def _word(value: str | int | bool | None) -> str:
    match value:
        case None:
            return "unknown"
        case bool():
            return "on" if value else "off"
        case _:
            text = str(value)
            return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


_CHECKS: Final = {
    # decrypted data and keys in memory, written to a disk
    "swapOff": _Check(
        found=lambda node: node.swap,
        passes=lambda swap: swap == "off",
        expected="off",
        advice="run `swapoff -a` and take swap out of /etc/fstab",
    ),
    "coreDumpsOff": _Check(
        found=lambda node: node.core_dumps,
        passes=lambda target: target in _NO_DUMPS,
        expected="off, file /dev/null or pipe /bin/false",
        advice="set kernel.core_pattern=|/bin/false in /etc/sysctl.d",
    ),
    # how long a write takes tells whether somebody else has an equal page
    "ksmOff": _Check(
        found=lambda node: node.ksm,
        passes=lambda state: state in ("off", "unmerged"),
        expected="off or unmerged",
        advice="write 2 into /sys/kernel/mm/ksm/run at each start of the node",
    ),
    # processes that read one another's memory, and root that reads everybody's
    "ptraceRestricted": _Check(
        found=lambda node: node.ptrace_scope,
        passes=lambda scope: scope >= 1,
        expected="1 or more",
        advice="set kernel.yama.ptrace_scope=1 in /etc/sysctl.d, on a kernel with Yama",
    ),
    "lockdown": _Check(
        found=lambda node: node.lockdown,
        passes=lambda mode: mode in ("integrity", "confidentiality"),
        expected="integrity or confidentiality",
        advice="start the kernel with lockdown=integrity, or by Secure Boot; the driver must be signed then",
    ),
    # what devices may read
    "iommuOn": _Check(
        found=lambda node: node.iommu,
        passes=lambda modes: set(modes.split(", ")) <= _TRANSLATED,
        expected="DMA or DMA-FQ for every GPU",
        advice="switch the IOMMU on in the firmware and start the kernel without iommu=pt",
    ),
    # the GPUs and their driver
    "eccOn": _Check(
        found=lambda node: node.ecc,
        passes=lambda on: on is True,
        expected="on for every GPU",
        advice="run `nvidia-smi --ecc-config=1` and reset the GPUs",
    ),
    "scrubOnFree": _Check(
        found=lambda node: node.scrub_on_free,
        passes=lambda on: on is True,
        expected="on",
        advice="take RMDisableScrubOnFree out of the driver's NVreg_RegistryDwords; R515 or later has it",
    ),
    "persistenceOn": _Check(
        found=lambda node: node.persistence,
        passes=lambda on: on is True,
        expected="on for every GPU",
        advice="run nvidia-persistenced",
    ),
    "profilingRestricted": _Check(
        found=lambda node: node.driver_parameters.get("RmProfilingAdminOnly"),
        passes=lambda value: value == "1",
        expected="1",
        advice="load the driver with NVreg_RestrictProfilingToAdminUsers=1",
    ),
}
