"""A stream does not outlive its token, whatever its handler does."""

import asyncio
import contextlib
import gc
import itertools
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health, health_pb2

from authz import Authorizer, ConfigError, Verifier
from authz.demo.issuer.signing import SigningKey
from authz.runtime.clock import SYSTEM_CLOCK
from tests.doubles import ManualClock, jwks, m2m_claims
from tests.interceptors.client import Outcome, bearer, finish, start
from tests.interceptors.conftest import Serve
from tests.interceptors.servers import PATIENCE, Door, Loop
from tests.interceptors.service import (
    PUBLIC_METHODS,
    Witness,
    handler,
    is_response_streaming,
    method,
    public_method,
)
from tests.interceptors.streams import (
    AIO,
    AIO_READ_WRITE,
    AIO_SYNC,
    BIG,
    COURTESY,
    DOORS_OF_STREAMS,
    GRPC,
    LIFE,
    RELAY,
    STREAMING,
    Feed,
    Live,
    Stage,
    acting,
)


@pytest.fixture(autouse=True, scope="module")
def only_what_is_new() -> Iterator[None]:
    """Spare the collections below whatever was there before."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def quiet(capsys: pytest.CaptureFixture) -> Iterator[None]:
    """Fail what makes grpc or asyncio complain."""
    complaints = []

    class Complaints(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            complaints.append(self.format(record))

    listener = Complaints(logging.WARNING)
    logging.getLogger("grpc").addHandler(listener)
    logging.getLogger("asyncio").addHandler(listener)
    yield
    gc.collect()
    logging.getLogger("grpc").removeHandler(listener)
    logging.getLogger("asyncio").removeHandler(listener)
    assert (complaints, capsys.readouterr().err) == ([], "")


@pytest.fixture(params=DOORS_OF_STREAMS, ids=lambda door: door.name)
def door(request: pytest.FixtureRequest) -> Door:
    return request.param


@pytest.fixture
def live(door: Door, verifier: Verifier, clock: ManualClock, serve: Serve, token: str) -> Iterator[Live]:
    live = Live(door, Authorizer(verifier), clock, serve, token)
    yield live
    live.over()


def is_expired(outcome: Outcome) -> bool:
    return (
        (outcome.code, outcome.details) == (grpc.StatusCode.UNAUTHENTICATED, "Invalid token")
        and outcome.reason == "TOKEN_EXPIRED"
        and "www-authenticate" in outcome.trailers
    )


# ---- What a handler may be doing when the token ends ----

BLOCKED = [
    ("stream_unary", "waits"),
    ("stream_stream", "waits"),
    ("unary_stream", "sleeps"),
    ("stream_unary", "sleeps"),
    ("stream_stream", "sleeps"),
]
ANSWERING = ["stream_unary", "stream_stream"]
FLOODING = ["unary_stream", "stream_stream"]
INTERRUPTING = [door for door in DOORS_OF_STREAMS if door is not GRPC]


@pytest.mark.parametrize(("kind", "doing"), BLOCKED)
def test_blocked_handler_keeps_no_stream_open(live: Live, kind: str, doing: str) -> None:
    running, stage = live.act(kind, doing)

    live.expire()
    if live.door is GRPC:
        live.lose_patience()
        assert running.end().code is grpc.StatusCode.CANCELLED
    else:
        assert is_expired(running.end())
    # The RPC may last longer on the server: until its handler's thread comes free.
    stage.release.set()
    assert live.streams.are(0)


def test_stream_ends_when_the_time_of_day_is_set_forward(live: Live) -> None:
    """As on a machine that was suspended until after the token's end."""
    running, stage = live.act("stream_stream", "answers")
    running.feed.send(b"before")
    assert running.read() == b"before"

    live.clock.set_forward(LIFE)
    live.streams.expire()
    running.feed.send(b"after")

    assert is_expired(running.end())
    stage.release.set()
    assert live.streams.are(0)


@pytest.mark.parametrize("kind", ANSWERING)
def test_handler_that_comes_by_ends_with_the_right_status(live: Live, kind: str) -> None:
    running, stage = live.act(kind, "answers")
    running.feed.send(b"before")
    if is_response_streaming(kind):
        assert running.read() == b"before"

    live.expire()
    running.feed.send(b"after")
    outcome = running.end()

    assert is_expired(outcome)
    assert outcome.messages == []
    assert stage.ended.wait(PATIENCE)
    assert live.streams.are(0)


