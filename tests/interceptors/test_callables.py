"""Whatever grpc takes for a handler works behind a door, for many callers at once, and so does one made for a call."""

import functools
import inspect
import itertools
import queue
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
import pytest

from authz import Verifier
from authz.demo.issuer.signing import SigningKey
from tests.doubles import ORG, m2m_claims
from tests.interceptors.client import bearer, call, finish, start
from tests.interceptors.conftest import Serve, ServeAll, WatchedTransport
from tests.interceptors.servers import DOORS, Door
from tests.interceptors.service import (
    Behaviour,
    Witness,
    caller,
    expected_replies,
    handler,
    method,
)

REQUESTS = [b"1", b"2"]
ORGANIZATIONS = [f"org_01JYCALLER{number:016}" for number in range(4)]
GRPC, AIO_SYNC = DOORS[0], DOORS[3]


@dataclass
class Servicer:
    """Has an ``__eq__`` and so no hash; as a function it is none either."""

    behaviour: Behaviour
    label: str = "attribute"

    def __call__(self, request: Any, context: Any) -> Any:
        return self.behaviour(request, context)

    def function(self, request: Any, context: Any) -> Any:
        return self.behaviour(request, context)

    async def coroutine(self, request: Any, context: Any) -> Any:
        return await self.behaviour(request, context)

    async def async_generator(self, request: Any, context: Any) -> AsyncIterator[Any]:
        async for reply in self.behaviour(request, context):
            yield reply


class Slotted:
    """A callable without a name or attributes of its own."""

    __slots__ = ("behaviour",)

    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour

    def __call__(self, request: Any, context: Any) -> Any:
        return self.behaviour(request, context)


def bound(behaviour: Behaviour) -> Behaviour:
    servicer = Servicer(behaviour)
    if inspect.isasyncgenfunction(behaviour):
        return servicer.async_generator
    return servicer.coroutine if inspect.iscoroutinefunction(behaviour) else servicer.function


def bound_in_part(behaviour: Behaviour) -> Behaviour:
    return functools.partial(bound(behaviour))


def bound_call(behaviour: Behaviour) -> Behaviour:
    return Slotted(behaviour).__call__


def marked(behaviour: Behaviour) -> Behaviour:
    behaviour.deprecated = True
    return behaviour


ANYWHERE = [functools.partial, bound, bound_in_part, marked]
SYNC_ONLY = [Servicer, Slotted, bound_call]
MADE = [
    *itertools.product(DOORS, ANYWHERE),
    # grpc.aio tells by the function how to call it: what is no function, is not asynchronous.
    *itertools.product([GRPC, AIO_SYNC], SYNC_ONLY),
]


@pytest.fixture
def served_as(door: Door, kind: str, serve: Serve, cold_verifier: Verifier) -> Callable[..., Any]:
    """Return a function that serves a handler of the door's sort in another form."""

    def run(form: Callable[[Behaviour], Behaviour]) -> tuple[grpc.Channel, Witness]:
        witness = Witness()
        behaviour = form(door.behaviours(witness)[kind])
        return serve({method(kind): handler(kind, behaviour)}, door.interceptor(cold_verifier)), witness

    return run


def form_id(value: Any) -> str:
    return value.name if isinstance(value, Door) else value.__name__


@pytest.mark.parametrize(("door", "form"), MADE, ids=form_id)
def test_handler_may_be_anything_that_can_be_called(
    served_as: Any, kind: str, form: Any, transport: WatchedTransport, token: str
) -> None:
    channel, witness = served_as(form)
    waiting = start(channel, kind, metadata=bearer(token), requests=REQUESTS)
    transport.await_request()
    transport.release()

    outcomes = [finish(kind, waiting), call(channel, kind, metadata=bearer(token), requests=REQUESTS)]

    assert [outcome.messages for outcome in outcomes] == [expected_replies(kind, ORG.encode(), REQUESTS)] * 2
    assert [sight.values("x-org-id") for sight in witness.sights] == [[ORG]] * 2


