"""Receipts of real scrubs are evidence for others: libraries that are not ours, files without a cluster, a new key."""

import base64
import json
from pathlib import Path

import pytest
from securesystemslib.exceptions import VerificationError

from tests.cluster.errors import ClusterError
from tests.common.installation import SYSTEM, Installation
from tests.common.objects import Object, find, find_all
from tests.common.stock import stock_statement
from tests.common.world import World


def receipt_keys(world: World) -> str:
    """Return the list of trusted keys as the cluster publishes it."""
    trust = find(world.provider.kubectl(), "configmap", "lethe-trust", SYSTEM)
    assert trust is not None
    return str(trust["data"]["receipt-keys.json"])


def receipts(world: World) -> list[Object]:
    found = find_all(world.provider.kubectl(), "scrubreceipts")
    assert len(found) >= len(world.installation.gpu_nodes())
    return found


def test_scrub_receipts_verify_with_stock_libraries(world: World) -> None:
    keys = receipt_keys(world)
    for receipt in receipts(world):
        envelope = receipt["spec"]["envelope"]
        statement = stock_statement(envelope, keys)
        predicate = statement["predicate"]
        assert (predicate["node"], predicate["epoch"]) == (receipt["spec"]["node"], receipt["spec"]["epoch"])
        assert predicate["verdict"] == "Cleared"
        assert len(statement["subject"]) == len(predicate["report"]["gpus"]) > 0

        payload = bytearray(base64.b64decode(envelope["payload"]))
        payload[len(payload) // 2] ^= 1
        with pytest.raises(VerificationError):
            stock_statement({**envelope, "payload": base64.b64encode(payload).decode()}, keys)


def test_scrub_receipts_verify_offline(world: World, tmp_path: Path) -> None:
    export, trust = tmp_path / "receipts.json", tmp_path / "receipt-keys.json"
    found = receipts(world)
    export.write_text(json.dumps({"kind": "List", "items": found}))
    trust.write_text(receipt_keys(world))
    nowhere = str(tmp_path / "no-cluster")
    said = world.installation.cli("receipt", "verify", export, f"--trust={trust}", KUBECONFIG=nowhere)
    assert f"{len(found)} receipts of " in said

    last = max(found, key=lambda receipt: receipt["spec"]["epoch"])
    last["spec"]["envelope"]["signatures"][0]["sig"] = found[0]["spec"]["envelope"]["signatures"][0]["sig"][::-1]
    export.write_text(json.dumps({"kind": "List", "items": found}))
    with pytest.raises(ClusterError):
        world.installation.cli("receipt", "verify", export, f"--trust={trust}", KUBECONFIG=nowhere)


def scrub_again(installation: Installation, node: str) -> int:
    """Give a node back and take it under custody again, which scrubs it; return its new epoch."""
    installation.wait_for_node(node, "Free")
    installation.cli("node", "release", node)
    installation.wait_for_node(node, "Unmanaged")
    installation.cli("node", "enrol", node)
    ledger = installation.wait_for_node(node, "Free", seconds=240)
    return int(ledger["status"]["epoch"])


def test_scrub_receipts_outlive_a_rotation_of_the_key(world: World) -> None:
    installation = world.installation
    kubectl = world.provider.kubectl()
    before = json.loads(receipt_keys(world))
    version = max(key["version"] for key in before) + 1
    # New pods have the new files at once; those that run get them in a minute or two, and may sign with the old key.
    annotations = {**installation.values()["podAnnotations"], "receipt-key-version": str(version)}
    installation.install(receipts={"keyVersion": version}, podAnnotations=annotations)

    after = json.loads(receipt_keys(world))
    assert [key["keyId"] for key in after[:-1]] == [key["keyId"] for key in before]
    assert all(key["retiredAt"] for key in after[:-1])
    new = after[-1]
    assert (new["version"], "retiredAt" in new) == (version, False)

    node = installation.gpu_nodes()[0].name
    epoch = scrub_again(installation, node)
    receipt = find(kubectl, "scrubreceipt", f"{node}-{epoch}")
    assert receipt is not None
    assert receipt["spec"]["envelope"]["signatures"][0]["keyid"] == new["keyId"]
    installation.cli("receipt", "verify", "--all")
    for each in receipts(world):
        stock_statement(each["spec"]["envelope"], receipt_keys(world))
