"""What reaches a WSGI application, and what its callers see: through real servers, byte by byte."""

import json
from collections.abc import Callable
from typing import Any
from wsgiref.validate import validator

import pytest

from authz import Authorizer, Call, Decision, Directory, Policy, Principal, Verifier
from authz.call.call import MAX_ENTRIES, MAX_METADATA_BYTES, MAX_METHOD
from authz.call.metadata import TrustedMetadata
from authz.decisions.decision import Evidence
from authz.demo.issuer.signing import SigningKey
from authz.errors import ConfigError
from authz.organizations.organization import Organization
from authz.runtime.flow import Flow
from authz.wsgi import AuthzMiddleware
from tests.asgi.conftest import NewJudge, Token
from tests.doubles import CLIENT, ORG, FakeTransport, eventually, m2m_claims
from tests.http.client import Connection, ask, bearer
from tests.wsgi.conftest import Guard, Serve, echo

FORGED = "org_01JYFORGED0000000000000000"
TRUSTED = TrustedMetadata()


def test_the_example_of_workos_is_answered_as_it_is(guard: Guard, server: str) -> None:
    port = guard(echo, server)

    missing, bad = ask(port, "/orders"), ask(port, "/orders", bearer("a.b.c"))

    assert (missing.status, missing.json["error"]) == (401, "No token provided")
    assert (bad.status, bad.json["error"]) == (401, "Invalid token")
    assert missing.values("www-authenticate") == ['Bearer realm="api"']
    assert bad.values("www-authenticate")[0].startswith('Bearer realm="api", error="')


def test_handler_finds_its_caller_in_every_place(serve: Serve, server: str, new_judge: NewJudge, token: Token) -> None:
    directory = Directory(lambda org_id: Organization(name="Acme", tenant="tenant-7") if org_id == ORG else None)
    port = serve(AuthzMiddleware(echo, new_judge(directory=directory)), server)

    seen = ask(port, "/orders?page=2", bearer(token())).json

    assert (seen["principal"], seen["current"], seen["organization"]) == (ORG, ORG, ["Acme", "tenant-7"])
    assert (seen["variables"]["HTTP_X_ORG_ID"], seen["variables"]["HTTP_X_CLIENT_ID"]) == (ORG, CLIENT)
    assert seen["variables"]["HTTP_X_ORG_TENANT"] == "tenant-7"
    assert seen["variables"]["HTTP_X_AUTHZ_PRINCIPAL_BIN"]


def test_no_forged_name_reaches_the_application(guard: Guard, server: str, token: Token) -> None:
    port = guard(echo, server, public_paths=["/public"])
    forged = [
        (spelling, FORGED)
        for name in (*TRUSTED.forgeable, *(f"grpcgateway-{each}" for each in TRUSTED.prefixed))
        for spelling in (name, name.title())
    ]
    # A server takes only so many headers.
    for some in (forged[place : place + 50] for place in range(0, len(forged), 50)):
        admitted = ask(port, "/orders", [*some, *bearer(token()), *some[:3]]).json
        public = ask(port, "/public", some).json

        assert FORGED not in json.dumps([admitted, public])
        assert admitted["variables"]["HTTP_X_ORG_ID"] == ORG
        assert not any("ORG_ID" in name for name in public["variables"])


def test_variables_of_no_meaning_to_the_door_stay_as_they_are(guard: Guard, server: str, token: Token) -> None:
    seen = ask(guard(echo, server), "/", [("x-trace", "1"), ("x-latin", "caf\xe9"), *bearer(token())]).json

    assert (seen["variables"]["HTTP_X_TRACE"], seen["variables"]["HTTP_X_LATIN"]) == ("1", "caf\xe9")
    assert seen["variables"]["HTTP_AUTHORIZATION"].startswith("Bearer ")


def test_public_path_needs_no_token_and_has_no_caller(guard: Guard) -> None:
    port = guard(echo, "gunicorn", public_paths=["/healthz"])

    assert [ask(port, "/healthz").json[where] for where in ("principal", "current", "organization")] == ["", "", None]
    assert [ask(port, path).status for path in ("/healthz/", "/healthz/x", "/HEALTHZ", "//healthz", "/healthz;x")] == (
        [401] * 5
    )


def test_method_that_the_judge_calls_public_is_so_here(serve: Serve, new_judge: NewJudge) -> None:
    port = serve(AuthzMiddleware(echo, new_judge(public_methods=["/healthz"]), public_paths=["/version"]))

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
    ],
)
def test_preflight_passes_where_that_is_asked_for(
    guard: Guard, verb: str, headers: list[tuple[str, str]], status: int
) -> None:
    assert ask(guard(echo, preflights=True), "/orders", headers, verb=verb).status == status
    assert ask(guard(echo), "/orders", headers, verb=verb).status == 401


