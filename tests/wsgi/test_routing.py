"""What is judged is what is routed: real routers behind real servers, on paths in every spelling."""

from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from authz import Decision, Policy
from authz.http.paths import path_of
from authz.wsgi import AuthzMiddleware
from tests.asgi.conftest import NewJudge, Token
from tests.asgi.test_routing import POLICY, SPELLINGS
from tests.http.client import Headers, ask, bearer
from tests.http.django_project import WSGI as DJANGO
from tests.wsgi.conftest import Guard, Serve, echo
from tests.wsgi.test_middleware import environ_of


def flask(*prefixes: str) -> Flask:
    """Return an application with a private part, and with all else, below each of the prefixes."""
    app = Flask(__name__)

    def private(path: str = "") -> str:
        return f"private {path}"

    def other(path: str = "") -> str:
        return f"other {path}"

    for prefix in prefixes or ("/v1", ""):
        app.add_url_rule(f"{prefix}/private", view_func=private)
        app.add_url_rule(f"{prefix}/private/<path:path>", view_func=private)
        app.add_url_rule(f"{prefix}/", view_func=other)
        app.add_url_rule(f"{prefix}/<path:path>", view_func=other)
    return app


FRAMEWORKS: dict[str, Callable[[], Any]] = {"flask": flask, "django": lambda: DJANGO}


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_no_spelling_leads_to_what_the_policy_denies(
    serve: Serve, server: str, new_judge: NewJudge, token: Token, framework: str
) -> None:
    port = serve(AuthzMiddleware(FRAMEWORKS[framework](), new_judge(policy=POLICY)), server)
    headers = bearer(token())

    served = {spelling: ask(port, spelling, headers) for spelling in SPELLINGS}

    assert [spelling for spelling, reply in served.items() if reply.body.startswith(b"private")] == []
    assert served["/PRIVATE"].body.startswith(b"other")
    assert {served[path].reason for path in ("/private", "/%70rivate", "/private%2Fx", "/v1/private")} == {
        "POLICY_DENIED"
    }


ODD = [
    *(
        "/",
        "/a",
        "/a/",
        "/a%2Fb",
        "/a%252Fb",
        "/a;x",
        "/a%3Fb",
        "/a%23b",
        "/a#b",
        "/a%20b",
        "/caf%C3%A9",
        "/caf\xc3\xa9",
    ),
    *(
        "//a",
        "///a",
        "/a//b",
        "/%2Fa",
        "/./a",
        "/%2e/a",
        "/a/../b",
        "/a/..",
        "/a%5Cb",
        "/a\\b",
        "/%00",
        "/a%0a",
        "/%ff",
    ),
    *("http://localhost/a", "http://localhost//a", "http://localhost", "//evil.example/a", "*", "a", "?a", "/a?b//c"),
]


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_path_that_is_judged_is_the_one_that_is_routed(
    guard: Guard, server: str, token: Token, told: list[Decision], framework: str
) -> None:
    port, headers = guard(FRAMEWORKS[framework](), server), bearer(token())
    routed: dict[str, str] = {}
    for target in ODD:
        told.clear()
        reply = ask(port, target, headers)
        if reply.status == 200:
            routed[target] = path_of(f"/{reply.body.decode().removeprefix('other ')}")
            assert [(each.call.method, each.verdict) for each in told] == [(routed[target], "allowed")]
        else:
            # Redirected by the framework, refused by the door or by the server.
            assert reply.status in (308, 400, 403)

    assert {"/", "/a", "/a%2Fb", "/caf%C3%A9", "/a?b//c"} <= routed.keys()
    assert {"/./a", "/a/../b", "/a//b", "/a%5Cb"}.isdisjoint(routed)


def test_path_is_that_of_the_whole_server(
    serve: Serve, new_judge: NewJudge, token: Token, told: list[Decision]
) -> None:
    inner = AuthzMiddleware(flask(""), new_judge(), public_paths=["/v1/healthz"])
    port = serve(DispatcherMiddleware(flask(""), {"/v1": inner}))

    assert ask(port, "/v1/private", bearer(token())).body == b"private "
    assert ask(port, "/v1/healthz").body == b"other healthz"
    assert ask(port, "/v1", bearer(token())).status == 308
    assert [each.call.method for each in told] == ["/v1/private", "/v1/healthz", "/v1/"]


def test_path_holds_the_prefix_that_the_server_has_taken_away(
    serve: Serve, new_judge: NewJudge, token: Token, told: list[Decision]
) -> None:
    port = serve(AuthzMiddleware(flask(""), new_judge()), "waitress", url_prefix="/api")

    assert ask(port, "/api/orders", bearer(token())).body == b"other orders"
    assert [each.call.method for each in told] == ["/api/orders"]


