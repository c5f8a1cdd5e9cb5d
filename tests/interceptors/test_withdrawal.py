"""Tokens that are withdrawn while they are in use, at a real issuer and behind real servers."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import grpc
import pytest

from authz import Assurance, Authorizer, Introspector, Transport, Verifier
from authz.decisions.decision import Decision
from authz.demo.issuer.program import Issuer, IssuerServer
from authz.demo.issuer.signing import SigningKey
from tests.doubles import ISSUER, FakeTransport, ManualClock, eventually, json_response, m2m_claims
from tests.interceptors.client import Outcome, bearer
from tests.interceptors.conftest import ServeAll
from tests.interceptors.servers import DOORS
from tests.interceptors.service import expected_replies, method

LATELY = 5.0


@dataclass(frozen=True)
class Live:
    """A server that asks a real issuer: about unary-unary calls always, about others now and then."""

    call: Callable[[str], Outcome]
    issuer: Issuer
    server: IssuerServer
    authorizer: Authorizer
    clock: ManualClock
    token: str

    @property
    def questions(self) -> int:
        return self.server.requests["/oauth2/introspection"]


@pytest.fixture
def live(serve_all: ServeAll, rsa_key: SigningKey, clock: ManualClock) -> Iterator[Live]:
    with IssuerServer(Issuer(keys=[rsa_key], clock=lambda: clock.now)) as server:
        application = server.issuer.directory.applications[0]
        transport = Transport()
        verifier = Verifier(
            issuer=server.url, audience=server.issuer.directory.audience, transport=transport, clock=clock.clock
        )
        introspector = Introspector(
            server.url,
            client_id=server.issuer.directory.applications[-1].client_id,
            client_secret=server.issuer.directory.applications[-1].client_secret,
            transport=transport,
            clock=clock.clock,
        )
        assurance = {method("unary_unary"): Assurance(), method("stream_stream"): Assurance(max_age=LATELY)}
        authorizer = Authorizer(verifier, introspector=introspector, assurance=assurance)
        served = serve_all(judge=authorizer)
        token = server.issuer.mint(application.client_id)
        yield Live(
            call=lambda kind: served.call(kind, metadata=bearer(token)),
            issuer=server.issuer,
            server=server,
            authorizer=authorizer,
            clock=clock,
            token=token,
        )
        authorizer.close()


def test_with_max_age_0_the_next_call_is_refused(live: Live) -> None:
    before = live.call("unary_unary")
    live.issuer.revoke(token=live.token)

    after = live.call("unary_unary")

    assert (before.code, after.code, after.reason) == (
        grpc.StatusCode.OK,
        grpc.StatusCode.UNAUTHENTICATED,
        "TOKEN_INACTIVE",
    )
    assert not after.leaks(live.token)


def test_otherwise_it_is_refused_within_max_age(live: Live) -> None:
    live.call("stream_stream")
    live.issuer.revoke(token=live.token)
    live.clock.advance(LATELY - 0.5)
    meanwhile = live.call("stream_stream")
    live.clock.advance(0.5)

    after = live.call("stream_stream")

    assert (meanwhile.code, after.reason) == (grpc.StatusCode.OK, "TOKEN_INACTIVE")
    assert live.questions == 2


def test_an_application_that_is_revoked_takes_its_tokens_along(live: Live) -> None:
    live.call("unary_unary")
    live.issuer.revoke(client_id=live.issuer.directory.applications[0].client_id)

    assert live.call("unary_unary").reason == "TOKEN_INACTIVE"


def test_a_method_without_assurance_believes_the_signature(live: Live) -> None:
    live.issuer.revoke(token=live.token)

    outcome = live.call("unary_stream")

    organization = live.issuer.directory.applications[0].org_id
    assert outcome.messages == expected_replies("unary_stream", organization.encode())
    assert live.questions == 0


def test_an_issuer_that_is_down_is_no_fault_of_the_token(live: Live) -> None:
    live.call("unary_unary")
    live.server.stop()

    outcome = live.call("unary_unary")

    assert (outcome.code, outcome.reason) == (grpc.StatusCode.UNAVAILABLE, "INTROSPECTION_UNAVAILABLE")
    assert live.call("unary_stream").code is grpc.StatusCode.OK


def test_what_the_operator_revokes_is_refused_at_once(live: Live) -> None:
    before = live.call("stream_unary")
    live.authorizer.revoke(client_id=live.issuer.directory.applications[0].client_id)

    assert (before.code, live.call("stream_unary").reason) == (grpc.StatusCode.OK, "TOKEN_INACTIVE")


@pytest.mark.parametrize("door", [door for door in DOORS if not door.is_aio], ids=lambda door: door.name)
def test_a_callers_deadline_does_not_have_its_signature_believed(
    serve_all: ServeAll, verifier: Verifier, ec_key: SigningKey
) -> None:
    """R1: it ended the wait for the issuer's word, and the handler of a withdrawn token ran, if for nobody."""
    hanging = FakeTransport(lambda: json_response({"active": False}))
    hanging.hang()
    introspector = Introspector(ISSUER, client_id="c", client_secret="s", transport=hanging)
    told: list[Decision] = []
    authorizer = Authorizer(
        verifier,
        introspector=introspector,
        assurance=Assurance(if_unavailable="local"),
        observers=[told.append],
    )
    served = serve_all(judge=authorizer)
    outcome = served.call("unary_unary", metadata=bearer(ec_key.sign(m2m_claims())), timeout=0.2)
    eventually(lambda: told)

    # Client and server see the end of the deadline at the same moment.
    assert outcome.code in {grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE}
    assert ([decision.verdict for decision in told], served.witness.sights) == (["undecided"], [])