# Not the synchronous handlers of an aio server: the thread waits for grpc, which never lets go of it.
@pytest.mark.parametrize(
    "door", [door for door in DOORS_OF_STREAMS if door is not AIO_SYNC], ids=lambda door: door.name
)
@pytest.mark.parametrize("kind", FLOODING)
def test_flooding_handler_ends_though_its_client_does_not_read(live: Live, kind: str) -> None:
    running, stage = live.act(kind, "floods")

    live.expire()
    made = stage.made
    if not live.door.is_aio:
        live.lose_patience()
    outcome = running.end()

    assert is_expired(outcome) or (not live.door.is_aio and outcome.code is grpc.StatusCode.CANCELLED)
    # Those that gRPC had taken, and the one that the handler was at.
    assert len(outcome.messages) <= made + 1
    assert stage.ended.wait(PATIENCE)
    assert live.streams.are(0)


@pytest.mark.parametrize("kind", FLOODING)
def test_flooding_handler_ends_while_its_client_reads(live: Live, kind: str) -> None:
    running, stage = live.act(kind, "floods")
    assert [running.read() for _ in range(3)] == [BIG] * 3

    live.expire()

    assert is_expired(running.end())
    assert stage.ended.wait(PATIENCE)
    assert live.streams.are(0)


@pytest.mark.parametrize(("kind", "doing"), [("stream_unary", "waits"), ("stream_stream", "answers")])
def test_what_arrives_before_the_end_is_served(live: Live, kind: str, doing: str) -> None:
    running, _stage = live.act(kind, doing)

    live.pass_by(LIFE - 1)
    running.feed.send(b"in time")
    running.feed.end()

    assert running.end().code is grpc.StatusCode.OK
    assert live.streams.are(0)


@pytest.mark.parametrize(("kind", "doing"), BLOCKED)
def test_handler_is_interrupted_so_that_it_can_clean_up(live: Live, kind: str, doing: str) -> None:
    running, stage = live.act(kind, doing)

    live.expire()
    live.lose_patience()
    running.end()
    # Nothing wakes a thread that waits for something of its own.
    if doing == "sleeps" and live.door.has_sync_handlers:
        stage.release.set()

    assert stage.ended.wait(PATIENCE)


# ---- What it ends, and when ----


def test_nothing_ends_a_call_without_a_stream(live: Live) -> None:
    stage = Stage()
    live.stages.append(stage)
    release = threading.Event()

    def wait(_request: bytes, _context: Any) -> bytes:
        stage.begin()
        release.wait(PATIENCE)
        return b"late"

    async def wait_async(_request: bytes, _context: Any) -> bytes:
        stage.begin()
        await asyncio.to_thread(release.wait, PATIENCE)
        return b"late"

    behaviour = wait if live.door.has_sync_handlers else wait_async
    live.serve({method("unary_unary"): handler("unary_unary", behaviour)})
    running = live.start("unary_unary")
    assert stage.started.wait(PATIENCE)
    live.expire()
    live.lose_patience()
    release.set()

    assert running.end().messages == [b"late"]


def goes_on(live: Live, kind: str, name: str | None = None, **options: Any) -> bool:
    """Say whether a stream is still served when its token has expired."""
    stage = Stage()
    live.stages.append(stage)
    served = handler(kind, acting(live.door, kind, stage, "answers" if kind != "unary_stream" else "floods"))
    live.serve({method(kind): served, public_method(kind): served}, **options)
    running = live.start(kind, name)
    assert stage.started.wait(PATIENCE)
    live.expire()
    live.lose_patience()
    if kind == "unary_stream":
        alive = [running.read() for _ in range(8)] == [BIG] * 8
        running.leave()
        stage.release.set()
        return alive
    running.feed.send(b"late")
    running.feed.end()
    return running.end().code is grpc.StatusCode.OK


def of_public_methods(live: Live, verifier: Verifier) -> None:
    live.authorizer = Authorizer(verifier, public_methods=PUBLIC_METHODS)
    streams = type(live.streams)(clock=live.clock.clock)
    live.streams = live.authorizer.streams = live.authorizer.endings.streams = live.authorizer.operator.streams = (
        streams
    )


