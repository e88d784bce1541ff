"""Checks of a key release, second half: on what ground. Node, ledger, receipt, dataset and key.

`lethe.decisions.release.CHAIN` puts them in order and cites why. A check returns None, or a Finding; it takes for
granted what the checks before it have established.
"""

from lethe.decisions.evidence import (
    Evidence,
    Finding,
    dataset_name,
    job_name,
    metadata_of,
    pod_name,
    present,
    status_of,
    tenant_of,
)
from lethe.decisions.posture import find_unmet, sentence
from lethe.decisions.receipts import is_valid_for
from lethe.formats.podhash import pod_hash
from lethe.formats.quantity import parse_time
from lethe.formats.receipt import envelope_sha256, verify_receipt
from lethe.model.errors import CryptoError, InputError, ReceiptError
from lethe.model.names import KEYSERVICE_ID
from lethe.model.phases import NodePhase
from lethe.model.resources import Holder, LastReceipt
from lethe.model.scrub import ReceiptPredicate

# --- the node and its ledger


def node_exists(evidence: Evidence) -> Finding | None:
    return None if evidence.node is not None else Finding(f"there is no node {evidence.identity.node}")


def node_uid(evidence: Evidence) -> Finding | None:
    found = metadata_of(present(evidence.node)).get("uid")
    if found == evidence.identity.node_uid:
        return None
    return Finding(
        f"node {evidence.identity.node} has uid {found}, the token was made for {evidence.identity.node_uid}"
    )


def ledger_exists(evidence: Evidence) -> Finding | None:
    return None if evidence.gpu_node is not None else Finding(f"there is no GPUNode {evidence.identity.node}")


def ledger_managed(evidence: Evidence) -> Finding | None:
    return None if present(evidence.gpu_node).spec.managed else Finding(f"node {evidence.identity.node} is not managed")


def ledger_assigned(evidence: Evidence) -> Finding | None:
    status = present(evidence.gpu_node).status
    if status.phase is NodePhase.ASSIGNED and status.holder is not None:
        return None
    return Finding(f"node {evidence.identity.node} is {status.phase}, expected Assigned")


def ledger_tenant(evidence: Evidence) -> Finding | None:
    holder = _holder(evidence)
    if (holder.tenant, holder.namespace) == (tenant_of(evidence).metadata.name, evidence.identity.namespace):
        return None
    return Finding(f"node {evidence.identity.node} is not held by the tenant and namespace of pod {pod_name(evidence)}")


def ledger_job(evidence: Evidence) -> Finding | None:
    if _holder(evidence).job_uid == evidence.claim.job_uid:
        return None
    return Finding(f"node {evidence.identity.node} is not held by job {job_name(evidence)}")


def ledger_pod(evidence: Evidence) -> Finding | None:
    if evidence.identity.pod_uid in _holder(evidence).pod_uids:
        return None
    return Finding(f"the ledger of node {evidence.identity.node} does not name the uid of pod {pod_name(evidence)}")


def ledger_node_uid(evidence: Evidence) -> Finding | None:
    if present(evidence.gpu_node).status.node_uid == evidence.identity.node_uid:
        return None
    return Finding(f"the ledger of node {evidence.identity.node} was written for another Node object of that name")


def ledger_boot(evidence: Evidence) -> Finding | None:
    found = (status_of(present(evidence.node)).get("nodeInfo") or {}).get("bootID")
    if found and found == present(evidence.gpu_node).status.boot_id:
        return None
    return Finding(f"node {evidence.identity.node} was restarted after it was assigned")


def pod_unchanged(evidence: Evidence) -> Finding | None:
    expected = _holder(evidence).pod_hashes.get(evidence.identity.pod_uid)
    if expected is not None and expected == pod_hash(present(evidence.pod)):
        return None
    return Finding(
        f"containers, volumes or security settings of pod {pod_name(evidence)} are not those that the operator created"
    )


# --- the receipt


def receipt_recorded(evidence: Evidence) -> Finding | None:
    status = present(evidence.gpu_node).status
    if status.last_receipt is not None and status.last_receipt.epoch == status.epoch:
        return None
    return Finding(f"the ledger of node {evidence.identity.node} names no scrub receipt for its epoch {status.epoch}")


def receipt_exists(evidence: Evidence) -> Finding | None:
    return None if evidence.receipt is not None else Finding(f"there is no ScrubReceipt {_last_receipt(evidence).name}")


def receipt_signer_known(evidence: Evidence) -> Finding | None:
    """A key may have been made a moment ago: its public half takes a minute to get here."""
    receipt = present(evidence.receipt)
    unknown = {signature.keyid for signature in receipt.spec.envelope.signatures} - evidence.receipt_keys.keys()
    if not unknown:
        return None
    return Finding(
        f"the ScrubReceipt {receipt.metadata.name} is signed by key {', '.join(sorted(unknown))}, which is not among "
        f"the trusted keys ({', '.join(sorted(evidence.receipt_keys)) or 'none'}), or not yet",
        retryable=True,
    )


def receipt_signed(evidence: Evidence) -> Finding | None:
    receipt = present(evidence.receipt)
    try:
        verify_receipt(receipt.spec.envelope, evidence.receipt_keys)
    except (CryptoError, ReceiptError) as error:
        return Finding(f"the ScrubReceipt {receipt.metadata.name} does not verify: {error}")
    return None


def receipt_recorded_hash(evidence: Evidence) -> Finding | None:
    receipt = present(evidence.receipt)
    if envelope_sha256(receipt.spec.envelope) == _last_receipt(evidence).sha256:
        return None
    return Finding(f"the ScrubReceipt {receipt.metadata.name} is not the one whose hash the ledger recorded")


