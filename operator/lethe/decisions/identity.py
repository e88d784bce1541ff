"""Whom does this token speak for? (keys.md, Release protocol, step 4)

The chain below is the specification. It runs on the answer of a TokenReview that was made for exactly one audience, at
the challenge and again at the release. Every value that identifies pod, node and token must be there exactly once:
API servers before 1.30 do not give node and credential id, and are refused.
"""

from collections.abc import Callable
from typing import Any, Final

import msgspec

from lethe.decisions.evidence import Identity
from lethe.model.errors import ReleaseRefused
from lethe.model.names import JOB_ACCOUNT

_PREFIX: Final = "authentication.kubernetes.io/"
POD_NAME: Final = f"{_PREFIX}pod-name"
POD_UID: Final = f"{_PREFIX}pod-uid"
NODE_NAME: Final = f"{_PREFIX}node-name"
NODE_UID: Final = f"{_PREFIX}node-uid"
CREDENTIAL_ID: Final = f"{_PREFIX}credential-id"


class TokenEvidence(msgspec.Struct, frozen=True, kw_only=True):
    """A TokenReview's status, what was asked, and the namespace that the caller claims."""

    namespace: str
    audience: str
    review: dict[str, Any]

    @property
    def user(self) -> dict[str, Any]:
        """Return the reviewed user, empty when there is none."""
        return self.review.get("user") or {}

    def extra(self, name: str) -> list[str]:
        """Return all values of an extra attribute of the user."""
        return (self.user.get("extra") or {}).get(name) or []


TokenCheck = Callable[[TokenEvidence], str | None]
"""Returns a sentence when the check fails."""


def _review_worked(token: TokenEvidence) -> str | None:
    error = token.review.get("error")
    return f"the API server could not review the token: {error}" if error else None


def _authenticated(token: TokenEvidence) -> str | None:
    if token.review.get("authenticated") is True:
        return None
    return "the API server does not accept the token: it has expired, or its pod is gone"


def _audience_echoed(token: TokenEvidence) -> str | None:
    audiences = token.review.get("audiences") or []
    if audiences == [token.audience]:
        return None
    return f"the token was reviewed for the audiences {audiences}, expected exactly {token.audience}"


def _is_job_account(token: TokenEvidence) -> str | None:
    expected = f"system:serviceaccount:{token.namespace}:{JOB_ACCOUNT}"
    found = token.user.get("username")
    return None if found == expected else f"the token is of {found}, expected {expected}"


def _has_account_uid(token: TokenEvidence) -> str | None:
    return None if token.user.get("uid") else "the token review names no uid of the ServiceAccount"


def _names_one(name: str) -> TokenCheck:
    def check(token: TokenEvidence) -> str | None:
        values = token.extra(name)
        if len(values) == 1 and values[0]:
            return None
        return (
            f"the token review has {len(values)} values of {name}, expected exactly one: the token must be a projected "
            "one, of Kubernetes 1.30 or later"
        )

    return check


TOKEN_CHAIN: Final[tuple[tuple[str, TokenCheck], ...]] = (
    ("token-review", _review_worked),  # no error
    ("token-authenticated", _authenticated),
    ("token-audience", _audience_echoed),  # one audience for each releaser and job: a token is good for one job only
    ("token-account", _is_job_account),  # the account without rights that the operator makes, in the claimed namespace
    ("token-account-uid", _has_account_uid),
    ("token-pod-name", _names_one(POD_NAME)),
    ("token-pod-uid", _names_one(POD_UID)),
    ("token-node-name", _names_one(NODE_NAME)),
    ("token-node-uid", _names_one(NODE_UID)),
    ("token-credential-id", _names_one(CREDENTIAL_ID)),  # what the audit says in place of the token
)


def identify(token: TokenEvidence) -> Identity:
    """Return whom the token speaks for; raise ReleaseRefused with the first check that fails."""
    for name, check in TOKEN_CHAIN:
        message = check(token)
        if message is not None:
            raise ReleaseRefused(name, message)
    return Identity(
        namespace=token.namespace,
        pod=token.extra(POD_NAME)[0],
        pod_uid=token.extra(POD_UID)[0],
        node=token.extra(NODE_NAME)[0],
        node_uid=token.extra(NODE_UID)[0],
        credential_id=token.extra(CREDENTIAL_ID)[0],
    )