@pytest.mark.parametrize("server", ["gunicorn", "gunicorn-threads"])
@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("script", ["/public", "/public/", "/", "", "/pub", "/public%2f", "/v1/.."])
def test_caller_cannot_say_where_the_application_is(
    serve: Serve, new_judge: NewJudge, token: Token, server: str, *, framework: str, script: str
) -> None:
    """Gunicorn takes it from a header, if a proxy sends it; and callers on this machine count as proxies."""
    port = serve(AuthzMiddleware(FRAMEWORKS[framework](), new_judge(policy=POLICY)), server)
    headers: Headers = [*bearer(token()), ("SCRIPT_NAME", script)]

    replies = [ask(port, path, headers) for path in ("/public/private", f"{script}/private", "/v1/private", "/orders")]

    assert {reply.status for reply in replies} <= {400, 403, 500}
    assert not any(reply.body.startswith(b"private") for reply in replies)


def test_gunicorn_believes_such_a_header(serve: Serve) -> None:
    """Otherwise the test above would be in vain."""
    assert ask(serve(flask(""), "gunicorn"), "/public/private", [("SCRIPT_NAME", "/public")]).body == b"private "


@pytest.mark.parametrize("server", ["gunicorn", "gunicorn-threads"])
def test_path_that_only_begins_like_that_of_the_application_is_not_its_own(
    serve: Serve, new_judge: NewJudge, token: Token, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gunicorn divides /shopping for an application at /shop, and Werkzeug would route "ping" like "/ping"."""
    monkeypatch.setenv("SCRIPT_NAME", "/shop")
    port = serve(AuthzMiddleware(flask(""), new_judge()), server)

    assert ask(port, "/shop/private", bearer(token())).body == b"private "
    assert ask(port, "/shopprivate", bearer(token())).reason == "REQUEST_MALFORMED"


@pytest.mark.parametrize(
    ("script", "inner", "judged"),
    [
        ("", "/orders", "/orders"),
        ("", "", "/"),
        ("/v1", "", "/v1/"),
        ("/v1", "/", "/v1/"),
        ("/v1", "/orders", "/v1/orders"),
        ("/v1/", "orders", "/v1/orders"),
        ("/caf\xc3\xa9", "/\xc3\xa9", "/caf%C3%A9/%C3%A9"),
    ],
)
def test_parts_of_a_path_are_judged_together(
    new_judge: NewJudge, token: Token, told: list[Decision], *, script: str, inner: str, judged: str
) -> None:
    environ = environ_of(inner, token(), SCRIPT_NAME=script)

    b"".join(AuthzMiddleware(echo, new_judge())(environ, lambda *_: None))  # type: ignore[arg-type,return-value]

    assert [(each.call.method, each.verdict) for each in told] == [(judged, "allowed")]


@pytest.mark.parametrize(
    ("script", "inner"),
    [
        ("", "orders"),
        ("/v1", "orders"),
        ("/v1", "//orders"),
        ("/v1/", "/orders"),
        ("v1", "/orders"),
        ("/..", "/orders"),
        ("", "/\xff"),
        ("", "/\xc3"),
        ("", "/\u20ac"),
        ("\u20ac", "/orders"),
        ("", "/\udcff"),
    ],
)
def test_parts_of_a_path_that_may_be_read_in_several_ways_are_refused(
    new_judge: NewJudge, token: Token, told: list[Decision], *, script: str, inner: str
) -> None:
    environ, statuses = environ_of(inner, token(), SCRIPT_NAME=script), []

    AuthzMiddleware(echo, new_judge())(environ, lambda status, _headers: statuses.append(status))  # type: ignore[arg-type,return-value]

    assert statuses == ["403 Forbidden"]
    assert [each.refusal and each.refusal.reason for each in told] == ["request_malformed"]


ONLY_GET = Policy.from_document(
    {"name": "verbs", "allow_rules": [{"name": "read", "request": {"paths": ["/*"], "methods": ["GET"]}}]}
)
OVERRIDES = [
    (name, "DELETE")
    for name in ("X-HTTP-Method-Override", "x_http_method_override", "X-HTTP-Method", "X-Method_Override")
]


@pytest.mark.parametrize("verb", ["DELETE", "delete", "Delete", "GET"])
def test_no_spelling_of_an_http_method_passes_for_another(
    serve: Serve, server: str, new_judge: NewJudge, token: Token, verb: str
) -> None:
    app = Flask(__name__)
    app.add_url_rule("/orders", endpoint="delete", view_func=lambda: "deleted", methods=["DELETE"])
    app.add_url_rule("/orders", endpoint="get", view_func=lambda: "read")
    port = serve(AuthzMiddleware(app, new_judge(policy=ONLY_GET)), server)

    plain = ask(port, "/orders", bearer(token()), verb=verb)
    overridden = [ask(port, "/orders", [*bearer(token()), header], verb=verb) for header in OVERRIDES]

    assert (plain.body == b"read") is (verb == "GET")
    assert not any(reply.body == b"deleted" for reply in (plain, *overridden))
    assert overridden[0].status in (400, 403)
