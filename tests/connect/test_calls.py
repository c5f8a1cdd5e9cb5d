"""RPCs of every kind, protocol and codec through real servers: who is admitted, and what handlers see of it."""

import http.client
from typing import Any, NamedTuple

import pytest
from connectrpc.code import Code
from connectrpc.errors import ConnectError

from authz import ANONYMOUS, Authorizer, Verifier
from authz.call.principal import Principal
from authz.call.refusal import Challenge, refusal_of
from authz.errors import (
    AuthzError,
    InternalError,
    KeySetUnavailableError,
    PermissionDeniedError,
    ResourceExhaustedError,
    TokenExpiredError,
)
from authz.runtime.flow import Flow
from tests.connect.client import CONNECT, CONNECT_GET, GRPC, GRPC_WEB, OK, OVER_HTTP1, WAYS, Outcome, Way, bearer
from tests.connect.conftest import OTHER, POLICY, TENANT, Serve
from tests.connect.messages import LIBRARIES, Library
from tests.connect.servers import Server
from tests.connect.service import KINDS, PUBLIC, REPLIES, SERVICE, Handlers, SyncHandlers
from tests.doubles import CLIENT, ORG


class Reach(NamedTuple):
    """A way to a handler."""

    server: Server
    way: Way
    kind: str


def reached() -> list[Reach]:
    """Return every server with every way to speak to it and every kind of RPC."""
    return [
        Reach(server, way, kind)
        for server in Server
        for way in (WAYS if server is Server.HYPERCORN else OVER_HTTP1)
        for kind in way.kinds
        if not _is_fragile(server, way, kind)
    ]


def _is_fragile(server: Server, way: Way, kind: str) -> bool:
    if server is Server.WERKZEUG:
        # It does not know where the body of a GET ends, which connectrpc reads after a refusal.
        return way is CONNECT_GET
    # Over HTTP/1.1 it resets a connection when more of a body comes whose request has been refused already.
    return server is Server.HYPERCORN and not way.is_http2 and kind in {"client_stream", "bidi_stream"}


def named(reach: Reach) -> str:
    return f"{reach.server.value}-{reach.way.name}-{reach.kind}"


each_way = pytest.mark.parametrize("reach", reached(), ids=named)
each_server = pytest.mark.parametrize("server", Server, ids=lambda it: it.value)
each_library = pytest.mark.parametrize("library", LIBRARIES, ids=lambda it: it.name)


def replies(kind: str, note: str, requests: int = 1) -> list[str]:
    """Return the notes of what a handler answers."""
    return [note] * {"server_stream": REPLIES, "bidi_stream": requests}.get(kind, 1)


@each_way
def test_a_caller_with_a_token_is_served(serve: Serve, reach: Reach, token: str) -> None:
    server, way, kind = reach
    site = serve(server)
    outcome = site.ask(kind, way, headers=bearer(token))

    assert (outcome.code, outcome.notes) == (OK, replies(kind, ORG))
    assert (site.witness.sight.principal.org_id, site.witness.sight.principal.tenant) == (ORG, TENANT)
    assert site.witness.notes == ["hello"]
    assert site.told == [("decision", "", ORG)]
    [decision] = site.decisions
    assert (decision.door, decision.call.method) == ("connect", f"/{SERVICE}/{kind}")
    assert decision.call.verb == ("GET" if way.use_get else "POST")


@each_way
def test_a_caller_without_a_token_is_refused(serve: Serve, reach: Reach) -> None:
    server, way, kind = reach
    site = serve(server)
    outcome = site.ask(kind, way)

    assert (outcome.code, outcome.message, outcome.reason) == ("unauthenticated", "No token provided", "TOKEN_MISSING")
    assert outcome.headers["www-authenticate"] == 'Bearer realm="api"'
    assert (outcome.notes, site.witness.sights) == ([], [])
    assert site.told == [("decision", "token_missing", "")]


