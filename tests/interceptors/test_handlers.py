"""Handlers keep their kind, their sort and their manners when they are wrapped."""

import asyncio
import functools
import inspect
import itertools
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
import pytest

from authz import Verifier
from interceptors.handlers import behaviour_of, with_behaviour
from tests.doubles import ORG
from tests.interceptors.client import Outcome, bearer, call, finish, start
from tests.interceptors.conftest import Serve, WatchedTransport
from tests.interceptors.servers import DOORS, PATIENCE, Door
from tests.interceptors.service import (
    KINDS,
    Behaviour,
    Witness,
    caller,
    handler,
    is_request_streaming,
    is_response_streaming,
    method,
)

GRPC, AIO, _, AIO_SYNC = DOORS


def parse(data: bytes) -> bytes:
    return data


def serialize(message: bytes) -> bytes:
    return message


def original(_request: Any, _context: Any) -> bytes:
    return b""


def replacement(_request: Any, _context: Any) -> bytes:
    return b""


def built(kind: str, behaviour: Behaviour = original) -> Any:
    return getattr(grpc, f"{kind}_rpc_method_handler")(
        behaviour, request_deserializer=parse, response_serializer=serialize
    )


def test_behaviour_is_found_whatever_the_kind(kind: str) -> None:
    assert behaviour_of(built(kind)) is original


def test_other_behaviour_leaves_everything_else(kind: str) -> None:
    assert with_behaviour(built(kind), replacement) == built(kind, replacement)


@dataclass
class ForeignHandler(grpc.RpcMethodHandler):
    """A handler that is none of grpc's own named tuples."""

    request_streaming: Any = None
    response_streaming: Any = 1
    request_deserializer: Any = parse
    response_serializer: Any = serialize
    unary_unary: Any = None
    unary_stream: Any = original
    stream_unary: Any = None
    stream_stream: Any = None


def test_handler_need_not_be_grpcs_own() -> None:
    assert with_behaviour(ForeignHandler(), replacement) == built("unary_stream", replacement)


def test_request_can_be_made_a_stream(kind: str) -> None:
    changed = with_behaviour(built(kind), replacement, request_streaming=True)

    assert changed == built(kind.replace("unary_", "stream_", 1) if kind.startswith("unary") else kind, replacement)


@dataclass(frozen=True)
class Details(grpc.HandlerCallDetails):
    method: str
    invocation_metadata: tuple[tuple[str, str], ...]


Intercept = Callable[[Door, str, Behaviour], Any]


@pytest.fixture
def intercept(verifier: Verifier, token: str) -> Intercept:
    """Return a function that shows a handler to an interceptor, without a server, and returns what comes back."""

    def run(door: Door, kind: str, behaviour: Behaviour) -> Any:
        interceptor = door.interceptor(verifier)
        details = Details(method(kind), bearer(token))

        async def continuation(_details: grpc.HandlerCallDetails) -> Any:
            return built(kind, behaviour)

        async def run_async() -> Any:
            return await interceptor.intercept_service(continuation, details)

        if door.is_aio:
            return asyncio.run(run_async())
        return interceptor.intercept_service(lambda _details: built(kind, behaviour), details)

    return run


async def coroutine(_request: Any, _context: Any) -> bytes:
    return b""


async def async_generator(_request: Any, _context: Any) -> AsyncIterator[bytes]:
    yield b""


def function(_request: Any, _context: Any) -> bytes:
    return b""


def generator(_request: Any, _context: Any) -> Iterator[bytes]:
    yield b""


class Servicer:
    async def coroutine(self, _request: Any, _context: Any) -> bytes:
        return b""

    async def async_generator(self, _request: Any, _context: Any) -> AsyncIterator[bytes]:
        yield b""


def sort(behaviour: Behaviour) -> tuple[bool, bool]:
    return inspect.iscoroutinefunction(behaviour), inspect.isasyncgenfunction(behaviour)


BEHAVIOURS = [
    pytest.param("unary", coroutine, id="coroutine"),
    pytest.param("stream", coroutine, id="coroutine that writes"),
    pytest.param("stream", async_generator, id="async generator"),
    pytest.param("unary", function, id="function"),
    pytest.param("stream", generator, id="generator"),
    pytest.param("unary", Servicer().coroutine, id="method"),
    pytest.param("stream", Servicer().async_generator, id="method that generates"),
    pytest.param("unary", functools.partial(coroutine), id="partial"),
    pytest.param("stream", functools.partial(async_generator), id="partial that generates"),
]


