"""Streams that are open when their token ends, and what their handlers do at that moment."""

import asyncio
import contextlib
import functools
import math
import queue
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio

from authz import Authorizer, Call, Principal
from authz.issuer.verifier import DEFAULT_LEEWAY
from authz.judge.streams import OpenStreams, Stream
from authz.runtime.alarms import Alarms
from authz.runtime.clock import Clock
from interceptors import AuthzInterceptor
from interceptors.streams import COURTESY
from tests.doubles import ManualClock
from tests.interceptors.client import Outcome, bearer, finish, start
from tests.interceptors.servers import DOORS, PATIENCE, Door
from tests.interceptors.service import (
    Behaviour,
    handler,
    is_request_streaming,
    is_response_streaming,
    method,
    public_method,
    sync_behaviours,
)

LIFE = 300.0 + DEFAULT_LEEWAY
"""Seconds from the start of a test until its token is refused."""

BIG = bytes(1 << 20)
"""More than a client that does not read takes in."""

STREAMING = ("unary_stream", "stream_unary", "stream_stream")


@dataclass(frozen=True)
class RelayDoor(Door):
    """A ``grpc.server`` with a thread for the handler of each stream."""

    @property
    def interceptor(self) -> Callable[..., Any]:
        return functools.partial(AuthzInterceptor, relay=True)


RELAY = RelayDoor("grpc-relay", is_aio=False, has_sync_handlers=True, behaviours=sync_behaviours)
GRPC, AIO, AIO_READ_WRITE, AIO_SYNC = DOORS
DOORS_OF_STREAMS = (GRPC, RELAY, AIO, AIO_READ_WRITE, AIO_SYNC)


class Feed:
    """The requests of a client, which come when a test says so."""

    _END = object()

    def __init__(self) -> None:
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._requests.get, self._END)

    def send(self, request: bytes) -> None:
        self._requests.put(request)

    def end(self) -> None:
        self._requests.put(self._END)


class _ByHand(Alarms):
    """Ring when a test says so: a thread that does it as well, a moment later, would set alarms by another time."""

    def _keep_time(self) -> None:
        pass


class WatchedStreams(OpenStreams):
    """Says when so many are open, and ends them when it is told to."""

    def __init__(self, *, clock: Clock) -> None:
        self._number = threading.Condition()
        super().__init__(clock=clock)
        self._alarms = _ByHand("by-hand", clock=clock)

    def open(
        self,
        stream: Stream,
        principal: Principal,
        until: float,
        at_most: float = math.inf,
        *,
        call: Call | None = None,
    ) -> None:
        super().open(stream, principal, until, at_most, call=call)
        with self._number:
            self._number.notify_all()

    def close(self, stream: Stream) -> None:
        super().close(stream)
        with self._number:
            self._number.notify_all()

    def are(self, number: int) -> bool:
        """Wait until so many are open."""
        with self._number:
            return self._number.wait_for(lambda: len(self) == number, PATIENCE)


@dataclass
class Stage:
    """What a handler does, and what became of it."""

    started: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)
    release: threading.Event = field(default_factory=threading.Event)
    """Set when a test is over, for handlers that nothing else wakes."""
    interruptions: list[BaseException] = field(default_factory=list)
    reading: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    """Released each time that a handler which answers begins to read."""
    seen: list[bytes] = field(default_factory=list)
    """What it has read."""
    thread: threading.Thread | None = None
    made: int = 0
    """How many messages a flood has had so far."""

    def begin(self) -> None:
        self.made += 1
        self.thread = threading.current_thread()
        self.started.set()


def _sync_steps(stage: Stage, doing: str, requests: Any) -> Iterator[bytes]:
    try:
        if doing == "waits":
            stage.begin()
            next(requests, None)
        elif doing == "sleeps":
            stage.begin()
            stage.release.wait(PATIENCE)
        elif doing == "floods":
            while True:
                stage.begin()
                yield BIG
        else:
            stage.begin()
            stage.reading.release()
            for request in requests:
                stage.seen.append(request)
                yield request
                stage.reading.release()
    except BaseException as error:
        stage.interruptions.append(error)
        raise
    finally:
        stage.ended.set()


