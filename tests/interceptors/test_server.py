"""What every door promises for every kind of RPC, whatever sort of handler stands behind it."""

import base64
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import grpc
import grpc.aio
import pytest

from authz import ANONYMOUS, Authorizer, MeshPeers, Verifier
from authz.demo.issuer.signing import SigningKey
from authz.v1.principal_pb2 import Principal as PrincipalMessage
from tests.doubles import CLIENT, ORG, m2m_claims
from tests.interceptors.client import Metadata, bearer
from tests.interceptors.conftest import Guarded, Reach, ServeAll
from tests.interceptors.service import PUBLIC_METHODS, expected_replies, is_request_streaming, method, public_method
from tests.interceptors.ways import PLAIN

OTHER_ORG = "org_01JYGLOBEX0000000000000000"
SECRET = "a-value-that-nobody-may-see-again"


class Tokens:
    """Tokens, good and bad, of one issuer."""

    def __init__(self, key: SigningKey, other: SigningKey) -> None:
        self.key, self.other = key, other

    def good(self, **changes: Any) -> str:
        return self.key.sign(m2m_claims(**changes))

    def expired(self) -> str:
        return self.good(exp=int(m2m_claims()["exp"]) - 3600)

    def unsigned(self) -> str:
        return self.key.sign(m2m_claims(), {"alg": "none"}).rpartition(".")[0] + "."

    def forged(self) -> str:
        return self.other.sign(m2m_claims(), {"kid": self.key.kid})

    def of_an_unknown_key(self) -> str:
        return self.other.sign(m2m_claims())


@pytest.fixture(scope="session")
def tokens(ec_key: SigningKey, other_key: SigningKey) -> Tokens:
    return Tokens(ec_key, other_key)


def test_handler_finds_the_organization_in_its_metadata(guarded: Guarded, kind: str, token: str) -> None:
    outcome = guarded.call(kind, metadata=bearer(token))

    assert outcome.code is grpc.StatusCode.OK
    sight = guarded.witness.sight
    assert sight.values("x-org-id") == [ORG]
    assert sight.values("x-client-id") == [CLIENT]
    assert sight.values("x-scopes") == ["ledger:read ledger:write"]
    [principal] = sight.values("x-authz-principal-bin")
    assert PrincipalMessage.FromString(principal).org_id == ORG


def test_current_principal_stays_until_the_last_message(guarded: Guarded, kind: str, token: str) -> None:
    requests = [b"1", b"2", b"3"]

    outcome = guarded.call(kind, metadata=bearer(token), requests=requests)

    assert outcome.messages == expected_replies(kind, ORG.encode(), requests)
    assert guarded.witness.sight.principal.org_id == ORG


def test_metadata_keeps_the_shape_that_grpc_gives_it(guarded: Guarded, kind: str, token: str) -> None:
    sent = (*bearer(token), ("x-request-id", "1"), ("x-request-id", "2"), ("x-trace-bin", b"\x00\xff"))

    guarded.call(kind, metadata=sent)

    metadata = guarded.witness.sight.metadata
    assert isinstance(metadata, tuple)
    assert [tuple(entry) for entry in metadata if entry in sent] == list(sent)
    assert [(entry.key, entry.value) for entry in metadata] == list(metadata)


def test_handlers_get_the_requests_parsed(guarded: Guarded, kind: str, token: str) -> None:
    requests = [b"1", b"2"] if is_request_streaming(kind) else [b"1"]

    guarded.call(kind, metadata=bearer(token), requests=requests)

    assert guarded.witness.parsed == requests


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_scheme_may_be_written_in_any_case(guarded: Guarded, kind: str, token: str, scheme: str) -> None:
    outcome = guarded.call(kind, metadata=[("authorization", f"{scheme} {token}")])

    assert outcome.messages == expected_replies(kind, ORG.encode())


NO_TOKEN, INVALID = "No token provided", "Invalid token"
CHALLENGE = 'Bearer realm="api"'


class Case(NamedTuple):
    """What a caller sends, and the reason why it is refused."""

    credentials: Callable[[Tokens], Metadata]
    reason: str


