"""Routes of FastAPI: the caller as a dependency, which is an OpenAPI security scheme."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import pytest
import websockets.sync.client
from fastapi import Depends, FastAPI, Request, Security, WebSocket
from websockets.exceptions import InvalidStatus

from authz import Authorizer, Decision, Principal, current_principal
from authz.asgi import AuthzMiddleware
from authz.asgi.protocol import App
from authz.demo.v1 import ledger_pb2
from authz.errors import ConfigError
from authz.fastapi import Caller, RefusedError, refused
from authz.http.isolation import RequestIsolation
from tests.asgi.conftest import NewJudge, Serve, Token
from tests.doubles import ORG
from tests.http.client import ask, bearer
from tests.marked import descriptor_set

FORGED = "org_01JYFORGED0000000000000000"


def application(caller: Caller) -> FastAPI:
    app = FastAPI()

    @app.get("/orders")
    def orders(principal: Annotated[Principal, Security(caller, scopes=["ledger:read"])]) -> list[str]:
        return [principal.org_id, current_principal().org_id]

    @app.post("/orders")
    async def order(principal: Annotated[Principal, Security(caller, scopes=["ledger:write"])]) -> list[str]:
        return [principal.org_id, current_principal().org_id]

    @app.delete("/orders")
    async def delete(principal: Annotated[Principal, Security(caller, scopes=["admin"])]) -> list[str]:
        raise AssertionError(principal)

    @app.get("/headers")
    def headers(request: Request, _: Annotated[Principal, Security(caller)]) -> list[list[str]]:
        return [[name, value] for name, value in request.headers.items()]

    @app.get("/healthz")
    def healthz() -> dict[str, str]:
        return {}

    @app.websocket("/chat")
    async def chat(websocket: WebSocket, principal: Annotated[Principal, Security(caller, scopes=["admin"])]) -> None:
        raise AssertionError(websocket, principal)

    return app


def standalone(judge: Authorizer) -> App:
    app = application(Caller(judge))
    app.add_exception_handler(RefusedError, refused)
    return app


def behind_middleware(judge: Authorizer) -> App:
    return AuthzMiddleware(application(Caller()), judge, public_paths=["/healthz"])


WAYS = {"standalone": standalone, "behind middleware": behind_middleware}


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> Callable[[Authorizer], App]:
    return WAYS[request.param]


@pytest.fixture
def port(way: Callable[[Authorizer], App], serve: Serve, judge: Authorizer) -> int:
    return serve(way(judge))


def test_route_is_told_its_caller(port: int, token: Token) -> None:
    replies = [ask(port, "/orders", bearer(token()), verb=verb) for verb in ("GET", "POST")]

    assert [(reply.status, reply.json) for reply in replies] == [(200, [ORG, ORG])] * 2
    assert ask(port, "/healthz").status == 200


def test_route_refuses_as_every_other_door_does(port: int, token: Token, serve: Serve, judge: Authorizer) -> None:
    plain = serve(AuthzMiddleware(standalone(judge), judge))
    for headers in ([], bearer("a.b.c"), bearer(token(aud="client_01JYOTHER"))):
        assert ask(port, "/orders", headers).ours == ask(plain, "/orders", headers).ours


def test_route_asks_for_scopes_of_its_own(port: int, token: Token) -> None:
    reply = ask(port, "/orders", bearer(token()), verb="DELETE")

    assert (reply.status, reply.reason) == (403, "INSUFFICIENT_SCOPE")
    assert reply.values("www-authenticate") == ['Bearer realm="api", error="insufficient_scope", scope="admin"']
    assert reply.json["error"] == "Permission denied"


def test_no_forged_name_reaches_a_route(port: int, token: Token) -> None:
    forged = [(name, FORGED) for name in ("x-org-id", "X-Org-Id", "x_org_id", "grpc-metadata-x-org-id")]

    seen = ask(port, "/headers", [*forged, *bearer(token()), *forged]).json

    assert [value for name, value in seen if name == "x-org-id"] == [ORG]
    assert FORGED not in str(seen)


def test_websocket_route_refuses_its_handshake(port: int, token: Token) -> None:
    with pytest.raises(InvalidStatus) as error:
        websockets.sync.client.connect(f"ws://127.0.0.1:{port}/chat", additional_headers=bearer(token()))

    assert error.value.response.status_code == 403


def test_every_decision_is_told_once(
    way: Callable[[Authorizer], App], serve: Serve, judge: Authorizer, token: Token, told: list[Decision]
) -> None:
    port = serve(way(judge))
    ask(port, "/orders", bearer(token()))
    ask(port, "/orders")
    ask(port, "/orders", bearer(token()), verb="DELETE")

    told_of = [(each.event, each.verdict) for each in told]
    if way is standalone:
        assert told_of == [("decision", "allowed"), ("decision", "denied"), ("decision", "denied")]
        assert {each.door for each in told} == {"fastapi"}
    else:
        assert told_of == [
            ("decision", "allowed"),
            ("decision", "denied"),
            ("decision", "allowed"),
            ("route_refused", "denied"),
        ]
        assert {each.door for each in told} == {"asgi"}


def test_answer_of_the_application_does_not_replace_a_refusal(serve: Serve, judge: Authorizer, token: Token) -> None:
    app = application(Caller())

    @app.exception_handler(RefusedError)
    async def swallowed(_request: Request, _error: RefusedError) -> Any:
        return await refused(_request, ValueError("an answer of its own"))

    reply = ask(serve(AuthzMiddleware(app, judge)), "/orders", bearer(token()), verb="DELETE")

    assert (reply.status, reply.reason) == (403, "INSUFFICIENT_SCOPE")


def test_route_that_asks_for_its_caller_is_never_public(serve: Serve, new_judge: NewJudge) -> None:
    judge = new_judge(public_methods=["/orders"])

    for app in (standalone(judge), AuthzMiddleware(application(Caller()), judge)):
        reply = ask(serve(app), "/orders")
        assert (reply.status, reply.reason) == (401, "TOKEN_MISSING")


def test_isolation_in_force_is_asked_by_single_routes_as_well(
    serve: Serve, judge: Authorizer, token: Token, tmp_path: Path
) -> None:
    (tmp_path / "api.binpb").write_bytes(descriptor_set(ledger_pb2.DESCRIPTOR))
    isolation = RequestIsolation(tmp_path / "api.binpb", "enforce")
    judge.replace_policy(None, isolation=isolation)
    caller, app = Caller(judge), FastAPI()

    @app.api_route("/{path:path}", methods=["GET", "POST"])
    def route(path: str, _: Annotated[Principal, Security(caller)]) -> str:
        return path

    port = serve(app)
    marked = "/authz.demo.v1.LedgerService/PostEntry"
    statuses = [
        ask(port, target, bearer(token()), verb=verb).status
        for target, verb in ((marked, "POST"), (marked, "GET"), (f"/api{marked}", "POST"), ("/orders", "GET"))
    ]

    assert statuses == [403, 403, 403, 200]


def test_fastapi_answers_with_the_status_where_the_handler_of_errors_is_missing(
    serve: Serve, judge: Authorizer
) -> None:
    reply = ask(serve(application(Caller(judge))), "/orders")

    assert (reply.status, reply.json) == (401, {"detail": "No token provided"})
    assert reply.values("www-authenticate") == ['Bearer realm="api"']


def test_dependency_can_be_overridden_in_tests(serve: Serve, judge: Authorizer) -> None:
    caller = Caller(judge)
    app = application(caller)
    app.dependency_overrides[caller] = lambda: Principal(org_id="org_test", client_id="c", subject="c")

    assert ask(serve(app), "/headers").status == 200


def test_dependency_that_yields_hands_its_principal_on(serve: Serve, judge: Authorizer, token: Token) -> None:
    app, caller = FastAPI(), Caller(judge)

    async def session(principal: Annotated[Principal, Security(caller)]) -> Any:
        yield f"session of {principal.org_id}"

    @app.get("/")
    def read(opened: Annotated[str, Depends(session)]) -> str:
        return opened

    assert ask(serve(app), "/", bearer(token())).json == f"session of {ORG}"


def test_scheme_is_described(judge: Authorizer) -> None:
    bearer_scheme = application(Caller(judge)).openapi()
    oauth = application(
        Caller(judge, token_url="https://acme.authkit.app/oauth2/token", scopes={"ledger:read": "Read orders"})
    ).openapi()

    assert bearer_scheme["components"]["securitySchemes"] == {
        "Caller": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}
    }
    assert oauth["components"]["securitySchemes"]["Caller"] == {
        "type": "oauth2",
        "flows": {
            "clientCredentials": {
                "tokenUrl": "https://acme.authkit.app/oauth2/token",
                "scopes": {"ledger:read": "Read orders"},
            }
        },
    }
    assert oauth["paths"]["/orders"]["get"]["security"] == [{"Caller": ["ledger:read"]}]


def test_caller_without_any_judge_admits_no_one(serve: Serve, token: Token) -> None:
    assert ask(serve(application(Caller())), "/orders", bearer(token())).status == 500
    with pytest.raises(ConfigError, match="a Verifier or an Authorizer is needed, not str"):
        Caller("judge")  # type: ignore[arg-type]
