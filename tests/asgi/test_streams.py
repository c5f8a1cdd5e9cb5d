"""Streamed responses end with the token that admitted them, and when something is withdrawn."""

import asyncio
import itertools
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from authz import Authorizer, Decision, Policy
from authz.asgi import AuthzMiddleware
from tests.asgi.conftest import NewJudge, Serve, Token
from tests.doubles import CLIENT, ORG, PATIENCE, ManualClock, eventually
from tests.http.client import Connection, ask, bearer
from tests.judge.held_back import hold_back

Guard = Callable[..., int]

MANY = 20_000
"""More parts than come before the end, however busy the machine is."""


class Events:
    """An application that sends what it is told to, and notes how its handler ended."""

    def __init__(self, *, length: int | None = None) -> None:
        self._headers = {} if length is None else {"content-length": str(length)}
        self.outcomes: list[str] = []
        self.blocked, self.released = threading.Event(), threading.Event()
        middleware = [Middleware(BaseHTTPMiddleware, dispatch=_pass)]
        routes = [
            Route("/events", self._events),
            Route("/silent", self._silent),
            Route("/blocked", self._blocked),
            Route("/stubborn", self._stubborn),
            Route("/whole", self._whole),
            Route("/none", self._none),
        ]
        self.app = Starlette(routes=routes)
        self.behind_middleware = Starlette(routes=routes, middleware=middleware)

    async def _events(self, _request: Request) -> Response:
        async def events() -> AsyncIterator[str]:
            try:
                while True:
                    yield "tick\n"
                    await asyncio.sleep(0.001)
            except BaseException as error:
                self.outcomes.append(type(error).__name__)
                raise

        return StreamingResponse(events(), headers=self._headers)

    async def _silent(self, _request: Request) -> Response:
        async def events() -> AsyncIterator[str]:
            try:
                yield "tick\n"
                await asyncio.get_running_loop().create_future()
            except BaseException as error:
                self.outcomes.append(type(error).__name__)
                raise

        return StreamingResponse(events())

    def _blocked(self, _request: Request) -> Response:
        def events() -> Iterator[str]:
            yield "tick\n"
            self.blocked.set()
            self.released.wait(PATIENCE)
            self.outcomes.append("went on")
            yield "late\n"

        return StreamingResponse(events())

    async def _stubborn(self, _request: Request) -> Response:
        async def events() -> AsyncIterator[str]:
            yield "tick\n"
            try:
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                self.outcomes.append("caught")
            yield "late\n"

        return StreamingResponse(events())

    async def _whole(self, _request: Request) -> Response:
        return JSONResponse({})

    async def _none(self, _request: Request) -> Response:
        return Response(status_code=204)


async def _pass(request: Request, call_next: Any) -> Any:
    return await call_next(request)


@pytest.fixture
def events() -> Events:
    return Events()


def expire(judge: Authorizer, clock: ManualClock) -> None:
    clock.advance(3600)
    judge.streams.expire()


ENDINGS: dict[str, tuple[Callable[[Authorizer, ManualClock], object], str]] = {
    "expired": (expire, "token_expired"),
    "revoked": (lambda judge, _: judge.revoke(client_id=CLIENT), "token_inactive"),
    "suspended": (lambda judge, _: judge.suspend(org_id=ORG), "organization_suspended"),
}


@pytest.mark.parametrize("path", ["/events", "/silent", "/stubborn"])
@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("outer", ["plain", "behind middleware"])
def test_streamed_response_ends(
    serve: Serve,
    judge: Authorizer,
    events: Events,
    token: Token,
    clock: ManualClock,
    *,
    told: list[Decision],
    path: str,
    ending: str,
    outer: str,
) -> None:
    end, reason = ENDINGS[ending]
    app = events.app if outer == "plain" else events.behind_middleware
    with Connection(serve(AuthzMiddleware(app, judge))) as connection:
        connection.ask(path, bearer(token()))
        assert connection.head()[0] == 200
        assert connection.part() == b"tick\n"
        assert len(judge.streams) == 1

        end(judge, clock)

        parts = iter(connection.part, None)
        assert set(parts) <= {b"tick\n"}
    # Starlette leaves a generator that waits for its next turn to the garbage collector.
    assert path == "/events" or eventually(lambda: events.outcomes)
    assert eventually(lambda: len(judge.streams) == 0)
    assert [(each.event, each.refusal and each.refusal.reason) for each in told] == [
        ("decision", None),
        ("stream_ended", reason),
    ]


