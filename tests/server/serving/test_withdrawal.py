"""Tokens that are withdrawn while they are in use, at a real issuer and through a real ext_authz server."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from authz import Assurance, Authorizer, Introspector, Transport, Verifier
from authz.demo.issuer.program import Issuer, IssuerServer
from authz.demo.issuer.signing import SigningKey
from authz.server.serving.server import EngineName
from tests.doubles import ManualClock
from tests.envoy.check.messages import GRPC, GRPC_PATH, Denial, bearer, in_headers
from tests.server.serving.serving import Served, serving

LATELY = 5.0
OTHER_PATH = "/authz.demo.v1.LedgerService/WatchEntries"


@dataclass(frozen=True)
class Live:
    """A server that asks a real issuer: about one method always, about another now and then."""

    served: Served
    issuer: Issuer
    server: IssuerServer
    authorizer: Authorizer
    clock: ManualClock
    token: str

    def verdict(self, path: str = GRPC_PATH) -> str:
        response = self.served.check(in_headers(GRPC, bearer(self.token), path=path))
        return "allowed" if response.status.code == 0 else Denial(response).reason


@pytest.fixture
def live(rsa_key: SigningKey, clock: ManualClock, engine: EngineName) -> Iterator[Live]:
    with IssuerServer(Issuer(keys=[rsa_key], clock=lambda: clock.now)) as server:
        directory, transport = server.issuer.directory, Transport()
        verifier = Verifier(issuer=server.url, audience=directory.audience, transport=transport, clock=clock.clock)
        introspector = Introspector(
            server.url,
            client_id=directory.applications[-1].client_id,
            client_secret=directory.applications[-1].client_secret,
            transport=transport,
            clock=clock.clock,
        )
        assurance = {GRPC_PATH: Assurance(), OTHER_PATH: Assurance(max_age=LATELY)}
        authorizer = Authorizer(verifier, introspector=introspector, assurance=assurance)
        token = server.issuer.mint(directory.applications[0].client_id)
        with serving(authorizer, "127.0.0.1:0", engine=engine) as served:
            yield Live(served, server.issuer, server, authorizer, clock, token)


def test_with_max_age_0_the_next_call_is_refused(live: Live) -> None:
    before = live.verdict()
    live.issuer.revoke(token=live.token)

    assert (before, live.verdict()) == ("allowed", "TOKEN_INACTIVE")


def test_otherwise_it_is_refused_within_max_age(live: Live) -> None:
    live.verdict(OTHER_PATH)
    live.issuer.revoke(token=live.token)
    live.clock.advance(LATELY - 0.5)
    meanwhile = live.verdict(OTHER_PATH)
    live.clock.advance(0.5)

    assert (meanwhile, live.verdict(OTHER_PATH)) == ("allowed", "TOKEN_INACTIVE")
    assert live.server.requests["/oauth2/introspection"] == 2


def test_a_method_without_assurance_believes_the_signature(live: Live) -> None:
    live.issuer.revoke(token=live.token)

    assert live.verdict("/authz.demo.v1.LedgerService/GetBalance") == "allowed"
    assert live.server.requests["/oauth2/introspection"] == 0


def test_an_issuer_that_is_down_is_no_fault_of_the_token(live: Live) -> None:
    live.verdict()
    live.server.stop()

    assert live.verdict() == "INTROSPECTION_UNAVAILABLE"


def test_what_the_operator_revokes_is_refused_at_once(live: Live) -> None:
    before = live.verdict()
    live.authorizer.revoke(client_id=live.issuer.directory.applications[0].client_id)

    assert (before, live.verdict()) == ("allowed", "TOKEN_INACTIVE")
