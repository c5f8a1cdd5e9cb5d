"""Every decision is told, once, and the same at every door, Envoy's too."""

import asyncio
import logging
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

from authz import Authorizer, Call, MeshPeers, Principal, Verifier
from authz.decisions.decision import Decision, Evidence
from authz.demo.issuer.signing import SigningKey
from authz.envoy.check.servicer import AuthorizationServicer
from authz.runtime.flow import Flow
from tests.doubles import CLIENT, ORG, FakeTransport, ManualClock, jwks, m2m_claims
from tests.envoy.check.messages import GRPC, in_headers
from tests.interceptors.client import bearer, call
from tests.interceptors.conftest import Serve
from tests.interceptors.servers import Door
from tests.interceptors.service import PUBLIC_METHODS, Witness, handlers, method, public_method

KIND = "unary_unary"
GUARDED, PUBLIC, UNSERVED = method(KIND), public_method(KIND), "/tests.Guarded/Nothing"

Entries = tuple[tuple[str, str], ...]


@pytest.fixture
def told() -> list[Decision]:
    return []


class Faulty(Authorizer):
    """A judge with a fault."""

    def authorize(self, _call: Call, _evidence: Evidence | None = None) -> Flow[Principal]:
        raise RuntimeError("a secret detail")
        yield


def plain(verifier: Verifier, told: list[Decision], kind: type[Authorizer] = Authorizer) -> Authorizer:
    return kind(verifier, public_methods=PUBLIC_METHODS, observers=[told.append])


def revoking(verifier: Verifier, told: list[Decision]) -> Authorizer:
    authorizer = plain(verifier, told)
    authorizer.revoke(client_id=CLIENT)
    return authorizer


def faulty(verifier: Verifier, told: list[Decision]) -> Authorizer:
    return plain(verifier, told, Faulty)


def entries(case: str, ec_key: SigningKey, other_key: SigningKey) -> Entries:
    """Return what is sent."""
    match case:
        case "missing":
            return ()
        case "two-tokens":
            return (*bearer(ec_key.sign(m2m_claims())), *bearer(ec_key.sign(m2m_claims(jti="other"))))
        case "expired":
            return bearer(ec_key.sign(m2m_claims(exp=1_700_000_000)))
        case "unknown-key":
            return bearer(other_key.sign(m2m_claims()))
        case "bound":
            return bearer(ec_key.sign(m2m_claims(cnf={"x5t#S256": "A" * 43})))
    return bearer(ec_key.sign(m2m_claims()))


# A call, who judges it, and what the second decision about it says.
CASES: dict[str, tuple[str, Callable[..., Authorizer], tuple[str, str, str, str]]] = {
    "good": (GUARDED, plain, ("allowed", "", ORG, "cache")),
    "missing": (GUARDED, plain, ("denied", "token_missing", "", "none")),
    "two-tokens": (GUARDED, plain, ("denied", "token_malformed", "", "none")),
    "expired": (GUARDED, plain, ("denied", "token_expired", "", "none")),
    "unknown-key": (GUARDED, plain, ("denied", "key_not_found", "", "none")),
    "bound": (GUARDED, plain, ("denied", "claim_invalid", ORG, "cache")),
    "public": (PUBLIC, plain, ("allowed", "", "", "public")),
    "unserved": (UNSERVED, plain, ("allowed", "", ORG, "cache")),
    "revoked": (GUARDED, revoking, ("denied", "token_inactive", ORG, "cache")),
    "fault": (GUARDED, faulty, ("failed", "internal", "", "none")),
}


def served(door: Door) -> dict[str, Any]:
    witness = Witness()
    return handlers(door.behaviours(witness), witness)


def ask_as_envoy(authorizer: Authorizer, path: str, headers: Entries) -> None:
    question = in_headers(GRPC, *headers, path=path).SerializeToString()
    asyncio.run(AuthorizationServicer(authorizer).check(question, None))


def comparable(decision: Decision) -> dict[str, Any]:
    return {name: value for name, value in decision.fields().items() if name not in {"door", "milliseconds"}}


@pytest.mark.parametrize("case", CASES)
def test_every_door_tells_the_same_of_a_call(
    door: Door, serve: Serve, new_verifier: Any, *, case: str, ec_key: SigningKey, other_key: SigningKey
) -> None:
    name, judge, expected = CASES[case]
    sent = entries(case, ec_key, other_key)
    here: list[Decision] = []
    envoy: list[Decision] = []
    channel = serve(served(door), door.interceptor(judge(new_verifier(jwks=jwks(ec_key)), here)))
    through_envoy = judge(new_verifier(jwks=jwks(ec_key)), envoy)
    for _ in range(2):
        call(channel, KIND, name, metadata=sent)
        ask_as_envoy(through_envoy, name, sent)

    assert [comparable(one) for one in here] == [comparable(one) for one in envoy]
    last = here[1].fields()
    assert (last["verdict"], last["reason"], last["organization"], last["source"]) == expected
    assert {one.door for one in here} == {"grpc_aio" if door.is_aio else "grpc"}
    assert all(0 < one.seconds < 60 for one in here)