def test_no_part_passes_before_a_response_of_thousands_has_been_told(
    serve: Serve, judge: Authorizer, events: Events, token: Token, told: list[Decision]
) -> None:
    with Connection(serve(AuthzMiddleware(events.app, judge))) as connection:
        connection.ask("/events", bearer(token()))
        connection.head()
        assert connection.part() == b"tick\n"

        hold_back(judge)
        judge.revoke(org_id=ORG)

        # Those that were under way; without an end there is one in each millisecond.
        late = list(itertools.islice(iter(connection.part, None), MANY))
        assert set(late) <= {b"tick\n"}
        assert len(late) < MANY
    assert [each.event for each in told] == ["decision", "stream_ended"]


def test_blocked_handler_is_not_waited_for_by_the_judge_and_sends_nothing_more(
    serve: Serve, judge: Authorizer, events: Events, token: Token
) -> None:
    with Connection(serve(AuthzMiddleware(events.app, judge))) as connection:
        connection.ask("/blocked", bearer(token()))
        connection.head()
        assert connection.part() == b"tick\n"
        assert events.blocked.wait(PATIENCE)

        judge.revoke(org_id=ORG)
        events.released.set()

        assert connection.part() is None
    assert eventually(lambda: events.outcomes == ["went on"])


def test_download_of_known_length_breaks_off(serve: Serve, judge: Authorizer, token: Token) -> None:
    events = Events(length=10**9)
    with Connection(serve(AuthzMiddleware(events.app, judge))) as connection:
        connection.ask("/events", bearer(token()))
        connection.head()
        assert eventually(lambda: len(judge.streams) == 1)

        judge.revoke(org_id=ORG)

        assert eventually(lambda: connection.socket.recv(65536) == b"")


@pytest.mark.parametrize(("verb", "path"), [("GET", "/whole"), ("GET", "/none"), ("HEAD", "/whole")])
def test_whole_response_is_no_stream(
    serve: Serve, judge: Authorizer, events: Events, token: Token, *, verb: str, path: str
) -> None:
    opened: list[object] = []
    judge.endings.open = lambda *args: opened.append(args)  # type: ignore[assignment,method-assign,func-returns-value]

    ask(serve(AuthzMiddleware(events.app, judge)), path, bearer(token()), verb=verb)

    assert opened == []


def test_stream_without_a_caller_goes_on(serve: Serve, judge: Authorizer, events: Events, clock: ManualClock) -> None:
    with Connection(serve(AuthzMiddleware(events.app, judge, public_paths=["/events"]))) as connection:
        connection.ask("/events", [])
        connection.head()
        expire(judge, clock)

        assert [connection.part() for _ in range(10)] == [b"tick\n"] * 10


@pytest.mark.parametrize("expiry", ["never", {"/events": "never"}, {"*": "never"}], ids=str)
def test_stream_outlives_its_token_where_that_is_asked_for(
    serve: Serve, judge: Authorizer, events: Events, token: Token, clock: ManualClock, *, expiry: Any
) -> None:
    with Connection(serve(AuthzMiddleware(events.app, judge, stream_expiry=expiry))) as connection:
        connection.ask("/events", bearer(token()))
        connection.head()
        expire(judge, clock)
        assert [connection.part() for _ in range(10)] == [b"tick\n"] * 10

        judge.revoke(org_id=ORG)
        assert set(iter(connection.part, None)) <= {b"tick\n"}


def test_grace_is_kept(serve: Serve, judge: Authorizer, events: Events, token: Token, clock: ManualClock) -> None:
    with Connection(serve(AuthzMiddleware(events.app, judge, grace=7200))) as connection:
        connection.ask("/events", bearer(token()))
        connection.head()
        expire(judge, clock)
        assert [connection.part() for _ in range(10)] == [b"tick\n"] * 10

        clock.advance(7200)
        judge.streams.expire()
        assert set(iter(connection.part, None)) <= {b"tick\n"}


