"""What reaches an ASGI application, and what its callers see: through a real server, byte by byte."""

import asyncio
import contextlib
import json
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from authz import Authorizer, Call, Decision, Directory, Policy, Principal, Verifier, current_principal
from authz.asgi import AuthzMiddleware
from authz.call.metadata import TrustedMetadata
from authz.decisions.decision import Evidence
from authz.errors import ConfigError
from authz.organizations.organization import Organization
from authz.runtime.flow import Flow
from tests.asgi.conftest import ECHO, NewJudge, Serve, Token
from tests.doubles import CLIENT, ORG, FakeTransport, eventually
from tests.http.client import Connection, ask, bearer

Guard = Callable[..., int]

FORGED = "org_01JYFORGED0000000000000000"
TRUSTED = TrustedMetadata()


def test_the_example_of_workos_is_answered_as_it_is(guard: Guard) -> None:
    port = guard(ECHO)

    missing, bad = ask(port, "/orders"), ask(port, "/orders", bearer("a.b.c"))

    assert (missing.status, missing.json["error"]) == (401, "No token provided")
    assert (bad.status, bad.json["error"]) == (401, "Invalid token")
    assert missing.values("www-authenticate") == ['Bearer realm="api"']
    assert bad.values("www-authenticate")[0].startswith('Bearer realm="api", error="')


def test_handler_finds_its_caller_in_every_place(serve: Serve, new_judge: NewJudge, token: Token) -> None:
    directory = Directory(lambda org_id: Organization(name="Acme", tenant="tenant-7") if org_id == ORG else None)
    port = serve(AuthzMiddleware(ECHO, new_judge(directory=directory)))

    seen = ask(port, "/orders?page=2", bearer(token())).json

    assert (seen["principal"], seen["current"], seen["organization"]) == (ORG, ORG, ["Acme", "tenant-7"])
    told = {name: value for name, value in seen["headers"] if name in TRUSTED.names}
    assert told["x-org-id"] == ORG
    assert told["x-client-id"] == CLIENT
    assert told["x-org-tenant"] == "tenant-7"


def test_no_forged_name_reaches_the_application(guard: Guard, token: Token) -> None:
    port = guard(ECHO, public_paths=["/public"])
    forged = [
        (spelling, FORGED)
        for name in (*TRUSTED.removed, *TRUSTED.prefixed, *TRUSTED.reserved)
        for spelling in (name, name.upper(), name.title())
    ]
    # A server takes only so many bytes of headers.
    for some in (forged[place : place + 50] for place in range(0, len(forged), 50)):
        admitted = ask(port, "/orders", [*some, *bearer(token()), *some[:3]]).json
        public = ask(port, "/public", some).json

        assert FORGED not in json.dumps(admitted)
        assert FORGED not in json.dumps(public)
        assert [value for name, value in admitted["headers"] if name == "x-org-id"] == [ORG]
        assert not {name for name, _ in public["headers"]} & TRUSTED.reserved


def test_headers_of_no_meaning_to_the_door_stay_as_they_are(guard: Guard, token: Token) -> None:
    sent = [("x-trace", "1"), ("x-trace", "2"), ("accept", "a/b"), ("x-latin", "caf\xe9")]

    seen = ask(guard(ECHO), "/", [*sent, *bearer(token())]).json

    assert [(name, value) for name, value in seen["headers"] if name in dict(sent)] == sent


def test_public_path_needs_no_token_and_has_no_caller(guard: Guard) -> None:
    port = guard(ECHO, public_paths=["/healthz"])

    assert ask(port, "/healthz").json["principal"] == ""
    assert ask(port, "/healthz").json["current"] == ""
    assert [ask(port, path).status for path in ("/healthz/", "/healthz/x", "/HEALTHZ", "//healthz", "/healthz;x")] == (
        [401] * 5
    )


def test_method_that_the_judge_calls_public_is_so_here(serve: Serve, new_judge: NewJudge) -> None:
    port = serve(AuthzMiddleware(ECHO, new_judge(public_methods=["/healthz"]), public_paths=["/version"]))

    assert [ask(port, path).status for path in ("/healthz", "/version", "/orders")] == [200, 200, 401]


PREFLIGHT = [("origin", "https://shop.example"), ("access-control-request-method", "GET")]