def test_two_tokens_are_none(guard: Guard, server: str, token: Token) -> None:
    port, good = guard(echo, server), token()
    attempts = [bearer(good) * 2, bearer(f"{good}, Bearer {good}"), [*bearer("a.b.c"), *bearer(good)]]

    replies = [ask(port, "/orders", headers) for headers in attempts]

    assert {(reply.status, reply.reason) for reply in replies} == {(401, "TOKEN_MALFORMED")}


@pytest.mark.parametrize("name", ["proxy-authorization", "redirect-http-authorization", "x-authorization"])
def test_token_in_another_header_is_none(guard: Guard, server: str, token: Token, name: str) -> None:
    reply = ask(guard(echo, server), "/orders", [(name, f"Bearer {token()}")])

    assert (reply.status, reply.reason) == (401, "TOKEN_MISSING")


def test_every_decision_is_told_once(guard: Guard, server: str, token: Token, told: list[Decision]) -> None:
    port = guard(echo, server, public_paths=["/healthz"])
    for target, headers in (("/orders", bearer(token())), ("/orders", []), ("/healthz", [])):
        ask(port, target, headers, verb="POST")

    assert [(each.door, each.call.method, each.call.verb, each.verdict) for each in told] == [
        ("wsgi", "/orders", "POST", "allowed"),
        ("wsgi", "/orders", "POST", "denied"),
        ("wsgi", "/healthz", "POST", "allowed"),
    ]
    assert [each.evidence.source for each in told] == ["signature", "none", "public"]


class Failing(Authorizer):
    """A judge with a fault."""

    def __init__(self, verifier: Verifier, error: BaseException) -> None:
        super().__init__(verifier)
        self._error = error

    def authorize(self, _call: Call, _evidence: Evidence | None = None) -> Flow[Principal]:
        raise self._error
        yield


@pytest.mark.parametrize("error", [RuntimeError("a secret detail"), GeneratorExit("a secret detail")], ids=type)
def test_what_is_unforeseen_is_refused_and_not_told_to_the_caller(
    serve: Serve, server: str, verifier: Verifier, token: Token, error: BaseException
) -> None:
    reply = ask(serve(AuthzMiddleware(echo, Failing(verifier, error)), server), "/orders", bearer(token()))

    assert (reply.status, reply.reason) == (500, "INTERNAL")
    assert b"secret" not in reply.body


def environ_of(path: str = "/", token: str = "", **more: Any) -> dict[str, Any]:
    """Return a request as PEP 3333 describes it."""
    credentials = {"HTTP_AUTHORIZATION": f"Bearer {token}"} if token else {}
    return {"REQUEST_METHOD": "GET", "PATH_INFO": path, "wsgi.url_scheme": "http", **credentials, **more}


def test_end_of_the_process_or_of_a_greenlet_is_no_refusal(verifier: Verifier) -> None:
    class GreenletExit(BaseException):
        """As gevent has it."""

    for error in (SystemExit(3), KeyboardInterrupt(), GreenletExit()):
        with pytest.raises(type(error)):
            AuthzMiddleware(echo, Failing(verifier, error))(environ_of(), pytest.fail)


def test_request_that_is_malformed_is_said_to_be_so_only_to_a_known_caller(guard: Guard, token: Token) -> None:
    port = guard(echo)

    assert ask(port, "/a//orders").reason == "TOKEN_MISSING"
    assert ask(port, "/a//orders", bearer(token())).reason == "REQUEST_MALFORMED"


def test_quota_is_counted_and_said_when_to_come_back(serve: Serve, new_judge: NewJudge, token: Token) -> None:
    policy = Policy.from_document(
        {
            "name": "metered",
            "allow_rules": [{"name": "all"}],
            "default_quota": "small",
            "quotas": {"small": {"requests_per_second": 0.001, "burst": 2}},
        }
    )
    port = serve(AuthzMiddleware(echo, new_judge(policy=policy)))

    replies = [ask(port, "/orders", bearer(token())) for _ in range(3)]

    assert [reply.status for reply in replies] == [200, 200, 429]
    assert int(replies[-1].values("retry-after")[0]) > 60


def test_no_keys_means_no_verdict(serve: Serve, verifier: Verifier, transport: FakeTransport, token: Token) -> None:
    transport.down()

    reply = ask(serve(AuthzMiddleware(echo, verifier)), "/orders", bearer(token()))

    assert (reply.status, reply.reason) == (503, "KEY_SET_UNAVAILABLE")
    assert reply.values("retry-after")


