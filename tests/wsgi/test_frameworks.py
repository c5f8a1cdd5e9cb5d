"""Flask and Django applications find their caller where the documents say so."""

import json
from collections.abc import Iterator
from typing import Any

from flask import Flask, Response, g, request, stream_with_context
from flask.views import MethodView

from authz import Authorizer, current_principal
from authz.wsgi import AuthzMiddleware
from tests.asgi.conftest import Token
from tests.doubles import ORG, eventually
from tests.http.client import Connection, ask, bearer
from tests.http.django_project import WSGI as DJANGO
from tests.http.django_project import released
from tests.wsgi.conftest import Guard, Serve

FORGED = "org_01JYFORGED0000000000000000"
SPELLINGS = ("X-Org-Id", "x_org_id", "X-Org_Id", "x_org-id", "Grpc-Metadata-X-Org-Id", "X-Org-Id-Bin")


def flask(judge: Authorizer) -> Flask:
    app = Flask(__name__)

    class Orders(MethodView):
        def get(self) -> dict[str, Any]:
            return {
                "environ": request.environ["authz.principal"].org_id,
                "current": current_principal().org_id,
                "header": request.headers["x-org-id"],
                "headers": request.headers.getlist("x-org-id"),
                "before": g.org_id,
            }

    @app.before_request
    def before() -> None:
        g.org_id = current_principal().org_id

    @app.teardown_request
    def after(_error: BaseException | None) -> None:
        torn.append(current_principal().org_id)

    @app.get("/parts")
    def parts() -> Response:
        @stream_with_context
        def parts() -> Iterator[str]:
            yield f"{current_principal().org_id} {request.headers['x-org-id']}\n"
            judge.revoke(org_id=ORG)
            yield "late\n"

        return Response(parts())

    torn: list[str] = []
    app.torn = torn  # type: ignore[attr-defined]
    app.add_url_rule("/orders", view_func=Orders.as_view("orders"))
    app.wsgi_app = AuthzMiddleware(app.wsgi_app, judge)  # type: ignore[method-assign]
    return app


def test_flask_finds_its_caller(serve: Serve, server: str, judge: Authorizer, token: Token) -> None:
    app = flask(judge)
    seen = ask(serve(app, server), "/orders", [*bearer(token()), *((name, FORGED) for name in SPELLINGS)]).json

    assert seen == {"environ": ORG, "current": ORG, "header": ORG, "headers": [ORG], "before": ORG}
    assert app.torn == [ORG]


def test_stream_of_flask_has_its_caller_and_ends(serve: Serve, server: str, judge: Authorizer, token: Token) -> None:
    app = flask(judge)
    reply = ask(serve(app, server), "/parts", bearer(token()))

    assert reply.body == f"{ORG} {ORG}\n".encode()
    # A server for HTTP/1.0 can only close the connection.
    assert reply.is_whole is (server == "wsgiref")
    assert set(app.torn) == {ORG}


def test_own_client_of_flask_for_tests_goes_through_the_door(judge: Authorizer, token: Token) -> None:
    client = flask(judge).test_client()

    assert client.get("/orders").status_code == 401
    assert client.get("/orders", headers=dict(bearer(token()))).json["current"] == ORG


def test_django_finds_its_caller(guard: Guard, server: str, token: Token) -> None:
    seen = ask(guard(DJANGO, server), "/caller", [*bearer(token()), *((name, FORGED) for name in SPELLINGS)]).json

    assert seen["current"] == ORG
    assert seen["variables"]["HTTP_X_ORG_ID"] == ORG
    assert FORGED not in json.dumps(seen)


def test_stream_of_django_has_its_caller_and_ends(guard: Guard, server: str, judge: Authorizer, token: Token) -> None:
    with Connection(guard(DJANGO, server)) as connection:
        connection.ask("/parts", [*bearer(token()), ("connection", "close")])
        connection.head()
        line = f"{ORG}\n".encode()
        assert (connection.rest(len(line)) if server == "wsgiref" else connection.part()) == line

        judge.revoke(org_id=ORG)
        released.release()

        assert connection.rest() == b""
    assert eventually(lambda: len(judge.streams) == 0)


def test_coroutine_of_django_has_its_caller(guard: Guard, server: str, token: Token) -> None:
    """Django runs it in a loop of its own."""
    seen = ask(guard(DJANGO, server), "/coroutine", bearer(token())).json

    assert (seen["told"], seen["current"]) == (ORG, ORG)