@pytest.fixture(scope="session")
def callers(ec_key: SigningKey) -> dict[str, Any]:
    """Return the credentials of several organizations."""
    return {org: bearer(ec_key.sign(m2m_claims(org_id=org))) for org in ORGANIZATIONS}


def test_one_handler_serves_many_callers_at_once(serve_all: ServeAll, kind: str, callers: dict[str, Any]) -> None:
    served = serve_all()
    turns = list(callers) * 10

    begun = [start(served.channel, kind, metadata=callers[org], requests=REQUESTS) for org in turns]
    replies = [finish(kind, one).messages for one in begun]

    assert replies == [expected_replies(kind, org.encode(), REQUESTS) for org in turns]
    sights = served.witness.sights
    assert [sight.values("x-org-id") for sight in sights] == [[sight.principal.org_id] for sight in sights]


def test_streams_of_different_callers_take_turns(serve_all: ServeAll, callers: dict[str, Any]) -> None:
    served = serve_all()
    requests: dict[str, queue.SimpleQueue[bytes | None]] = {org: queue.SimpleQueue() for org in callers}
    streams = {
        org: start(served.channel, "stream_stream", metadata=callers[org], requests=iter(requests[org].get, None))
        for org in callers
    }

    replies = []
    for org in list(callers) * 3:
        requests[org].put(b"")
        replies.append(next(streams[org]))

    for pending in requests.values():
        pending.put(None)
    assert replies == [org.encode() for org in callers] * 3
    assert [finish("stream_stream", stream).code for stream in streams.values()] == [grpc.StatusCode.OK] * len(streams)


class Fresh(grpc.ServerInterceptor):
    """Another's interceptor, which makes a handler for each call."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._serial = itertools.count()
        self.witness = Witness()

    def make(self, details: grpc.HandlerCallDetails) -> Any:
        kind, serial = details.method.rpartition("/")[2], next(self._serial)
        behaviours = self._door.behaviours(self.witness, lambda: b"%d %s" % (serial, caller()))
        return handler(kind, behaviours[kind], self.witness.parse)

    def intercept_service(self, continuation: Any, handler_call_details: grpc.HandlerCallDetails) -> Any:
        del continuation
        return self.make(handler_call_details)


class AioFresh(Fresh, grpc.aio.ServerInterceptor):
    """The same for ``grpc.aio``."""

    async def intercept_service(self, continuation: Any, handler_call_details: grpc.HandlerCallDetails) -> Any:
        del continuation
        return self.make(handler_call_details)


def test_handler_that_is_made_for_a_call_serves_that_call(
    door: Door, serve_all: ServeAll, kind: str, callers: dict[str, Any]
) -> None:
    fresh = AioFresh(door) if door.is_aio else Fresh(door)
    served = serve_all(fresh)
    turns = list(callers) * 5

    replies = [served.call(kind, metadata=callers[org], requests=REQUESTS).messages for org in turns]

    assert replies == [expected_replies(kind, f"{serial} {org}".encode(), REQUESTS) for serial, org in enumerate(turns)]
    assert (len(fresh.witness.sights), served.witness.sights) == (len(turns), [])


@pytest.fixture
def own_pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1, thread_name_prefix="own") as pool:
        yield pool


@pytest.mark.parametrize("door", [GRPC], ids=lambda door: door.name)
def test_handler_keeps_the_threads_of_its_own(
    served_as: Any, kind: str, transport: WatchedTransport, token: str, own_pool: ThreadPoolExecutor
) -> None:
    threads: list[str] = []

    def form(behaviour: Behaviour) -> Behaviour:
        def noting(request: Any, context: Any) -> Any:
            threads.append(threading.current_thread().name)
            return behaviour(request, context)

        noting.experimental_thread_pool = own_pool
        return noting

    channel, _ = served_as(form)
    waiting = start(channel, kind, metadata=bearer(token))
    transport.await_request()
    transport.release()
    finish(kind, waiting)
    call(channel, kind, metadata=bearer(token))

    assert threads == ["own_0"] * 2
