"""Streams end when what admitted them is withdrawn, by the operator or by the issuer."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import pytest

from authz import Authorizer, Call, Policy, Principal, Verifier
from authz.decisions.decision import Decision, Evidence
from authz.demo.issuer.signing import SigningKey
from authz.runtime.flow import Flow
from tests.doubles import CLIENT, ORG, FakeIssuer, ManualClock, m2m_claims
from tests.interceptors.client import Outcome
from tests.interceptors.conftest import Serve
from tests.interceptors.servers import PATIENCE, Door
from tests.interceptors.service import handler, method
from tests.interceptors.streams import DOORS_OF_STREAMS, GRPC, Live, Running, Stage, acting
from tests.judge.held_back import hold_back

JTI = m2m_claims()["jti"]
KIND = "stream_stream"
WHAT = [{"org_id": ORG}, {"client_id": CLIENT}, {"token_id": JTI}, {"key_id": "ec-1"}]


@pytest.fixture(params=DOORS_OF_STREAMS, ids=lambda door: door.name)
def door(request: pytest.FixtureRequest) -> Door:
    return request.param


@pytest.fixture
def new_live(door: Door, clock: ManualClock, serve: Serve, token: str) -> Iterator[Callable[[Authorizer], Live]]:
    """Return a function that serves one that answers."""
    made = []

    def build(authorizer: Authorizer, **options: Any) -> Live:
        live = Live(door, authorizer, clock, serve, token)
        stage = Stage()
        live.stages.append(stage)
        live.serve({method(KIND): handler(KIND, acting(door, KIND, stage, "answers"))}, **options)
        made.append(live)
        return live

    yield build
    for live in made:
        live.over()


@pytest.fixture
def live(new_live: Any, verifier: Verifier) -> Live:
    return new_live(Authorizer(verifier))


def begin(live: Live, token: str | None = None) -> Running:
    running = live.start(KIND, token=token)
    running.feed.send(b"ready")
    assert running.read() == b"ready"
    return running


def is_served(running: Running) -> bool:
    running.feed.send(b"still")
    return running.read() == b"still"


def is_ended(
    live: Live, running: Running, reason: str, code: grpc.StatusCode = grpc.StatusCode.UNAUTHENTICATED
) -> bool:
    """Say whether a stream whose handler waits has been ended for that reason."""
    if live.door is GRPC:
        live.lose_patience()
        return running.end().code is grpc.StatusCode.CANCELLED
    outcome = running.end()
    return (outcome.code, outcome.reason) == (code, reason)


def other_organization(ec_key: SigningKey) -> str:
    return ec_key.sign(m2m_claims(org_id="org_other", client_id="client_other", sub="client_other", jti="other"))


@pytest.mark.parametrize("what", WHAT, ids=str)
def test_revocation_ends_what_is_open(live: Live, what: Any) -> None:
    running = begin(live)
    live.authorizer.revoke(**what)

    assert is_ended(live, running, "TOKEN_INACTIVE")
    assert live.streams.are(0)


def test_reason_arrives_in_place_of_the_next_message(live: Live) -> None:
    running = begin(live)
    live.authorizer.revoke(org_id=ORG)
    running.feed.send(b"late")
    outcome = running.end()

    assert (outcome.code, outcome.reason, outcome.messages) == (
        grpc.StatusCode.UNAUTHENTICATED,
        "TOKEN_INACTIVE",
        [],
    )
    assert 'error="invalid_token"' in outcome.trailers["www-authenticate"]


def test_no_request_passes_before_a_stream_of_thousands_has_been_told(live: Live) -> None:
    running = begin(live)
    # Its handler waits for a second request, so that no look before a reply can end it.
    assert all(live.stages[0].reading.acquire(timeout=PATIENCE) for _ in range(2))
    hold_back(live.authorizer)
    live.authorizer.revoke(org_id=ORG)
    running.feed.send(b"late")
    outcome = running.end()

    assert (outcome.code, outcome.reason, outcome.messages) == (
        grpc.StatusCode.UNAUTHENTICATED,
        "TOKEN_INACTIVE",
        [],
    )
    assert live.stages[0].seen == [b"ready"]


def test_no_reply_passes_before_a_stream_of_thousands_has_been_told(
    door: Door, clock: ManualClock, serve: Serve, verifier: Verifier, token: str
) -> None:
    live = Live(door, Authorizer(verifier), clock, serve, token)
    running, _ = live.act("unary_stream", "floods")
    hold_back(live.authorizer)
    live.authorizer.revoke(org_id=ORG)
    outcome = running.end()
    live.over()

    assert (outcome.code, outcome.reason) == (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_INACTIVE")


def test_streams_of_others_go_on_while_thousands_are_told(live: Live, ec_key: SigningKey) -> None:
    other = begin(live, other_organization(ec_key))
    hold_back(live.authorizer)
    live.authorizer.revoke(org_id=ORG)

    assert is_served(other)


@pytest.mark.parametrize("what", WHAT[:3], ids=str)
def test_stream_of_another_goes_on(live: Live, ec_key: SigningKey, what: Any) -> None:
    running, other = begin(live), begin(live, other_organization(ec_key))
    live.authorizer.revoke(**what)

    assert is_ended(live, running, "TOKEN_INACTIVE")
    assert is_served(other)
    assert live.streams.are(1)


def test_revocation_ends_streams_that_never_expire(new_live: Any, verifier: Verifier) -> None:
    live = new_live(Authorizer(verifier), stream_expiry="never")
    running = begin(live)
    live.authorizer.revoke(org_id=ORG)

    assert is_ended(live, running, "TOKEN_INACTIVE")


def test_what_is_reinstated_is_served_and_what_was_ended_stays_ended(live: Live) -> None:
    running = begin(live)
    live.authorizer.revoke(org_id=ORG)
    live.authorizer.reinstate(org_id=ORG)
    again = begin(live)

    assert is_ended(live, running, "TOKEN_INACTIVE")
    assert is_served(again)


def policy(status: str) -> Policy:
    rules = [{"name": "everything"}]
    return Policy.from_document({"name": "p", "allow_rules": rules, "organizations": {ORG: {"status": status}}})


def test_suspending_an_organization_ends_its_streams_only(
    new_live: Any, verifier: Verifier, ec_key: SigningKey
) -> None:
    live = new_live(Authorizer(verifier, policy=policy("active")))
    running, other = begin(live), begin(live, other_organization(ec_key))
    live.authorizer.replace_policy(policy("suspended"))

    assert is_ended(live, running, "ORGANIZATION_SUSPENDED", grpc.StatusCode.PERMISSION_DENIED)
    assert is_served(other)


def test_policy_that_no_longer_allows_a_method_ends_its_streams(new_live: Any, verifier: Verifier) -> None:
    live = new_live(Authorizer(verifier, policy=policy("active")))
    running = begin(live)
    elsewhere = [{"name": "elsewhere", "request": {"paths": ["/others/*"]}}]
    live.authorizer.replace_policy(Policy.from_document({"name": "p", "allow_rules": elsewhere}))

    assert is_ended(live, running, "POLICY_DENIED", grpc.StatusCode.PERMISSION_DENIED)


class Hasty(Authorizer):
    """Has something done between the verdict on a call and the opening of its stream."""

    meanwhile: Callable[[], None] | None = None

    def authorize(self, call: Call, _evidence: Evidence | None = None) -> Flow[Principal]:
        principal = yield from super().authorize(call)
        if self.meanwhile is not None:
            self.meanwhile()
        return principal


def never_answers(outcome: Outcome, reason: str) -> bool:
    return (outcome.code, outcome.reason, outcome.messages) == (grpc.StatusCode.UNAUTHENTICATED, reason, [])


@pytest.mark.parametrize("what", WHAT, ids=str)
def test_what_is_revoked_between_verdict_and_opening_is_not_served(
    new_live: Any, verifier: Verifier, what: Any
) -> None:
    authorizer = Hasty(verifier)
    live = new_live(authorizer)
    authorizer.meanwhile = lambda: authorizer.revoke(**what)
    running = live.start(KIND)
    assert never_answers(running.end(), "TOKEN_INACTIVE")
    assert live.streams.are(0)


# ---- Keys ----

REFRESH = 301.0
"""Seconds after which a key set is fetched again, whatever the jitter."""


@dataclass(frozen=True)
class Rotating:
    """An issuer of two keys, and a server that has fetched them."""

    issuer: FakeIssuer
    verifier: Verifier
    clock: ManualClock
    mine: SigningKey
    other: SigningKey

    def token(self, key: SigningKey) -> str:
        """Return a token that outlives the key set."""
        return key.sign(m2m_claims(exp=int(m2m_claims()["iat"]) + 3000, jti=key.kid))

    def publish(self, *keys: SigningKey) -> None:
        """Have other keys from now on, and let the server find out, by a token of the last one."""
        self.issuer.keys[:] = keys
        self.refetch()

    def refetch(self) -> None:
        self.clock.advance(REFRESH)
        self.verifier.verify(self.token(self.other))


@pytest.fixture
def rotating(
    issuer: FakeIssuer, ec_key: SigningKey, other_key: SigningKey, new_verifier: Any, clock: ManualClock
) -> Rotating:
    issuer.keys[:] = [ec_key, other_key]
    verifier = new_verifier(transport=issuer.transport)
    verifier.warm_up()
    return Rotating(issuer, verifier, clock, ec_key, other_key)


def test_key_that_the_issuer_takes_back_ends_its_streams_and_no_others(new_live: Any, rotating: Rotating) -> None:
    live = new_live(Authorizer(rotating.verifier))
    running, other = begin(live, rotating.token(rotating.mine)), begin(live, rotating.token(rotating.other))
    rotating.publish(rotating.other)

    assert is_ended(live, running, "KEY_NOT_FOUND")
    assert is_served(other)
    assert live.streams.are(1)


def test_key_set_that_cannot_be_had_ends_no_stream(new_live: Any, rotating: Rotating) -> None:
    live = new_live(Authorizer(rotating.verifier))
    running = begin(live, rotating.token(rotating.mine))
    rotating.issuer.transport.down()
    rotating.refetch()

    assert is_served(running)


def test_key_set_that_stays_the_same_ends_no_stream(new_live: Any, rotating: Rotating) -> None:
    live = new_live(Authorizer(rotating.verifier))
    running = begin(live, rotating.token(rotating.mine))
    rotating.publish(rotating.other, rotating.mine)

    assert is_served(running)


def test_key_that_changes_under_its_name_ends_its_streams(new_live: Any, rotating: Rotating) -> None:
    live = new_live(Authorizer(rotating.verifier))
    running = begin(live, rotating.token(rotating.mine))
    rotating.publish(SigningKey.generate(rotating.mine.kid, "ES256"), rotating.other)

    assert is_ended(live, running, "KEY_NOT_FOUND")


def test_key_that_is_taken_back_between_verdict_and_opening_opens_nothing(new_live: Any, rotating: Rotating) -> None:
    authorizer = Hasty(rotating.verifier)
    live = new_live(authorizer)
    authorizer.meanwhile = lambda: rotating.publish(rotating.other)

    assert never_answers(live.start(KIND, token=rotating.token(rotating.mine)).end(), "KEY_NOT_FOUND")
    assert live.streams.are(0)


def test_key_that_changes_between_verdict_and_opening_opens_nothing(new_live: Any, rotating: Rotating) -> None:
    """Another key has its name by then."""
    authorizer = Hasty(rotating.verifier)
    live = new_live(authorizer)
    namesake = SigningKey.generate(rotating.mine.kid, "ES256")
    authorizer.meanwhile = lambda: rotating.publish(namesake, rotating.other)

    assert never_answers(live.start(KIND, token=rotating.token(rotating.mine)).end(), "KEY_NOT_FOUND")
    assert live.streams.are(0)


def test_key_that_comes_back_opens_streams_again(new_live: Any, rotating: Rotating) -> None:
    live = new_live(Authorizer(rotating.verifier))
    rotating.publish(rotating.other)
    rotating.publish(rotating.mine, rotating.other)

    assert is_served(begin(live, rotating.token(rotating.mine)))


def test_two_issuers_may_use_one_name_for_their_keys(new_live: Any, rotating: Rotating) -> None:
    """Only the streams of the issuer that takes its key back end."""
    live = new_live(Authorizer(rotating.verifier))
    ended = []

    class Foreign:
        def end(self, error: Exception) -> None:
            ended.append(error)

    kid = rotating.mine.kid
    somebody = Principal(org_id=ORG, client_id=CLIENT, subject=CLIENT, issuer="https://other.example", key_id=kid)
    live.streams.open(Foreign(), somebody, rotating.clock.now + 3000)
    running = begin(live, rotating.token(rotating.mine))
    rotating.publish(rotating.other)

    assert is_ended(live, running, "KEY_NOT_FOUND")
    assert ended == []


# ---- What is told ----


def test_end_of_a_stream_is_a_decision_of_its_own(new_live: Any, verifier: Verifier) -> None:
    told: list[Decision] = []
    live = new_live(Authorizer(verifier, observers=[told.append]))
    running = begin(live)
    live.authorizer.revoke(org_id=ORG)

    assert is_ended(live, running, "TOKEN_INACTIVE")
    admitted, ended = (decision.fields() for decision in told)
    assert (admitted["event"], admitted["verdict"], admitted["source"]) == ("decision", "allowed", "signature")
    changed = {"event": "stream_ended", "verdict": "denied", "code": "UNAUTHENTICATED", "reason": "token_inactive"}
    assert ended == {**admitted, **changed, "milliseconds": 0.0}
