from collections.abc import Callable
from typing import Any

import pytest

from lethe.decisions.identity import (
    CREDENTIAL_ID,
    NODE_NAME,
    NODE_UID,
    POD_NAME,
    POD_UID,
    TOKEN_CHAIN,
    TokenEvidence,
    identify,
)
from lethe.model.errors import ReleaseRefused
from lethe.model.names import release_audience
from tests.common.release import JOB_UID, build_identity, build_review

AUDIENCE = release_audience("lethe-keyservice", JOB_UID)
Change = Callable[[dict[str, Any]], Any]


def user(**values: Any) -> Change:
    return lambda review: review["user"].update(values)


def extra(name: str, *values: str) -> Change:
    return lambda review: review["user"]["extra"].update({name: list(values)})


def without_extra(name: str) -> Change:
    return lambda review: review["user"]["extra"].pop(name)


NEGATIVES: list[tuple[str, str, Change]] = [
    ("the API server reports an error", "token-review", lambda review: review.update(error="signature invalid")),
    ("not authenticated", "token-authenticated", lambda review: review.update(authenticated=False)),
    ("no answer at all", "token-authenticated", lambda review: review.clear()),
    ("authenticated as text", "token-authenticated", lambda review: review.update(authenticated="true")),
    ("another audience", "token-audience", lambda review: review.update(audiences=["https://kubernetes"])),
    ("audience not echoed", "token-audience", lambda review: review.pop("audiences")),
    ("one more audience", "token-audience", lambda review: review["audiences"].append("https://kubernetes")),
    ("audience of another job", "token-audience", lambda review: review.update(audiences=[AUDIENCE + "x"])),
    ("another account", "token-account", user(username="system:serviceaccount:acme:default")),
    ("another namespace's account", "token-account", user(username="system:serviceaccount:globex:lethe-job")),
    ("a person", "token-account", user(username="lethe-job")),
    ("no account uid", "token-account-uid", user(uid="")),
    *[
        (f"{what} of {name}", check, change(name))
        for name, check in (
            (POD_NAME, "token-pod-name"),
            (POD_UID, "token-pod-uid"),
            (NODE_NAME, "token-node-name"),
            (NODE_UID, "token-node-uid"),
            (CREDENTIAL_ID, "token-credential-id"),
        )
        for what, change in (
            ("no value", without_extra),
            ("two values", lambda name: extra(name, "a", "b")),
            ("an empty value", lambda name: extra(name, "")),
        )
    ],
]


def evidence(review: dict[str, Any]) -> TokenEvidence:
    return TokenEvidence(namespace="acme", audience=AUDIENCE, review=review)


def test_a_projected_token_of_the_pod_names_it() -> None:
    assert identify(evidence(build_review())) == build_identity()


@pytest.mark.parametrize(("check", "change"), [row[1:] for row in NEGATIVES], ids=[row[0] for row in NEGATIVES])
def test_one_change_fails_exactly_one_check(check: str, change: Change) -> None:
    review = build_review()
    change(review)
    with pytest.raises(ReleaseRefused) as refusal:
        identify(evidence(review))
    assert refusal.value.check == check
    assert not refusal.value.retryable


def test_every_check_has_a_row() -> None:
    assert {name for name, _ in TOKEN_CHAIN} == {row[1] for row in NEGATIVES}
