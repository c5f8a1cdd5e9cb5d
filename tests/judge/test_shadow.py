"""A policy on trial is asked about every decision, and has no say in any."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest

from authz import Authorizer, Call, ConfigError, Decision, Peer, Policy, Principal, Verifier
from authz.call.requirements import Requirements
from authz.decisions.decision import Evidence
from authz.demo.issuer.signing import SigningKey
from authz.envoy.check.servicer import AuthorizationServicer
from authz.envoy.v3.external_auth_pb2 import CheckResponse
from authz.errors import AuthzError
from authz.organizations.directory import Directory
from authz.policy import Organization
from authz.runtime.flow import run
from tests.doubles import ORG, m2m_claims
from tests.envoy.check.messages import GRPC, bearer, in_headers

METHOD, HEALTH = "/ledger.Ledger/Read", "/health.Health/Check"

ALL: dict[str, Any] = {"name": "all", "allow_rules": [{"name": "all"}]}
NONE: dict[str, Any] = {**ALL, "name": "none", "deny_rules": [{"name": "nobody"}]}
SUSPENDED: dict[str, Any] = {**ALL, "organizations": {ORG: {"status": "suspended"}}}
OTHERS: dict[str, Any] = {"name": "others", "allow_rules": [{"name": "other", "request": {"paths": ["/other/*"]}}]}
BY_TLS: dict[str, Any] = {"name": "tls", "allow_rules": [{"name": "tls", "source": {"principals": ["*"]}}]}
PUBLIC: dict[str, Any] = {**ALL, "public": [HEALTH]}


class Failing(Policy):
    def admit(self, *_: object) -> Principal:
        raise SystemExit("a failure that is not foreseen")


class Judged:
    """An authorizer with a policy on trial, and what it has decided."""

    def __init__(self, verifier: Verifier, policy: Any, shadow: Any, **options: Any) -> None:
        self.decisions: list[Decision] = []
        self.authorizer = Authorizer(
            verifier,
            policy=policy and Policy.from_document(policy),
            shadow=shadow and (shadow if isinstance(shadow, Policy) else Policy.from_document(shadow)),
            observers=[self.decisions.append],
            **options,
        )

    def decide(self, call: Call) -> tuple[str, str, str]:
        """Return the verdict, that of the policy on trial, and its rule."""
        evidence, refusal = Evidence(), None
        try:
            run(self.authorizer.authorize(call, evidence))
        except AuthzError as error:
            refusal = self.authorizer.telling.refusal(call, error)
        self.authorizer.telling.decided(call, evidence, refusal, 0.0, door="grpc")
        fields = self.decisions[-1].fields()
        return fields["verdict"], fields["shadow_verdict"], fields["shadow_rule"]

    @property
    def differences(self) -> dict[str, int]:
        return dict(self.authorizer.shadow.differences)


@pytest.fixture
def token(ec_key: SigningKey) -> str:
    return ec_key.sign(m2m_claims())


@pytest.fixture
def call(token: str) -> Callable[..., Call]:
    def call(method: str = METHOD, credentials: str = token, **more: Any) -> Call:
        return Call(method=method, metadata=[("authorization", f"Bearer {credentials}")] * bool(credentials), **more)

    return call


ALLOWED_TO_DENIED, DENIED_TO_ALLOWED, UNDECIDED = "allowed_to_denied", "denied_to_allowed", "undecided"


@pytest.mark.parametrize(
    ("policy", "shadow", "told", "change"),
    [
        pytest.param(ALL, ALL, ("allowed", "allowed", "all"), None, id="the-same"),
        pytest.param(ALL, NONE, ("allowed", "denied", "nobody"), ALLOWED_TO_DENIED, id="denies"),
        pytest.param(ALL, OTHERS, ("allowed", "denied", ""), ALLOWED_TO_DENIED, id="does-not-allow"),
        pytest.param(ALL, SUSPENDED, ("allowed", "denied", ""), ALLOWED_TO_DENIED, id="suspends"),
        pytest.param(NONE, ALL, ("denied", "allowed", "all"), DENIED_TO_ALLOWED, id="allows"),
        pytest.param(SUSPENDED, ALL, ("denied", "allowed", "all"), DENIED_TO_ALLOWED, id="resumes"),
        pytest.param(SUSPENDED, NONE, ("denied", "denied", "nobody"), None, id="denies-too"),
        pytest.param(None, NONE, ("allowed", "denied", "nobody"), ALLOWED_TO_DENIED, id="the-first-policy"),
        pytest.param(None, ALL, ("allowed", "allowed", "all"), None, id="a-first-policy-that-allows"),
        pytest.param(ALL, BY_TLS, ("allowed", "undecided", ""), UNDECIDED, id="peer-unknown"),
        pytest.param(NONE, None, ("denied", "", ""), None, id="none-on-trial"),
        pytest.param(ALL, Failing.from_document(NONE), ("allowed", "failed", ""), "failed", id="fails"),
    ],
)
def test_what_a_policy_on_trial_would_change_is_counted(
    verifier: Verifier,
    call: Callable[..., Call],
    *,
    policy: Any,
    shadow: Any,
    told: tuple[str, str, str],
    change: str | None,
) -> None:
    judged = Judged(verifier, policy, shadow)

    assert judged.decide(call()) == told
    assert judged.differences == ({change: 1} if change else {})


READS: dict[str, Any] = {"name": "reads", "allow_rules": [{"name": "reads", "request": {"methods": ["GET"]}}]}


@pytest.mark.parametrize(
    ("verb", "told"),
    [
        ("GET", ("allowed", "allowed", "reads")),
        ("DELETE", ("allowed", "denied", "")),
        ("get", ("allowed", "denied", "")),
    ],
)
def test_policy_on_trial_sees_the_http_method(
    verifier: Verifier, call: Callable[..., Call], verb: str, told: tuple[str, str, str]
) -> None:
    judged = Judged(verifier, ALL, READS)

    assert [judged.decide(call(verb=each)) for each in ("GET", verb, verb)][1:] == [told, told]


@pytest.mark.parametrize(
    ("policy", "shadow", "options", "told"),
    [
        pytest.param(PUBLIC, PUBLIC, {"credentials": ""}, ("allowed", "allowed", ""), id="stays-public"),
        pytest.param(PUBLIC, ALL, {"credentials": ""}, ("allowed", "denied", ""), id="no-longer-public"),
        pytest.param(PUBLIC, ALL, {}, ("allowed", "undecided", ""), id="with-a-token-nobody-has-read"),
        pytest.param(ALL, PUBLIC, {"credentials": ""}, ("denied", "allowed", ""), id="becomes-public"),
        pytest.param(
            ALL, PUBLIC, {"credentials": "bad"}, ("denied", "allowed", ""), id="becomes-public-for-a-bad-token"
        ),
        pytest.param(ALL, ALL, {"credentials": ""}, ("denied", "", ""), id="no-token"),
        pytest.param(
            ALL,
            PUBLIC,
            {"credentials": "", "requirements": Requirements()},
            ("denied", "", ""),
            id="route-wants-a-token",
        ),
    ],
)
def test_public_methods_are_part_of_the_trial(
    verifier: Verifier,
    call: Callable[..., Call],
    *,
    policy: Any,
    shadow: Any,
    options: Any,
    told: tuple[str, str, str],
) -> None:
    assert Judged(verifier, policy, shadow).decide(call(HEALTH, **options)) == told


def test_what_is_public_whatever_a_policy_says_is_no_difference(verifier: Verifier, call: Callable[..., Call]) -> None:
    judged = Judged(verifier, ALL, NONE, public_methods=[HEALTH])

    assert judged.decide(call(HEALTH, credentials="")) == ("allowed", "allowed", "")


def test_refusals_that_no_policy_makes_are_no_difference(verifier: Verifier, call: Callable[..., Call]) -> None:
    judged = Judged(verifier, ALL, NONE)
    judged.authorizer.revoke(org_id=ORG)

    assert judged.decide(call()) == ("denied", "", "")
    assert judged.differences == {}


PAYING: dict[str, Any] = {"name": "paying", "allow_rules": [{"name": "p", "source": {"groups": ["paying"]}}]}


def test_what_a_directory_says_counts_for_both(verifier: Verifier, call: Callable[..., Call]) -> None:
    directory = Directory({ORG: Organization(groups=frozenset({"paying"}))}.get)
    judged = Judged(verifier, ALL, {**PAYING, "groups": ["paying"]}, directory=directory)

    assert judged.decide(call()) == ("allowed", "allowed", "p")
    directory.close()


def test_organization_that_only_one_of_them_lists_is_a_difference(
    verifier: Verifier, call: Callable[..., Call]
) -> None:
    listed, others = ({**ALL, "organizations": {org_id: {}}} for org_id in (ORG, "org_other"))
    leaving = Judged(verifier, listed, others, unknown_organizations="deny")
    coming = Judged(verifier, others, listed, unknown_organizations="deny")

    assert leaving.decide(call()) == ("allowed", "denied", "")
    assert coming.decide(call()) == ("denied", "allowed", "all")


def test_peer_that_the_door_has_found_out_is_seen(verifier: Verifier, call: Callable[..., Call]) -> None:
    judged = Judged(verifier, ALL, BY_TLS)

    assert judged.decide(call(peer=Peer(principals=("spiffe://a/b",)))) == ("allowed", "allowed", "tls")


def test_difference_is_logged_by_rule_and_method(
    verifier: Verifier, call: Callable[..., Call], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "authz")
    Judged(verifier, ALL, NONE).decide(call())

    [record] = [record for record in caplog.records if getattr(record, "event", "") == "shadow_differs"]
    assert record.__dict__["fields"] == {
        "method": METHOD,
        "change": ALLOWED_TO_DENIED,
        "rule": "all",
        "shadow_rule": "nobody",
    }


def test_another_policy_can_be_put_on_trial_and_taken_off(verifier: Verifier, call: Callable[..., Call]) -> None:
    judged = Judged(verifier, ALL, NONE)
    judged.authorizer.replace_shadow(Policy.from_document(ALL))
    replaced = judged.decide(call())
    judged.authorizer.replace_shadow(None)

    assert (replaced, judged.decide(call())) == (("allowed", "allowed", "all"), ("allowed", "", ""))


def test_policy_that_could_not_go_in_force_is_not_put_on_trial(verifier: Verifier) -> None:
    with pytest.raises(ConfigError, match="introspect needs an introspector"):
        Judged(verifier, ALL, {**ALL, "introspect": {"*": {}}})


def test_envoy_is_answered_by_the_policy_in_force(verifier: Verifier, token: str) -> None:
    judged = Judged(verifier, ALL, NONE)
    question = in_headers(GRPC, bearer(token)).SerializeToString()
    answer = asyncio.run(AuthorizationServicer(judged.authorizer).check(question, None))

    assert CheckResponse.FromString(answer).status.code == 0
    assert judged.differences == {ALLOWED_TO_DENIED: 1}