@pytest.mark.parametrize("request_kind", ["unary", "stream"])
@pytest.mark.parametrize(("response_kind", "behaviour"), BEHAVIOURS)
def test_aio_handler_is_wrapped_in_its_own_sort(
    intercept: Intercept, request_kind: str, response_kind: str, behaviour: Behaviour
) -> None:
    kind = f"{request_kind}_{response_kind}"

    wrapped = intercept(AIO, kind, behaviour)

    assert wrapped == built(kind, behaviour_of(wrapped))
    assert sort(behaviour_of(wrapped)) == sort(behaviour)
    assert behaviour_of(wrapped) is not behaviour


def test_attributes_of_a_function_stay_with_it(kind: str, intercept: Intercept) -> None:
    """A ``grpc.server`` looks for some of them; a ``grpc.aio.server`` for none."""

    def marked(_request: Any, _context: Any) -> bytes:
        return b""

    marked.experimental_non_blocking = True

    wrapped = behaviour_of(intercept(GRPC, kind, marked))

    assert (wrapped.experimental_non_blocking, wrapped.__name__) == (True, "marked")


STREAMING = [kind for kind in KINDS if is_response_streaming(kind)]


def endless(door: Door, ended: threading.Event) -> Behaviour:
    """Return a behaviour of the door's sort that answers for ever, and says when it has been ended."""

    def generate(_request: Any, _context: Any) -> Iterator[bytes]:
        try:
            while True:
                yield caller()
        finally:
            ended.set()

    async def generate_async(_request: Any, _context: Any) -> AsyncIterator[bytes]:
        try:
            while True:
                yield caller()
        finally:
            # Only who closes it, and does not leave it to the garbage collector, lets it await here.
            await asyncio.to_thread(ended.set)

    async def write(_request: Any, context: Any) -> None:
        try:
            while True:
                await context.write(caller())
        finally:
            ended.set()

    if door.has_sync_handlers:
        return generate
    return write if door.name == "aio-read-write" else generate_async


# Not the synchronous handlers of an aio server: grpc itself never ends those, and their thread is lost.
@pytest.mark.parametrize("door", DOORS[:3], ids=lambda door: door.name)
@pytest.mark.parametrize("kind", STREAMING)
def test_endless_handler_ends_when_its_client_leaves(
    door: Door, serve: Serve, verifier: Verifier, token: str, kind: str
) -> None:
    ended = threading.Event()
    channel = serve({method(kind): handler(kind, endless(door, ended))}, door.interceptor(verifier))
    answers = start(channel, kind, metadata=bearer(token))

    assert next(answers) == ORG.encode()
    answers.cancel()

    assert ended.wait(PATIENCE)


class Replies:
    """An iterator that is no generator."""

    def __init__(self, count: int) -> None:
        self._left = count

    def __iter__(self) -> "Replies":
        return self

    def __next__(self) -> bytes:
        if not self._left:
            raise StopIteration
        self._left -= 1
        return caller()


@pytest.mark.parametrize("door", [GRPC, AIO_SYNC], ids=lambda door: door.name)
@pytest.mark.parametrize("kind", STREAMING)
def test_sync_handler_may_return_any_iterator(
    door: Door, serve: Serve, verifier: Verifier, token: str, kind: str
) -> None:
    served = {method(kind): handler(kind, lambda _request, _context: Replies(3))}
    channel = serve(served, door.interceptor(verifier))

    outcome = call(channel, kind, metadata=bearer(token))

    assert outcome.messages == [ORG.encode()] * 3


