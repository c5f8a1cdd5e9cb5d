"""The judge takes the steps that an explanation walks, in the same order."""

import contextlib
from collections.abc import Collection
from typing import Any

import pytest

from authz.call.call import Call
from authz.call.requirements import Assurance, Requirements
from authz.demo.issuer.signing import SigningKey
from authz.errors import AuthzError
from authz.issuer.introspection import Introspector
from authz.issuer.verifier import Verifier
from authz.judge.authorizer import STEPS, Authorizer
from authz.organizations.directory import Directory
from authz.policy import Organization, Policy
from authz.runtime.flow import run
from tests.doubles import ISSUER, ORG, FakeTransport, ManualClock, json_response, m2m_claims

# What a step refuses a call for.
REASONS = {
    "public": "",
    "caller": "token_expired",
    "standing": "organization_suspended",
    "route": "claim_invalid",
    "organization": "organization_unknown",
    "policy": "policy_denied",
    "quota": "quota_exceeded",
    "issuer": "token_inactive",
}


def judged(verifier: Verifier, clock: ManualClock, token: str, obstacles: Collection[str]) -> str:
    """Return the reason for which a call is refused that meets ``obstacles`` at those steps; empty if it is allowed."""
    policy = Policy.from_document(
        {
            "name": "p",
            "public": ["/public"] if "public" in obstacles else [],
            "allow_rules": [{"name": "all", "request": {"paths": ["/other" if "policy" in obstacles else "*"]}}],
            "quotas": {"once": {"requests_per_second": 1, "burst": 1}},
            "default_quota": "once",
        }
    )
    known = None if "organization" in obstacles else Organization()
    answers = FakeTransport(lambda: json_response({"active": "issuer" not in obstacles}))
    authorizer = Authorizer(
        verifier,
        policy=policy,
        directory=Directory(lambda _: known, clock=clock.clock),
        unknown_organizations="deny",
        introspector=Introspector(ISSUER, client_id="c", client_secret="s", transport=answers, clock=clock.clock),
        assurance=Assurance(),
    )
    if "standing" in obstacles:
        authorizer.suspend(org_id=ORG)
    quota = policy.organization(ORG).quota
    if "quota" in obstacles and quota is not None:
        authorizer.quotas.take(ORG, quota)
    call = Call(
        method="/public",
        metadata=[("authorization", f"Bearer {token}")],
        requirements=Requirements(audience="other") if "route" in obstacles else None,
    )
    with contextlib.closing(authorizer):
        try:
            run(authorizer.authorize(call))
        except AuthzError as error:
            return error.reason
    return ""


@pytest.mark.parametrize("step", STEPS)
def test_the_first_step_that_refuses_decides(
    verifier: Verifier, clock: ManualClock, ec_key: SigningKey, step: str
) -> None:
    """So each refuses before those that come after it in the list would."""
    obstacles: Any = STEPS[STEPS.index(step) :]  # type: ignore[arg-type]
    if step == "public":
        # A route that asks for anything makes no exception for public methods.
        obstacles = {*obstacles} - {"route"}
    expired = {"exp": 1_799_999_000, "iat": 1_799_998_000} if "caller" in obstacles else {}

    assert judged(verifier, clock, ec_key.sign(m2m_claims(**expired)), obstacles) == REASONS[step]


def test_a_call_that_no_step_refuses_is_allowed(verifier: Verifier, clock: ManualClock, ec_key: SigningKey) -> None:
    assert judged(verifier, clock, ec_key.sign(m2m_claims()), ()) == ""


def test_every_step_can_refuse() -> None:
    assert tuple(REASONS) == STEPS