@each_way
def test_a_public_method_is_served_to_anybody(serve: Serve, reach: Reach) -> None:
    server, way, kind = reach
    site = serve(server)
    outcome = site.ask(kind, way, service=PUBLIC, headers={"X-Org-Id": OTHER})

    assert (outcome.code, outcome.notes) == (OK, replies(kind, "anonymous"))
    assert site.witness.sight.principal is ANONYMOUS
    assert site.witness.sight.values("x-org-id") == []
    assert site.told == [("decision", "", "")]


@each_server
@each_library
@pytest.mark.parametrize("codec", [CONNECT, OVER_HTTP1[1]], ids=lambda it: it.name)
def test_messages_of_both_libraries_are_served(
    serve: Serve, server: Server, library: Library, codec: Way, token: str
) -> None:
    site = serve(server, library)

    for kind in KINDS:
        outcome = site.ask(kind, codec, headers=bearer(token))
        assert (outcome.code, outcome.notes) == (OK, replies(kind, ORG))


# ---- What handlers see ----

FORGED = {
    "x-org-id": OTHER,
    "X-ORG-ID": OTHER,
    "X-Client-Id": "forged",
    "x-scopes": "admin",
    "X-Org-Tenant": "forged",
    "x-authz-principal-bin": "AAAA",
    "x-org-id-bin": "AAAA",
    "Grpc-Metadata-X-Org-Id": OTHER,
    "grpcgateway-x-org-id": OTHER,
    "x_org_id": OTHER,
    "X_Org-Id": OTHER,
}


@each_server
@pytest.mark.parametrize("kind", KINDS)
def test_handlers_see_no_forged_header_and_ours_once(serve: Serve, server: Server, kind: str, token: str) -> None:
    site = serve(server)
    for name, value in FORGED.items():
        site.witness.sights.clear()
        assert site.ask(kind, headers=bearer(token, **{name: value, "x_shard": "7"})).code == OK
        sight = site.witness.sight
        assert sight.values("x-org-id") == [ORG]
        assert sight.values("x-client-id") == [CLIENT]
        assert sight.values("x-scopes") == ["ledger:read ledger:write"]
        assert sight.values("x-org-tenant") == [TENANT]
        assert value not in [seen for _, seen in sight.headers]
        assert sight.values("x-shard") == ["7"]


@each_server
@pytest.mark.parametrize("way", [CONNECT, GRPC_WEB], ids=lambda it: it.name)
def test_two_tokens_are_one_too_many(serve: Serve, server: Server, way: Way, token: str) -> None:
    site = serve(server)
    outcome = site.ask("unary", way, headers=bearer(token, token))

    assert (outcome.code, outcome.reason) == ("unauthenticated", "TOKEN_MALFORMED")
    assert site.witness.sights == []


@each_server
def test_no_caller_is_left_over_for_the_next_one(serve: Serve, server: Server, token: str) -> None:
    site = serve(server)
    for kind in KINDS:
        assert site.ask(kind, headers=bearer(token)).notes[0] == ORG
        assert site.ask(kind, service=PUBLIC).notes[0] == "anonymous"


# ---- What callers see ----

ERRORS: dict[str, AuthzError] = {
    "unauthenticated": TokenExpiredError(),
    "permission_denied": PermissionDeniedError(),
    "resource_exhausted": ResourceExhaustedError(retry_after=3),
    "unavailable": KeySetUnavailableError(retry_after=7),
    "internal": InternalError(),
}


class Refusing(Authorizer):
    """A judge that refuses everything with one error."""

    error: BaseException

    def authorize(self, _call: Any, _evidence: Any = None) -> Flow[Principal]:
        yield from ()
        raise self.error


def expected(error: AuthzError) -> Outcome:
    refusal = refusal_of(error, Challenge())
    outcome = Outcome(refusal.code.name.lower(), refusal.message, refusal.reason.upper())
    outcome.headers = {entry.key: str(entry.value) for entry in refusal.headers}
    return outcome


