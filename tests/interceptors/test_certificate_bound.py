"""Tokens that are bound to a client's certificate (RFC 8705): good for whoever has it, and for nobody else."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import grpc
import pytest

from authz import MeshPeers, Verifier
from authz.demo.issuer.signing import SigningKey
from tests.certificates import Authority, Certificate, dns
from tests.doubles import AUDIENCE, ISSUER, NOW, ORG, ManualClock, jwks, m2m_claims
from tests.interceptors.client import Outcome, bearer, finish, start
from tests.interceptors.conftest import Reach, WatchedTransport
from tests.interceptors.service import PUBLIC_METHODS, expected_replies, public_method
from tests.interceptors.ways import PLAIN, TLS, UNIX, Client, Reachable, Way

OTHER_ORG = "org_01JYGLOBEX0000000000000000"

WRONG = ("other", "tls", "plain", "unix")
wrong = pytest.mark.parametrize("name", WRONG)


@dataclass(frozen=True)
class Bound:
    """A server, its clients, and their tokens."""

    server: Reachable
    certificates: dict[str, Certificate]
    clock: ManualClock
    key: SigningKey

    def client(self, name: str) -> Client:
        known = {"unix": UNIX, "plain": PLAIN, "tls": TLS}
        return known.get(name) or Client(Way.MUTUAL_TLS, self.certificates[name])

    def call(self, name: str, kind: str, method: str | None = None, **options: Any) -> Outcome:
        return self.server.call(self.client(name), kind, method, **options)

    def token(self, owner: str = "owner", **changes: Any) -> str:
        """Return a token that is bound to the certificate of ``owner``."""
        return self.key.sign(m2m_claims(cnf={"x5t#S256": self.certificates[owner].thumbprint}, **changes))

    def is_untouched(self) -> bool:
        """Say whether neither a handler nor its parser has seen anything."""
        return (self.server.witness.sights, self.server.witness.parsed) == ([], [])


@pytest.fixture(scope="session")
def certificates(authority: Authority) -> dict[str, Certificate]:
    """Return two that differ in nothing but their keys."""
    return {name: authority.issue(common_name="owner") for name in ("owner", "other")}


@pytest.fixture(scope="session")
def shared_bound(reach_for_long: Reach, certificates: dict[str, Certificate], ec_key: SigningKey) -> Bound:
    clock = ManualClock()
    verifier = Verifier(issuer=ISSUER, audience=AUDIENCE, jwks=jwks(ec_key), algorithms=["ES256"], clock=clock.clock)
    return Bound(reach_for_long(verifier, public_methods=PUBLIC_METHODS), certificates, clock, ec_key)


@pytest.fixture
def bound(shared_bound: Bound) -> Bound:
    shared_bound.server.witness.forget()
    shared_bound.clock.now = NOW
    return shared_bound


def test_owner_of_the_certificate_gets_in(bound: Bound, kind: str) -> None:
    forged = ("x-org-id", OTHER_ORG)

    outcome = bound.call("owner", kind, metadata=[forged, *bearer(bound.token()), forged], requests=[b"1", b"2"])

    assert outcome.messages == expected_replies(kind, ORG.encode(), [b"1", b"2"])
    sight = bound.server.witness.sight
    assert (sight.principal.org_id, sight.principal.certificate) == (ORG, bound.certificates["owner"].thumbprint)
    assert sight.values("x-org-id") == [ORG]
    assert OTHER_ORG not in repr(sight.metadata)


@wrong
def test_silent_client_without_the_certificate_is_refused_at_once(
    bound: Bound, kind: str, name: str, least: Iterable[bytes]
) -> None:
    outcome = bound.call(name, kind, metadata=bearer(bound.token()), requests=least)

    assert (outcome.code, outcome.reason) == (grpc.StatusCode.UNAUTHENTICATED, "CLAIM_INVALID")
    assert (outcome.details, outcome.messages) == ("Invalid token", [])
    assert outcome.trailers["www-authenticate"] == 'Bearer realm="api", error="invalid_token"'
    assert bound.is_untouched()


@wrong
@pytest.mark.parametrize("first", ["owner", "thief"])
def test_verdict_that_is_remembered_is_good_for_its_owner_only(bound: Bound, kind: str, name: str, first: str) -> None:
    token = bearer(bound.token(jti=f"{kind}-{name}-{first}"))
    turns = ["owner", name, "owner", name] if first == "owner" else [name, "owner", name, "owner"]

    replies = [bound.call(turn, kind, metadata=token).messages for turn in turns]

    good, refused = expected_replies(kind, ORG.encode()), []
    assert replies == [good if turn == "owner" else refused for turn in turns]


@wrong
def test_certificate_that_a_caller_only_tells_of_is_none(bound: Bound, kind: str, name: str) -> None:
    """RFC 9440, and what proxies write."""
    thumbprint, pem = bound.certificates["owner"].thumbprint, bound.certificates["owner"].chain.decode()
    told = [
        ("x-forwarded-client-cert", f"Hash={thumbprint}"),
        ("client-cert", f":{''.join(pem.split()[2:-2])}:"),
        ("x-client-cert", thumbprint),
        ("x509_pem_cert", thumbprint),
        ("x509-pem-cert-bin", bound.certificates["owner"].chain),
    ]

    outcome = bound.call(name, kind, metadata=[*told, *bearer(bound.token())])

    assert outcome.reason == "CLAIM_INVALID"
    assert bound.is_untouched()


def other_bindings(thumbprint: str) -> list[Any]:
    return [
        {"jkt": thumbprint},
        {"jkt": thumbprint, "x5t#S256": thumbprint},
        {"x5t#S256": thumbprint, "kid": "ec-1"},
        {"x5t#S256": [thumbprint]},
        {"x5t#S256": ""},
        {"x5t": thumbprint},
        {},
        None,
        thumbprint,
    ]


@pytest.mark.parametrize("number", range(9))
def test_token_that_is_bound_otherwise_is_refused_to_everybody(bound: Bound, kind: str, number: int) -> None:
    cnf = other_bindings(bound.certificates["owner"].thumbprint)[number]
    token = bound.key.sign(m2m_claims(cnf=cnf))

    outcomes = [bound.call(name, kind, metadata=bearer(token)) for name in ("owner", *WRONG)]

    assert {outcome.reason for outcome in outcomes} == {"CLAIM_INVALID"}
    assert bound.is_untouched()


@pytest.mark.parametrize("name", ["owner", *WRONG])
def test_token_that_is_not_bound_is_good_for_its_bearer(bound: Bound, kind: str, name: str, token: str) -> None:
    assert bound.call(name, kind, metadata=bearer(token)).messages == expected_replies(kind, ORG.encode())


@pytest.mark.parametrize("name", ["owner", "other", "plain"])
def test_what_is_wrong_with_the_token_itself_is_said_first(
    bound: Bound, kind: str, name: str, other_key: SigningKey
) -> None:
    thumbprint = bound.certificates["owner"].thumbprint
    forged = other_key.sign(m2m_claims(cnf={"x5t#S256": thumbprint}), {"kid": bound.key.kid})

    reasons = [bound.call(name, kind, metadata=bearer(token)).reason for token in (forged, bound.token(exp=NOW - 60))]

    assert reasons == ["SIGNATURE_INVALID", "TOKEN_EXPIRED"]


def test_bound_token_expires_too(bound: Bound, kind: str) -> None:
    token = bearer(bound.token())
    before = bound.call("owner", kind, metadata=token)
    bound.clock.advance(310)
    after = bound.call("owner", kind, metadata=token)

    assert (before.code, after.reason) == (grpc.StatusCode.OK, "TOKEN_EXPIRED")


@wrong
def test_unknown_methods_cannot_be_told_from_known_ones(
    bound: Bound, kind: str, name: str, least: Iterable[bytes]
) -> None:
    token = bearer(bound.token())

    unknown = bound.call(name, kind, "/tests.Guarded/unknown", metadata=token, requests=least)
    known = bound.call(name, kind, metadata=token, requests=least)

    assert unknown == known


def test_unknown_method_is_unimplemented_to_the_owner(bound: Bound, kind: str, least: Iterable[bytes]) -> None:
    outcome = bound.call("owner", kind, "/tests.Guarded/unknown", metadata=bearer(bound.token()), requests=least)

    assert (outcome.code, outcome.details) == (grpc.StatusCode.UNIMPLEMENTED, "Method not found!")


@wrong
def test_public_method_does_not_look_at_the_binding(bound: Bound, kind: str, name: str) -> None:
    outcome = bound.call(name, kind, public_method(kind), metadata=bearer(bound.token()))

    assert outcome.messages == expected_replies(kind, b"anonymous")


def test_owners_at_the_same_time_are_not_mistaken_for_each_other(bound: Bound, kind: str) -> None:
    tokens = {
        ("owner", "owner"): bearer(bound.token("owner")),
        ("other", "other"): bearer(bound.token("other", org_id=OTHER_ORG)),
        ("owner", "other"): bearer(bound.token("other", org_id=OTHER_ORG)),
        ("other", "owner"): bearer(bound.token("owner")),
    }
    turns = [*tokens] * 10
    requests = [b"1", b"2", b"3"]

    def call(turn: tuple[str, str]) -> list[bytes]:
        return bound.call(turn[0], kind, metadata=tokens[turn], requests=requests).messages

    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(call, turns))

    own = {"owner": ORG.encode(), "other": OTHER_ORG.encode()}
    assert replies == [
        expected_replies(kind, own[client], requests) if client == of_token else [] for client, of_token in turns
    ]


# ---- Before the keys are there, and in a mesh ----


@pytest.fixture
def serve_bound(reach: Reach, certificates: dict[str, Certificate], ec_key: SigningKey) -> Callable[..., Bound]:
    """Return a function that starts a server for one test."""
    return lambda *judge, **options: Bound(reach(*judge, **options), certificates, ManualClock(), ec_key)


def begun(bound: Bound, name: str, kind: str, requests: Iterable[bytes]) -> Any:
    channel = bound.server.channel(bound.client(name))
    return start(channel, kind, metadata=bearer(bound.token()), requests=requests)


def test_owner_gets_in_when_the_keys_arrive(
    serve_bound: Callable[..., Bound], kind: str, cold_verifier: Verifier, transport: WatchedTransport
) -> None:
    call = begun(serve_bound(cold_verifier), "owner", kind, [b""])
    transport.await_request()
    transport.release()

    assert finish(kind, call).messages == expected_replies(kind, ORG.encode())
    assert transport.fetches == 1


@pytest.fixture
def cold_bound(serve_bound: Callable[..., Bound], cold_verifier: Verifier) -> Bound:
    return serve_bound(cold_verifier)


@wrong
def test_silent_client_without_the_certificate_is_refused_when_the_keys_arrive(
    cold_bound: Bound, kind: str, transport: WatchedTransport, name: str, least: Iterable[bytes]
) -> None:
    call = begun(cold_bound, name, kind, least)
    transport.await_request()
    transport.release()

    assert finish(kind, call).reason == "CLAIM_INVALID"
    assert cold_bound.is_untouched()


def test_proxy_that_is_believed_does_not_lend_its_certificate(
    serve_bound: Callable[..., Bound], kind: str, verifier: Verifier
) -> None:
    """What comes through a proxy has the proxy's certificate."""
    bound = serve_bound(verifier, trust=MeshPeers(unix_socket=True, dns_names=["proxy"]))
    proxy = bound.server.authority.issue(*dns("proxy"))
    token = bearer(bound.token())

    through_proxies = [
        bound.server.call(client, kind, metadata=token).reason for client in (UNIX, Client(Way.MUTUAL_TLS, proxy))
    ]

    assert through_proxies == ["CLAIM_INVALID"] * 2
    assert bound.call("owner", kind, metadata=token).messages == expected_replies(kind, ORG.encode())