# Not the synchronous handlers of an aio server: there grpc itself may lose an error that follows a message.
@pytest.mark.parametrize("door", DOORS[:3], ids=lambda door: door.name)
@pytest.mark.parametrize("kind", STREAMING)
def test_error_in_the_middle_of_a_stream_comes_after_its_messages(
    door: Door, serve: Serve, verifier: Verifier, token: str, kind: str
) -> None:
    def generate(_request: Any, context: Any) -> Iterator[bytes]:
        yield caller()
        context.abort(grpc.StatusCode.DATA_LOSS, "half way")

    async def generate_async(_request: Any, context: Any) -> AsyncIterator[bytes]:
        yield caller()
        await context.abort(grpc.StatusCode.DATA_LOSS, "half way")

    async def write(_request: Any, context: Any) -> None:
        await context.write(caller())
        await context.abort(grpc.StatusCode.DATA_LOSS, "half way")

    behaviour = generate if door.has_sync_handlers else write if door.name == "aio-read-write" else generate_async
    channel = serve({method(kind): handler(kind, behaviour)}, door.interceptor(verifier))

    outcome = call(channel, kind, metadata=bearer(token))

    assert outcome.messages == [ORG.encode()]
    assert (outcome.code, outcome.details) == (grpc.StatusCode.DATA_LOSS, "half way")


def refuse_to_parse(data: bytes) -> bytes:
    raise ValueError(data)


@pytest.fixture
def slow_and_fast(
    door: Door, serve: Serve, cold_verifier: Verifier, transport: WatchedTransport, token: str
) -> Callable[..., tuple[Outcome, Outcome]]:
    """Return a function that makes a call twice: it waits for keys, and then the keys are there."""

    def run(served: Any, kind: str, name: str, **options: Any) -> tuple[Outcome, Outcome]:
        channel = serve({name: served}, door.interceptor(cold_verifier))
        waiting = start(channel, kind, name, metadata=bearer(token), **options)
        transport.await_request()
        transport.release()
        return finish(kind, waiting), call(channel, kind, name, metadata=bearer(token), **options)

    return run


# Not the streamed requests of a grpc server: after an unreadable one it cannot always be stopped, with or without
# an interceptor.
UNREADABLE = [
    (door, kind) for door, kind in itertools.product(DOORS, KINDS) if door.is_aio or not is_request_streaming(kind)
]


@pytest.mark.parametrize(("door", "kind"), UNREADABLE, ids=lambda one: getattr(one, "name", one))
def test_unreadable_request_fails_alike_whether_keys_are_known(door: Door, kind: str, slow_and_fast: Any) -> None:
    served = handler(kind, door.behaviours(Witness())[kind], refuse_to_parse)

    slow, fast = slow_and_fast(served, kind, method(kind))

    assert slow == fast
    assert fast.code in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN)


# An aio server waits for a request that will not come until the client's deadline, with or without an interceptor.
@pytest.mark.parametrize("door", [GRPC], ids=lambda door: door.name)
@pytest.mark.parametrize("requests", [[], [b"1", b"2"]], ids=["none", "two"])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if not is_request_streaming(kind)])
def test_number_of_requests_is_judged_alike_whether_keys_are_known(
    door: Door, kind: str, slow_and_fast: Any, requests: list[bytes]
) -> None:
    witness = Witness()
    served = handler(kind, door.behaviours(witness)[kind])

    slow, fast = slow_and_fast(served, kind.replace("unary_", "stream_", 1), method(kind), requests=requests)

    assert (slow.code, slow.messages, slow.trailers) == (fast.code, fast.messages, fast.trailers)
    assert len(witness.sights) in (0, 2)


@pytest.mark.parametrize("kind", STREAMING)
def test_sync_generator_is_closed_with_its_caller_still_known(kind: str, intercept: Intercept) -> None:
    callers = []

    def generate(_request: Any, _context: Any) -> Iterator[bytes]:
        try:
            yield caller()
        finally:
            callers.append(caller())

    replies = behaviour_of(intercept(AIO_SYNC, kind, generate))(b"", None)
    callers.append(next(replies))
    replies.close()

    assert callers == [ORG.encode()] * 2


@pytest.mark.parametrize("kind", STREAMING)
def test_async_generator_is_closed_when_its_wrapper_is(kind: str, intercept: Intercept) -> None:
    events = []

    async def generate(_request: Any, _context: Any) -> AsyncIterator[bytes]:
        try:
            yield b"reply"
        finally:
            events.append("closed")

    async def leave() -> None:
        replies = behaviour_of(intercepted)(b"", None)
        events.append(await anext(replies))
        await replies.aclose()
        events.append("left")

    intercepted = intercept(AIO, kind, generate)
    asyncio.run(leave())

    assert events == [b"reply", "closed", "left"]
