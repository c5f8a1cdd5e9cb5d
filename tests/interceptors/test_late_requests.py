"""A call is admitted by its headers; what is in force when its only request comes at last counts as well."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import grpc.aio
import pytest

from authz import Authorizer, Policy, Verifier
from authz.decisions.decision import Decision
from authz.demo.issuer.signing import SigningKey
from authz.judge.orders.order import Order
from authz.judge.orders.standing import Doubt
from authz.judge.orders.tokens import member
from tests.doubles import CLIENT, NOW, ORG, PATIENCE, FakeIssuer, ManualClock, m2m_claims
from tests.interceptors.client import bearer, finish
from tests.interceptors.conftest import ServeAll, Served
from tests.interceptors.servers import Door
from tests.interceptors.service import expected_replies, method

KINDS = ("unary_unary", "unary_stream")
OPEN = {"allow_rules": [{"name": "all"}], "name": "open"}
SHUT = {"allow_rules": [{"name": "none", "source": {"organizations": ["org_other"]}}], "name": "shut"}


class Judged(grpc.ServerInterceptor):
    """Another's interceptor behind ours, which learns that a call has been admitted."""

    def __init__(self) -> None:
        self.calls = threading.Semaphore(0)

    def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        self.calls.release()
        return continuation(handler_call_details)


class AioJudged(grpc.aio.ServerInterceptor):
    """The same for ``grpc.aio``."""

    def __init__(self) -> None:
        self.calls = threading.Semaphore(0)

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        self.calls.release()
        return await continuation(handler_call_details)


class Late:
    """A server, and a client that sends its headers long before its request."""

    def __init__(self, serve_all: ServeAll, judged: Any, authorizer: Authorizer, token: str) -> None:
        self.authorizer = authorizer
        self._token, self._judged = token, judged
        self.served: Served = serve_all(judged, judge=authorizer)
        self._comes = threading.Event()

    def begin(self, kind: str) -> Any:
        """Begin a call, and return when it has been admitted."""

        def requests() -> Iterator[bytes]:
            assert self._comes.wait(PATIENCE)
            yield b""

        as_stream = kind.replace("unary_", "stream_", 1)
        stub = getattr(self.served.channel, as_stream)(method(kind))
        call = (stub.future if as_stream == "stream_unary" else stub)(requests(), metadata=bearer(self._token))
        assert self._judged.calls.acquire(timeout=PATIENCE)
        return call

    def finish(self, kind: str, call: Any) -> Any:
        self._comes.set()
        return finish(kind, call)


@pytest.fixture
def told() -> list[Decision]:
    return []


@pytest.fixture
def authorizer(new_verifier: Callable[..., Verifier], issuer: FakeIssuer, told: list[Decision]) -> Authorizer:
    verifier = new_verifier(transport=issuer.transport)
    verifier.warm_up()
    return Authorizer(verifier, policy=Policy.from_document(OPEN), observers=[told.append])


@pytest.fixture
def late(door: Door, serve_all: ServeAll, authorizer: Authorizer, ec_key: SigningKey) -> Late:
    return Late(serve_all, AioJudged() if door.is_aio else Judged(), authorizer, ec_key.sign(m2m_claims()))


ORDERS = [
    pytest.param(lambda it: it.suspend(org_id=ORG), "ORGANIZATION_SUSPENDED", id="suspended"),
    pytest.param(lambda it: it.revoke(client_id=CLIENT), "TOKEN_INACTIVE", id="revoked"),
    pytest.param(lambda it: it.replace_policy(Policy.from_document(SHUT)), "POLICY_DENIED", id="policy"),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("order", "reason"), ORDERS)
def test_what_is_ordered_before_the_request_comes_is_in_force_for_it(
    late: Late, kind: str, order: Callable[[Authorizer], None], reason: str
) -> None:
    call = late.begin(kind)
    order(late.authorizer)
    outcome = late.finish(kind, call)

    assert (outcome.reason, outcome.messages, late.served.witness.sights) == (reason, [], [])


TOKEN, KEY = m2m_claims()["jti"], "ec-1"
OTHER_ORDERS = [
    pytest.param(lambda it: it.revoke(token_id=TOKEN), "TOKEN_INACTIVE", id="token"),
    pytest.param(lambda it: it.revoke(org_id=ORG), "TOKEN_INACTIVE", id="organization"),
    pytest.param(lambda it: it.revoke(key_id=KEY), "TOKEN_INACTIVE", id="key"),
    pytest.param(lambda it: it.revoke(client_id=CLIENT, issued_before=NOW + 1), "TOKEN_INACTIVE", id="issued before"),
    pytest.param(lambda it: it.operator.list_tokens([(member(TOKEN), NOW + 300)]), "TOKEN_INACTIVE", id="listed"),
    pytest.param(
        lambda it: it.operator.carry_out([Order("suspend", "organization", ORG, at=1)]),
        "ORGANIZATION_SUSPENDED",
        id="given elsewhere",
    ),
    pytest.param(lambda it: it.standing.be_in_doubt(Doubt("unreachable", refuses=True)), "ORDERS_UNKNOWN", id="doubt"),
]


@pytest.mark.parametrize(("order", "reason"), OTHER_ORDERS)
def test_every_kind_of_order_is_in_force_for_a_request_that_comes_after_it(
    late: Late, order: Callable[[Authorizer], None], reason: str
) -> None:
    call = late.begin("unary_unary")
    order(late.authorizer)
    outcome = late.finish("unary_unary", call)

    assert (outcome.reason, late.served.witness.sights) == (reason, [])


@pytest.mark.parametrize("kind", KINDS)
def test_a_token_that_expires_before_the_request_comes_has_expired(late: Late, kind: str, clock: ManualClock) -> None:
    call = late.begin(kind)
    clock.advance(311)
    late.authorizer.streams.expire()
    outcome = late.finish(kind, call)

    assert (outcome.reason, outcome.messages, late.served.witness.sights) == ("TOKEN_EXPIRED", [], [])


def test_a_key_that_is_taken_back_before_the_request_comes_is_none(
    late: Late, clock: ManualClock, issuer: FakeIssuer, other_key: SigningKey
) -> None:
    call = late.begin("unary_unary")
    issuer.keys = [other_key]
    late.authorizer.verifier.verify(other_key.sign(m2m_claims(clock.now)))
    outcome = late.finish("unary_unary", call)

    assert (outcome.reason, late.served.witness.sights) == ("KEY_NOT_FOUND", [])


@pytest.mark.parametrize("kind", KINDS)
def test_another_policy_that_allows_it_changes_nothing(late: Late, kind: str, told: list[Decision]) -> None:
    call = late.begin(kind)
    late.authorizer.replace_policy(Policy.from_document({**OPEN, "name": "new"}))
    outcome = late.finish(kind, call)

    assert outcome.messages == expected_replies(kind, ORG.encode())
    assert [decision.verdict for decision in told] == ["allowed"]


def test_a_call_that_is_refused_when_its_request_comes_is_told_once(late: Late, told: list[Decision]) -> None:
    call = late.begin("unary_unary")
    late.authorizer.suspend(org_id=ORG)
    late.finish("unary_unary", call)

    assert [(one.verdict, one.refusal.reason if one.refusal else "") for one in told] == [
        ("denied", "organization_suspended")
    ]