def test_call_waits_for_keys_without_stopping_others(
    serve: Serve, verifier: Verifier, transport: FakeTransport, token: Token
) -> None:
    transport.hang()
    port = serve(AuthzMiddleware(echo, verifier, public_paths=["/healthz"]), "gunicorn-threads")
    with Connection(port) as waiting:
        waiting.ask("/orders", bearer(token()))
        assert eventually(lambda: transport.pending)
        assert ask(port, "/healthz").status == 200

        transport.release()
        assert waiting.reply().status == 200


def test_forged_tokens_keep_only_a_few_threads_waiting(
    serve: Serve, new_verifier: Callable[..., Verifier], transport: FakeTransport, token: Token, other_key: SigningKey
) -> None:
    verifier = new_verifier(max_blocked_threads=2)
    keys: Any = verifier._keys  # noqa: SLF001 - there is no other way to see that both wait
    places = keys._places._blocked_threads  # noqa: SLF001 - as above
    port = serve(AuthzMiddleware(echo, verifier), "gunicorn-threads")
    assert ask(port, "/", bearer(token())).status == 200
    transport.hang()
    forged = bearer(other_key.sign(m2m_claims()))
    with Connection(port) as one, Connection(port) as another:
        one.ask("/", forged)
        assert eventually(lambda: transport.pending)
        another.ask("/", forged)
        assert eventually(lambda: not places._value)  # noqa: SLF001 - as above

        refused = {ask(port, "/", bearer(other_key.sign(m2m_claims(jti=str(n))))).reason for n in range(20)}

        assert refused == {"OVERLOADED"}
        assert ask(port, "/", bearer(token())).status == 200
        transport.release()
        assert {one.reply().status, another.reply().status} <= {401, 503}


def test_grpc_client_gets_a_status_in_headers(guard: Guard, server: str) -> None:
    reply = ask(guard(echo, server), "/a.B/C", [("content-type", "application/grpc+proto")], verb="POST")

    assert (reply.status, reply.values("content-type"), reply.values("grpc-status")) == (
        200,
        ["application/grpc"],
        ["16"],
    )
    assert reply.values("grpc-message") == ["No token provided"]
    assert reply.body == b""


def test_refusal_of_head_has_no_body(guard: Guard, server: str) -> None:
    with Connection(guard(echo, server)) as connection:
        connection.ask("/orders", [("connection", "close")], verb="HEAD")
        reply = connection.reply(verb="HEAD")

        assert reply.status == 401
        assert int(reply.values("content-length")[0]) > 0
        assert connection.rest() == b""


@pytest.mark.parametrize(
    "headers",
    [
        {f"HTTP_X_{number}": "" for number in range(MAX_ENTRIES)},
        {"HTTP_X": "a" * MAX_METADATA_BYTES},
        {"PATH_INFO": f"/{'a' * MAX_METHOD}"},
    ],
    ids=["many", "long", "path"],
)
def test_request_that_is_too_large_to_be_checked_is_refused(
    judge: Authorizer, token: Token, headers: dict[str, str]
) -> None:
    seen: list[str] = []
    middleware = AuthzMiddleware(echo, judge)
    for environ in (headers, dict(list(headers.items())[2:])):
        middleware(
            {**environ_of("/", token(), SCRIPT_NAME=""), **environ},
            lambda status, _headers: seen.append(status),  # type: ignore[arg-type,return-value]
        )

    assert seen == ["403 Forbidden", "200 OK"]


def test_request_of_the_oldest_http_gets_nothing(guard: Guard, server: str) -> None:
    with Connection(guard(echo, server)) as connection:
        connection.socket.sendall(b"GET /orders\r\n\r\n")

        assert b"principal" not in connection.rest()


def test_both_sides_keep_to_the_protocol(serve: Serve, judge: Authorizer, token: Token) -> None:
    """As far as the validator of Python's standard library can tell."""

    def streaming(_environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("Content-Type", "text/plain")])
        yield b"one"
        yield b"two"

    port = serve(validator(AuthzMiddleware(validator(streaming), judge)), "wsgiref")

    assert ask(port, "/", bearer(token())).body == b"onetwo"
    assert ask(port, "/", []).status == 401


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"judge": "a judge"}, "a Verifier or an Authorizer is needed, not str"),
        ({"app": None}, "app: a WSGI application is needed, not NoneType"),
        ({"public_paths": ["healthz"]}, "public_paths: 'healthz' is not a path"),
        ({"stream_expiry": "soon"}, "stream_expiry: 'soon' must be"),
        ({"grace": -1}, "grace: -1"),
    ],
)
def test_argument_that_cannot_work_is_named(judge: Authorizer, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        AuthzMiddleware(**{"app": echo, "judge": judge, **options})