REFUSED = [
    pytest.param(Case(lambda _: (), "TOKEN_MISSING"), id="no token"),
    pytest.param(Case(lambda t: [("authorization-bin", t.good().encode())], "TOKEN_MISSING"), id="under another name"),
    pytest.param(Case(lambda _: [("authorization", "")], "TOKEN_MALFORMED"), id="empty"),
    pytest.param(Case(lambda _: [("authorization", "Bearer")], "TOKEN_MALFORMED"), id="scheme alone"),
    pytest.param(Case(lambda t: [("authorization", t.good())], "TOKEN_MALFORMED"), id="no scheme"),
    pytest.param(Case(lambda t: [("authorization", f"Basic {t.good()}")], "TOKEN_MALFORMED"), id="another scheme"),
    pytest.param(Case(lambda t: [("authorization", f"Bearer  {t.good()}")], "TOKEN_MALFORMED"), id="two blanks"),
    pytest.param(Case(lambda t: [("authorization", f"Bearer {t.good()} x")], "TOKEN_MALFORMED"), id="with more"),
    pytest.param(Case(lambda t: [*bearer(t.good()), *bearer(t.good())], "TOKEN_MALFORMED"), id="the same twice"),
    pytest.param(Case(lambda t: [*bearer(t.good()), ("authorization", "")], "TOKEN_MALFORMED"), id="an empty one too"),
    pytest.param(
        Case(lambda t: [("authorization", f"Bearer {t.good()},Bearer {t.good()}")], "TOKEN_MALFORMED"), id="two joined"
    ),
    pytest.param(Case(lambda _: bearer("not-a-token"), "TOKEN_MALFORMED"), id="no JWS"),
    pytest.param(Case(lambda t: bearer(t.good()[:-1]), "TOKEN_MALFORMED"), id="truncated"),
    pytest.param(Case(lambda _: bearer("a" * 8193), "TOKEN_MALFORMED"), id="too long"),
    pytest.param(Case(lambda t: bearer(t.good() + "." + "a" * 200_000), "TOKEN_MALFORMED"), id="far too long"),
    pytest.param(Case(lambda t: bearer(t.unsigned()), "ALGORITHM_NOT_ALLOWED"), id="alg none"),
    pytest.param(Case(lambda t: bearer(t.forged()), "SIGNATURE_INVALID"), id="forged signature"),
    pytest.param(Case(lambda t: bearer(t.of_an_unknown_key()), "KEY_NOT_FOUND"), id="unknown kid"),
    pytest.param(Case(lambda t: bearer(t.good(iss="https://evil.example")), "CLAIM_INVALID"), id="another issuer"),
    pytest.param(Case(lambda t: bearer(t.good(aud=SECRET)), "CLAIM_INVALID"), id="another audience"),
    pytest.param(Case(lambda t: bearer(t.good(org_id=None)), "CLAIM_INVALID"), id="no organization"),
    pytest.param(Case(lambda t: bearer(t.good(sid="session_1")), "CLAIM_INVALID"), id="a session"),
    pytest.param(Case(lambda t: bearer(t.good(sub="user_1")), "CLAIM_INVALID"), id="a user"),
    pytest.param(Case(lambda t: bearer(t.expired()), "TOKEN_EXPIRED"), id="expired"),
]


@pytest.mark.parametrize("case", REFUSED)
def test_silent_client_is_told_at_once_what_is_wrong(
    guarded: Guarded, kind: str, tokens: Tokens, least: Iterable[bytes], case: Case
) -> None:
    outcome = guarded.call(kind, metadata=case.credentials(tokens), requests=least)

    message = NO_TOKEN if case.reason == "TOKEN_MISSING" else INVALID
    assert (outcome.code, outcome.reason, outcome.details) == (grpc.StatusCode.UNAUTHENTICATED, case.reason, message)
    assert outcome.trailers["www-authenticate"].startswith(CHALLENGE)
    assert (outcome.status.code, outcome.status.message) == (16, message)
    assert not outcome.leaks(SECRET)


@pytest.mark.parametrize("case", REFUSED[:2])
def test_refused_requests_are_not_parsed(guarded: Guarded, kind: str, tokens: Tokens, case: Case) -> None:
    outcome = guarded.call(kind, metadata=case.credentials(tokens), requests=[b"1", b"2"])

    assert (outcome.reason, outcome.messages) == (case.reason, [])
    assert (guarded.witness.parsed, guarded.witness.sights) == ([], [])


