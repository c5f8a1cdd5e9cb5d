"""What is judged is what is routed: real routers, on paths in every spelling."""

from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from authz import Decision, Policy
from authz.asgi import AuthzMiddleware
from tests.asgi.conftest import NewJudge, Serve, Token
from tests.http.client import ask, bearer

POLICY = Policy.from_document(
    {
        "name": "routes",
        "deny_rules": [{"name": "private", "request": {"paths": ["/private", "/private/*", "/v1/private*"]}}],
        "allow_rules": [{"name": "rest", "request": {"paths": ["/*"]}}],
    }
)


async def _private(_request: Request) -> Response:
    return PlainTextResponse("private")


async def _other(request: Request) -> Response:
    return PlainTextResponse(f"other {request.path_params['path']}")


def starlette() -> Any:
    routes = [
        Route("/private", _private),
        Route("/private/{path:path}", _private),
        Route("/{path:path}", _other),
    ]
    return Starlette(routes=[Mount("/v1", routes=routes), *routes])


def fastapi() -> Any:
    app = FastAPI()

    @app.get("/private")
    @app.get("/private/{path:path}")
    @app.get("/v1/private{path:path}")
    def private() -> Response:
        return PlainTextResponse("private")

    @app.get("/{path:path}")
    def other(path: str) -> Response:
        return PlainTextResponse(f"other {path}")

    return app


SPELLINGS = [
    *(
        "/private",
        "/private/",
        "/private/x",
        "/%70rivate",
        "/p%72ivate/x",
        "/private%2Fx",
        "/private%2fx",
        "/private?x=/public",
    ),
    *(
        "//private",
        "/./private",
        "/x/../private",
        "/%2e/private",
        "/x/%2e%2e/private",
        "/x%2F..%2Fprivate",
        "/..%2fprivate",
    ),
    *(
        "/%2Fprivate",
        "\\private",
        "/%5Cprivate",
        "/private\\x",
        "/private%00",
        "/private%0a",
        "/private%20",
        "/private;x",
    ),
    *("/PRIVATE", "/private#x", "/%2570rivate", "/privat%C3%A9", "/private/%c0%ae", "http://localhost/private"),
    *("/v1/private", "/v1//private", "/v1/%70rivate", "/v1/./private", "//v1/private", "/v1%2Fprivate"),
]


@pytest.mark.parametrize("implementation", ["h11", "httptools"])
@pytest.mark.parametrize("build", [starlette, fastapi])
def test_no_spelling_leads_to_what_the_policy_denies(
    serve: Serve, new_judge: NewJudge, token: Token, build: Callable[[], Any], implementation: str
) -> None:
    port = serve(AuthzMiddleware(build(), new_judge(policy=POLICY)), http=implementation)
    headers = bearer(token())

    served = {spelling: ask(port, spelling, headers) for spelling in SPELLINGS}

    assert [spelling for spelling, reply in served.items() if reply.body == b"private"] == []
    assert served["/PRIVATE"].body.startswith(b"other")
    assert {served[path].reason for path in ("/private", "/%70rivate", "/private%2Fx", "/v1/private")} == {
        "POLICY_DENIED"
    }


def test_path_is_that_of_the_whole_application(
    serve: Serve, new_judge: NewJudge, token: Token, told: list[Decision]
) -> None:
    inner = Starlette(routes=[Route("/orders", _private)])
    outer = Starlette(routes=[Mount("/v1", AuthzMiddleware(inner, new_judge(), public_paths=["/v1/healthz"]))])

    assert ask(serve(outer), "/v1/orders", bearer(token())).body == b"private"
    assert ask(serve(outer), "/v1/healthz").status == 404
    assert ask(serve(outer), "/healthz").status == 404
    assert [each.call.method for each in told] == ["/v1/orders", "/v1/healthz"]


def test_path_holds_the_root_path_that_a_proxy_has_taken_away(
    serve: Serve, new_judge: NewJudge, token: Token, told: list[Decision]
) -> None:
    app = AuthzMiddleware(Starlette(routes=[Route("/orders", _private)]), new_judge())

    assert ask(serve(app, root_path="/api"), "/orders", bearer(token())).body == b"private"
    assert [each.call.method for each in told] == ["/api/orders"]


def test_no_spelling_leads_to_files_beside_those_that_are_served(
    serve: Serve, new_judge: NewJudge, token: Token, tmp_path: Any
) -> None:
    (tmp_path / "public").mkdir()
    (tmp_path / "public" / "file").write_text("public")
    (tmp_path / "secret").write_text("secret")
    app = Starlette(routes=[Mount("/static", StaticFiles(directory=tmp_path / "public"))])
    port = serve(AuthzMiddleware(app, new_judge()))

    bodies = [ask(port, f"/static/{path}", bearer(token())).body for path in ("file", "../secret", "%2e%2e/secret")]

    assert bodies[0] == b"public"
    assert b"secret" not in b"".join(bodies)