@pytest.mark.parametrize("kind", ANSWERING)
def test_stream_of_a_public_method_goes_on(live: Live, verifier: Verifier, kind: str) -> None:
    of_public_methods(live, verifier)

    assert goes_on(live, kind, public_method(kind))


@pytest.mark.parametrize("kind", ANSWERING)
def test_stream_that_never_expires_goes_on(live: Live, kind: str) -> None:
    assert goes_on(live, kind, stream_expiry="never")


@pytest.mark.parametrize("kind", ANSWERING)
@pytest.mark.parametrize(
    ("expiry", "is_ended"),
    [
        ({method("stream_unary"): "never", method("stream_stream"): "never"}, False),
        ({method("stream_unary"): "never", method("stream_stream"): "never", "*": "token"}, False),
        ({method("stream_unary"): "token", method("stream_stream"): "token", "*": "never"}, True),
        ({"/tests.Other/Method": "never"}, True),
        ({"*": "never"}, False),
    ],
    ids=str,
)
def test_expiry_may_differ_by_method(live: Live, kind: str, expiry: Any, is_ended: bool) -> None:  # noqa: FBT001
    assert goes_on(live, kind, stream_expiry=expiry) is not is_ended


def test_grace_is_given_and_no_more(live: Live) -> None:
    running, _stage = live.act("stream_stream", "answers", grace=5.0)
    live.pass_by(LIFE + 4.5)
    running.feed.send(b"during the grace")
    during = running.read()

    live.pass_by(0.5)
    running.feed.send(b"after")

    assert during == b"during the grace"
    assert is_expired(running.end())


@pytest.mark.parametrize(
    "options", [{"grace": -1.0}, {"stream_expiry": "always"}, {"stream_expiry": {"Method": "never"}}]
)
def test_options_that_cannot_work_are_refused(door: Door, verifier: Verifier, options: Any) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        door.interceptor(verifier, **options)


@pytest.mark.parametrize("kind", ANSWERING)
def test_request_that_comes_at_the_very_moment_costs_no_status(live: Live, kind: str) -> None:
    stage = Stage()
    live.serve({method(kind): handler(kind, acting(live.door, kind, stage, "answers"))})
    outcomes = []
    for _ in range(30):
        crowd = [live.start(kind) for _ in range(6)]
        assert live.streams.are(6)
        live.expire()
        for running in crowd:
            running.feed.send(b"now")
            running.feed.end()
        outcomes += [running.end() for running in crowd]
        live.clock.now -= LIFE
        assert live.streams.are(0)

    assert {outcome.code for outcome in outcomes} <= {grpc.StatusCode.OK, grpc.StatusCode.UNAUTHENTICATED}


def deaf(door: Door, kind: str, stage: Stage) -> Any:
    """Return a behaviour that goes on whatever interrupts it."""

    def stream(requests: Iterator[bytes], _context: Any) -> Iterator[bytes]:
        stage.begin()
        with contextlib.suppress(Exception):
            next(requests)
        stage.ended.set()
        yield b"smuggled"

    def unary(requests: Iterator[bytes], _context: Any) -> bytes:
        return b"".join(stream(requests, None))

    async def listen(read: Any) -> None:
        stage.begin()
        with contextlib.suppress(Exception, asyncio.CancelledError):
            await read()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0)
        stage.ended.set()

    async def generate(requests: Any, _context: Any) -> AsyncIterator[bytes]:
        await listen(requests.__anext__)
        yield b"smuggled"

    async def write(_requests: Any, context: Any) -> None:
        await listen(context.read)
        with contextlib.suppress(Exception, asyncio.CancelledError):
            await context.write(b"smuggled")
        context.set_code(grpc.StatusCode.OK)

    async def unary_async(requests: Any, _context: Any) -> bytes:
        await listen(requests.__anext__)
        return b"smuggled"

    if door.has_sync_handlers:
        return stream if is_response_streaming(kind) else unary
    if not is_response_streaming(kind):
        return unary_async
    return write if door is AIO_READ_WRITE else generate