def test_token_is_refused_from_the_second_of_its_end(guarded: Guarded, kind: str, token: str) -> None:
    guarded.clock.advance(309.9)
    before = guarded.call(kind, metadata=bearer(token))
    guarded.clock.advance(0.1)
    after = guarded.call(kind, metadata=bearer(token))

    assert (before.code, after.reason) == (grpc.StatusCode.OK, "TOKEN_EXPIRED")


def test_public_method_needs_no_token(guarded: Guarded, kind: str) -> None:
    outcome = guarded.call(kind, public_method(kind), requests=[b"1", b"2"])

    assert outcome.messages == expected_replies(kind, b"anonymous", [b"1", b"2"])
    sight = guarded.witness.sight
    assert sight.principal is ANONYMOUS
    assert [entry for entry in sight.metadata if entry.key.startswith("x-")] == []


@pytest.mark.parametrize("case", REFUSED[-3:])
def test_public_method_does_not_look_at_tokens(guarded: Guarded, kind: str, tokens: Tokens, case: Case) -> None:
    outcome = guarded.call(kind, public_method(kind), metadata=case.credentials(tokens))

    assert outcome.messages == expected_replies(kind, b"anonymous")


SPELLINGS = [
    "/tests.Public/{name}/",
    "//tests.Public/{name}",
    "/tests.Public//{name}",
    "//tests.Public//{name}",
    "tests.Public/{name}",
    "/tests.Public/./{name}",
    "/x/../tests.Public/{name}",
    "/tests.Public/{name}?",
    "/tests.Public/{name}?x=1",
    "/tests.Public/{name}%20",
    "/tests.Public/{name}%00",
    "/tests.Public/{name} ",
    "/tests.Public/{name};x",
    "/tests.Public%2F{name}",
    "/tests.Public.{name}",
    "/tests.Public/{escaped}",
    "/%74ests.Public/{name}",
    "/tests.Public/{capitals}",
    "/Tests.public/{name}",
    "/tests.Public",
    "/{name}",
    "/",
    "/tests.Public/",
    "/tests.Public/*",
]


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_name_that_only_resembles_a_public_one_is_guarded(guarded: Guarded, kind: str, spelling: str) -> None:
    escaped = f"%{ord(kind[0]):x}{kind[1:]}"

    outcome = guarded.call(kind, spelling.format(name=kind, escaped=escaped, capitals=kind.upper()))

    assert outcome.reason == "TOKEN_MISSING"
    assert guarded.witness.sights == []


def test_unknown_methods_cannot_be_told_from_known_ones(guarded: Guarded, kind: str, least: Iterable[bytes]) -> None:
    unknown = guarded.call(kind, "/tests.Guarded/unknown", requests=least)
    known = guarded.call(kind, requests=least)

    assert unknown == known


def test_unknown_method_is_unimplemented_to_a_known_caller(
    guarded: Guarded, kind: str, token: str, least: Iterable[bytes]
) -> None:
    outcome = guarded.call(kind, "/tests.Guarded/unknown", metadata=bearer(token), requests=least)

    assert (outcome.code, outcome.details) == (grpc.StatusCode.UNIMPLEMENTED, "Method not found!")


FORGERY = PrincipalMessage(org_id=OTHER_ORG).SerializeToString()
FORGED = [
    pytest.param([("x-org-id", OTHER_ORG)], id="once"),
    pytest.param([("x-org-id", OTHER_ORG)] * 2, id="twice"),
    pytest.param([("x-org-id", ORG), ("x-org-id", OTHER_ORG)], id="after the right one"),
    pytest.param([("x-org-id-bin", OTHER_ORG.encode())], id="as bytes"),
    pytest.param([("x_org_id", OTHER_ORG)], id="with underscores"),
    pytest.param([("x-org_id", OTHER_ORG)], id="with one underscore"),
    pytest.param([("x-client-id", OTHER_ORG), ("x_client-id", OTHER_ORG)], id="another client"),
    pytest.param([("x-scopes", OTHER_ORG), ("x-scopes-bin", OTHER_ORG.encode())], id="more scopes"),
    pytest.param([("x-authz-principal-bin", FORGERY), ("x-authz-principal-bin", b"")], id="a whole principal"),
    pytest.param([("x_authz_principal_bin", OTHER_ORG), ("x-authz-principal_bin", OTHER_ORG)], id="as text"),
]


