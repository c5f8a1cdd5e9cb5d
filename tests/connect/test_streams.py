"""Streams end with what admitted them, with the status that says why, whatever their handlers are doing."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from connectrpc.code import Code
from connectrpc.errors import ConnectError

from authz import Authorizer, Policy
from authz.connect.streams import COURTESY
from authz.errors import suspended
from tests.connect.client import (
    CONNECT,
    CONNECT_HTTP2,
    CONNECT_JSON,
    GRPC,
    GRPC_WEB,
    OK,
    Way,
    bearer,
    begin,
    client,
    finish,
)
from tests.connect.conftest import POLICY, Serve, Site
from tests.connect.messages import GOOGLE
from tests.connect.servers import Server
from tests.connect.service import PUBLIC, SERVICE, Handlers, SyncHandlers, wait
from tests.doubles import CLIENT, ORG, PATIENCE, ManualClock, eventually
from tests.judge.held_back import hold_back

SHUT = {"name": "shut", "allow_rules": [{"name": "none", "source": {"organizations": ["org_other"]}}]}
ORDERS: dict[str, tuple[Callable[[Authorizer], None], str, str]] = {
    "revoked": (lambda it: it.revoke(client_id=CLIENT), "unauthenticated", "TOKEN_INACTIVE"),
    "suspended": (lambda it: it.suspend(org_id=ORG), "permission_denied", "ORGANIZATION_SUSPENDED"),
    "policy": (lambda it: it.replace_policy(Policy.from_document(SHUT)), "permission_denied", "POLICY_DENIED"),
}
SUSPENDED = suspended()
each_order = pytest.mark.parametrize("order", ORDERS)
ASYNC = [
    pytest.param(server, way, id=f"{server.value}-{way.name}")
    for server, way in (
        *((Server.UVICORN, way) for way in (CONNECT, CONNECT_JSON, GRPC_WEB)),
        *((Server.HYPERCORN, way) for way in (CONNECT, CONNECT_HTTP2, GRPC)),
    )
]
each_async = pytest.mark.parametrize(("server", "way"), ASYNC)


class Waiting(Handlers):
    """Handlers that answer once and then wait for nothing."""

    @contextlib.contextmanager
    def _noted(self, ctx: Any) -> Iterator[None]:
        self._witness.look(ctx)
        try:
            yield
        except BaseException as error:
            self._witness.ended.append(type(error).__name__)
            raise
        finally:
            self._witness.is_over.set()

    async def server_stream(self, _request: Any, ctx: Any) -> AsyncIterator[Any]:
        with self._noted(ctx):
            yield self.reply()
            self._witness.may_go_on.set()
            await asyncio.Event().wait()

    async def client_stream(self, requests: AsyncIterator[Any], ctx: Any) -> Any:
        with self._noted(ctx):
            async for request in requests:
                self._witness.take(request)
        return self.reply()

    async def bidi_stream(self, requests: AsyncIterator[Any], ctx: Any) -> AsyncIterator[Any]:
        with self._noted(ctx):
            async for request in requests:
                self._witness.take(request)
                yield self.reply()


class Live:
    """A stream that has begun."""

    def __init__(self, site: Site, way: Way, kind: str, token: str, **options: Any) -> None:
        self._site, self._kind = site, kind
        self._over = threading.Event()
        self._client = client(site.port, site.library, way)
        requests = [site.order(note="hello")] if kind == "server_stream" else self._requests()
        self._replies: Any = begin(self._client, site.library, kind, requests, headers=bearer(token), **options)
        self._pool = ThreadPoolExecutor(1)
        self._answer = self._pool.submit(finish, self._replies) if kind == "client_stream" else None
        if self._answer is None:
            next(self._replies)
        assert site.witness.entered.acquire(timeout=PATIENCE)
        assert eventually(lambda: len(site.authorizer.streams) > 0 or options.get("service") == PUBLIC)

    def _requests(self) -> Iterator[Any]:
        yield self._site.order(note="hello")
        self._over.wait(PATIENCE)

    def finish(self) -> Any:
        """Return how it ends."""
        try:
            return finish(self._replies) if self._answer is None else self._answer.result(PATIENCE)
        finally:
            self.stop()

    def stop(self) -> None:
        """Have the client send and read nothing more."""
        self._over.set()
        if self._answer is None:
            self._replies.close()
        self._pool.shutdown()
        # hypercorn does not end as long as connectrpc has something to send to a client that is there.
        assert eventually(lambda: len(self._site.authorizer.streams) == 0)


# Over HTTP/1.1 the client sends all requests before it reads.
def kinds_of(way: Way) -> list[str]:
    return ["server_stream", "client_stream", "bidi_stream"] if way.is_http2 else ["server_stream"]


EACH = [pytest.param(*one.values, kind, id=f"{one.id}-{kind}") for one in ASYNC for kind in kinds_of(one.values[1])]


@each_order
@pytest.mark.parametrize(("server", "way", "kind"), EACH)
def test_what_is_withdrawn_ends_a_stream_whose_handler_waits(  # noqa: PLR0917 - some of them are fixtures
    serve: Serve, server: Server, way: Way, kind: str, order: str, token: str
) -> None:
    site = serve(server, handlers=Waiting)
    live = Live(site, way, kind, token)
    # The handler waits.
    assert eventually(lambda: site.witness.may_go_on.is_set() or site.witness.notes)
    act, code, reason = ORDERS[order]
    act(site.authorizer)
    outcome = live.finish()

    assert (outcome.code, outcome.reason) == (code, reason)
    assert outcome.headers["www-authenticate"].startswith('Bearer realm="api"')
    wait(site.witness.is_over)
    assert site.witness.ended == ["CancelledError"]
    assert site.told == [("decision", "", ORG), ("stream_ended", reason.lower(), ORG)]
    assert eventually(lambda: len(site.authorizer.streams) == 0)


@pytest.mark.parametrize(("server", "way", "kind"), EACH)
def test_a_stream_ends_with_its_token(  # noqa: PLR0917 - some of them are fixtures
    serve: Serve, server: Server, way: Way, kind: str, token: str, clock: ManualClock
) -> None:
    site = serve(server, handlers=Waiting)
    live = Live(site, way, kind, token)
    clock.advance(311)
    site.authorizer.streams.expire()
    outcome = live.finish()

    assert (outcome.code, outcome.message, outcome.reason) == ("unauthenticated", "Invalid token", "TOKEN_EXPIRED")


@each_async
def test_a_stream_may_outlive_its_token_where_that_is_wanted(
    serve: Serve, server: Server, way: Way, token: str, clock: ManualClock
) -> None:
    site = serve(server, handlers=Waiting, stream_expiry={f"/{SERVICE}/server_stream": "never"})
    live = Live(site, way, "server_stream", token)
    clock.advance(10_000)
    site.authorizer.streams.expire()
    site.authorizer.suspend(org_id=ORG)

    assert live.finish().reason == "ORGANIZATION_SUSPENDED"


def test_a_stream_ends_when_its_grace_is_over(serve: Serve, token: str, clock: ManualClock) -> None:
    site = serve(handlers=Waiting, grace=60)
    live = Live(site, CONNECT, "server_stream", token)
    clock.advance(350)
    site.authorizer.streams.expire()
    assert len(site.authorizer.streams) == 1
    clock.advance(60)
    site.authorizer.streams.expire()

    assert live.finish().reason == "TOKEN_EXPIRED"


@each_async
def test_a_stream_of_a_public_method_does_not_end(serve: Serve, server: Server, way: Way, token: str) -> None:
    site = serve(server, handlers=Waiting)
    live = Live(site, way, "server_stream", token, service=PUBLIC)
    site.authorizer.suspend(org_id=ORG)

    assert len(site.authorizer.streams) == 0
    live.stop()


# ---- Quotas of streams ----


@pytest.mark.parametrize(("server", "way", "kind"), EACH)
def test_one_stream_too_many_is_refused_until_another_is_over(
    serve: Serve, server: Server, way: Way, kind: str, token: str
) -> None:
    policy = {**POLICY, "quotas": {"one": {"concurrent_streams": 1}}, "default_quota": "one"}
    site = serve(server, handlers=Waiting, policy=policy)
    live = Live(site, way, "server_stream", token)
    refused = site.ask(kind, way, headers=bearer(token))
    site.authorizer.streams.judge(lambda _call, _principal: SUSPENDED)
    live.finish()
    assert eventually(lambda: len(site.authorizer.streams) == 0)
    again = Live(site, way, kind, token)
    again.stop()

    assert (refused.code, refused.message, refused.notes) == ("resource_exhausted", "Quota exceeded", [])
    assert len(site.witness.sights) == 2
    assert [(event, reason) for event, reason, _ in site.told[:3]] == [
        ("decision", ""),
        ("decision", "quota_exceeded"),
        ("stream_ended", "organization_suspended"),
    ]


def test_every_stream_gives_its_place_back(serve: Serve, token: str) -> None:
    policy = {**POLICY, "quotas": {"one": {"concurrent_streams": 1}}, "default_quota": "one"}
    site = serve(policy=policy)
    for _ in range(3):
        for kind in ("server_stream", "client_stream", "bidi_stream"):
            assert site.ask(kind, headers=bearer(token)).code == OK
            assert eventually(lambda: len(site.authorizer.streams) == 0)


# ---- Other ends than ours ----


class Noting:
    """Another's interceptor that notes how calls end."""

    def __init__(self) -> None:
        self.ends: list[Any] = []

    async def on_start(self, ctx: Any) -> None:
        """Do nothing."""

    async def on_end(self, _token: None, _ctx: Any, error: Exception | None, /) -> None:
        self.ends.append(error.code if isinstance(error, ConnectError) else error)


