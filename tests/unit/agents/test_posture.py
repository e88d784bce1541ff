"""The posture of a node, read from folders that look like the node's; what cannot be read is unknown."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lethe.agents.host import HostPaths
from lethe.agents.posture import read_posture
from lethe.model.posture import Posture
from lethe.model.scrub import GpuFacts
from tests.common.scrubs import build_facts

SWAPS = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"
PARAMETERS = """\
ResmanDebugLevel: 4294967295
RmProfilingAdminOnly: 1
PreserveVideoMemoryAllocations: 0
EmptyValue:
RegistryDwords: "RMOne=1;RMTwo=2"
RegistryDwordsPerDevice: ""
TemporaryFilePath: "/var/tmp"
"""
GPUS = (
    build_facts(0, pci_bus_id="00000000:41:00.0", persistence=True),
    build_facts(1, pci_bus_id="00010000:C1:00.0", persistence=True),
)
KSM = "kernel/mm/ksm/run"
LOCKDOWN = "kernel/security/lockdown"
PAGES = "kernel/mm/transparent_hugepage/enabled"
SYSCTL = "proc/sys/kernel"
IOMMU = "sys/class/iommu/dmar0"
TYPES = tuple(f"sys/bus/pci/devices/{address}/iommu_group/type" for address in ("0000:41:00.0", "10000:c1:00.0"))
FILES = {
    KSM: "0\n",
    PAGES: "always [madvise] never\n",
    LOCKDOWN: "none [integrity] confidentiality\n",
    "proc/swaps": SWAPS,
    f"{SYSCTL}/osrelease": "6.8.0-45-generic\n",
    f"{SYSCTL}/core_pattern": "|/bin/false\n",
    f"{SYSCTL}/core_uses_pid": "0\n",
    f"{SYSCTL}/yama/ptrace_scope": "1\n",
    "proc/sys/vm/nr_hugepages": "16\n",
    IOMMU: "",
    TYPES[0]: "DMA-FQ\n",
    TYPES[1]: "DMA-FQ\n",
    "driver/params": PARAMETERS,
}
GOOD = Posture(
    kernel="6.8.0-45-generic",
    driver="575.57.08",
    ksm="off",
    swap="off",
    core_dumps="pipe /bin/false",
    transparent_hugepages="madvise",
    hugepages=16,
    ptrace_scope=1,
    lockdown="integrity",
    iommu="DMA-FQ",
    driver_parameters={
        "RegistryDwords": "RMOne=1;RMTwo=2",
        "RegistryDwordsPerDevice": "",
        "RmProfilingAdminOnly": "1",
        "PreserveVideoMemoryAllocations": "0",
        "TemporaryFilePath": "/var/tmp",
    },
    scrub_on_free=True,
    persistence=True,
    ecc=True,
)


@dataclass
class Host:
    """The files of a node."""

    folder: Path

    def write(self, name: str, text: str) -> None:
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def read(self, *gpus: GpuFacts) -> Posture:
        folder = self.folder
        paths = HostPaths(driver=folder / "driver", proc=folder / "proc", sys=folder / "sys", kernel=folder / "kernel")
        return read_posture(paths, "575.57.08", True, gpus or GPUS)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """A node on which everything can be read and is good."""
    host = Host(tmp_path)
    for name, text in FILES.items():
        host.write(name, text)
    return host


def test_a_node_tells_all(host: Host) -> None:
    assert host.read() == GOOD


def test_a_node_that_shows_nothing_is_unknown(tmp_path: Path) -> None:
    silent = build_facts(0, pci_bus_id=None, persistence=None, ecc_enabled=None)
    assert Host(tmp_path).read(silent) == Posture(driver="575.57.08", scrub_on_free=True)


@pytest.mark.parametrize(
    ("file", "text", "field", "expected"),
    [
        (KSM, "1\n", "ksm", "on"),
        (KSM, "2\n", "ksm", "unmerged"),
        (KSM, "7\n", "ksm", None),
        (KSM, "", "ksm", None),
        (PAGES, "[always] madvise never\n", "transparent_hugepages", "always"),
        (PAGES, "always madvise never\n", "transparent_hugepages", None),
        (LOCKDOWN, "[none] integrity confidentiality\n", "lockdown", "none"),
        (LOCKDOWN, "", "lockdown", None),
        ("proc/swaps", f"{SWAPS}/dev/sda2  partition 8388604 0 -2\n/swap\\040file file 8 0 -3\n", "swap",
         "/dev/sda2, /swap\\040file"),
        ("proc/swaps", "", "swap", None),
        ("proc/swaps", "/dev/sda2  partition 8388604 0 -2\n", "swap", None),
        (f"{SYSCTL}/core_pattern", "core\n", "core_dumps", "file core"),
        (f"{SYSCTL}/core_pattern", "\n", "core_dumps", "off"),
        (f"{SYSCTL}/core_pattern", "@/run/cores\n", "core_dumps", "socket /run/cores"),
        (f"{SYSCTL}/core_uses_pid", "1\n", "core_dumps", "pipe /bin/false"),
        (f"{SYSCTL}/yama/ptrace_scope", "0\n", "ptrace_scope", 0),
        (f"{SYSCTL}/yama/ptrace_scope", "some\n", "ptrace_scope", None),
        ("proc/sys/vm/nr_hugepages", "0\n", "hugepages", 0),
        (TYPES[1], "identity\n", "iommu", "DMA-FQ, identity"),
        (TYPES[1], "\n", "iommu", None),
        ("driver/params", "RmProfilingAdminOnly: 0\n", "driver_parameters", {"RmProfilingAdminOnly": "0"}),
    ],
)  # fmt: skip
def test_what_a_file_says(host: Host, file: str, text: str, field: str, expected: Any) -> None:
    host.write(file, text)
    assert getattr(host.read(), field) == expected


FIELD_OF_FILE = {
    KSM: "ksm",
    PAGES: "transparent_hugepages",
    LOCKDOWN: "lockdown",
    "proc/swaps": "swap",
    f"{SYSCTL}/osrelease": "kernel",
    f"{SYSCTL}/core_pattern": "core_dumps",
    f"{SYSCTL}/core_uses_pid": "core_dumps",
    f"{SYSCTL}/yama/ptrace_scope": "ptrace_scope",
    "proc/sys/vm/nr_hugepages": "hugepages",
    TYPES[0]: "iommu",
}


@pytest.mark.parametrize("damage", ["absent", "unreadable", "not text"])
@pytest.mark.parametrize(("file", "field"), FIELD_OF_FILE.items(), ids=FIELD_OF_FILE)
def test_what_cannot_be_read_is_unknown_and_nothing_else_is(host: Host, file: str, field: str, damage: str) -> None:
    path = host.folder / file
    path.unlink()
    if damage == "unreadable":
        path.mkdir()
    elif damage == "not text":
        path.write_bytes(b"\xff\xfe0")
    found = host.read()
    assert getattr(found, field) is None
    others = {name: getattr(found, name) for name in Posture.__struct_fields__ if name != field}
    assert others == {name: getattr(GOOD, name) for name in others}


def test_a_core_pattern_that_gets_the_process_id_is_not_empty(host: Host) -> None:
    host.write(f"{SYSCTL}/core_uses_pid", "1\n")
    host.write(f"{SYSCTL}/core_pattern", "\n")
    assert host.read().core_dumps == "file .%p"
    host.write(f"{SYSCTL}/core_pattern", "core.%p\n")
    assert host.read().core_dumps == "file core.%p"


def test_without_a_unit_there_is_no_iommu(host: Host) -> None:
    (host.folder / IOMMU).unlink()
    assert host.read().iommu == "off"
    (host.folder / IOMMU).parent.rmdir()
    assert host.read().iommu is None


def test_a_gpu_without_an_address_leaves_the_iommu_unknown(host: Host) -> None:
    assert host.read(build_facts(0, pci_bus_id=None)).iommu is None
    assert host.read(build_facts(0, pci_bus_id="somewhere")).iommu is None
    assert host.read(build_facts(0, pci_bus_id="00000000:42:00.0")).iommu is None


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((True, True), True),
        ((True, False), False),
        ((None, False), False),
        ((True, None), None),
    ],
)
def test_the_worst_gpu_counts(host: Host, values: tuple[bool | None, ...], expected: bool | None) -> None:
    gpus = [build_facts(number, ecc_enabled=value, persistence=value) for number, value in enumerate(values)]
    found = host.read(*gpus)
    assert (found.ecc, found.persistence) == (expected, expected)


def test_without_gpus_nothing_is_known_of_them(host: Host) -> None:
    found = read_posture(HostPaths(sys=host.folder / "sys"), None, None, [])
    assert (found.ecc, found.persistence, found.iommu) == (None, None, None)