@pytest.mark.parametrize(
    ("verb", "headers", "status"),
    [
        ("OPTIONS", PREFLIGHT, 200),
        ("OPTIONS", PREFLIGHT[:1], 401),
        ("OPTIONS", PREFLIGHT[1:], 401),
        ("OPTIONS", [], 401),
        ("GET", PREFLIGHT, 401),
        ("options", PREFLIGHT, 401),
    ],
)
def test_preflight_passes_where_that_is_asked_for(
    serve: Serve, judge: Authorizer, verb: str, headers: list[tuple[str, str]], status: int
) -> None:
    lenient, strict = AuthzMiddleware(ECHO, judge, preflights=True), AuthzMiddleware(ECHO, judge)

    assert ask(serve(lenient), "/orders", headers, verb=verb).status == status
    assert ask(serve(strict), "/orders", headers, verb=verb).status == 401


@pytest.mark.parametrize("values", [["one", "two"], ["Bearer one, Bearer two"]], ids=["two", "joined"])
def test_two_tokens_are_none(guard: Guard, token: Token, values: list[str]) -> None:
    good = token()
    headers = [("authorization", f"Bearer {good}")] * 2 if values[0] == "one" else bearer(f"{good}, Bearer {good}")

    reply = ask(guard(ECHO), "/orders", headers)

    assert (reply.status, reply.reason) == (401, "TOKEN_MALFORMED")


def test_every_decision_is_told_once(guard: Guard, token: Token, told: list[Decision]) -> None:
    port = guard(ECHO, public_paths=["/healthz"])
    for target, headers in (("/orders", bearer(token())), ("/orders", []), ("/healthz", [])):
        ask(port, target, headers, verb="POST")

    assert [(each.door, each.call.method, each.call.verb, each.verdict) for each in told] == [
        ("asgi", "/orders", "POST", "allowed"),
        ("asgi", "/orders", "POST", "denied"),
        ("asgi", "/healthz", "POST", "allowed"),
    ]
    assert [each.evidence.source for each in told] == ["signature", "none", "public"]


class Faulty(Authorizer):
    """A judge with a fault."""

    def authorize(self, _call: Call, _evidence: Evidence | None = None) -> Flow[Principal]:
        raise RuntimeError("a secret detail")
        yield


def test_what_is_unforeseen_is_refused_and_not_told_to_the_caller(
    serve: Serve, verifier: Verifier, token: Token
) -> None:
    reply = ask(serve(AuthzMiddleware(ECHO, Faulty(verifier))), "/orders", bearer(token()))

    assert (reply.status, reply.reason) == (500, "INTERNAL")
    assert b"secret" not in reply.body


def test_request_that_is_malformed_is_said_to_be_so_only_to_a_known_caller(guard: Guard, token: Token) -> None:
    port = guard(ECHO)

    assert ask(port, "//orders").reason == "TOKEN_MISSING"
    assert ask(port, "//orders", bearer(token())).reason == "REQUEST_MALFORMED"


def test_quota_is_counted_and_said_when_to_come_back(serve: Serve, new_judge: NewJudge, token: Token) -> None:
    policy = Policy.from_document(
        {
            "name": "metered",
            "allow_rules": [{"name": "all"}],
            "default_quota": "small",
            "quotas": {"small": {"requests_per_second": 0.001, "burst": 2}},
        }
    )
    port = serve(AuthzMiddleware(ECHO, new_judge(policy=policy)))

    replies = [ask(port, "/orders", bearer(token())) for _ in range(3)]

    assert [reply.status for reply in replies] == [200, 200, 429]
    assert replies[-1].json["error"] == "Quota exceeded"
    assert int(replies[-1].values("retry-after")[0]) > 60


def test_no_keys_means_no_verdict(serve: Serve, verifier: Verifier, transport: FakeTransport, token: Token) -> None:
    transport.down()

    reply = ask(serve(AuthzMiddleware(ECHO, verifier)), "/orders", bearer(token()))

    assert (reply.status, reply.reason) == (503, "KEY_SET_UNAVAILABLE")
    assert reply.values("retry-after")


def test_calls_wait_for_keys_without_stopping_others(
    serve: Serve, new_verifier: Callable[..., Verifier], transport: FakeTransport, token: Token
) -> None:
    transport.hang()
    port = serve(AuthzMiddleware(ECHO, new_verifier(), public_paths=["/healthz"]))
    with Connection(port) as waiting:
        waiting.ask("/orders", bearer(token()))
        assert eventually(lambda: transport.pending)
        assert ask(port, "/healthz").status == 200

        transport.release()
        assert waiting.reply().status == 200


