"""Receipts over the years: the signing key is replaced, old receipts are deleted, and the chain goes on verifying."""

from collections.abc import Sequence
from datetime import timedelta

import msgspec
import pytest

from lethe.adapters import kube
from lethe.crypto.sign import Signer
from lethe.formats.quantity import format_time
from lethe.formats.receipt import verify_chain
from lethe.formats.receiptkeys import ReceiptKeys
from lethe.model.errors import ConflictError, ReceiptError
from lethe.model.resources import Envelope, GPUNode
from tests.common.scrubs import trusted_keys
from tests.simulation.cluster import Cluster
from tests.simulation.faults import Fault, Faults, at_write
from tests.simulation.operators import SIGNER
from tests.simulation.scheduler import schedule

NODE = "gpu-1"
DAY = 86400.0


async def scrub(cluster: Cluster, count: int, days: float) -> None:
    """Let the node be scrubbed so many times, so many days apart."""
    for _ in range(count):
        cluster.clock.move(days * DAY)
        cluster.reboot(NODE)
        await cluster.settle()
        assert cluster.node_status(NODE)["phase"] == "Free"


async def kept(days: int, faults: Faults | None = None) -> Cluster:
    """Return a node that was scrubbed seven times, ten days apart."""
    cluster = Cluster(faults, receipt_keep_days=days)
    cluster.add_node(NODE)
    await cluster.settle()
    await scrub(cluster, 6, 10)
    return cluster


async def wait(cluster: Cluster) -> None:
    """Let time pass while an operator cannot go on."""
    for _ in range(30):
        await cluster.operate()
        schedule(cluster.server)
        cluster.hosts.run()
        cluster.clock.move(1)


def envelopes(cluster: Cluster) -> list[Envelope]:
    return [msgspec.convert(item["spec"]["envelope"], Envelope) for item in cluster.server.all(kube.RECEIPT)]


def epochs(cluster: Cluster) -> list[int]:
    return sorted(item["spec"]["epoch"] for item in cluster.server.all(kube.RECEIPT))


def verified(cluster: Cluster, chain: Sequence[Envelope] | None = None) -> list[int]:
    """Verify the chain as people do who have the ledger too; return its epochs."""
    ledger = msgspec.convert(cluster.server.get(kube.GPU_NODE, NODE), GPUNode)
    given = envelopes(cluster) if chain is None else chain
    return [said.epoch for said in verify_chain(given, cluster.operator.trusted(), pruned=ledger.status.pruned_receipt)]


async def test_all_receipts_are_kept_unless_it_is_said_otherwise() -> None:
    cluster = await kept(0)
    assert epochs(cluster) == verified(cluster) == [1, 2, 3, 4, 5, 6, 7]
    assert "prunedReceipt" not in cluster.node_status(NODE)


async def test_old_receipts_are_deleted_and_the_chain_verifies() -> None:
    cluster = await kept(25)
    assert epochs(cluster) == verified(cluster) == [5, 6, 7]
    pruned = cluster.node_status(NODE)["prunedReceipt"]
    assert pruned["epoch"] == 4
    assert "ReceiptsDeleted" in cluster.events(NODE)
    with pytest.raises(ReceiptError, match="missing"):
        verified(cluster, envelopes(cluster)[1:])


async def test_the_newest_two_stay_however_old() -> None:
    cluster = await kept(1)
    await scrub(cluster, 1, 1000)
    assert epochs(cluster) == verified(cluster) == [7, 8]


async def test_an_operator_that_is_killed_between_leaves_a_chain_that_verifies() -> None:
    """The next scrub deletes what was left."""
    undisturbed = await kept(25)
    deletions = [
        number
        for number, write in enumerate(undisturbed.faults.writes, start=1)
        if (write.verb, write.plural) == ("delete", kube.RECEIPT.plural)
    ]
    assert len(deletions) == 4
    for number in deletions:
        for fault in (Fault.KILLED_BEFORE, Fault.KILLED_AFTER, Fault.LOST_REPLY, Fault.CONFLICT):
            cluster = await kept(25, Faults(at_write(number, fault)))
            assert epochs(cluster) == verified(cluster)
            await scrub(cluster, 1, 10)
            assert epochs(cluster) == verified(cluster) == [6, 7, 8]


async def test_a_rotation_is_outlived_by_the_chain() -> None:
    cluster = Cluster()
    cluster.add_node(NODE)
    await cluster.settle()
    new = Signer.generate()

    def unpublished(issued_at: str) -> Signer:
        raise ConflictError("the new key's public half is not here yet")

    cluster.operator.signer = unpublished
    cluster.reboot(NODE)
    await wait(cluster)
    assert (cluster.node_status(NODE)["phase"], epochs(cluster)) == ("Scrubbing", [1])
    assert len(cluster.hosts.cleared) == 2, "the scrub has ended, and waits for who signs"

    keys = trusted_keys(SIGNER, new)
    retired = msgspec.structs.replace(
        keys[SIGNER.key_id], retired_at=format_time(cluster.clock.time - timedelta(seconds=10))
    )
    cluster.operator.trusted = lambda: {**keys, SIGNER.key_id: retired}
    cluster.operator.signer = lambda issued_at: new
    await cluster.settle()
    assert cluster.node_status(NODE)["phase"] == "Free"
    assert verified(cluster) == [1, 2]
    signers = [envelope.signatures[0].keyid for envelope in envelopes(cluster)]
    assert sorted(signers) == sorted([SIGNER.key_id, new.key_id])


async def test_a_list_of_keys_that_cannot_be_read_quarantines_nobody() -> None:
    cluster = Cluster()
    cluster.add_node(NODE)
    trusted = cluster.operator.trusted

    def unreadable() -> ReceiptKeys:
        raise ReceiptError("the list of receipt keys does not parse")

    cluster.operator.trusted = unreadable
    await wait(cluster)
    assert (cluster.node_status(NODE)["phase"], epochs(cluster)) == ("Scrubbing", [1])
    cluster.operator.trusted = trusted
    await cluster.settle()
    assert cluster.node_status(NODE)["phase"] == "Free"
