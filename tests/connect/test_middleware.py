"""Behind the middleware of ASGI or WSGI, which asks the same judge, a call is judged, counted and told once."""

import asyncio
import functools
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from authz import Authorizer, Policy, Verifier
from authz.asgi import AuthzMiddleware
from authz.wsgi import AuthzMiddleware as WsgiMiddleware
from tests.connect.client import CONNECT, CONNECT_HTTP2, CONNECT_JSON, GRPC, GRPC_WEB, OK, OVER_HTTP1, Way, bearer
from tests.connect.conftest import OTHER, POLICY, Serve
from tests.connect.servers import Server
from tests.connect.service import KINDS, PUBLIC, SERVICE
from tests.connect.test_calls import replies
from tests.connect.test_streams import EACH, ORDERS, Live, SyncWaiting, Waiting, each_order
from tests.connect.wire import post
from tests.doubles import ORG, ManualClock, eventually

REACHED = [
    *((Server.UVICORN, way) for way in (CONNECT, CONNECT_JSON, GRPC_WEB)),
    *((Server.HYPERCORN, way) for way in (CONNECT_HTTP2, GRPC)),
]
each_way = pytest.mark.parametrize(("server", "way"), REACHED, ids=lambda it: getattr(it, "name", it))


@each_way
@pytest.mark.parametrize("kind", KINDS)
def test_a_call_is_told_once_and_its_handler_knows_the_caller(
    serve: Serve, server: Server, way: Way, kind: str, token: str
) -> None:
    site = serve(server, wrap=AuthzMiddleware)
    outcome = site.ask(kind, way, headers=bearer(token, x_org_id=OTHER))

    assert (outcome.code, outcome.notes) == (OK, replies(kind, ORG))
    assert site.witness.sight.values("x-org-id") == [ORG]
    assert site.told == [("decision", "", ORG)]
    assert site.decisions[0].door == "asgi"


@each_way
@pytest.mark.parametrize("kind", KINDS)
def test_a_refusal_is_told_once(serve: Serve, server: Server, way: Way, kind: str) -> None:
    site = serve(server, wrap=AuthzMiddleware)

    assert site.ask(kind, way).reason == "TOKEN_MISSING"
    assert site.told == [("decision", "token_missing", "")]


def test_a_call_is_counted_once(serve: Serve, token: str) -> None:
    plan = {"requests_per_second": 0.001, "burst": 2}
    site = serve(policy={**POLICY, "quotas": {"two": plan}, "default_quota": "two"}, wrap=AuthzMiddleware)

    assert [site.ask("unary", headers=bearer(token)).code for _ in range(3)] == [OK, OK, "resource_exhausted"]


@each_way
def test_a_public_method_of_the_judge_is_public(serve: Serve, server: Server, way: Way) -> None:
    site = serve(server, wrap=AuthzMiddleware)
    for kind in KINDS:
        assert site.ask(kind, way, service=PUBLIC).notes[0] == "anonymous"
    assert len(site.told) == len(KINDS)


def test_an_unknown_method_needs_a_token(serve: Serve, token: str) -> None:
    site = serve(wrap=AuthzMiddleware)
    kind = ("content-type", "application/proto")

    assert post(site.port, f"/{SERVICE}/nothing", [kind])[0] == 401
    assert post(site.port, f"/{SERVICE}/nothing", [kind, ("authorization", f"Bearer {token}")])[0] == 404


def test_a_request_of_another_organization_is_not_seen(serve: Serve, token: str) -> None:
    site = serve(Server.HYPERCORN, wrap=AuthzMiddleware)
    for kind in KINDS:
        outcome = site.ask(kind, CONNECT_HTTP2, [site.order(org=OTHER)], headers=bearer(token))
        assert outcome.reason == "ORGANIZATION_MISMATCH"
    assert site.witness.notes == []
    told = [(event, reason) for event, reason, _ in site.told]
    assert told[:2] == [("decision", ""), ("route_refused", "organization_mismatch")]
    assert told[-2:] == [("decision", ""), ("stream_ended", "organization_mismatch")]


@each_order
@pytest.mark.parametrize(("server", "way", "kind"), EACH)
def test_a_stream_ends_with_the_status_that_says_why(  # noqa: PLR0917 - some of them are fixtures
    serve: Serve, server: Server, way: Way, kind: str, order: str, token: str
) -> None:
    site = serve(server, handlers=Waiting, wrap=AuthzMiddleware)
    live = Live(site, way, kind, token)
    assert eventually(lambda: site.witness.may_go_on.is_set() or site.witness.notes)
    act, code, reason = ORDERS[order]
    act(site.authorizer)
    outcome = live.finish()

    assert (outcome.code, outcome.reason) == (code, reason)
    assert site.told == [("decision", "", ORG), ("stream_ended", reason.lower(), ORG)]
    assert eventually(lambda: len(site.authorizer.streams) == 0)


def test_a_stream_is_counted_once(serve: Serve, token: str) -> None:
    policy = {**POLICY, "quotas": {"one": {"concurrent_streams": 1}}, "default_quota": "one"}
    site = serve(policy=policy, handlers=Waiting, wrap=AuthzMiddleware)
    live = Live(site, CONNECT, "server_stream", token)

    assert len(site.authorizer.streams) == 1
    assert site.ask("server_stream", headers=bearer(token)).code == "resource_exhausted"
    assert [event for event, _, _ in site.told] == ["decision", "decision"]
    live.stop()