def receipt_clears(evidence: Evidence) -> Finding | None:
    """Verdict, node uid, boot id and epoch; the name of the node beside its uid."""
    predicate, status = predicate_of(evidence), present(evidence.gpu_node).status
    if predicate.node == evidence.identity.node and is_valid_for(
        predicate, evidence.identity.node_uid, status.boot_id, status.epoch
    ):
        return None
    return Finding(
        f"the ScrubReceipt {_last_receipt(evidence).name} does not clear node {evidence.identity.node} in this boot "
        f"and epoch: it says {predicate.verdict} for node {predicate.node}, epoch {predicate.epoch}"
    )


def receipt_chained(evidence: Evidence) -> Finding | None:
    predicate, previous = predicate_of(evidence), evidence.previous_receipt
    broken = Finding(f"the ScrubReceipt {_last_receipt(evidence).name} does not continue the receipts of its node")
    if previous is None:
        return broken if predicate.previous else None
    if envelope_sha256(previous.spec.envelope) != predicate.previous:
        return broken
    try:
        earlier = verify_receipt(previous.spec.envelope, evidence.receipt_keys)
    except (CryptoError, ReceiptError):
        return broken
    return None if earlier.node == predicate.node and earlier.epoch < predicate.epoch else broken


# --- the dataset


def dataset_exists(evidence: Evidence) -> Finding | None:
    if evidence.dataset is not None:
        return None
    return Finding(f"there is no EncryptedDataset {dataset_name(evidence)}")


def dataset_not_deleted(evidence: Evidence) -> Finding | None:
    since = present(evidence.dataset).metadata.deletion_timestamp
    return (
        None if since is None else Finding(f"EncryptedDataset {dataset_name(evidence)} is being deleted since {since}")
    )


def dataset_id(evidence: Evidence) -> Finding | None:
    found = present(evidence.dataset).spec.dataset_id
    if found == evidence.claim.dataset_id:
        return None
    return Finding(
        f"EncryptedDataset {dataset_name(evidence)} has datasetId {found}, the pod was made for "
        f"{evidence.claim.dataset_id}"
    )


def dataset_scheme(evidence: Evidence) -> Finding | None:
    found = present(evidence.dataset).spec.scheme
    if found == "provider":
        return None
    return Finding(
        f"EncryptedDataset {dataset_name(evidence)} has scheme {found}, which {KEYSERVICE_ID} does not serve"
    )


def criticality_known(evidence: Evidence) -> Finding | None:
    found = present(evidence.dataset).spec.criticality
    if found in evidence.criticalities:
        return None
    return Finding(f"the key service has no rule for criticality {found}: set it in the chart's criticality table")


def criticality_scheme(evidence: Evidence) -> Finding | None:
    spec = present(evidence.dataset).spec
    schemes = evidence.criticalities[spec.criticality].schemes
    if spec.scheme in schemes:
        return None
    return Finding(
        f"criticality {spec.criticality} demands scheme {' or '.join(schemes)}, the dataset has {spec.scheme}"
    )


def scrub_fresh(evidence: Evidence) -> Finding | None:
    """Neither the ledger nor the releases of this service know a holder between the scrub and this job."""
    criticality = present(evidence.dataset).spec.criticality
    if not evidence.criticalities[criticality].fresh_scrub:
        return None
    past = present(evidence.gpu_node).status.previous_holder
    if evidence.other_jobs == 0 and (past is None or _is_before(past.until, predicate_of(evidence).issued_at)):
        return None
    return Finding(
        f"criticality {criticality} demands a scrub right before each job, but node {evidence.identity.node} had "
        "another job since its last scrub"
    )


def posture_met(evidence: Evidence) -> Finding | None:
    """The signed receipt is the authority, not the ledger's copy."""
    criticality = present(evidence.dataset).spec.criticality
    unmet = find_unmet(predicate_of(evidence).report.posture, evidence.criticalities[criticality].posture)
    if not unmet:
        return None
    return Finding(
        f"criticality {criticality} demands what node {evidence.identity.node} did not show at its last scrub "
        f"({_last_receipt(evidence).name}): {sentence(unmet)}"
    )


def tenant_key_exists(evidence: Evidence) -> Finding | None:
    if evidence.tenant_key is not None:
        return None
    return Finding(f"there is no TenantKey {evidence.identity.namespace}/{evidence.claim.key}")


def tenant_key_versions(evidence: Evidence) -> Finding | None:
    unknown = sorted({version for _, version in evidence.claim.versions} - evidence.key_versions)
    if not unknown:
        return None
    return Finding(
        f"the key service has no version {unknown[0]} of TenantKey {evidence.identity.namespace}/{evidence.claim.key} "
        f"for tenant {tenant_of(evidence).metadata.name}: seal the dataset to the key's published version"
    )


def releases_left(evidence: Evidence) -> Finding | None:
    limit = evidence.criticalities[present(evidence.dataset).spec.criticality].max_releases
    if evidence.releases < limit:
        return None
    return Finding(
        f"pod {pod_name(evidence)} got the keys of dataset {evidence.claim.dataset} {evidence.releases} times, the "
        f"limit is {limit}"
    )


def predicate_of(evidence: Evidence) -> ReceiptPredicate:
    """Return what the receipt says; for after `receipt_signed`, and verified again."""
    return verify_receipt(present(evidence.receipt).spec.envelope, evidence.receipt_keys)


def _holder(evidence: Evidence) -> Holder:
    return present(present(evidence.gpu_node).status.holder)


def _last_receipt(evidence: Evidence) -> LastReceipt:
    return present(present(evidence.gpu_node).status.last_receipt)


def _is_before(earlier: str, later: str) -> bool:
    """Compare two RFC 3339 times; one that cannot be read is before nothing."""
    try:
        return parse_time(earlier) <= parse_time(later)
    except InputError:
        return False
