"""Nonces and tokens: the first half of the release protocol (keys.md, steps 2 to 4).

1. A nonce is 32 random bytes, lives for seconds, and is bound to the uid of the pod that the token speaks for, its job
   and its ephemeral public key.
2. A nonce is consumed before anything else is looked at, so that of two requests with one nonce one fails, whatever
   their outcome.
3. A token is reviewed by the API server, for exactly the audience of this releaser and the claimed job. It is never
   stored, logged or repeated.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

from lethe.adapters.kube import Kube
from lethe.crypto.derive import random_bytes
from lethe.crypto.hpke import parse_public
from lethe.decisions.evidence import Challenge, Identity
from lethe.decisions.identity import TokenEvidence, identify
from lethe.formats.protocol import NONCE_BYTES, ChallengeReply, ChallengeRequest, Request
from lethe.keyservice.store import StoreThread
from lethe.model.errors import CryptoError, ProtocolError
from lethe.model.names import KEYSERVICE_ID, JobUid, release_audience

MAX_OPEN: Final = 16
"""Challenges of one pod that are neither used nor expired."""


class Challenges:
    """Gives out nonces and takes them back."""

    def __init__(self, kube: Kube, store: StoreThread, nonce_seconds: int, now: Callable[[], datetime]) -> None:
        self._kube = kube
        self._store = store
        self._nonce_seconds = nonce_seconds
        self._now = now

    async def issue(self, request: ChallengeRequest, identity: Identity) -> ChallengeReply:
        """Return a fresh nonce for this pod, job and key."""
        check_public_key(request.public_key)
        nonce, now = random_bytes(NONCE_BYTES), self._now()
        challenge = Challenge(
            namespace=identity.namespace,
            job_uid=request.job_uid,
            pod_uid=identity.pod_uid,
            public_key=request.public_key,
        )
        expires = now + timedelta(seconds=self._nonce_seconds)
        await self._store.run(self._store.store.add_challenge, nonce, challenge, now, expires, MAX_OPEN)
        return ChallengeReply(nonce=nonce.hex(), expires_in=self._nonce_seconds)

    async def consume(self, nonce: str) -> Challenge | None:
        """Use a nonce up."""
        return await self._store.run(self._store.store.consume_challenge, bytes.fromhex(nonce), self._now())

    async def identify(self, request: Request) -> Identity:
        """Return whom the token speaks for; raise ReleaseRefused."""
        audience = release_audience(KEYSERVICE_ID, JobUid(request.job_uid))
        review = await self._kube.review_token(request.token, audience)
        return identify(TokenEvidence(namespace=request.namespace, audience=audience, review=review))


def check_public_key(text: str) -> None:
    """Raise ProtocolError unless this is an ephemeral public key that can be sealed to."""
    try:
        # Parsing sees the length only; a point or lattice key that nothing can be sealed to shows when it is used.
        parse_public(text).seal(b"", b"")
    except (CryptoError, ValueError) as error:
        raise ProtocolError(f"publicKey is not a usable key: {error}") from error
