from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from lethe.crypto.sign import Signer
from lethe.decisions.evidence import Challenge
from lethe.decisions.release import CHAIN, decide_release
from lethe.formats.podhash import pod_hash
from lethe.formats.receiptkeys import ReceiptKeys
from lethe.model.errors import ReleaseRefused
from lethe.model.resources import EncryptedDataset
from tests.common.release import (
    CRITICALITIES,
    EPOCH,
    JOB_UID,
    NAMESPACE,
    POD_UID_,
    RECEIPT_KEYS,
    Cluster,
    build_claim,
    build_identity,
    build_receipt,
    build_receipts,
    build_tenant,
)
from tests.common.scrubs import build_posture

RETRYABLE = {"challenge", "keyfetch-running", "keyfetch-image", "job-admitted", "job-pod", "receipt-signer"}
CHALLENGE = Challenge(namespace=NAMESPACE, job_uid=JOB_UID, pod_uid=POD_UID_, public_key="an ephemeral key")


def challenge(**changes: Any) -> dict[str, Any]:
    return {"challenge": msgspec.structs.replace(CHALLENGE, **changes)}


def retired_before(keys: ReceiptKeys) -> ReceiptKeys:
    """Return the same keys, retired before any receipt was issued."""
    return {name: msgspec.structs.replace(key, retired_at="2029-01-01T00:00:00Z") for name, key in keys.items()}


def at(name: str, *path: str | int, value: Any) -> Callable[[Cluster], None]:
    """Return a change of one field of one object."""

    def change(cluster: Cluster) -> None:
        place = getattr(cluster, name)
        for step in path[:-1]:
            place = place.setdefault(step, {}) if isinstance(place, dict) else place[step]
        place[path[-1]] = value

    return change


def without(name: str, *path: str | int) -> Callable[[Cluster], None]:
    """Return the removal of an object, or of one field of it."""

    def change(cluster: Cluster) -> None:
        if not path:
            return setattr(cluster, name, None)
        place = getattr(cluster, name)
        for step in path[:-1]:
            place = place[step]
        del place[path[-1]]
        return None

    return change


def with_receipt(**receipt: Any) -> Callable[[Cluster], None]:
    """Return a change to another receipt, which the ledger records as it should."""

    def change(cluster: Cluster) -> None:
        cluster.receipt = build_receipt(**{"previous": build_receipts()[0]["spec"]["sha256"], **receipt})
        cluster.gpu_node["status"]["lastReceipt"]["sha256"] = cluster.receipt["spec"]["sha256"]  # type: ignore[index]

    return change


def nothing(_cluster: Cluster) -> None:
    pass


def both(*changes: Callable[[Cluster], None]) -> Callable[[Cluster], None]:
    def change(cluster: Cluster) -> None:
        for one in changes:
            one(cluster)

    return change


CRITICAL = at("dataset", "spec", "criticality", value="critical")
PAST = {
    "tenant": "acme",
    "namespace": "acme",
    "jobs": ["earlier"],
    "jobUids": ["earlier-uid"],
    "since": "2030-01-02T03:04:20Z",
    "until": "2030-01-02T03:04:59Z",
}

