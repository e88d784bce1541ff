"""May this pod have the keys of this dataset now? (keys.md, Release protocol, step 5)

`CHAIN` is the specification: an ordered list of named checks over one frozen Evidence.

1. The first check that fails names itself in the audit record and in the pod's message, and ends the decision.
2. A check relies on the checks before it, and on nothing else.
3. A failure that only means that the cluster has not reported something yet is retryable and is no release; every other
   one is final for this request.
4. What a stanza is bound to is built here from live objects, never from the claim.

A message says what the pod's owner can see anyway, and nothing about keys.
"""

from collections.abc import Callable
from typing import Final

import msgspec

from lethe.decisions import release_asker, release_ground
from lethe.decisions.evidence import ApiObject, Evidence, Finding, keyfetch_status, tenant_of
from lethe.formats.binding import Binding
from lethe.model.errors import ReleaseRefused

Check = Callable[[Evidence], Finding | None]

CHAIN: Final[tuple[tuple[str, Check], ...]] = (
    # step 2 and 4: the nonce, which was consumed before anything else happened
    ("challenge", release_asker.challenge_known),
    ("challenge-pod", release_asker.challenge_same_pod),  # a nonce is bound to the pod's uid ...
    ("challenge-job", release_asker.challenge_same_job),
    ("challenge-key", release_asker.challenge_same_key),  # ... and to the ephemeral key that the answer is sealed to
    # step 5: the pod. A token outlives its pod's deletion by a minute, so the pod itself is read
    ("pod", release_asker.pod_exists),
    ("pod-uid", release_asker.pod_uid),  # not a namesake
    ("pod-deletion", release_asker.pod_not_deleted),  # eviction and deletion end releases at once
    ("pod-account", release_asker.pod_account),
    ("pod-node", release_asker.pod_node),
    ("pod-job", release_asker.pod_is_of_job),  # labels that only the operator writes
    ("pod-phase", release_asker.pod_not_ended),
    (
        "keyfetch-running",
        release_asker.keyfetch_running,
    ),  # nobody else in the pod; the API lags a second
    ("keyfetch-image", release_asker.keyfetch_image_reported),  # goes into the audit record
    # the tenant, from the provider's objects
    ("tenant", release_asker.namespace_has_tenant),
    ("tenant-unique", release_asker.namespace_has_one_tenant),
    ("pod-tenant", release_asker.pod_is_of_tenant),
    # the job: its end, suspension or deletion ends releases at once (step 8)
    ("job", release_asker.job_exists),
    ("job-uid", release_asker.job_uid),
    ("job-deletion", release_asker.job_not_deleted),
    ("job-suspended", release_asker.job_not_suspended),
    ("job-finished", release_asker.job_not_finished),
    ("job-admitted", release_asker.job_admitted),
    ("job-tenant", release_asker.job_tenant),
    ("job-pod", release_asker.job_has_pod),
    ("job-dataset", release_asker.job_uses_dataset),
    # the node, and the ledger of who holds it
    ("node", release_ground.node_exists),
    ("node-uid", release_ground.node_uid),
    ("ledger", release_ground.ledger_exists),
    ("ledger-managed", release_ground.ledger_managed),
    ("ledger-assigned", release_ground.ledger_assigned),  # draining and quarantine end releases at once
    ("ledger-tenant", release_ground.ledger_tenant),
    ("ledger-job", release_ground.ledger_job),
    ("ledger-pod", release_ground.ledger_pod),
    ("ledger-node", release_ground.ledger_node_uid),
    ("ledger-boot", release_ground.ledger_boot),  # a reboot makes the node dirty, whatever the ledger says still
    ("pod-unchanged", release_ground.pod_unchanged),  # what runs is what the operator built
    # no scrub, no key
    ("receipt-recorded", release_ground.receipt_recorded),
    ("receipt", release_ground.receipt_exists),
    ("receipt-signer", release_ground.receipt_signer_known),
    ("receipt-signature", release_ground.receipt_signed),
    ("receipt-hash", release_ground.receipt_recorded_hash),
    ("receipt-clears", release_ground.receipt_clears),  # verdict, node, boot and epoch
    ("receipt-chain", release_ground.receipt_chained),
    # the dataset, and what its criticality demands
    ("dataset", release_ground.dataset_exists),  # in the pod's own namespace
    ("dataset-deletion", release_ground.dataset_not_deleted),
    ("dataset-id", release_ground.dataset_id),
    ("dataset-scheme", release_ground.dataset_scheme),
    ("criticality", release_ground.criticality_known),
    ("criticality-scheme", release_ground.criticality_scheme),
    ("scrub-fresh", release_ground.scrub_fresh),
    ("posture", release_ground.posture_met),  # as the scrub found the node, by its receipt
    # the key, and how often it went out
    ("tenant-key", release_ground.tenant_key_exists),  # deleting the TenantKey revokes
    ("tenant-key-version", release_ground.tenant_key_versions),
    ("release-count", release_ground.releases_left),  # checked again where it is counted
)


class Approval(msgspec.Struct, frozen=True, kw_only=True):
    """A release that the chain lets pass, in terms of live objects."""

    tenant: str
    bindings: dict[int, Binding]
    """What the stanza of each key epoch must be bound to."""
    node_epoch: int
    boot_id: str
    receipt: str
    criticality: str
    max_releases: int
    images: tuple[str, ...]
    keyfetch_image_id: str


def decide_release(evidence: Evidence) -> Approval:
    """Return the approval; raise ReleaseRefused with the first check that fails."""
    for name, check in CHAIN:
        finding = check(evidence)
        if finding is not None:
            raise ReleaseRefused(name, finding.message, retryable=finding.retryable)
    return _approval(evidence)


def _approval(evidence: Evidence) -> Approval:
    dataset, gpu_node, pod = evidence.dataset, evidence.gpu_node, evidence.pod
    if dataset is None or gpu_node is None or pod is None or gpu_node.status.last_receipt is None:
        raise LookupError("the chain let evidence pass in which an object is missing")
    tenant = tenant_of(evidence).metadata.name
    spec = dataset.spec
    return Approval(
        tenant=tenant,
        bindings={
            epoch: Binding(
                dataset_id=spec.dataset_id,
                epoch=epoch,
                tenant=tenant,
                namespace=evidence.identity.namespace,
                key=evidence.claim.key,
                version=version,
                criticality=spec.criticality,
                scheme=spec.scheme,
            )
            for epoch, version in evidence.claim.versions
        },
        node_epoch=gpu_node.status.epoch,
        boot_id=gpu_node.status.boot_id,
        receipt=gpu_node.status.last_receipt.name,
        criticality=spec.criticality,
        max_releases=evidence.criticalities[spec.criticality].max_releases,
        images=_images(pod),
        keyfetch_image_id=keyfetch_status(pod)["imageID"],
    )


def _images(pod: ApiObject) -> tuple[str, ...]:
    containers = [*(pod["spec"].get("initContainers") or []), *(pod["spec"].get("containers") or [])]
    return tuple(container.get("image", "") for container in containers)