@pytest.mark.parametrize("kind", ANSWERING)
def test_handler_that_will_not_be_interrupted_sends_nothing_more(live: Live, kind: str) -> None:
    stage = Stage()
    live.stages.append(stage)
    live.serve({method(kind): handler(kind, deaf(live.door, kind, stage))})
    running = live.start(kind)
    assert stage.started.wait(PATIENCE)
    live.expire()
    running.feed.send(b"late")
    outcome = running.end()

    assert is_expired(outcome)
    assert outcome.messages == []
    assert stage.ended.wait(PATIENCE)
    assert live.streams.are(0)


# ---- What is left behind ----


@pytest.mark.parametrize("kind", ANSWERING)
def test_stream_that_is_through_is_forgotten(live: Live, kind: str) -> None:
    running, _stage = live.act(kind, "answers")
    assert live.streams.are(1)
    running.feed.end()

    assert running.end().code is grpc.StatusCode.OK
    assert live.streams.are(0)


# Not the synchronous handlers of an aio server: grpc itself never ends those, and their thread is lost.
# And no floods on the others: grpc.aio logs every message that it cannot deliver.
LEAVING = [
    *itertools.product([GRPC, RELAY, AIO, AIO_READ_WRITE], BLOCKED),
    *itertools.product([GRPC, RELAY], [(kind, "floods") for kind in FLOODING]),
]


@pytest.mark.parametrize(
    ("door", "kind", "doing"), [pytest.param(door, *what, id="-".join([door.name, *what])) for door, what in LEAVING]
)
def test_stream_whose_client_leaves_is_forgotten(live: Live, kind: str, doing: str) -> None:
    running, stage = live.act(kind, doing)
    running.leave()
    stage.release.set()

    assert live.streams.are(0)
    assert stage.ended.wait(PATIENCE)


@pytest.mark.parametrize("kind", STREAMING)
def test_stream_whose_handler_aborts_is_forgotten(live: Live, kind: str) -> None:
    def stream(_request: Any, context: Any) -> Iterator[bytes]:
        context.abort(grpc.StatusCode.DATA_LOSS, "from the handler")
        yield b""

    def unary(request: Any, context: Any) -> None:
        next(stream(request, context))

    async def generate(_request: Any, context: Any) -> AsyncIterator[bytes]:
        await context.abort(grpc.StatusCode.DATA_LOSS, "from the handler")
        yield b""

    async def coroutine(_request: Any, context: Any) -> None:
        await context.abort(grpc.StatusCode.DATA_LOSS, "from the handler")

    if live.door.has_sync_handlers:
        behaviour: Any = stream if is_response_streaming(kind) else unary
    else:
        behaviour = generate if is_response_streaming(kind) and live.door is AIO else coroutine
    live.serve({method(kind): handler(kind, behaviour)})

    outcome = live.start(kind).end()

    assert (outcome.code, outcome.details) == (grpc.StatusCode.DATA_LOSS, "from the handler")
    assert live.streams.are(0)


def test_calls_without_a_stream_are_not_counted(live: Live) -> None:
    behaviour = live.door.behaviours(Witness())["unary_unary"]
    live.serve({method("unary_unary"): handler("unary_unary", behaviour)})

    assert live.start("unary_unary").end().code is grpc.StatusCode.OK
    assert len(live.streams) == 0


# ---- Many ----


@pytest.mark.parametrize("door", [AIO, AIO_READ_WRITE], ids=lambda door: door.name)
def test_idle_streams_cost_no_threads_and_end_together(live: Live, loop: Loop) -> None:
    number = 1000
    served = {method("stream_unary"): handler("stream_unary", acting(live.door, "stream_unary", Stage(), "waits"))}
    server_threads = threading.active_count()

    async def run(address: str) -> tuple[int, list[Any]]:
        async with grpc.aio.insecure_channel(address) as channel:
            stub = channel.stream_unary(method("stream_unary"))
            calls = [stub(metadata=bearer(live.token), timeout=120) for _ in range(number)]
            assert await asyncio.to_thread(live.streams.are, number)
            threads = threading.active_count()
            await asyncio.to_thread(live.expire)
            return threads, [await call.code() for call in calls]

    with live.door.listen(loop, served, [live.door.interceptor(live.authorizer)]) as address:
        threads, codes = asyncio.run(run(address))

    print(f"{number} idle streams: {server_threads} threads before, {threads} with them")  # noqa: T201
    # One keeps time, and a few are the client's.
    assert threads <= server_threads + 5
    assert codes == [grpc.StatusCode.UNAUTHENTICATED] * number
    assert live.streams.are(0)