@pytest.mark.parametrize("code", ERRORS)
@pytest.mark.parametrize("reach", [it for it in reached() if it.kind in {"unary", "server_stream"}], ids=named)
def test_a_refusal_is_the_same_in_every_protocol(serve: Serve, reach: Reach, code: str, verifier: Verifier) -> None:
    server, way, kind = reach
    judge = Refusing(verifier)
    judge.error = ERRORS[code]
    site = serve(server, judge=judge)
    outcome, told = site.ask(kind, way), expected(ERRORS[code])

    assert (outcome.code, outcome.message, outcome.reason) == (told.code, told.message, told.reason)
    assert {name: outcome.headers[name] for name in told.headers} == told.headers
    assert code == told.code
    assert ("google.rpc.RetryInfo" in dict(outcome.details)) == ("retry-after" in told.headers)
    if way in {GRPC, GRPC_WEB} and "retry-after" in told.headers:
        assert outcome.headers["grpc-retry-pushback-ms"] == f"{int(told.headers['retry-after']) * 1000}"


@each_server
@pytest.mark.parametrize("kind", KINDS)
def test_what_nobody_foresaw_refuses_the_call_and_says_nothing(
    serve: Serve, server: Server, kind: str, verifier: Verifier, caplog: pytest.LogCaptureFixture
) -> None:
    judge = Refusing(verifier)
    judge.error = ValueError("hunter2")
    site = serve(server, judge=judge)
    outcome = site.ask(kind)

    assert (outcome.code, outcome.message, outcome.reason) == ("internal", "Internal error", "INTERNAL")
    assert (site.witness.sights, site.told) == ([], [("decision", "internal", "")])
    assert "hunter2" not in f"{outcome}{caplog.text}"
    assert "unforeseen" in caplog.text


@each_way
def test_a_policy_that_refuses_names_the_organization(serve: Serve, reach: Reach, token: str) -> None:
    server, way, kind = reach
    site = serve(
        server, policy={"name": "none", "allow_rules": [{"name": "none", "source": {"organizations": [OTHER]}}]}
    )
    outcome = site.ask(kind, way, headers=bearer(token))

    assert (outcome.code, outcome.reason) == ("permission_denied", "POLICY_DENIED")
    assert site.told == [("decision", "policy_denied", ORG)]


def test_a_quota_counts_each_call_once(serve: Serve, token: str) -> None:
    site = serve(
        policy={**POLICY, "quotas": {"two": {"requests_per_second": 0.001, "burst": 2}}, "default_quota": "two"}
    )
    outcomes = [site.ask("unary", headers=bearer(token)) for _ in range(3)]

    assert [one.code for one in outcomes] == [OK, OK, "resource_exhausted"]
    assert int(outcomes[2].headers["retry-after"]) > 0


@each_server
def test_exceptions_of_handlers_are_not_ours(serve: Serve, server: Server, token: str) -> None:
    class Failing(SyncHandlers if not server.is_asgi else Handlers):  # type: ignore[misc]
        def reply(self) -> Any:
            raise ConnectError(Code.FAILED_PRECONDITION, "closed on Sundays")

    site = serve(server, handlers=Failing)
    for kind in KINDS:
        outcome = site.ask(kind, headers=bearer(token))
        assert (outcome.code, outcome.message) == ("failed_precondition", "closed on Sundays")
    assert [event for event, _, _ in site.told] == ["decision"] * len(KINDS)


@each_server
def test_an_unknown_method_is_answered_before_there_is_a_verdict(serve: Serve, server: Server) -> None:
    """Connectrpc does so itself: callers without a token can find out which methods there are."""
    site = serve(server)
    connection = http.client.HTTPConnection("127.0.0.1", site.port)
    connection.request("POST", f"/{SERVICE}/nothing", b"", {"content-type": "application/proto"})
    assert connection.getresponse().status == 404
    connection.close()
    assert site.told == []