@each_async
def test_a_client_that_goes_ends_its_stream_and_nothing_is_told_of_it(
    serve: Serve, server: Server, way: Way, token: str
) -> None:
    site = serve(server, handlers=Waiting)
    live = Live(site, way, "server_stream", token)
    live.stop()
    wait(site.witness.is_over)

    assert eventually(lambda: len(site.authorizer.streams) == 0)
    assert site.told == [("decision", "", ORG)]


@each_async
def test_a_deadline_is_not_taken_for_a_refusal(serve: Serve, server: Server, way: Way, token: str) -> None:
    noting = Noting()
    site = serve(server, handlers=Waiting, chain=lambda ours: (noting, *ours))
    outcome = site.ask("server_stream", way, headers=bearer(token), timeout_ms=100)

    assert outcome.code == "deadline_exceeded"
    assert eventually(lambda: noting.ends)
    # The client gives up at the same time.
    assert set(noting.ends) <= {Code.DEADLINE_EXCEEDED, Code.CANCELED}
    assert eventually(lambda: len(site.authorizer.streams) == 0)
    assert site.told == [("decision", "", ORG)]


class Busy(Waiting):
    """A handler that takes a cancellation for something else."""

    async def server_stream(self, _request: Any, ctx: Any) -> AsyncIterator[Any]:
        self._witness.look(ctx)
        yield self.reply()
        self._witness.may_go_on.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        self._witness.entered.release()
        with self._noted(ctx):
            await asyncio.Event().wait()


