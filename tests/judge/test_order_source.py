"""A refusal for an order says where the order came from, to observers and to no caller."""

from typing import Any

import pytest

from authz.call.call import Call
from authz.call.principal import Principal
from authz.decisions.decision import Decision
from authz.demo.issuer.signing import SigningKey
from authz.errors import AuthzError
from authz.issuer.verifier import Verifier
from authz.judge.authorizer import Authorizer
from authz.judge.hearing import Hearing
from authz.judge.orders.order import MICROSECONDS, Kind, Order, Verb
from authz.judge.orders.tokens import member
from authz.policy import Policy
from tests.doubles import CLIENT, NOW, ORG, m2m_claims

JTI: str = m2m_claims(NOW)["jti"]
ORDERS: list[tuple[Verb, Kind, str]] = [
    ("revoke", "client", CLIENT),
    ("revoke", "organization", ORG),
    ("suspend", "organization", ORG),
    ("revoke", "key", "ec-1"),
    ("revoke", "token", JTI),
]


class Stream:
    """An open stream, and what it was ended with."""

    error: Any = None

    def end(self, error: Exception) -> float | None:
        self.error = error
        return None


@pytest.fixture
def told() -> list[Decision]:
    return []


@pytest.fixture
def authorizer(verifier: Verifier, told: list[Decision]) -> Authorizer:
    return Authorizer(verifier, observers=[told.append])


def refused(authorizer: Authorizer, key: SigningKey) -> Any:
    token = key.sign(m2m_claims(NOW))
    hearing = Hearing(authorizer, Call(method="/a.B/C", metadata=[("authorization", f"Bearer {token}")]), "grpc")
    with pytest.raises(AuthzError) as raised:
        hearing.decide()
    return hearing.refused(raised.value)


@pytest.mark.parametrize("source", ["", "workos", "ssf"])
@pytest.mark.parametrize("order", ORDERS, ids=lambda order: f"{order[0]} {order[1]}")
def test_decision_names_where_the_order_came_from_and_the_answer_does_not(
    authorizer: Authorizer, told: list[Decision], ec_key: SigningKey, order: tuple[Verb, Kind, str], source: str
) -> None:
    authorizer.operator.carry_out([Order(*order, source=source, at=round(NOW * MICROSECONDS))])
    refusal = refused(authorizer, ec_key)

    assert told[0].fields()["order_source"] == {"": "operator", "ssf": "other"}.get(source, source)
    assert not any(word in str(refusal) for word in ("operator", "workos", "ssf", "order"))


def test_token_in_the_list_of_revoked_ones_is_the_operators(
    authorizer: Authorizer, told: list[Decision], ec_key: SigningKey
) -> None:
    authorizer.operator.list_tokens([(member(JTI), NOW + 3600)])
    refused(authorizer, ec_key)

    assert told[0].fields()["order_source"] == "operator"


def test_what_no_order_refuses_names_no_source(verifier: Verifier, told: list[Decision], ec_key: SigningKey) -> None:
    organizations = {ORG: {"status": "suspended"}}
    policy = Policy.from_document({"name": "p", "allow_rules": [{"name": "all"}], "organizations": organizations})
    refused(Authorizer(verifier, policy=policy, observers=[told.append]), ec_key)

    assert (told[0].fields()["reason"], told[0].fields()["order_source"]) == ("organization_suspended", "")


def test_order_that_lapsed_hides_no_other_of_another_source(
    authorizer: Authorizer, told: list[Decision], ec_key: SigningKey
) -> None:
    at = round(NOW * MICROSECONDS)
    authorizer.operator.carry_out(
        [
            Order("revoke", "organization", ORG, until=NOW - 1, at=at),
            Order("revoke", "client", CLIENT, source="workos", at=at),
        ]
    )
    refused(authorizer, ec_key)

    assert told[0].fields()["order_source"] == "workos"


def test_each_stream_is_ended_for_the_order_that_is_about_it(authorizer: Authorizer) -> None:
    organization, client, free = Stream(), Stream(), Stream()
    for stream, org_id, client_id in ((organization, ORG, "c1"), (client, "org_2", CLIENT), (free, "org_2", "c1")):
        principal = Principal(org_id=org_id, client_id=client_id, subject=client_id)
        authorizer.streams.open(stream, principal, NOW + 3600)
    at = round(NOW * MICROSECONDS)
    authorizer.operator.carry_out(
        [
            Order("suspend", "organization", ORG, source="workos", at=at),
            Order("revoke", "client", CLIENT, at=at),
        ]
    )

    ended = [(each.error.reason, each.error.order_source) for each in (organization, client)]
    assert ended == [("organization_suspended", "workos"), ("token_inactive", "operator")]
    assert free.error is None
