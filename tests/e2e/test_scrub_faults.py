"""A scrub that fails takes its node out of use, whatever the cause; once that is cured, a scrub brings it back."""

from collections.abc import Iterator

import pytest

from tests.cluster.errors import NotSupported
from tests.cluster.gpus import replace_gpu, set_faults
from tests.common.objects import find, find_all, phase
from tests.common.world import World

OFFSET = 8 << 20
SCRUB_SECONDS = 60
QUARANTINE_SECONDS = 240
"""An unhealthy GPU is waited for two minutes: its device plugin may be restarting."""

FAULTS: dict[str, tuple[dict[str, int | str], str]] = {
    "it was lost before the scrub": ({"lost": 1}, "GPULost"),
    "it hangs": ({"hang": 1, "strike_at": "lethe_fill", "strike_after": 0}, "GPUHang"),
    "it is lost in the middle": ({"lost": 1, "strike_at": "lethe_verify", "strike_after": 0}, "GPULost"),
    "a memory cell is stuck": ({"stuck_offset": OFFSET, "stuck_value": 7}, "VerifyMismatch"),
    "a bit flips after it was zeroed": ({"bit_flip_offset": OFFSET, "bit_flip_after": "zero"}, "VerifyMismatch"),
    "a cell of shared memory is stuck": ({"shared_stuck_offset": 9}, "SharedMemoryMismatch"),
    "a multiprocessor gets no block": ({"missed_multiprocessor": 2}, "MultiprocessorsMissed"),
    "not all memory can be had": ({"out_of_memory_after": 40 << 20}, "CoverageTooLow"),
    "no memory can be had": ({"out_of_memory_after": 1}, "OutOfMemory"),
    "an uncorrectable error": ({"uncorrectable_ecc": 1}, "ECCUncorrectable"),
    "one in the second process": (
        {"uncorrectable_ecc": 1, "strike_at": "lethe_probe", "strike_after": 2},
        "ECCUncorrectable",
    ),
    "a row waits to be remapped": ({"remap_pending": 1}, "RecoveryRequired"),
    "the driver wants a reset": ({"recovery_action": 1}, "RecoveryRequired"),
    "the driver's libraries are of another version": ({"driver_mismatch": 1}, "DriverMismatch"),
    "MIG is enabled": ({"mig": 1}, "MIGEnabled"),
    "one process at a time": ({"compute_mode": 3}, "ComputeModeExclusive"),
}


@pytest.fixture(scope="module")
def impatient(world: World) -> Iterator[World]:
    """Return the cluster, with an operator that gives a scrub up soon."""
    try:
        for node in world.installation.gpu_nodes():
            set_faults(world.provider, node.name)
    except NotSupported as reason:
        pytest.skip(str(reason))
    world.installation.install(scrub={"timeoutSeconds": SCRUB_SECONDS})
    try:
        yield world
    finally:
        world.installation.install()


@pytest.fixture
def nodes(impatient: World) -> Iterator[list[str]]:
    """Return the GPU nodes, which are Free; afterwards their GPUs are well and they are Free again."""
    installation = impatient.installation
    names = [node.name for node in installation.gpu_nodes()]
    for name in names:
        installation.wait_for_node(name, "Free")
    try:
        yield names
    finally:
        for name in names:
            set_faults(impatient.provider, name)
            ledger = find(impatient.provider.kubectl(), "gpunode", name)
            if ledger is not None and phase(ledger) == "Quarantined":
                installation.cli("node", "override", name, "--reason", "the test has ended")
            installation.cli("node", "enrol", name)
            installation.wait_for_node(name, "Free")


def test_each_fault_of_a_scrub_quarantines_with_its_reason_and_the_cure_brings_the_node_back(
    world: World, nodes: list[str]
) -> None:
    rows = [*FAULTS.items()]
    for begin in range(0, len(rows), len(nodes)):
        tried = dict(zip(nodes, rows[begin : begin + len(nodes)], strict=False))
        for node, (_, (faults, _)) in tried.items():
            scrub_with(world, node, **faults)
        for node, (name, (_, reason)) in tried.items():
            ledger = world.installation.wait_for_node(node, "Quarantined", seconds=QUARANTINE_SECONDS)
            quarantine, epoch = ledger["status"]["quarantine"], ledger["status"]["epoch"]
            assert quarantine["reason"] == reason, f"{name}: {quarantine}"
            assert quarantine["evidence"] and quarantine["advice"]
            assert epoch not in epochs_with_receipt(world, node), f"{name}: a receipt of a scrub that failed"
            set_faults(world.provider, node)
            world.installation.cli("node", "override", node, "--reason", f"cured: {name}")
        for node in tried:
            ledger = world.installation.wait_for_node(node, "Free")
            assert ledger["status"]["epoch"] in epochs_with_receipt(world, node)
    world.installation.cli("receipt", "verify", "--all")


def test_a_reboot_cures_without_a_human_unless_it_brings_another_gpu(world: World, nodes: list[str]) -> None:
    broken, other = nodes[0], nodes[-1]
    former = uuids(world, other)
    scrub_with(world, broken, uncorrectable_ecc=1)
    world.installation.wait_for_node(broken, "Quarantined")
    set_faults(world.provider, broken)
    try:
        world.provider.reboot(broken)
    except NotSupported as reason:
        pytest.skip(str(reason))
    replace_gpu(world.provider, other)
    world.provider.reboot(other)
    world.installation.wait_for_node(broken, "Free", seconds=QUARANTINE_SECONDS)
    ledger = world.installation.wait_for_node(other, "Quarantined", seconds=QUARANTINE_SECONDS)
    assert ledger["status"]["quarantine"]["reason"] == "GPUSetMismatch"
    world.installation.cli("node", "override", other, "--reason", "its first GPU was replaced")
    world.installation.wait_for_node(other, "Free")
    assert len(uuids(world, other) - former) == 1


def scrub_with(world: World, node: str, **faults: int | str) -> None:
    """Have a node scrubbed whose first GPU has these faults."""
    world.installation.cli("node", "release", node)
    world.installation.wait_for_node(node, "Unmanaged")
    set_faults(world.provider, node, **faults)
    world.installation.cli("node", "enrol", node)


def uuids(world: World, node: str) -> set[str]:
    """Return the GPUs that the ledger knows of a node."""
    ledger = find(world.provider.kubectl(), "gpunode", node)
    assert ledger is not None
    return set(ledger["status"]["gpus"])


def epochs_with_receipt(world: World, node: str) -> set[int]:
    """Return the epochs of a node whose scrub has a receipt."""
    receipts = find_all(world.provider.kubectl(), "scrubreceipts")
    return {receipt["spec"]["epoch"] for receipt in receipts if receipt["spec"]["node"] == node}