@each_async
def test_a_handler_that_holds_on_is_cancelled_again(
    serve: Serve, server: Server, way: Way, token: str, clock: ManualClock
) -> None:
    site = serve(server, handlers=Busy)
    live = Live(site, way, "server_stream", token)
    wait(site.witness.may_go_on)
    site.authorizer.revoke(client_id=CLIENT)
    assert site.witness.entered.acquire(timeout=PATIENCE)
    assert not site.witness.is_over.is_set()
    assert eventually(lambda: len(site.witness.sights) == 2)
    clock.advance(COURTESY)
    site.authorizer.streams.expire()

    assert live.finish().reason == "TOKEN_INACTIVE"
    assert site.witness.ended == ["CancelledError"]


class Converting(Waiting):
    """A handler that makes something else of its cancellation."""

    async def server_stream(self, _request: Any, ctx: Any) -> AsyncIterator[Any]:
        self._witness.look(ctx)
        yield self.reply()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise ValueError("hunter2") from None

    async def client_stream(self, requests: AsyncIterator[Any], ctx: Any) -> Any:
        self._witness.look(ctx)
        with contextlib.suppress(BaseException):
            async for request in requests:
                self._witness.take(request)
        return self.reply()

    async def bidi_stream(self, requests: AsyncIterator[Any], ctx: Any) -> AsyncIterator[Any]:
        self._witness.look(ctx)
        with contextlib.suppress(BaseException):
            async for request in requests:
                self._witness.take(request)
                yield self.reply()
        yield self.reply()


@pytest.mark.parametrize("kind", ["server_stream", "client_stream", "bidi_stream"])
def test_whatever_a_handler_makes_of_its_end_the_client_is_told_the_reason(serve: Serve, kind: str, token: str) -> None:
    site = serve(Server.HYPERCORN, handlers=Converting)
    live = Live(site, CONNECT_HTTP2, kind, token)
    assert eventually(lambda: site.witness.notes or kind == "server_stream")
    site.authorizer.revoke(client_id=CLIENT)
    outcome = live.finish()

    assert (outcome.reason, outcome.notes) == ("TOKEN_INACTIVE", [])


class Flooding(Waiting):
    """A handler that sends without end."""

    async def server_stream(self, _request: Any, ctx: Any) -> AsyncIterator[Any]:
        with self._noted(ctx):
            while True:
                yield self._library.order(note="x" * 1_000_000)
                self._witness.entered.release()


@contextlib.contextmanager
def flooded(site: Site, token: str) -> Iterator[socket.socket]:
    """Begin a stream and read nothing of it, until the server waits for that."""
    body = GOOGLE.order().SerializeToString()
    head = (
        f"POST /{SERVICE}/server_stream HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
        f"content-type: application/connect+proto\r\nauthorization: Bearer {token}\r\n"
        f"content-length: {len(body) + 5}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", site.port)) as connection:
        connection.sendall(head.encode() + bytes(1) + len(body).to_bytes(4) + body)
        while site.witness.entered.acquire(timeout=1.0):
            pass
        yield connection


def everything(connection: socket.socket) -> bytes:
    """Return what a connection still brings."""
    found = bytearray()
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(1 << 20):
            found += part
    return bytes(found)


