"""An organization that the operator suspends may do nothing, whatever the policy says, until it is resumed."""

from collections.abc import Callable
from typing import Any

import pytest

from authz.call.call import Call
from authz.call.principal import Principal
from authz.demo.issuer.signing import SigningKey
from authz.errors import AuthzError, ConfigError, PermissionDeniedError, TokenInactiveError
from authz.issuer.verifier import Verifier
from authz.judge.authorizer import Authorizer
from authz.judge.orders.standing import Doubt
from authz.policy import Policy
from authz.runtime.flow import run
from tests.doubles import ORG

OTHER = "org_01JYGLOBEX00000000000000"
EVERYTHING = {"name": "open", "allow_rules": [{"name": "all"}], "public": ["/public"]}

Ask = Callable[..., str]


@pytest.fixture
def authorizer(verifier: Verifier) -> Authorizer:
    return Authorizer(verifier, policy=Policy.from_document(EVERYTHING))


@pytest.fixture
def ask(authorizer: Authorizer, ec_key: SigningKey, claims: Callable[..., dict[str, Any]]) -> Ask:
    def ask(org_id: str = ORG, method: str = "/a.B/C") -> str:
        token = ec_key.sign(claims(org_id=org_id))
        try:
            run(authorizer.authorize(Call(method=method, metadata=[("authorization", f"Bearer {token}")])))
        except AuthzError as error:
            return error.reason
        return ""

    return ask


def test_suspended_organization_is_refused_and_no_other(authorizer: Authorizer, ask: Ask) -> None:
    before = ask()
    authorizer.suspend(org_id=ORG)

    assert (before, ask(), ask(OTHER)) == ("", "organization_suspended", "")
    assert ask(method="/public") == ""
    assert authorizer.standing.suspended_organizations == {ORG}


def test_resumed_organization_may_call_again(authorizer: Authorizer, ask: Ask) -> None:
    authorizer.suspend(org_id=ORG)
    authorizer.suspend(org_id=OTHER)
    authorizer.resume(org_id=ORG)

    assert (ask(), ask(OTHER)) == ("", "organization_suspended")


def test_resuming_does_not_lift_what_the_policy_suspends(authorizer: Authorizer, ask: Ask) -> None:
    authorizer.replace_policy(Policy.from_document({**EVERYTHING, "organizations": {ORG: {"status": "suspended"}}}))
    authorizer.resume(org_id=ORG)

    assert ask() == "organization_suspended"


def test_revocation_is_told_before_suspension(authorizer: Authorizer, ask: Ask) -> None:
    authorizer.suspend(org_id=ORG)
    authorizer.revoke(org_id=ORG)

    assert ask() == "token_inactive"


def test_suspension_ends_open_streams_of_that_organization(authorizer: Authorizer) -> None:
    ended: list[tuple[str, AuthzError]] = []

    class Stream:
        def __init__(self, name: str) -> None:
            self.name = name

        def end(self, error: AuthzError) -> None:
            ended.append((self.name, error))

    for org_id in (ORG, OTHER):
        principal = Principal(org_id=org_id, client_id="c", subject="c")
        authorizer.endings.open(Stream(org_id), principal, float("inf"))
    authorizer.suspend(org_id=ORG)
    # One that was authorized before, and opens only now.
    authorizer.endings.open(Stream("late"), Principal(org_id=ORG, client_id="c", subject="c"), float("inf"))

    assert [(name, error.reason) for name, error in ended] == [
        (ORG, "organization_suspended"),
        ("late", "organization_suspended"),
    ]


def test_standing_is_what_the_operator_made_it(authorizer: Authorizer) -> None:
    principal = Principal(org_id=ORG, client_id="c", subject="c")
    authorizer.standing.check(principal)
    authorizer.suspend(org_id=ORG)
    with pytest.raises(PermissionDeniedError):
        authorizer.standing.check(principal)
    authorizer.revoke(client_id="c")
    with pytest.raises(TokenInactiveError):
        authorizer.standing.check(principal)

    assert authorizer.standing.revoked_clients == {"c"}


@pytest.mark.parametrize("what", ["suspend", "resume"])
def test_empty_organization_is_a_mistake(authorizer: Authorizer, what: str) -> None:
    with pytest.raises(ConfigError, match=f"^{what}: org_id is empty"):
        {"suspend": authorizer.suspend, "resume": authorizer.resume}[what](org_id="")


def test_while_not_all_orders_are_known_nobody_is_let_in_and_that_is_no_refusal(
    authorizer: Authorizer, ask: Ask
) -> None:
    authorizer.standing.be_in_doubt(Doubt("orders_unknown: unreachable", refuses=True))
    unknown, public = ask(), ask(method="/public")
    # What was known once, but was not confirmed for long, decides.
    authorizer.standing.be_in_doubt(Doubt("orders_stale: unreachable"))
    stale = ask()
    authorizer.suspend(org_id=ORG)
    authorizer.standing.be_in_doubt(Doubt())

    assert (unknown, public, stale, ask(), ask(OTHER)) == ("orders_unknown", "", "", "organization_suspended", "")