def test_call_that_nobody_can_decide_is_told(
    door: Door, serve: Serve, verifier_without_keys: Verifier, told: list[Decision], token: str
) -> None:
    channel = serve(served(door), door.interceptor(plain(verifier_without_keys, told)))
    call(channel, KIND, metadata=bearer(token))

    assert [(one.verdict, one.event) for one in told] == [("undecided", "decision")]


@pytest.fixture
def verifier_without_keys(new_verifier: Any, transport: FakeTransport) -> Verifier:
    transport.up()
    transport.down()
    return new_verifier(transport=transport)


def test_call_whose_peer_must_be_known_is_told_once(
    door: Door, serve: Serve, verifier: Verifier, told: list[Decision], token: str
) -> None:
    trust = MeshPeers(spiffe_ids=["spiffe://mesh/ns/edge/sa/gateway"])
    channel = serve(served(door), door.interceptor(Authorizer(verifier, trust=trust, observers=[told.append])))
    forged = ("x-org-id", "org_somebody")
    call(channel, KIND, metadata=(*bearer(token), forged))
    call(channel, KIND, metadata=(forged,))

    assert [(one.verdict, one.evidence.source, one.evidence.principal.org_id) for one in told] == [
        ("allowed", "signature", ORG),
        ("denied", "none", ""),
    ]


def test_age_of_the_keys_is_told_where_they_were_fetched(
    door: Door,
    serve: Serve,
    new_verifier: Any,
    *,
    clock: ManualClock,
    transport: FakeTransport,
    told: list[Decision],
    token: str,
) -> None:
    transport.up()
    channel = serve(served(door), door.interceptor(plain(new_verifier(), told)))
    call(channel, KIND, metadata=bearer(token))
    clock.advance(7)
    call(channel, KIND, metadata=bearer(token))

    assert [(one.key_age, one.time) for one in told] == [(0.0, clock.now - 7), (7.0, clock.now)]


# ---- Others who fail ----


class Failing(grpc.ServerInterceptor):
    """An interceptor behind ours that fails."""

    def intercept_service(self, _continuation: Any, _details: Any) -> Any:
        raise RuntimeError("a secret detail")


class FailingAio(grpc.aio.ServerInterceptor):
    """The same for grpc.aio."""

    async def intercept_service(self, _continuation: Any, _details: Any) -> Any:
        raise RuntimeError("a secret detail")


def test_call_that_another_interceptor_fails_is_told_once_as_what_its_caller_sees(
    door: Door, serve: Serve, verifier: Verifier, told: list[Decision], token: str
) -> None:
    inner = FailingAio() if door.is_aio else Failing()
    outcome = call(serve(served(door), door.interceptor(plain(verifier, told)), inner), KIND, metadata=bearer(token))

    assert outcome.code is grpc.StatusCode.INTERNAL
    assert [one.verdict for one in told] == ["failed"]


class StrangeError(BaseException):
    """No exception that anybody expects."""


@pytest.fixture(params=[RuntimeError, StrangeError, SystemExit, asyncio.CancelledError])
def failing(request: pytest.FixtureRequest) -> Iterator[Callable[[Decision], None]]:
    def fail(_decision: Decision) -> None:
        raise request.param("a secret detail")

    return fail


@pytest.mark.parametrize("sent", [True, False], ids=["allowed", "denied"])
def test_observer_that_fails_changes_nothing_and_is_logged(
    door: Door,
    serve: Serve,
    verifier: Verifier,
    caplog: pytest.LogCaptureFixture,
    *,
    told: list[Decision],
    token: str,
    failing: Callable[[Decision], None],
    sent: bool,
) -> None:
    authorizer = Authorizer(verifier, observers=[failing, told.append])
    metadata = bearer(token) if sent else ()
    with caplog.at_level(logging.ERROR, "authz"):
        outcome = call(serve(served(door), door.interceptor(authorizer)), KIND, metadata=metadata)
        ask_as_envoy(authorizer, GUARDED, metadata)

    assert outcome.code is (grpc.StatusCode.OK if sent else grpc.StatusCode.UNAUTHENTICATED)
    assert [one.verdict for one in told] == ["allowed" if sent else "denied"] * 2
    assert caplog.text.count("unforeseen_error where='observer'") == 2
    assert "a secret detail" not in caplog.text
