"""The release protocol, step by step (keys.md, Release protocol).

1. The nonce is consumed.
2. The token is reviewed, and says which pod asks.
3. The evidence is read live, and the chain of checks decides.
4. The audit intent is durable, and the release counted, before anything is unwrapped.
5. The tenant's private key opens the stanzas, under a binding made of live objects; the shares are sealed to the
   ephemeral key, bound to the transcript.
6. The pod proves that it opened them: the audit says *confirmed*.

Every refusal after step 1 is recorded, with the name of the check. A refusal says nothing about keys. An API server or
store that is away is UnavailableError, and no refusal.
"""

from collections.abc import Callable
from datetime import datetime
from uuid import UUID

import structlog

from lethe.crypto.derive import random_bytes
from lethe.crypto.hpke import parse_public
from lethe.decisions.evidence import Claim, Identity
from lethe.decisions.release import Approval, decide_release
from lethe.formats.audit import AuditEvent
from lethe.formats.protocol import (
    ChallengeReply,
    ChallengeRequest,
    ConfirmRequest,
    ReleaseReply,
    ReleaseRequest,
    Request,
)
from lethe.formats.quantity import format_time
from lethe.formats.receiptkeys import ReceiptKeys
from lethe.formats.transcript import Transcript, confirmation, encode_shares
from lethe.keyservice.challenges import Challenges, check_public_key
from lethe.keyservice.gather import Gatherer
from lethe.keyservice.rates import RateLimit
from lethe.keyservice.store import StoreThread
from lethe.keyservice.tenantkeys import TenantKeys
from lethe.model.errors import CryptoError, LetheError, ProtocolError, ReleaseRefused, UnavailableError
from lethe.model.names import KEYSERVICE_ID

_log = structlog.get_logger()