# id, the check that must refuse, the one change of the cluster, changes of the evidence beside it
NEGATIVES: list[tuple[str, str, Callable[[Cluster], None], dict[str, Any]]] = [
    ("nonce unknown, used or expired", "challenge", nothing, {"challenge": None}),
    ("nonce of another pod", "challenge-pod", nothing, challenge(pod_uid="other")),
    ("nonce of a namesake in another namespace", "challenge-pod", nothing, challenge(namespace="globex")),
    ("nonce of another job", "challenge-job", nothing, challenge(job_uid="other")),
    ("nonce of another ephemeral key", "challenge-key", nothing, challenge(public_key="other")),
    ("no pod", "pod", without("pod"), {}),
    ("pod of the same name", "pod-uid", at("pod", "metadata", "uid", value="other"), {}),
    ("pod without uid", "pod-uid", without("pod", "metadata", "uid"), {}),
    ("pod being deleted", "pod-deletion", at("pod", "metadata", "deletionTimestamp", value="2030-01-01T00:00:00Z"), {}),
    ("pod of another account", "pod-account", at("pod", "spec", "serviceAccountName", value="default"), {}),
    ("pod on another node", "pod-node", at("pod", "spec", "nodeName", value="gpu-2"), {}),
    ("pod not bound", "pod-node", without("pod", "spec", "nodeName"), {}),
    ("pod of another job", "pod-job", at("pod", "metadata", "labels", "lethe.dev/job-uid", value="other"), {}),
    ("pod without our role", "pod-job", without("pod", "metadata", "labels", "lethe.dev/role"), {}),
    ("scrub pod", "pod-job", at("pod", "metadata", "labels", "lethe.dev/role", value="scrub"), {}),
    ("pod failed", "pod-phase", at("pod", "status", "phase", value="Failed"), {}),
    ("pod succeeded", "pod-phase", at("pod", "status", "phase", value="Succeeded"), {}),
    ("status not reported", "keyfetch-running", without("pod", "status"), {}),
    (
        "keyfetch waiting",
        "keyfetch-running",
        at("pod", "status", "initContainerStatuses", 0, "state", value={"waiting": {}}),
        {},
    ),
    (
        "keyfetch ended",
        "keyfetch-running",
        at("pod", "status", "initContainerStatuses", 0, "state", value={"terminated": {"exitCode": 0}}),
        {},
    ),
    (
        "another container running",
        "keyfetch-running",
        at("pod", "status", "initContainerStatuses", 0, "name", value="other"),
        {},
    ),
    ("image not reported", "keyfetch-image", without("pod", "status", "initContainerStatuses", 0, "imageID"), {}),
    ("namespace without tenant", "tenant", at("tenants", 0, value=build_tenant("acme", "elsewhere")), {"tenants": ()}),
    ("namespace of two tenants", "tenant-unique", lambda c: c.tenants.append(build_tenant("globex", "acme")), {}),
    (
        "pod labelled for another tenant",
        "pod-tenant",
        at("pod", "metadata", "labels", "lethe.dev/tenant", value="globex"),
        {},
    ),
    ("no job", "job", without("job"), {}),
    ("job of the same name", "job-uid", at("job", "metadata", "uid", value="other"), {}),
    ("job being deleted", "job-deletion", at("job", "metadata", "deletionTimestamp", value="2030-01-01T00:00:00Z"), {}),
    ("job to be suspended", "job-suspended", at("job", "spec", "suspend", value=True), {}),
    ("job suspended", "job-suspended", at("job", "status", "phase", value="Suspended"), {}),
    ("job succeeded", "job-finished", at("job", "status", "phase", value="Succeeded"), {}),
    ("job failed", "job-finished", at("job", "status", "phase", value="Failed"), {}),
    ("job queued", "job-admitted", at("job", "status", "phase", value="Queued"), {}),
    ("job admitted for another tenant", "job-tenant", at("job", "status", "tenant", value="globex"), {}),
    ("job without the pod", "job-pod", at("job", "status", "pods", value=[]), {}),
    ("job with another pod", "job-pod", at("job", "status", "pods", 0, "uid", value="other"), {}),
    ("dataset not of the job", "job-dataset", at("job", "spec", "datasets", value=[{"name": "faces"}]), {}),
    ("no node", "node", without("node"), {}),
    ("node replaced", "node-uid", at("node", "metadata", "uid", value="other"), {}),
    ("no ledger", "ledger", without("gpu_node"), {}),
    ("node not managed", "ledger-managed", at("gpu_node", "spec", "managed", value=False), {}),
    *[
        (f"node {phase}", "ledger-assigned", at("gpu_node", "status", "phase", value=phase), {})
        for phase in ("Unmanaged", "Dirty", "Scrubbing", "Free", "Draining", "Quarantined")
    ],
    ("node without holder", "ledger-assigned", without("gpu_node", "status", "holder"), {}),
    ("node of another tenant", "ledger-tenant", at("gpu_node", "status", "holder", "tenant", value="globex"), {}),
    ("node of another namespace", "ledger-tenant", at("gpu_node", "status", "holder", "namespace", value="acme-2"), {}),
    ("node of another job", "ledger-job", at("gpu_node", "status", "holder", "jobUid", value="other"), {}),
    ("pod not in the ledger", "ledger-pod", at("gpu_node", "status", "holder", "podUids", value=["other"]), {}),
    ("ledger of a namesake node", "ledger-node", at("gpu_node", "status", "nodeUid", value="other"), {}),
    ("node restarted", "ledger-boot", at("node", "status", "nodeInfo", "bootID", value="boot-2"), {}),
    (
        "boot id not known",
        "ledger-boot",
        both(without("node", "status", "nodeInfo", "bootID"), at("gpu_node", "status", "bootId", value="")),
        {},
    ),
    ("image swapped", "pod-unchanged", at("pod", "spec", "containers", 0, "image", value="evil:1"), {}),
    (
        "keyfetch argument swapped",
        "pod-unchanged",
        at("pod", "spec", "initContainers", 0, "args", value=["--config", "{ }"]),
        {},
    ),
    (
        "host path added",
        "pod-unchanged",
        at("pod", "spec", "volumes", 0, value={"name": "lethe-keys", "hostPath": {"path": "/"}}),
        {},
    ),
    ("ephemeral container", "pod-unchanged", at("pod", "spec", "ephemeralContainers", value=[{"name": "debug"}]), {}),
    ("runs as root", "pod-unchanged", at("pod", "spec", "securityContext", "runAsUser", value=0), {}),
    ("host network", "pod-unchanged", at("pod", "spec", "hostNetwork", value=True), {}),
    ("pod hash not recorded", "pod-unchanged", at("gpu_node", "status", "holder", "podHashes", value={}), {}),
    ("no receipt recorded", "receipt-recorded", without("gpu_node", "status", "lastReceipt"), {}),
    (
        "receipt of another epoch recorded",
        "receipt-recorded",
        at("gpu_node", "status", "lastReceipt", "epoch", value=2),
        {},
    ),
    ("no receipt", "receipt", without("receipt"), {}),
    ("receipt of an unknown signer", "receipt-signer", with_receipt(signer=Signer.generate()), {}),
    ("signer no longer trusted", "receipt-signer", nothing, {"receipt_keys": {}}),
    ("receipt signed with a retired key", "receipt-signature", nothing, {"receipt_keys": retired_before(RECEIPT_KEYS)}),
    ("receipt payload changed", "receipt-signature", at("receipt", "spec", "envelope", "payload", value="e30="), {}),
    (
        "receipt not the recorded one",
        "receipt-hash",
        at("gpu_node", "status", "lastReceipt", "sha256", value="00" * 32),
        {},
    ),
    ("receipt of an older epoch", "receipt-clears", with_receipt(epoch=2), {}),
    (
        "receipt of an older boot",
        "receipt-clears",
        both(
            at("gpu_node", "status", "bootId", value="boot-2"),
            at("node", "status", "nodeInfo", "bootID", value="boot-2"),
        ),
        {},
    ),
    ("receipt without its predecessor", "receipt-chain", without("previous_receipt"), {}),
    ("receipt that hides its predecessor", "receipt-chain", with_receipt(previous=""), {}),
    (
        "receipt with another predecessor",
        "receipt-chain",
        at("previous_receipt", "spec", "envelope", value=build_receipt(2)["spec"]["envelope"]),
        {},
    ),
    ("no dataset", "dataset", without("dataset"), {}),
    (
        "dataset being deleted",
        "dataset-deletion",
        at("dataset", "metadata", "deletionTimestamp", value="2030-01-01T00:00:00Z"),
        {},
    ),
    ("dataset with another id", "dataset-id", at("dataset", "spec", "datasetId", value="00" * 16), {}),
    ("criticality without rule", "criticality", nothing, {"criticalities": {}}),
    (
        "criticality with other schemes",
        "criticality-scheme",
        nothing,
        {"criticalities": {"sensitive": msgspec.structs.replace(CRITICALITIES["sensitive"], schemes=())}},
    ),
    ("another job got keys since the scrub", "scrub-fresh", CRITICAL, {"other_jobs": 1}),
    (
        "another holder since the scrub",
        "scrub-fresh",
        both(CRITICAL, at("gpu_node", "status", "previousHolder", value=PAST)),
        {},
    ),
    (
        "holder with an unreadable time",
        "scrub-fresh",
        both(CRITICAL, at("gpu_node", "status", "previousHolder", value={**PAST, "until": "soon"})),
        {},
    ),
    (
        "posture that fails a demanded check",
        "posture",
        both(CRITICAL, with_receipt(posture=build_posture(swap="/dev/sda2"))),
        {},
    ),
    ("posture that is unknown", "posture", both(CRITICAL, with_receipt(posture=build_posture(ecc=None))), {}),
    ("receipt without posture", "posture", both(CRITICAL, with_receipt(posture=None)), {}),
    (
        "posture that is good in the ledger alone",
        "posture",
        both(
            CRITICAL,
            with_receipt(posture=build_posture(ecc=False)),
            at("gpu_node", "status", "posture", value=msgspec.to_builtins(build_posture())),
        ),
        {},
    ),
    ("tenant key deleted", "tenant-key", without("tenant_key"), {}),
    ("key of another tenant", "tenant-key-version", nothing, {"key_versions": frozenset()}),
    ("version not made yet", "tenant-key-version", nothing, {"claim": build_claim(versions=((1, 1), (2, 2)))}),
    ("releases used up", "release-count", nothing, {"releases": 2}),
]


