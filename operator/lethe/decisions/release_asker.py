"""Checks of a key release, first half: who asks. Challenge, pod, tenant and job.

`lethe.decisions.release.CHAIN` puts them in order and cites why. A check returns None, or a Finding; it takes for
granted what the checks before it have established.
"""

from lethe.decisions.evidence import (
    Evidence,
    Finding,
    job_name,
    keyfetch_status,
    metadata_of,
    pod_name,
    present,
    spec_of,
    status_of,
    tenant_of,
)
from lethe.model.names import CONTAINER_KEYFETCH, JOB_ACCOUNT, LABEL_JOB_UID, LABEL_ROLE, LABEL_TENANT, ROLE_TRAIN
from lethe.model.phases import JobPhase

# --- the challenge


def challenge_known(evidence: Evidence) -> Finding | None:
    if evidence.challenge is not None:
        return None
    return Finding("the nonce is unknown, was used before, or has expired; ask for a new one", retryable=True)


def challenge_same_pod(evidence: Evidence) -> Finding | None:
    challenge, identity = present(evidence.challenge), evidence.identity
    if (challenge.namespace, challenge.pod_uid) == (identity.namespace, identity.pod_uid):
        return None
    return Finding("the nonce was given to another pod")


def challenge_same_job(evidence: Evidence) -> Finding | None:
    return (
        None
        if present(evidence.challenge).job_uid == evidence.claim.job_uid
        else Finding("the nonce was given for another job")
    )


def challenge_same_key(evidence: Evidence) -> Finding | None:
    if present(evidence.challenge).public_key == evidence.claim.public_key:
        return None
    return Finding("the nonce was given for another ephemeral public key")


# --- the pod


def pod_exists(evidence: Evidence) -> Finding | None:
    return None if evidence.pod is not None else Finding(f"there is no pod {pod_name(evidence)}")


def pod_uid(evidence: Evidence) -> Finding | None:
    found = metadata_of(present(evidence.pod)).get("uid")
    if found == evidence.identity.pod_uid:
        return None
    return Finding(f"pod {pod_name(evidence)} has uid {found}, the token was made for {evidence.identity.pod_uid}")


def pod_not_deleted(evidence: Evidence) -> Finding | None:
    since = metadata_of(present(evidence.pod)).get("deletionTimestamp")
    return None if since is None else Finding(f"pod {pod_name(evidence)} is being deleted since {since}")


def pod_account(evidence: Evidence) -> Finding | None:
    found = spec_of(present(evidence.pod)).get("serviceAccountName")
    if found == JOB_ACCOUNT:
        return None
    return Finding(f"pod {pod_name(evidence)} runs as ServiceAccount {found}, expected {JOB_ACCOUNT}")


def pod_node(evidence: Evidence) -> Finding | None:
    found = spec_of(present(evidence.pod)).get("nodeName")
    if found == evidence.identity.node:
        return None
    return Finding(f"pod {pod_name(evidence)} is on node {found}, the token was made on {evidence.identity.node}")


def pod_is_of_job(evidence: Evidence) -> Finding | None:
    labels = metadata_of(present(evidence.pod)).get("labels") or {}
    if labels.get(LABEL_ROLE) == ROLE_TRAIN and labels.get(LABEL_JOB_UID) == evidence.claim.job_uid:
        return None
    return Finding(f"pod {pod_name(evidence)} is not labelled as a training pod of job {evidence.claim.job}")


def pod_not_ended(evidence: Evidence) -> Finding | None:
    phase = status_of(present(evidence.pod)).get("phase")
    if phase not in ("Succeeded", "Failed"):
        return None
    return Finding(f"pod {pod_name(evidence)} has ended: its phase is {phase}")


def keyfetch_running(evidence: Evidence) -> Finding | None:
    container = keyfetch_status(present(evidence.pod))
    if "running" in (container.get("state") or {}):
        return None
    return Finding(
        f"the container {CONTAINER_KEYFETCH} of pod {pod_name(evidence)} is not reported as running yet", True
    )


def keyfetch_image_reported(evidence: Evidence) -> Finding | None:
    if keyfetch_status(present(evidence.pod)).get("imageID"):
        return None
    return Finding(f"the image of {CONTAINER_KEYFETCH} in pod {pod_name(evidence)} is not reported yet", True)


# --- the tenant


def namespace_has_tenant(evidence: Evidence) -> Finding | None:
    return None if evidence.tenants else Finding(f"no Tenant lists namespace {evidence.identity.namespace}")


def namespace_has_one_tenant(evidence: Evidence) -> Finding | None:
    if len(evidence.tenants) == 1:
        return None
    claimants = ", ".join(sorted(tenant.metadata.name for tenant in evidence.tenants))
    return Finding(f"namespace {evidence.identity.namespace} is listed by several Tenants: {claimants}")


def pod_is_of_tenant(evidence: Evidence) -> Finding | None:
    found = (metadata_of(present(evidence.pod)).get("labels") or {}).get(LABEL_TENANT)
    expected = tenant_of(evidence).metadata.name
    return (
        None
        if found == expected
        else Finding(f"pod {pod_name(evidence)} is labelled for tenant {found}, expected {expected}")
    )


# --- the job


def job_exists(evidence: Evidence) -> Finding | None:
    return None if evidence.job is not None else Finding(f"there is no SecureTrainingJob {job_name(evidence)}")


def job_uid(evidence: Evidence) -> Finding | None:
    found = present(evidence.job).metadata.uid
    if found == evidence.claim.job_uid:
        return None
    return Finding(f"job {job_name(evidence)} has uid {found}, the pod was made for {evidence.claim.job_uid}")


def job_not_deleted(evidence: Evidence) -> Finding | None:
    since = present(evidence.job).metadata.deletion_timestamp
    return None if since is None else Finding(f"job {job_name(evidence)} is being deleted since {since}")


def job_not_suspended(evidence: Evidence) -> Finding | None:
    job = present(evidence.job)
    if not job.spec.suspend and job.status.phase is not JobPhase.SUSPENDED:
        return None
    return Finding(f"job {job_name(evidence)} is suspended")


def job_not_finished(evidence: Evidence) -> Finding | None:
    phase = present(evidence.job).status.phase
    return Finding(f"job {job_name(evidence)} has finished: {phase}") if phase.is_terminal else None


def job_admitted(evidence: Evidence) -> Finding | None:
    phase = present(evidence.job).status.phase
    if phase in (JobPhase.ADMITTED, JobPhase.RUNNING):
        return None
    return Finding(f"job {job_name(evidence)} is {phase}, not yet Admitted", retryable=True)


def job_tenant(evidence: Evidence) -> Finding | None:
    found, expected = present(evidence.job).status.tenant, tenant_of(evidence).metadata.name
    return (
        None
        if found == expected
        else Finding(f"job {job_name(evidence)} was admitted for tenant {found}, expected {expected}")
    )


def job_has_pod(evidence: Evidence) -> Finding | None:
    if any(pod.uid == evidence.identity.pod_uid for pod in present(evidence.job).status.pods):
        return None
    return Finding(f"job {job_name(evidence)} does not name pod {pod_name(evidence)} yet", retryable=True)


def job_uses_dataset(evidence: Evidence) -> Finding | None:
    if any(use.name == evidence.claim.dataset for use in present(evidence.job).spec.datasets):
        return None
    return Finding(f"job {job_name(evidence)} does not use dataset {evidence.claim.dataset}")