def test_grpc_client_gets_a_status_in_headers(guard: Guard) -> None:
    reply = ask(guard(ECHO), "/a.B/C", [("content-type", "application/grpc+proto")], verb="POST")

    assert (reply.status, reply.values("content-type"), reply.values("grpc-status")) == (
        200,
        ["application/grpc"],
        ["16"],
    )
    assert reply.values("grpc-message") == ["No token provided"]
    assert reply.body == b""


def test_caller_of_one_request_is_not_that_of_the_next(judge: Authorizer, token: Token) -> None:
    async def calls() -> list[Any]:
        transport = httpx2.ASGITransport(AuthzMiddleware(ECHO, judge))
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
            seen = (await client.get("/orders", headers=dict(bearer(token())))).json()["current"]
            with contextlib.suppress(LookupError):
                return [seen, current_principal()]
            return [seen]

    assert asyncio.run(calls()) == [ORG]


async def _nothing(_scope: Any, _receive: Any, _send: Any) -> None:
    return None


def test_lifespan_passes_and_what_is_unknown_does_not(judge: Authorizer) -> None:
    app = AuthzMiddleware(_nothing, judge)

    asyncio.run(app({"type": "lifespan"}, _nothing, _nothing))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="webtransport"):
        asyncio.run(app({"type": "webtransport"}, _nothing, _nothing))  # type: ignore[arg-type]


def test_one_door_may_stand_behind_another(serve: Serve, judge: Authorizer, token: Token, told: list[Decision]) -> None:
    port = serve(AuthzMiddleware(AuthzMiddleware(ECHO, judge), judge))

    seen = ask(port, "/orders", bearer(token())).json

    assert [value for name, value in seen["headers"] if name == "x-org-id"] == [ORG]
    assert (seen["current"], len(told)) == (ORG, 2)


def test_headers_may_be_any_iterable(judge: Authorizer, token: Token) -> None:
    seen: list[Any] = []

    async def app(scope: Any, _receive: Any, _send: Any) -> None:
        seen.append((scope["state"]["principal"].org_id, scope["headers"][1:2]))

    headers = ([name, value] for name, value in [(b"authorization", f"Bearer {token()}".encode()), (b"x-a", b"1")])
    scope = {"type": "http", "method": "GET", "path": "/", "headers": headers, "state": None}
    asyncio.run(AuthzMiddleware(app, judge)(scope, _nothing, _nothing))  # type: ignore[arg-type]

    assert seen == [(ORG, [[b"x-a", b"1"]])]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"judge": "a judge"}, "a Verifier or an Authorizer is needed, not str"),
        ({"app": None}, "app: an ASGI application is needed"),
        ({"public_paths": ["healthz"]}, "public_paths: 'healthz' is not a path"),
        ({"public_paths": "healthz"}, "public_paths: 'healthz' is not a path"),
        ({"public_paths": ["/a//b"]}, "public_paths: '/a//b' is not a path"),
        ({"public_paths": ["/a%62"]}, "public_paths: write '/ab' for '/a%62'"),
        ({"public_paths": ["/a b"]}, "public_paths: write '/a%20b' for '/a b'"),
        ({"stream_expiry": "soon"}, "stream_expiry: 'soon' must be"),
        ({"grace": -1}, "grace: -1"),
    ],
)
def test_argument_that_cannot_work_is_named(judge: Authorizer, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("(", r"\(")):
        AuthzMiddleware(**{"app": ECHO, "judge": judge, **options})


def test_scope_is_not_shared_by_requests_that_share_a_state(judge: Authorizer, token: Token) -> None:
    """A server may give every request the state of its lifespan, instead of a copy of it."""
    state: dict[str, Any] = {"pool": 1}
    seen: list[dict[str, Any]] = []

    async def app(scope: Any, _receive: Any, _send: Any) -> None:
        seen.append(scope["state"])

    def scope() -> dict[str, Any]:
        headers = [(b"authorization", f"Bearer {token()}".encode())]
        return {"type": "http", "method": "GET", "path": "/", "headers": headers, "state": state}

    asyncio.run(AuthzMiddleware(app, judge)(scope(), _nothing, _nothing))  # type: ignore[arg-type]

    assert state == {"pool": 1}
    assert (seen[0]["pool"], seen[0]["principal"].org_id) == (1, ORG)