def test_valid_evidence_passes() -> None:
    approval = decide_release(Cluster().evidence())
    assert (approval.tenant, approval.node_epoch, approval.receipt) == ("acme", EPOCH, "gpu-1-3")
    assert approval.images == ("lethe:1", "train:1")
    binding = approval.bindings[1]
    assert (binding.tenant, binding.namespace, binding.key, binding.version) == ("acme", "acme", "default", 1)
    assert (binding.criticality, binding.scheme, binding.epoch) == ("sensitive", "provider", 1)


@pytest.mark.parametrize(
    ("check", "change", "changes"), [row[1:] for row in NEGATIVES], ids=[row[0] for row in NEGATIVES]
)
def test_one_change_fails_exactly_one_check(
    check: str, change: Callable[[Cluster], None], changes: dict[str, Any]
) -> None:
    cluster = Cluster()
    change(cluster)
    with pytest.raises(ReleaseRefused) as refusal:
        decide_release(cluster.evidence(**changes))
    assert refusal.value.check == check
    assert refusal.value.retryable is (check in RETRYABLE)


def test_every_check_has_a_row() -> None:
    # The one scheme of this version cannot be another: the type refuses it before the check sees it.
    assert {name for name, _ in CHAIN} == {row[1] for row in NEGATIVES} | {"dataset-scheme"}
    assert len(NEGATIVES) >= 60


