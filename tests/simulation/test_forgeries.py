"""Who would free a node without a scrub: a forged or replayed report, and receipts that somebody else has written.

The node has a past: acme's data lies in its GPUs. Each row is one forgery for its next epoch, as somebody could make it
who comes past RBAC and the admission policies (tests/attacks has who cannot even try). None makes the node Free, and no
receipt of that epoch verifies but a genuine one.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest

from lethe.adapters import kube
from lethe.adapters.kube import Object
from lethe.crypto.sign import Signer
from lethe.decisions.receipts import is_valid_for
from lethe.formats.receipt import encode_report, envelope_sha256, verify_receipt
from lethe.model import names
from lethe.model.errors import LetheError
from lethe.model.resources import Envelope, Signature
from tests.common.scrubs import build_config, build_envelope, build_predicate, build_report, trusted_keys
from tests.simulation.cluster import Cluster
from tests.simulation.containers import Behaviour
from tests.simulation.operators import KEYS, SIGNER

NODE, OTHER = "gpu-1", "gpu-2"
EPOCH = 2
"""Of the scrub that is forged; epoch 1 was genuine."""
STRANGER = Signer.generate()
RETIRED = Signer.generate()


async def used_node() -> Cluster:
    """Return a cluster with two nodes that were scrubbed once; of the first, acme has used the GPUs since."""
    cluster = Cluster()
    for name in (NODE, OTHER):
        cluster.add_node(name)
    await cluster.settle()
    assert [cluster.node_status(name)["phase"] for name in (NODE, OTHER)] == ["Free", "Free"]
    cluster.memory.update({(NODE, number): "acme" for number in range(2)})
    return cluster


def genuine(cluster: Cluster, name: str, epoch: int = 1) -> Envelope:
    receipt = cluster.server.get(kube.RECEIPT, names.receipt(name, epoch))
    return msgspec.convert(receipt["spec"]["envelope"], Envelope)


def write_receipt(cluster: Cluster, envelope: Envelope) -> None:
    """Create the receipt of the coming epoch before the operator does."""
    spec = {
        "node": NODE,
        "epoch": EPOCH,
        "sha256": envelope_sha256(envelope),
        "envelope": msgspec.to_builtins(envelope),
    }
    body = {"metadata": {"name": names.receipt(NODE, EPOCH), "labels": {names.LABEL_NODE: NODE}}, "spec": spec}
    cluster.server.create(kube.RECEIPT, body)


def claim(cluster: Cluster, signer: Signer, **changes: Any) -> Envelope:
    """Return a receipt that says all that can be known before the scrub's nonce is."""
    status = cluster.node_status(NODE)
    boot = cluster.hosts.machines[NODE].boot_id
    config = build_config(node=NODE, node_uid=status["nodeUid"], boot_id=boot, epoch=EPOCH)
    previous = envelope_sha256(genuine(cluster, NODE))
    return build_envelope(signer, build_predicate(build_report(config), previous=previous, **changes))


def by_a_stranger(cluster: Cluster) -> None:
    write_receipt(cluster, claim(cluster, STRANGER))


def under_the_operators_key_id(cluster: Cluster) -> None:
    envelope = claim(cluster, STRANGER)
    signatures = [Signature(keyid=SIGNER.key_id, sig=envelope.signatures[0].sig)]
    write_receipt(cluster, msgspec.structs.replace(envelope, signatures=signatures))


def with_a_retired_key(cluster: Cluster) -> None:
    retired = msgspec.structs.replace(trusted_keys(RETIRED)[RETIRED.key_id], retired_at="2029-01-01T00:00:00Z")
    cluster.operator.trusted = lambda: {**KEYS, RETIRED.key_id: retired}
    write_receipt(cluster, claim(cluster, RETIRED))


def edited(cluster: Cluster) -> None:
    envelope = genuine(cluster, NODE)
    write_receipt(cluster, msgspec.structs.replace(envelope, payload=claim(cluster, STRANGER).payload))


def of_an_older_epoch(cluster: Cluster) -> None:
    write_receipt(cluster, genuine(cluster, NODE))


def of_another_node(cluster: Cluster) -> None:
    write_receipt(cluster, genuine(cluster, OTHER))


def of_another_nonce(cluster: Cluster) -> None:
    """The operator's own signature under everything but the nonce, as if its key had been used for another scrub."""
    write_receipt(cluster, claim(cluster, SIGNER))


def another_pod(cluster: Cluster) -> None:
    """Somebody deletes the scrub pod and puts one of the same name, with a log of his own, in its place."""

    def replace(plural: str, before: Object | None, after: Object | None) -> None:
        if plural != kube.GPU_NODE.plural or after is None or after["metadata"]["name"] != NODE:
            return
        scrub = (after.get("status") or {}).get("scrub") or {}
        if not scrub.get("podUid"):
            return
        cluster.server.observers.remove(replace)
        pod = cluster.server.get(kube.POD, scrub["podName"], names.SYSTEM_NAMESPACE)
        cluster.server.patch(kube.POD, scrub["podName"], names.SYSTEM_NAMESPACE, {"metadata": {"finalizers": None}})
        cluster.server.delete(kube.POD, scrub["podName"], names.SYSTEM_NAMESPACE, grace=0)
        again = {"name": scrub["podName"], "namespace": names.SYSTEM_NAMESPACE, "labels": pod["metadata"]["labels"]}
        cluster.server.create(kube.POD, {"metadata": again, "spec": pod["spec"]})

    cluster.server.observers.append(replace)