class Releases:
    """Serves the three requests of the protocol."""

    def __init__(
        self,
        *,
        challenges: Challenges,
        gatherer: Gatherer,
        store: StoreThread,
        keys: TenantKeys,
        receipt_keys: Callable[[], ReceiptKeys],
        pod_limit: RateLimit,
        tenant_limit: RateLimit,
        now: Callable[[], datetime],
    ) -> None:
        self._challenges = challenges
        self._gatherer = gatherer
        self._store = store
        self._keys = keys
        self._receipt_keys = receipt_keys
        self._pod_limit = pod_limit
        self._tenant_limit = tenant_limit
        self._now = now

    async def challenge(self, request: ChallengeRequest) -> ChallengeReply:
        """Give out a nonce to the pod that the token speaks for."""
        try:
            identity = await self._challenges.identify(request)
        except ReleaseRefused as refusal:
            await self._record_refusal(request, None, refusal)
            raise
        self._pod_limit.take(f"{identity.namespace}/{identity.pod}")
        return await self._challenges.issue(request, identity)

    async def release(self, request: ReleaseRequest) -> ReleaseReply:
        """Release the keys of one dataset; raise ReleaseRefused."""
        challenge = await self._challenges.consume(request.nonce)
        check_public_key(request.public_key)
        claim = _claim(request)
        identity: Identity | None = None
        try:
            identity = await self._challenges.identify(request)
            self._pod_limit.take(f"{identity.namespace}/{identity.pod}")
            evidence = await self._gatherer.gather(claim, identity, challenge, self._receipt_keys())
            approval = decide_release(evidence)
            self._tenant_limit.take(approval.tenant)
            transcript = _transcript(claim, identity, approval, request.nonce)
            intent = self._intent(claim, identity, approval, transcript)
            count = await self._store.run(self._store.store.record_intent, intent, approval.max_releases)
        except ReleaseRefused as refusal:
            await self._record_refusal(request, identity, refusal)
            raise
        if count > 1:
            _log.warning(
                "keys are released again to the same pod",
                alarm="rerun",
                namespace=identity.namespace,
                pod=identity.pod,
                dataset=claim.dataset,
                count=count,
            )
        return await self._seal(request, approval, transcript, intent)

    async def confirm(self, request: ConfirmRequest) -> None:
        """Record that the pod opened the shares; raise ReleaseRefused for a wrong proof."""
        time = format_time(self._now())
        if not await self._store.run(self._store.store.confirm, request.release_id, request.mac, time):
            raise ReleaseRefused("confirmation", "the confirmation does not match a release")

    async def _seal(
        self, request: ReleaseRequest, approval: Approval, transcript: Transcript, intent: AuditEvent
    ) -> ReleaseReply:
        """Open the stanzas and seal the shares; whatever happens here, the intent stands and *failed* follows it."""
        try:
            sealed = {stanza.epoch: stanza.sealed for stanza in request.stanzas}
            shares = encode_shares(await self._keys.open(sealed, approval.bindings))
            digest = transcript.digest()
            answer = parse_public(request.public_key).seal(shares, digest)
            await self._store.run(
                self._store.store.expect_confirmation, intent.release_id, confirmation(shares, digest)
            )
        except (CryptoError, ProtocolError) as error:
            refusal = ReleaseRefused(
                "stanza",
                f"the keyring of dataset {request.dataset} does not open: it was sealed for another tenant, namespace, "
                "key or criticality, or is another dataset's; seal the dataset again, or correct the EncryptedDataset",
            )
            await self._record_failure(intent, str(error))
            raise refusal from error
        except UnavailableError as error:
            await self._record_failure(intent, str(error))
            raise
        return ReleaseReply(
            release_id=intent.release_id,
            pod_uid=transcript.pod_uid,
            node_uid=transcript.node_uid,
            node_epoch=transcript.node_epoch,
            sealed=answer,
        )

    def _intent(self, claim: Claim, identity: Identity, approval: Approval, transcript: Transcript) -> AuditEvent:
        return AuditEvent(
            event="intent",
            time=format_time(self._now()),
            release_id=str(UUID(bytes=random_bytes(16), version=4)),
            tenant=approval.tenant,
            namespace=identity.namespace,
            job=claim.job,
            job_uid=claim.job_uid,
            pod=identity.pod,
            pod_uid=identity.pod_uid,
            node=identity.node,
            node_uid=identity.node_uid,
            boot_id=approval.boot_id,
            node_epoch=approval.node_epoch,
            receipt=approval.receipt,
            dataset=claim.dataset,
            dataset_id=claim.dataset_id,
            criticality=approval.criticality,
            key=claim.key,
            versions=claim.versions,
            images=approval.images,
            keyfetch_image_id=approval.keyfetch_image_id,
            credential_id=identity.credential_id,
            transcript=transcript.digest().hex(),
        )

    async def _record_failure(self, intent: AuditEvent, message: str) -> None:
        event = AuditEvent(
            event="failed",
            time=format_time(self._now()),
            release_id=intent.release_id,
            tenant=intent.tenant,
            namespace=intent.namespace,
            job_uid=intent.job_uid,
            pod=intent.pod,
            pod_uid=intent.pod_uid,
            dataset=intent.dataset,
            dataset_id=intent.dataset_id,
            check="stanza",
            message=message,
        )
        _log.warning("release failed", namespace=event.namespace, pod=event.pod, dataset=event.dataset, message=message)
        await self._store.run(self._store.store.append, event)

    async def _record_refusal(self, request: Request, identity: Identity | None, refusal: ReleaseRefused) -> None:
        dataset = request.dataset if isinstance(request, ReleaseRequest) else ""
        event = AuditEvent(
            event="refused",
            time=format_time(self._now()),
            tenant="" if identity is None else await self._tenant(identity.namespace),
            namespace=request.namespace,
            job=request.job,
            job_uid=request.job_uid,
            pod="" if identity is None else identity.pod,
            pod_uid="" if identity is None else identity.pod_uid,
            node="" if identity is None else identity.node,
            node_uid="" if identity is None else identity.node_uid,
            credential_id="" if identity is None else identity.credential_id,
            dataset=dataset,
            check=refusal.check,
            message=str(refusal),
        )
        _log.warning(
            "release refused",
            namespace=event.namespace,
            pod=event.pod,
            dataset=dataset,
            check=refusal.check,
            message=str(refusal),
            retryable=refusal.retryable,
        )
        await self._store.run(self._store.store.append, event)

    async def _tenant(self, namespace: str) -> str:
        """Return the one tenant whose account a refusal goes to, or nothing."""
        try:
            tenants = await self._gatherer.tenants_of(namespace)
        except LetheError:
            return ""  # the record goes to the service's own chain rather than not at all
        return tenants[0].metadata.name if len(tenants) == 1 else ""


def _claim(request: ReleaseRequest) -> Claim:
    versions = tuple(sorted((stanza.epoch, stanza.version) for stanza in request.stanzas))
    if len({epoch for epoch, _ in versions}) != len(versions):
        raise ProtocolError("stanzas: two are for the same key epoch, expected one for each")
    return Claim(
        namespace=request.namespace,
        job=request.job,
        job_uid=request.job_uid,
        public_key=request.public_key,
        dataset=request.dataset,
        dataset_id=request.dataset_id,
        key=request.key,
        versions=versions,
    )


def _transcript(claim: Claim, identity: Identity, approval: Approval, nonce: str) -> Transcript:
    return Transcript(
        releaser=KEYSERVICE_ID,
        namespace=claim.namespace,
        job=claim.job,
        job_uid=claim.job_uid,
        pod_uid=identity.pod_uid,
        node_uid=identity.node_uid,
        node_epoch=approval.node_epoch,
        dataset_id=claim.dataset_id,
        key=claim.key,
        versions=claim.versions,
        nonce=nonce,
        public_key=claim.public_key,
    )