METERED = {
    "name": "metered",
    "allow_rules": [{"name": "all"}],
    "default_quota": "small",
    "quotas": {"small": {"concurrent_streams": 1}},
}


def test_stream_too_many_is_refused_before_it_begins(
    serve: Serve, new_judge: NewJudge, events: Events, token: Token, told: list[Decision]
) -> None:
    judge = new_judge(policy=Policy.from_document(METERED))
    port = serve(AuthzMiddleware(events.app, judge))
    with Connection(port) as first:
        first.ask("/events", bearer(token()))
        first.head()

        refused = ask(port, "/events", bearer(token()))
        whole = ask(port, "/whole", bearer(token()))

        assert (refused.status, refused.reason, whole.status) == (429, "QUOTA_EXCEEDED", 200)
    assert eventually(lambda: len(judge.streams) == 0)
    with Connection(port) as next_one:
        next_one.ask("/events", bearer(token()))
        assert next_one.head()[0] == 200
    assert eventually(lambda: len(told) == 4)
    assert [each.verdict for each in told] == ["allowed", "denied", "allowed", "allowed"]


def test_what_an_application_does_after_its_response_goes_on(
    serve: Serve, judge: Authorizer, token: Token, told: list[Decision]
) -> None:
    begun, released, done = threading.Event(), asyncio.Event(), threading.Event()
    loops: list[asyncio.AbstractEventLoop] = []

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"part", "more_body": True})
        await send({"type": "http.response.body", "body": b""})
        loops.append(asyncio.get_running_loop())
        begun.set()
        await released.wait()
        done.set()

    with Connection(serve(AuthzMiddleware(app, judge))) as connection:
        connection.ask("/", bearer(token()))
        assert connection.reply().body == b"part"
        assert begun.wait(PATIENCE)

        judge.revoke(org_id=ORG)
        loops[0].call_soon_threadsafe(released.set)

        assert done.wait(PATIENCE)
    assert [each.event for each in told] == ["decision"]


def test_stream_ends_also_where_that_cannot_be_told(
    serve: Serve, judge: Authorizer, events: Events, token: Token, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("the disk is full")

    with Connection(serve(AuthzMiddleware(events.app, judge))) as connection:
        connection.ask("/silent", bearer(token()))
        connection.head()
        assert connection.part() == b"tick\n"
        monkeypatch.setattr(judge.telling, "refusal", fail)

        judge.revoke(org_id=ORG)

        assert connection.part() is None


def test_client_that_leaves_closes_the_stream(serve: Serve, judge: Authorizer, events: Events, token: Token) -> None:
    with Connection(serve(AuthzMiddleware(events.app, judge))) as connection:
        connection.ask("/events", bearer(token()))
        connection.head()
        assert eventually(lambda: len(judge.streams) == 1)

    assert eventually(lambda: len(judge.streams) == 0)


def test_task_is_not_left_cancelled_after_a_stream_has_ended(judge: Authorizer, token: Token) -> None:
    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        judge.revoke(org_id=ORG)
        await asyncio.get_running_loop().create_future()

    async def nothing(*_: Any) -> Any:
        return None

    async def serve_one() -> int:
        headers = [(b"authorization", f"Bearer {token()}".encode())]
        scope = {"type": "http", "method": "GET", "path": "/", "headers": headers}
        await AuthzMiddleware(app, judge)(scope, nothing, nothing)
        await asyncio.sleep(0)
        task = asyncio.current_task()
        return -1 if task is None else task.cancelling()

    assert asyncio.run(serve_one()) == 0


def test_cancellation_by_the_server_is_not_taken_for_the_end_of_the_token(judge: Authorizer, token: Token) -> None:
    begun = asyncio.Event()

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        begun.set()
        await asyncio.get_running_loop().create_future()

    async def nothing(*_: Any) -> Any:
        return None

    async def serve_one() -> None:
        headers = [(b"authorization", f"Bearer {token()}".encode())]
        scope = {"type": "http", "method": "GET", "path": "/", "headers": headers}
        task = asyncio.ensure_future(AuthzMiddleware(app, judge)(scope, nothing, nothing))
        await begun.wait()
        judge.revoke(org_id=ORG)
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(serve_one())
    assert len(judge.streams) == 0