async def _async_steps(stage: Stage, doing: str, read: Callable[[], Awaitable[Any]]) -> AsyncIterator[bytes]:
    try:
        if doing == "waits":
            stage.begin()
            await read()
        elif doing == "sleeps":
            stage.begin()
            await asyncio.Event().wait()
        elif doing == "floods":
            while True:
                stage.begin()
                yield BIG
        else:
            stage.begin()
            stage.reading.release()
            while (request := await read()) is not grpc.aio.EOF:
                stage.seen.append(request)
                yield request
                stage.reading.release()
    except BaseException as error:
        stage.interruptions.append(error)
        raise
    finally:
        stage.ended.set()


def acting(door: Door, kind: str, stage: Stage, doing: str) -> Behaviour:
    """Return a behaviour of the door's sort that ``waits`` for a request, ``sleeps``, ``floods`` or ``answers``."""
    if door.has_sync_handlers:
        return _sync(kind, functools.partial(_sync_steps, stage, doing))
    return _async(door, kind, functools.partial(_async_steps, stage, doing))


def _sync(kind: str, steps: Callable[[Any], Iterator[bytes]]) -> Behaviour:
    def stream(requests: Any, _context: Any) -> Iterator[bytes]:
        yield from steps(requests)

    def unary(requests: Any, _context: Any) -> bytes:
        return b"".join(steps(requests))

    return stream if is_response_streaming(kind) else unary


def _async(door: Door, kind: str, steps: Callable[[Any], AsyncIterator[bytes]]) -> Behaviour:
    is_read_write = door is AIO_READ_WRITE

    def reader(requests: Any, context: Any) -> Callable[[], Awaitable[Any]]:
        if is_read_write:
            return context.read

        async def read() -> Any:
            return await anext(requests, grpc.aio.EOF)

        return read

    async def generate(requests: Any, context: Any) -> AsyncIterator[bytes]:
        async with contextlib.aclosing(steps(reader(requests, context))) as replies:
            async for reply in replies:
                yield reply

    async def write(requests: Any, context: Any) -> None:
        async with contextlib.aclosing(steps(reader(requests, context))) as replies:
            async for reply in replies:
                await context.write(reply)

    async def unary(requests: Any, context: Any) -> bytes:
        async with contextlib.aclosing(steps(reader(requests, context))) as replies:
            return b"".join([reply async for reply in replies])

    if not is_response_streaming(kind):
        return unary
    return write if is_read_write else generate


@dataclass(frozen=True)
class Running:
    """A call under way."""

    kind: str
    call: Any
    feed: Feed

    def end(self) -> Outcome:
        """Wait for its end."""
        return finish(self.kind, self.call)

    def read(self) -> bytes:
        return next(self.call)

    def leave(self) -> None:
        self.call.cancel()


class Live:
    """A server whose streams can be watched, and a client of it."""

    def __init__(self, door: Door, authorizer: Authorizer, clock: ManualClock, serve: Any, token: str) -> None:
        self.door = door
        self.authorizer = authorizer
        self.streams = authorizer.streams = WatchedStreams(clock=clock.clock)
        authorizer.endings.streams = authorizer.operator.streams = self.streams
        self.clock = clock
        self.stages: list[Stage] = []
        self.channel: Any = None
        self._feeds: list[Feed] = []
        self._serve = serve
        self.token = token

    def serve(self, handlers: dict[str, Any], **options: Any) -> None:
        self.channel = self._serve(handlers, self.door.interceptor(self.authorizer, **options))

    def act(self, kind: str, doing: str, **options: Any) -> tuple[Running, Stage]:
        """Serve a method that does ``doing``, call it, and return when it does."""
        stage = Stage()
        self.stages.append(stage)
        served = handler(kind, acting(self.door, kind, stage, doing))
        self.serve({method(kind): served, public_method(kind): served}, **options)
        running = self.start(kind)
        assert stage.started.wait(PATIENCE)
        return running, stage

    def start(self, kind: str, name: str | None = None, token: str | None = None, **options: Any) -> Running:
        feed = Feed()
        self._feeds.append(feed)
        requests = feed if is_request_streaming(kind) else (b"",)
        metadata = bearer(self.token if token is None else token)
        return Running(kind, start(self.channel, kind, name, metadata=metadata, requests=requests, **options), feed)

    def pass_by(self, seconds: float) -> None:
        """Let time pass, and what is due end."""
        self.clock.advance(seconds)
        self.streams.expire()

    def expire(self) -> None:
        """Let tokens expire."""
        self.pass_by(LIFE)

    def lose_patience(self) -> None:
        """Let the time pass that a handler has to come by."""
        self.pass_by(COURTESY)

    def over(self) -> None:
        for stage in self.stages:
            stage.release.set()
        for feed in self._feeds:
            feed.end()