def test_a_client_that_does_not_read_cannot_keep_its_stream_open(serve: Serve, token: str, clock: ManualClock) -> None:
    site = serve(handlers=Flooding)
    with flooded(site, token) as connection:
        site.authorizer.revoke(client_id=CLIENT)
        assert len(site.authorizer.streams) == 1
        clock.advance(COURTESY)
        site.authorizer.streams.expire()
        wait(site.witness.is_over)
        assert eventually(lambda: len(site.authorizer.streams) == 0)
        assert not everything(connection).endswith(b"0\r\n\r\n")
    assert site.told[-1] == ("stream_ended", "token_inactive", ORG)


def test_a_client_that_reads_on_in_time_is_told_the_reason(serve: Serve, token: str) -> None:
    site = serve(handlers=Flooding)
    with flooded(site, token) as connection:
        site.authorizer.revoke(client_id=CLIENT)
        end = everything(connection)[-2000:]

    assert b'"code": "unauthenticated", "message": "Invalid token"' in end
    assert end.endswith(b"0\r\n\r\n")


# ---- Synchronous handlers ----


class SyncWaiting(SyncHandlers):
    """Handlers that go on when they are told to."""

    def server_stream(self, _request: Any, ctx: Any) -> Iterator[Any]:
        self._witness.look(ctx)
        try:
            yield self.reply()
            wait(self._witness.may_go_on)
            yield self.reply()
            self._witness.ended.append("too late")
        finally:
            self._witness.is_over.set()

    def bidi_stream(self, requests: Iterator[Any], ctx: Any) -> Iterator[Any]:
        self._witness.look(ctx)
        try:
            for request in requests:
                self._witness.take(request)
                yield self.reply()
                wait(self._witness.may_go_on)
        finally:
            self._witness.is_over.set()


@each_order
@pytest.mark.parametrize("way", [CONNECT, CONNECT_JSON, GRPC_WEB], ids=lambda it: it.name)
def test_a_stream_of_a_thread_ends_with_its_next_message(serve: Serve, way: Way, order: str, token: str) -> None:
    site = serve(Server.WERKZEUG, handlers=SyncWaiting)
    live = Live(site, way, "server_stream", token)
    act, code, reason = ORDERS[order]
    act(site.authorizer)
    site.witness.may_go_on.set()
    outcome = live.finish()

    assert (outcome.code, outcome.reason, outcome.notes) == (code, reason, [])
    assert outcome.headers["www-authenticate"].startswith('Bearer realm="api"')
    wait(site.witness.is_over)
    assert site.witness.ended == []
    assert eventually(lambda: len(site.authorizer.streams) == 0)
    assert site.told == [("decision", "", ORG), ("stream_ended", reason.lower(), ORG)]


class Going(Waiting):
    """An asynchronous handler that goes on when it is told to."""

    async def server_stream(self, _request: Any, ctx: Any) -> AsyncIterator[Any]:
        self._witness.look(ctx)
        yield self.reply()
        await asyncio.to_thread(wait, self._witness.may_go_on)
        yield self.reply()
        self._witness.ended.append("too late")


@pytest.mark.parametrize(
    ("server", "handlers"), [(Server.WERKZEUG, SyncWaiting), (Server.UVICORN, Going)], ids=["sync", "async"]
)
def test_no_message_passes_before_a_stream_of_thousands_has_been_told(
    serve: Serve, server: Server, handlers: Any, token: str
) -> None:
    site = serve(server, handlers=handlers)
    live = Live(site, CONNECT, "server_stream", token)
    hold_back(site.authorizer)
    site.authorizer.revoke(org_id=ORG)
    site.witness.may_go_on.set()
    outcome = live.finish()

    assert (outcome.code, outcome.reason) == ("unauthenticated", "TOKEN_INACTIVE")
    assert site.witness.ended == []


@pytest.mark.parametrize("kind", ["server_stream", "client_stream", "bidi_stream"])
@pytest.mark.parametrize("server", [Server.WERKZEUG, Server.WAITRESS], ids=lambda it: it.value)
def test_one_stream_of_a_thread_too_many_is_refused_until_another_is_over(
    serve: Serve, server: Server, kind: str, token: str
) -> None:
    policy = {**POLICY, "quotas": {"one": {"concurrent_streams": 1}}, "default_quota": "one"}
    site = serve(server, handlers=SyncWaiting, policy=policy)
    live = Live(site, CONNECT, "server_stream", token)
    refused = site.ask(kind, headers=bearer(token))
    site.witness.may_go_on.set()
    assert live.finish().code == OK
    assert eventually(lambda: len(site.authorizer.streams) == 0)

    assert (refused.code, refused.notes) == ("resource_exhausted", [])
    assert site.ask(kind, headers=bearer(token)).code == OK