def test_what_is_withdrawn_before_the_request_comes_refuses_it(serve: Serve, token: str, clock: ManualClock) -> None:
    class Late(AuthzMiddleware):
        """Time passes between the verdict and the request."""

        def __init__(self, app: Any, judge: Authorizer) -> None:
            async def later(scope: Any, receive: Any, send: Any) -> None:
                clock.advance(311 if scope["type"] == "http" else 0)
                await app(scope, receive, send)

            super().__init__(later, judge)

    site = serve(wrap=Late)

    assert site.ask("unary", headers=bearer(token)).reason == "TOKEN_EXPIRED"
    assert [event for event, _, _ in site.told] == ["decision", "route_refused"]


def test_a_service_may_be_mounted_where_its_clients_look_for_it(serve: Serve, token: str) -> None:
    def mounted(app: Any, judge: Authorizer) -> Any:
        return AuthzMiddleware(Starlette(routes=[Mount(app.path, app)]), judge)

    site = serve(wrap=mounted)

    assert site.ask("unary", headers=bearer(token)).notes == [ORG]
    assert site.told == [("decision", "", ORG)]


# ---- WSGI ----


@pytest.mark.parametrize("way", OVER_HTTP1, ids=lambda it: it.name)
def test_a_call_on_a_thread_is_told_once_and_its_handler_knows_the_caller(serve: Serve, way: Way, token: str) -> None:
    site = serve(Server.WAITRESS, wrap=WsgiMiddleware)
    for kind in way.kinds:
        outcome = site.ask(kind, way, headers=bearer(token, x_org_id=OTHER))
        assert (outcome.code, outcome.notes) == (OK, replies(kind, ORG))
        assert site.ask(kind, way).reason == "TOKEN_MISSING"
        assert site.ask(kind, way, service=PUBLIC).notes[0] == "anonymous"
    assert site.told == [("decision", "", ORG), ("decision", "token_missing", ""), ("decision", "", "")] * len(
        way.kinds
    )
    assert {one.door for one in site.decisions} == {"wsgi"}
    assert {value for sight in site.witness.sights for value in sight.values("x-org-id")} == {ORG}


@each_order
def test_a_stream_of_a_thread_ends_with_the_status_that_says_why(serve: Serve, order: str, token: str) -> None:
    site = serve(Server.WERKZEUG, handlers=SyncWaiting, wrap=WsgiMiddleware)
    live = Live(site, CONNECT, "server_stream", token)
    assert len(site.authorizer.streams) == 1
    act, code, reason = ORDERS[order]
    act(site.authorizer)
    site.witness.may_go_on.set()
    outcome = live.finish()

    assert (outcome.code, outcome.reason) == (code, reason)
    assert site.told == [("decision", "", ORG), ("stream_ended", reason.lower(), ORG)]


def test_a_request_of_another_organization_is_not_seen_on_a_thread(serve: Serve, token: str) -> None:
    site = serve(Server.WAITRESS, wrap=WsgiMiddleware)
    for kind in KINDS:
        outcome = site.ask(kind, CONNECT, [site.order(org=OTHER)], headers=bearer(token))
        assert outcome.reason == "ORGANIZATION_MISMATCH"
    assert site.witness.notes == []


# ---- What is another call, or another judge's ----


def test_another_judge_is_asked_as_well(serve: Serve, verifier: Verifier, token: str) -> None:
    others = {"name": "others", "source": {"organizations": [OTHER]}}
    strict = Authorizer(verifier, policy=Policy.from_document({"name": "others", "allow_rules": [others]}))
    site = serve(judge=strict, wrap=lambda app, _judge: AuthzMiddleware(app, verifier))

    assert site.ask("unary", headers=bearer(token)).reason == "POLICY_DENIED"


def test_a_path_that_only_the_middleware_has_made_public_is_not_public_in_the_service(serve: Serve, token: str) -> None:
    site = serve(wrap=lambda app, judge: AuthzMiddleware(app, judge, public_paths=[f"/{SERVICE}/unary"]))

    assert site.ask("unary").reason == "TOKEN_MISSING"
    assert site.ask("unary", headers=bearer(token)).notes == [ORG]


def test_a_call_that_a_handler_makes_itself_is_another_one(serve: Serve, token: str) -> None:
    """An application that calls the service in its own process, with the headers of its own caller."""

    class Calling:
        def __init__(self, app: Any, judge: Authorizer) -> None:
            self._app = AuthzMiddleware(self._twice, judge)
            self._inner = app

        async def _twice(self, scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "lifespan":
                await self._inner(scope, receive, send)
                return
            body = await receive()

            async def nowhere(_message: Any) -> None:
                pass

            for at in (nowhere, send):
                await self._inner(dict(scope), functools.partial(_once, [body]), at)

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await self._app(scope, receive, send)

    async def _once(left: list[Any]) -> Any:
        return left.pop() if left else await asyncio.Event().wait()

    site = serve(wrap=Calling)

    assert site.ask("unary", headers=bearer(token)).notes == [ORG]
    assert [event for event, _, _ in site.told] == ["decision", "decision"]