def of_a_tenant(cluster: Cluster) -> None:
    """A tenant's pod has name, labels and log of a scrub; the node's own scrub says nothing."""
    cluster.add_tenant("acme")
    name = names.scrub_pod(NODE, EPOCH)
    labels = {names.LABEL_ROLE: names.ROLE_SCRUB, names.LABEL_NODE: NODE}
    cluster.server.create(
        kube.POD,
        {
            "metadata": {"name": name, "namespace": "acme", "labels": labels},
            "spec": {"containers": [{"name": "scrub"}]},
        },
    )
    report = build_report(build_config(node=NODE, epoch=EPOCH))
    cluster.server.container_logs[f"acme/{name}/{names.CONTAINER_SCRUB}"] = encode_report(report)


@dataclass(frozen=True)
class Forgery:
    """One row: what is forged, and the reason for which the node is quarantined."""

    name: str
    reason: str
    fault: str = ""
    report: dict[str, Any] = field(default_factory=dict)
    stage: Callable[[Cluster], None] | None = None


TABLE = [
    Forgery("report: replayed from the scrub before", "NonceMismatch", fault="replay"),
    Forgery("report: another nonce", "NonceMismatch", report={"nonce": "77" * 32}),
    Forgery("report: of another node", "NodeMismatch", report={"node": OTHER}),
    Forgery("report: of a namesake of the node", "NodeMismatch", report={"node_uid": "another"}),
    Forgery("report: of an older epoch", "EpochMismatch", report={"epoch": EPOCH - 1}),
    Forgery("report: of a later epoch", "EpochMismatch", report={"epoch": EPOCH + 1}),
    Forgery("report: of another boot", "BootMismatch", report={"boot_id": "another"}),
    Forgery("report: the log forged after the scrub", "ReportHashMismatch", fault="forge"),
    Forgery("report: none", "ReportMissing", fault="silent"),
    Forgery("report: none, from a container that failed", "ReportMissing", fault="crash"),
    Forgery("report: in the log of a tenant's pod", "ReportMissing", fault="silent", stage=of_a_tenant),
    Forgery("report: of another pod under the scrub's name", "ScrubPodLost", stage=another_pod),
    Forgery("receipt: by a stranger", "NonceMismatch", stage=by_a_stranger),
    Forgery("receipt: under the operator's key id", "NonceMismatch", stage=under_the_operators_key_id),
    Forgery("receipt: with a retired key", "NonceMismatch", stage=with_a_retired_key),
    Forgery("receipt: edited", "NonceMismatch", stage=edited),
    Forgery("receipt: of an older epoch", "NonceMismatch", stage=of_an_older_epoch),
    Forgery("receipt: of another node", "NonceMismatch", stage=of_another_node),
    Forgery("receipt: of another nonce", "NonceMismatch", stage=of_another_nonce),
]


async def scrub_again(cluster: Cluster, forgery: Forgery | None) -> None:
    """Make the node dirty, and let its next scrub be forged."""
    cluster.reboot(NODE)
    if forgery is not None:
        cluster.behaviour = Behaviour(scrub_fault=forgery.fault, scrub_changes=forgery.report)
        if forgery.stage is not None:
            forgery.stage(cluster)
    await cluster.settle()


@pytest.mark.parametrize("forgery", TABLE, ids=lambda forgery: forgery.name)
async def test_a_forgery_frees_nothing(forgery: Forgery) -> None:
    cluster = await used_node()
    await scrub_again(cluster, forgery)
    status = cluster.node_status(NODE)
    assert (status["phase"], status["epoch"], status["reason"]) == ("Quarantined", EPOCH, forgery.reason)
    assert status["lastReceipt"]["epoch"] == 1
    assert not _clears(cluster, status)
    assert cluster.node_status(OTHER)["phase"] == "Free"


async def test_without_a_forgery_the_node_is_free() -> None:
    cluster = await used_node()
    await scrub_again(cluster, None)
    status = cluster.node_status(NODE)
    assert (status["phase"], status["epoch"]) == ("Free", EPOCH)
    assert _clears(cluster, status)


def _clears(cluster: Cluster, status: Object) -> bool:
    """Say whether a receipt of the epoch verifies and stands for this scrub of this node."""
    receipt = cluster.server.find(kube.RECEIPT, names.receipt(NODE, EPOCH))
    if receipt is None:
        return False
    try:
        said = verify_receipt(msgspec.convert(receipt["spec"]["envelope"], Envelope), cluster.operator.trusted())
    except LetheError:
        return False
    if not is_valid_for(said, status["nodeUid"], status["bootId"], EPOCH):
        return False
    return said.node == NODE and said.nonce == status["scrub"]["nonce"]