@pytest.mark.parametrize("forged", FORGED)
def test_forged_metadata_never_reaches_a_handler(
    guarded: Guarded, kind: str, token: str, forged: list[tuple[str, str | bytes]]
) -> None:
    outcome = guarded.call(kind, metadata=[*forged[:1], *bearer(token), *forged[1:]])

    assert outcome.messages == expected_replies(kind, ORG.encode())
    sight = guarded.witness.sight
    assert sight.values("x-org-id") == [ORG]
    assert OTHER_ORG not in repr(sight.metadata)


@pytest.mark.parametrize("forged", FORGED)
def test_forged_metadata_never_reaches_a_public_method(
    guarded: Guarded, kind: str, forged: list[tuple[str, str | bytes]]
) -> None:
    outcome = guarded.call(kind, public_method(kind), metadata=[*forged, ("x-request-id", "1")])

    assert outcome.messages == expected_replies(kind, b"anonymous")
    [entry] = [entry for entry in guarded.witness.sight.metadata if entry.key.startswith("x")]
    assert entry == ("x-request-id", "1")


def test_a_forged_name_is_found_among_usual_ones(guarded: Guarded, kind: str, token: str) -> None:
    for metadata in (bearer(token), [*bearer(token), ("x-org-id", OTHER_ORG)]):
        outcome = guarded.call(kind, metadata=metadata)

        assert outcome.messages == expected_replies(kind, ORG.encode())
        assert guarded.witness.sights[-1].values("x-org-id") == [ORG]


def test_callers_are_not_mistaken_for_each_other(guarded: Guarded, kind: str, tokens: Tokens) -> None:
    organizations = [ORG, OTHER_ORG, ORG, OTHER_ORG]

    replies = [guarded.call(kind, metadata=bearer(tokens.good(org_id=org))).messages for org in organizations]

    assert replies == [expected_replies(kind, org.encode()) for org in organizations]


def test_base64_of_a_token_is_no_token(guarded: Guarded, kind: str, token: str) -> None:
    encoded = base64.b64encode(token.encode()).decode().rstrip("=")

    outcome = guarded.call(kind, method(kind), metadata=bearer(encoded))

    assert outcome.reason == "TOKEN_MALFORMED"


class Nosy(grpc.ServerInterceptor, grpc.aio.ServerInterceptor):
    """Another's interceptor, for either server, which notes what it is told."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def intercept_service(self, continuation: Any, handler_call_details: grpc.HandlerCallDetails) -> Any:
        self.told.append(handler_call_details)
        return continuation(handler_call_details)


@pytest.mark.parametrize("forged", FORGED)
def test_forged_metadata_never_reaches_another_interceptor(
    serve_all: ServeAll, verifier: Verifier, kind: str, token: str, forged: list[tuple[str, str | bytes]]
) -> None:
    nosy = Nosy()
    served = serve_all(nosy, judge=Authorizer(verifier, public_methods=PUBLIC_METHODS))
    sent = [*forged[:1], *bearer(token), ("x-request-id", "1"), *forged[1:]]

    outcomes = [served.call(kind, name, metadata=sent) for name in (method(kind), public_method(kind))]

    assert [outcome.code for outcome in outcomes] == [grpc.StatusCode.OK] * 2
    guarded, public = nosy.told
    assert (guarded.method, public.method) == (method(kind), public_method(kind))
    assert [value for key, value in guarded.invocation_metadata if key == "x-org-id"] == [ORG]
    assert [key for key, _ in public.invocation_metadata if key.startswith("x")] == ["x-request-id"]
    assert OTHER_ORG not in repr(nosy.told)


def test_another_interceptor_is_told_of_nobody_before_the_verdict(
    reach: Reach, kind: str, verifier: Verifier, token: str
) -> None:
    nosy = Nosy()
    server = reach(verifier, trust=MeshPeers(unix_socket=True), inner=[nosy])

    outcome = server.call(PLAIN, kind, metadata=[("x-org-id", OTHER_ORG), *bearer(token), ("x-request-id", "1")])

    assert outcome.messages == expected_replies(kind, ORG.encode())
    [told] = nosy.told
    assert [key for key, _ in told.invocation_metadata if key.startswith("x")] == ["x-request-id"]