@pytest.mark.parametrize("kind", ["stream_unary", "stream_stream"])
def test_threads_of_expired_streams_serve_others(live: Live, kind: str) -> None:
    """More streams than the pool has threads end, one after another."""
    stage = Stage()
    live.stages.append(stage)
    live.serve({method(kind): handler(kind, acting(live.door, kind, stage, "answers"))})
    for _ in range(12):
        running = live.start(kind)
        running.feed.send(b"x")
        assert live.streams.are(1)
        live.expire()
        live.lose_patience()
        assert running.end().code in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.CANCELLED)
        assert live.streams.are(0)
        live.clock.now -= LIFE + COURTESY

    running = live.start(kind)
    running.feed.end()
    assert running.end().code is grpc.StatusCode.OK


@pytest.mark.parametrize("kind", FLOODING)
def test_threads_of_expired_floods_serve_others(live: Live, kind: str) -> None:
    stage = Stage()
    live.stages.append(stage)
    live.serve({method(kind): handler(kind, acting(live.door, kind, stage, "floods"))})
    for _ in range(12):
        running = live.start(kind)
        running.read()
        live.expire()
        assert is_expired(running.end())
        assert live.streams.are(0)
        live.clock.now -= LIFE

    running = live.start(kind)
    assert running.read() == BIG
    live.expire()
    assert is_expired(running.end())


# ---- When it begins ----


@pytest.mark.parametrize("kind", STREAMING)
def test_stream_that_waited_for_keys_expires_as_well(  # noqa: PLR0917
    door: Door,
    new_verifier: Callable[..., Verifier],
    transport: Any,
    clock: ManualClock,
    serve: Serve,
    token: str,
    kind: str,
) -> None:
    live = Live(door, Authorizer(new_verifier(transport=transport)), clock, serve, token)
    stage = Stage()
    live.stages.append(stage)
    live.serve({method(kind): handler(kind, acting(door, kind, stage, "sleeps"))})
    running = live.start(kind)
    transport.await_request()
    transport.release()
    assert stage.started.wait(PATIENCE)
    assert live.streams.are(1)
    live.expire()
    if door is GRPC:
        live.lose_patience()
    outcome = running.end()
    live.over()

    assert is_expired(outcome) or (door is GRPC and outcome.code is grpc.StatusCode.CANCELLED)
    assert live.streams.are(0)


@pytest.mark.parametrize("door", [GRPC, RELAY, AIO_SYNC], ids=lambda door: door.name)
@pytest.mark.parametrize("kind", STREAMING)
def test_stream_whose_turn_comes_too_late_never_begins(live: Live, kind: str) -> None:
    occupying, stage = Stage(), Stage()
    live.stages += [occupying, stage]
    taken = threading.Semaphore(0)

    def occupy(_request: bytes, _context: Any) -> bytes:
        taken.release()
        occupying.release.wait(PATIENCE)
        return b""

    live.serve(
        {
            method("unary_unary"): handler("unary_unary", occupy),
            method(kind): handler(kind, acting(live.door, kind, stage, "sleeps")),
        }
    )
    occupants = [live.start("unary_unary") for _ in range(8)]
    assert all(taken.acquire(timeout=PATIENCE) for _ in occupants)
    # A server's own thread takes calls in order: when the second is refused the first has been admitted.
    running = live.start(kind)
    assert live.start(kind, token="none").end().code is grpc.StatusCode.UNAUTHENTICATED
    if live.door.is_aio:
        assert live.streams.are(1)
    live.expire()
    occupying.release.set()

    assert is_expired(running.end())
    assert not stage.started.is_set()
    assert live.streams.are(0)


class Apart(grpc.aio.ServerInterceptor):
    """Another's interceptor, which has what is inside of it decided in a task of its own."""

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        return await asyncio.create_task(continuation(handler_call_details))


