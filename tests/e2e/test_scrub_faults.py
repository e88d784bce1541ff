"""A scrub that fails takes its node out of use, whatever the cause; once that is cured, a scrub brings it back."""

from collections.abc import Iterator

import pytest

from tests.cluster.errors import NotSupported
from tests.cluster.gpus import set_faults
from tests.common.objects import find, find_all, phase
from tests.common.world import World

OFFSET = 8 << 20

FAULTS: dict[str, tuple[dict[str, int | str], str]] = {
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


@pytest.fixture
def nodes(world: World) -> Iterator[list[str]]:
    """Return the GPU nodes, which are Free; afterwards their GPUs are well and they are Free again."""
    names = [node.name for node in world.installation.gpu_nodes()]
    try:
        for name in names:
            set_faults(world.provider, name)
    except NotSupported as reason:
        pytest.skip(str(reason))
    try:
        yield names
    finally:
        for name in names:
            set_faults(world.provider, name)
            ledger = find(world.provider.kubectl(), "gpunode", name)
            if ledger is not None and phase(ledger) == "Quarantined":
                world.installation.cli("node", "override", name, "--reason", "the test has ended")
            world.installation.cli("node", "enrol", name)
            world.installation.wait_for_node(name, "Free")


def test_each_fault_of_a_scrub_quarantines_with_its_reason_and_the_cure_brings_the_node_back(
    world: World, nodes: list[str]
) -> None:
    rows = [*FAULTS.items()]
    for begin in range(0, len(rows), len(nodes)):
        tried = dict(zip(nodes, rows[begin : begin + len(nodes)], strict=False))
        for node, (_, (faults, _)) in tried.items():
            world.installation.cli("node", "release", node)
            world.installation.wait_for_node(node, "Unmanaged")
            set_faults(world.provider, node, **faults)
            world.installation.cli("node", "enrol", node)
        for node, (name, (_, reason)) in tried.items():
            ledger = world.installation.wait_for_node(node, "Quarantined")
            quarantine, epoch = ledger["status"]["quarantine"], ledger["status"]["epoch"]
            assert quarantine["reason"] == reason, f"{name}: {quarantine}"
            assert quarantine["evidence"] and quarantine["advice"]
            assert epoch not in _epochs_with_receipt(world, node), f"{name}: a receipt of a scrub that failed"
            set_faults(world.provider, node)
            world.installation.cli("node", "override", node, "--reason", f"cured: {name}")
        for node in tried:
            ledger = world.installation.wait_for_node(node, "Free")
            assert ledger["status"]["epoch"] in _epochs_with_receipt(world, node)
    world.installation.cli("receipt", "verify", "--all")


def _epochs_with_receipt(world: World, node: str) -> set[int]:
    receipts = find_all(world.provider.kubectl(), "scrubreceipts")
    return {receipt["spec"]["epoch"] for receipt in receipts if receipt["spec"]["node"] == node}