def test_a_scheme_of_a_newer_version_is_refused() -> None:
    evidence = Cluster().evidence()
    assert isinstance(evidence.dataset, EncryptedDataset)
    newer = msgspec.structs.replace(
        evidence.dataset,
        spec=msgspec.structs.replace(evidence.dataset.spec, scheme="split"),  # type: ignore[arg-type]
    )
    with pytest.raises(ReleaseRefused) as refusal:
        decide_release(msgspec.structs.replace(evidence, dataset=newer))
    assert refusal.value.check == "dataset-scheme"


@pytest.mark.parametrize(
    ("change", "changes"),
    [
        pytest.param(at("job", "status", "phase", value="Running"), {}, id="job running already"),
        pytest.param(at("pod", "spec", "affinity", value={"nodeAffinity": {}}), {}, id="gate lifted with affinity"),
        pytest.param(at("pod", "spec", "tolerations", value=[{"key": "x"}]), {}, id="tolerations by the API server"),
        pytest.param(at("pod", "metadata", "annotations", value={"a": "b"}), {}, id="annotation"),
        pytest.param(nothing, {"releases": 1}, id="rerun within the limit"),
        pytest.param(nothing, {"other_jobs": 5}, id="same tenant's earlier jobs where no fresh scrub is demanded"),
        pytest.param(CRITICAL, {}, id="fresh scrub"),
        pytest.param(with_receipt(posture=None), {}, id="no posture where none is demanded"),
        pytest.param(
            both(CRITICAL, with_receipt(posture=build_posture(ksm="on"))), {}, id="another posture than is demanded"
        ),
        pytest.param(
            both(CRITICAL, at("gpu_node", "status", "previousHolder", value={**PAST, "until": "2030-01-02T03:00:00Z"})),
            {},
            id="last holder before the scrub",
        ),
        pytest.param(nothing, {"key_versions": frozenset({1, 2})}, id="newer key version"),
    ],
)
def test_what_is_honest_passes(change: Callable[[Cluster], None], changes: dict[str, Any]) -> None:
    cluster = Cluster()
    change(cluster)
    decide_release(cluster.evidence(**changes))


def test_the_first_receipt_of_a_node_follows_none() -> None:
    cluster = Cluster(previous_receipt=None)
    with_receipt(previous="")(cluster)
    decide_release(cluster.evidence())


def test_the_binding_comes_from_live_objects() -> None:
    cluster = Cluster()
    cluster.dataset["spec"]["criticality"] = "standard"  # type: ignore[index]
    assert decide_release(cluster.evidence()).bindings[1].criticality == "standard"


def test_identity_wins_over_the_claim() -> None:
    evidence = Cluster().evidence(identity=build_identity(pod_uid="other"))
    with pytest.raises(ReleaseRefused) as refusal:
        decide_release(evidence)
    assert refusal.value.check == "challenge-pod"


def test_pod_hash_knows_null_and_absent_as_one() -> None:
    pod = Cluster().pod or {}
    expected = pod_hash(pod)
    pod["spec"]["hostPID"] = None
    pod["spec"]["containers"][0]["command"] = None
    assert pod_hash(pod) == expected