@pytest.mark.parametrize("door", [AIO, AIO_READ_WRITE, AIO_SYNC], ids=lambda door: door.name)
@pytest.mark.parametrize("kind", STREAMING)
def test_task_in_which_a_stream_was_admitted_need_not_be_its_own(live: Live, serve: Serve, kind: str) -> None:
    stage = Stage()
    live.stages.append(stage)
    served = {method(kind): handler(kind, acting(live.door, kind, stage, "sleeps"))}
    live.channel = serve(served, Apart(), live.door.interceptor(live.authorizer))
    running = live.start(kind)
    assert stage.started.wait(PATIENCE)
    assert live.streams.are(1)
    live.expire()

    assert is_expired(running.end())
    stage.release.set()
    assert live.streams.are(0)


# ---- Non-blocking handlers ----


def non_blocking(stage: Stage, sends: list[Any]) -> Any:
    def behaviour(_request: Any, _context: Any, send: Any) -> None:
        sends.append(send)
        send(b"first")
        stage.begin()

    behaviour.experimental_non_blocking = True
    return behaviour


@pytest.mark.parametrize("door", [GRPC, RELAY], ids=lambda door: door.name)
@pytest.mark.parametrize("kind", FLOODING)
def test_non_blocking_handler_ends_at_once(live: Live, kind: str) -> None:
    stage, sends = Stage(), []
    live.serve({method(kind): handler(kind, non_blocking(stage, sends))})
    running = live.start(kind)
    assert stage.started.wait(PATIENCE)
    live.expire()
    # What it sends from now on goes nowhere, its own end included.
    sends[0](b"late")
    sends[0](None)
    outcome = running.end()
    live.lose_patience()

    assert is_expired(outcome)
    assert outcome.messages == [b"first"]
    assert live.streams.are(0)


@pytest.mark.parametrize("door", [GRPC, RELAY], ids=lambda door: door.name)
def test_non_blocking_handler_may_be_through_before(live: Live) -> None:
    stage, sends = Stage(), []
    live.serve({method("unary_stream"): handler("unary_stream", non_blocking(stage, sends))})
    running = live.start("unary_stream")
    assert stage.started.wait(PATIENCE)
    sends[0](None)
    live.expire()
    live.lose_patience()

    assert running.end().code is grpc.StatusCode.OK
    assert live.streams.are(0)


@pytest.mark.parametrize("door", [GRPC, RELAY], ids=lambda door: door.name)
def test_watch_of_health_ends_with_its_token(live: Live) -> None:
    servicer = health.HealthServicer(experimental_non_blocking=True, experimental_thread_pool=ThreadPoolExecutor(1))
    watch = grpc.unary_stream_rpc_method_handler(
        servicer.Watch,
        request_deserializer=health_pb2.HealthCheckRequest.FromString,
        response_serializer=health_pb2.HealthCheckResponse.SerializeToString,
    )
    live.serve({method("unary_stream"): watch})
    running = live.start("unary_stream")
    running.read()
    live.expire()
    outcome = running.end()
    servicer.set("", health_pb2.HealthCheckResponse.NOT_SERVING)

    assert is_expired(outcome)
    assert live.streams.are(0)


# ---- By itself ----


@pytest.mark.parametrize("kind", STREAMING)
def test_stream_ends_with_its_token_and_nobody_has_to_say_so(
    door: Door, serve: Serve, ec_key: SigningKey, new_verifier: Callable[..., Verifier], kind: str
) -> None:
    verifier = new_verifier(jwks=jwks(ec_key), clock=SYSTEM_CLOCK, leeway=0)
    # Whole seconds: it lives for one to two.
    token = ec_key.sign(m2m_claims(SYSTEM_CLOCK.time(), exp=int(SYSTEM_CLOCK.time()) + 2))
    stage = Stage()
    authorizer = Authorizer(verifier)
    channel = serve({method(kind): handler(kind, acting(door, kind, stage, "sleeps"))}, door.interceptor(authorizer))
    feed = Feed()
    running = start(channel, kind, metadata=bearer(token), requests=feed if kind != "unary_stream" else [b""])
    outcome = finish(kind, running)
    stage.release.set()
    feed.end()

    assert is_expired(outcome) or (door is GRPC and outcome.code is grpc.StatusCode.CANCELLED)
