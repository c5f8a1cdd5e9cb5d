"""A request that names another organization is refused before its handler sees it, at every door and of every kind."""

import contextlib
import functools
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.message import Message

from authz import Authorizer, Policy, Verifier
from authz.decisions.decision import Decision
from authz.demo.issuer.signing import SigningKey
from authz.demo.v1 import ledger_pb2 as pb
from authz.judge.mesh import MeshPeers
from authz.runtime.clock import SYSTEM_CLOCK
from tests.doubles import ORG, jwks, m2m_claims
from tests.interceptors.client import Metadata, Outcome, bearer, call
from tests.interceptors.conftest import Serve
from tests.interceptors.servers import PATIENCE, Door, Loop
from tests.interceptors.service import (
    Behaviour,
    handler,
    is_request_streaming,
    is_response_streaming,
    method,
    public_method,
)
from tests.interceptors.streams import AIO, AIO_READ_WRITE, AIO_SYNC, DOORS_OF_STREAMS, GRPC, RELAY
from tests.interceptors.wire import Wire
from tests.marked import TYPES as MARKED

OTHER = "org_01JYGLOBEX0000000000000000"
TENANT = "tenant-7"
REPLY = b"served"
POLICY = Policy.from_document(
    {"name": "all", "allow_rules": [{"name": "all"}], "organizations": {ORG: {"tenant": TENANT}}}
)

TYPES: dict[str, type[Message]] = {
    "unary_unary": pb.PostEntryRequest,
    "unary_stream": pb.ListEntriesRequest,
    "stream_unary": pb.ImportEntriesRequest,
    "stream_stream": pb.ReconcileEntriesRequest,
}


def naming(kind: str, org_id: str) -> bytes:
    """Return a request that names an organization, at the place where its type has it."""
    draft = pb.EntryDraft(account="cash", org_id=org_id)
    requests: dict[str, Message] = {
        "unary_unary": pb.PostEntryRequest(draft=draft),
        "unary_stream": pb.ListEntriesRequest(account="cash", org_id=org_id),
        "stream_unary": pb.ImportEntriesRequest(draft=draft),
        "stream_stream": pb.ReconcileEntriesRequest(line=draft),
    }
    return requests[kind].SerializeToString()


@dataclass
class Seen:
    """What handlers have seen of their requests."""

    requests: list[Any] = field(default_factory=list)
    completed: int = 0
    """How many handlers have got to the end of their requests."""
    ended: threading.Event = field(default_factory=threading.Event)
    """Whether a handler has ended, in whatever way."""

    @contextlib.contextmanager
    def whole(self) -> Iterator[None]:
        """Note whether a handler gets to the end of its requests."""
        try:
            yield
            self.completed += 1
        finally:
            self.ended.set()

    def take(self, request: Any) -> None:
        self.requests.append(request)

    @property
    def bytes(self) -> list[bytes]:
        return [one if isinstance(one, bytes) else one.SerializeToString() for one in self.requests]


def behaviour(door: Door, kind: str, seen: Seen) -> Behaviour:
    """Return a behaviour of the door's sort that notes every request, and then answers once."""
    is_stream, answers = is_request_streaming(kind), is_response_streaming(kind)
    if door.has_sync_handlers:
        return _sync(seen, is_stream=is_stream, answers=answers)
    return _async(door, seen, is_stream=is_stream, answers=answers)


def _sync(seen: Seen, *, is_stream: bool, answers: bool) -> Behaviour:
    def function(request: Any, _context: Any) -> bytes:
        with seen.whole():
            for one in request if is_stream else [request]:
                seen.take(one)
        return REPLY

    def generator(request: Any, context: Any) -> Iterator[bytes]:
        yield function(request, context)

    return generator if answers else function


def _async(door: Door, seen: Seen, *, is_stream: bool, answers: bool) -> Behaviour:
    is_read_write = door is AIO_READ_WRITE

    async def coroutine(request: Any, context: Any) -> bytes:
        with seen.whole():
            if not is_stream:
                seen.take(request)
            elif is_read_write:
                while (one := await context.read()) is not grpc.aio.EOF:
                    seen.take(one)
            else:
                async for one in request:
                    seen.take(one)
        return REPLY

    async def async_generator(request: Any, context: Any) -> AsyncIterator[bytes]:
        yield await coroutine(request, context)

    async def writer(request: Any, context: Any) -> None:
        await context.write(await coroutine(request, context))

    if not answers:
        return coroutine
    return writer if is_read_write else async_generator


@pytest.fixture(params=DOORS_OF_STREAMS, ids=lambda door: door.name)
def door(request: pytest.FixtureRequest) -> Door:
    return request.param


@dataclass(frozen=True)
class Served:
    """Methods behind an interceptor, what their handlers have seen, and a client of them."""

    channel: grpc.Channel
    kind: str
    token: str
    seen: Seen
    decisions: list[Decision]

    @property
    def told(self) -> list[tuple[str, str, str]]:
        """What has been told of each decision."""
        return [
            (one.event, "" if one.refusal is None else one.refusal.reason, one.evidence.principal.org_id)
            for one in self.decisions
        ]

    def ask(self, *org_ids: str, name: str | None = None, more: Metadata = ()) -> Outcome:
        """Make a call with requests that name organizations."""
        requests = [naming(self.kind, org_id) for org_id in org_ids]
        return call(self.channel, self.kind, name, metadata=[*bearer(self.token), *more], requests=requests)


ServeKind = Callable[..., Served]


@pytest.fixture
def serve_kind(door: Door, kind: str, serve: Serve, verifier: Verifier, token: str) -> ServeKind:
    """Return a function that serves a method that takes what ``parse`` makes of requests."""

    def begin(parse: Callable[[bytes], Any] | None, behave: Behaviour | None = None) -> Served:
        seen, decisions = Seen(), list[Decision]()
        served = handler(kind, behave or behaviour(door, kind, seen), parse)
        public = public_method(kind)
        # Whoever says who calls has the verdict wait for the peer of the connection.
        judge = Authorizer(
            verifier,
            public_methods=[public],
            trust=MeshPeers(unix_socket=True),
            policy=POLICY,
            observers=[decisions.append],
        )
        channel = serve({method(kind): served, public: served}, door.interceptor(judge))
        return Served(channel, kind, token, seen, decisions)

    return begin


@pytest.fixture
def served(serve_kind: ServeKind, kind: str) -> Served:
    return serve_kind(TYPES[kind].FromString)


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Fail what makes grpc or asyncio complain."""
    yield
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def is_refused(outcome: Outcome) -> bool:
    return (
        (outcome.code, outcome.details) == (grpc.StatusCode.PERMISSION_DENIED, "Permission denied")
        and outcome.reason == "ORGANIZATION_MISMATCH"
        and not outcome.messages
        and "insufficient_scope" in outcome.trailers["www-authenticate"]
        and not outcome.leaks(OTHER)
    )


@pytest.mark.parametrize("org_id", [ORG, TENANT, ""], ids=["own", "tenant", "none"])
def test_requests_of_the_own_organization_are_served(served: Served, kind: str, org_id: str) -> None:
    outcome = served.ask(*[org_id] * 2)

    assert (outcome.code, outcome.messages) == (grpc.StatusCode.OK, [REPLY])
    assert set(served.seen.bytes) == {naming(kind, org_id)}


def test_request_of_another_organization_is_not_seen(served: Served) -> None:
    assert is_refused(served.ask(OTHER))
    assert served.seen.requests == []


@pytest.mark.parametrize("more", [(), (("x-org-id", OTHER),)], ids=["at-once", "with-the-peer"])
def test_refusal_of_a_request_is_a_decision(served: Served, kind: str, more: Metadata) -> None:
    served.ask(ORG, more=more)
    served.ask(OTHER, more=more)

    # A stream begins before anybody has seen a request.
    refused = [("stream_ended", "organization_mismatch", ORG)]
    if is_request_streaming(kind):
        refused.insert(0, ("decision", "", ORG))
    else:
        refused = [("decision", "organization_mismatch", ORG)]
    assert served.told == [("decision", "", ORG), *refused]


@pytest.mark.parametrize("kind", ["stream_unary", "stream_stream"])
def test_second_message_of_a_stream_is_checked_as_well(served: Served, kind: str) -> None:
    assert is_refused(served.ask(ORG, OTHER, ORG))
    # To the handler it is not as if the client had sent all.
    assert served.seen.ended.wait(PATIENCE)
    assert (served.seen.bytes, served.seen.completed) == ([naming(kind, ORG)], 0)


def test_request_with_too_much_to_look_at_is_not_seen(serve_kind: ServeKind, kind: str) -> None:
    served = serve_kind(MARKED["Order"].FromString)
    line = MARKED["Line"](org=ORG)
    much = MARKED["Order"](lines=[line] * 2000).SerializeToString()
    too_much = MARKED["Order"](lines=[line] * 50_000).SerializeToString()

    refused = call(served.channel, kind, metadata=bearer(served.token), requests=[too_much])

    assert (refused.code, refused.reason) == (grpc.StatusCode.PERMISSION_DENIED, "ORGANIZATION_UNVERIFIED")
    assert not served.seen.requests
    assert call(served.channel, kind, metadata=bearer(served.token), requests=[much]).messages == [REPLY]


@pytest.mark.parametrize(
    "content_type",
    [b"application/grpc", b"application/grpc+proto", b"application/grpc+json", b"application/grpc;x=y", b"text/plain"],
)
def test_content_type_changes_nothing(
    door: Door, loop: Loop, verifier: Verifier, token: str, content_type: bytes
) -> None:
    """A server of gRPC for Python hands the bytes to the handler's own parser, or answers nothing."""
    kind, seen = "unary_unary", Seen()
    served = handler(kind, behaviour(door, kind, seen), TYPES[kind].FromString)
    request = naming(kind, OTHER)

    with door.listen(loop, {method(kind): served}, [door.interceptor(verifier)]) as address:
        wire = Wire(address)
        stream = wire.send(
            method(kind),
            [(b"authorization", f"Bearer {token}".encode())],
            body=b"\0" + len(request).to_bytes(4) + request,
            content_type=content_type,
        )
        answer = wire.receive(stream)
        wire.close()

    assert answer.get(b"grpc-status") != b"0"
    assert seen.requests == []


# ---- Every way to read ----

SYNC_WAYS: dict[str, Callable[[Any], Any]] = {
    "next": next,
    "method next": lambda requests: requests.next(),
    "method __next__": lambda requests: requests.__next__(),
    "its iterator": lambda requests: next(iter(requests)),
    "method _next": lambda requests: requests._next(),  # noqa: SLF001 - of grpc
    "generator": lambda requests: requests.send(None),
    "thread": lambda requests: on_a_thread(next, requests),
}

Read = Callable[[Any, Any], Any]
ASYNC_WAYS: dict[str, Read] = {
    "anext": lambda requests, _: anext(requests),
    "method __anext__": lambda requests, _: requests.__anext__(),
    "its iterator": lambda requests, _: anext(aiter(requests)),
    "generator": lambda requests, _: aiter(requests).asend(None),  # codespell:ignore asend
    "receiver": lambda requests, _: anext(requests._async_message_receiver()),  # noqa: SLF001 - of grpc
    "context": lambda _, context: context.read(),
}


def on_a_thread(function: Callable[..., Any], *args: Any) -> Any:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function, *args).result(PATIENCE)


def each_read(seen: Seen, read: Callable[[Any], Any]) -> Behaviour:
    def behave(requests: Any, _context: Any) -> bytes:
        # A way that there is not hands out nothing.
        with contextlib.suppress(AttributeError, StopIteration):
            while True:
                seen.take(read(requests))
        return REPLY

    return behave


def each_read_async(seen: Seen, read: Read) -> Behaviour:
    async def behave(requests: Any, context: Any) -> bytes:
        with contextlib.suppress(AttributeError, StopAsyncIteration):
            while (request := await read(requests, context)) is not grpc.aio.EOF:
                seen.take(request)
        return REPLY

    return behave


@pytest.mark.parametrize("kind", ["stream_unary"])
@pytest.mark.parametrize("door", [GRPC, RELAY, AIO_SYNC], ids=lambda door: door.name)
@pytest.mark.parametrize("way", SYNC_WAYS)
def test_no_way_to_read_hands_out_another_organization(serve_kind: ServeKind, kind: str, way: str) -> None:
    seen = Seen()
    served = serve_kind(TYPES[kind].FromString, each_read(seen, SYNC_WAYS[way]))

    outcome = served.ask(ORG, OTHER, ORG)

    assert seen.bytes in ([], [naming(kind, ORG)])
    assert outcome.code is not grpc.StatusCode.OK or not seen.requests


@pytest.mark.parametrize("kind", ["stream_unary"])
@pytest.mark.parametrize("door", [AIO, AIO_READ_WRITE], ids=lambda door: door.name)
@pytest.mark.parametrize("way", ASYNC_WAYS)
def test_no_way_to_await_hands_out_another_organization(serve_kind: ServeKind, kind: str, way: str) -> None:
    seen = Seen()
    served = serve_kind(TYPES[kind].FromString, each_read_async(seen, ASYNC_WAYS[way]))

    outcome = served.ask(ORG, OTHER, ORG)

    assert seen.bytes in ([], [naming(kind, ORG)])
    assert is_refused(outcome) or not seen.requests


@pytest.mark.parametrize("kind", ["stream_unary"])
@pytest.mark.parametrize("door", [GRPC, RELAY], ids=lambda door: door.name)
def test_method_next_reads_as_without_us(serve_kind: ServeKind, kind: str) -> None:
    seen = Seen()
    served = serve_kind(TYPES[kind].FromString, each_read(seen, SYNC_WAYS["method next"]))

    assert served.ask(ORG, "").messages == [REPLY]
    assert seen.bytes == [naming(kind, ORG), naming(kind, "")]
    assert is_refused(served.ask(ORG, OTHER))


@pytest.mark.parametrize("kind", ["unary_unary", "unary_stream"])
@pytest.mark.parametrize("door", [AIO, AIO_READ_WRITE], ids=lambda door: door.name)
@pytest.mark.parametrize("more", [(), (("x-org-id", OTHER),)], ids=["at-once", "with-the-peer"])
def test_second_message_of_a_method_that_takes_one_is_not_seen(
    serve_kind: ServeKind, kind: str, more: Metadata
) -> None:
    seen = Seen()

    async def behave(request: Any, context: Any) -> bytes:
        seen.take(request)
        while (another := await context.read()) is not grpc.aio.EOF:
            seen.take(another)
        return REPLY

    async def generate(request: Any, context: Any) -> AsyncIterator[bytes]:
        yield await behave(request, context)

    served = serve_kind(TYPES[kind].FromString, generate if kind == "unary_stream" else behave)
    requests = [naming(kind, ORG), naming(kind, OTHER)]

    # To the client it is a stream of requests, which is only how it sends them.
    sent_as = "stream_stream" if kind == "unary_stream" else "stream_unary"
    call(served.channel, sent_as, method(kind), metadata=[*bearer(served.token), *more], requests=requests)

    assert seen.bytes == [naming(kind, ORG)]


def test_verdict_that_waits_for_the_peer_changes_nothing(served: Served, kind: str) -> None:
    more = [("x-org-id", OTHER)]

    assert is_refused(served.ask(OTHER, more=more))
    assert not served.seen.requests
    assert served.ask(ORG, more=more).code is grpc.StatusCode.OK
    assert served.seen.bytes == [naming(kind, ORG)]


def test_nobody_may_name_an_organization(served: Served, kind: str) -> None:
    assert is_refused(served.ask(OTHER, name=public_method(kind)))
    assert not served.seen.requests
    assert served.ask("", name=public_method(kind)).code is grpc.StatusCode.OK


def test_requests_that_another_function_parses_are_checked_as_well(serve_kind: ServeKind, kind: str) -> None:
    served = serve_kind(functools.partial(TYPES[kind].FromString))

    assert is_refused(served.ask(OTHER))
    assert not served.seen.requests


def test_requests_that_stay_bytes_are_let_through(serve_kind: ServeKind, kind: str) -> None:
    served = serve_kind(None)

    assert served.ask(OTHER).messages == [REPLY]
    assert served.seen.requests == [naming(kind, OTHER)]


def test_type_that_is_marked_wrongly_is_not_served(serve_kind: ServeKind) -> None:
    served = serve_kind(MARKED["Wrong"].FromString)

    assert served.ask("").code is grpc.StatusCode.INTERNAL
    assert not served.seen.requests


only_grpc = pytest.mark.parametrize("door", [GRPC], ids=["grpc"])


@only_grpc
@pytest.mark.parametrize("kind", ["unary_stream"])
def test_non_blocking_handler_does_not_see_it_either(serve_kind: ServeKind, kind: str) -> None:
    def send_all(_request: Any, _context: Any, send: Callable[[Any], None]) -> None:
        send(REPLY)
        send(None)

    send_all.experimental_non_blocking = True
    served = serve_kind(TYPES[kind].FromString, send_all)

    assert is_refused(served.ask(OTHER))
    assert served.ask(ORG).messages == [REPLY]


@only_grpc
def test_handler_that_reads_on_another_thread_keeps_no_stream_open(
    door: Door, serve: Serve, new_verifier: Callable[..., Verifier], ec_key: SigningKey
) -> None:
    """Nobody is there to send the status, so the client sees CANCELLED, a second later."""
    over = threading.Event()

    def stream(requests: Any, context: Any) -> Iterator[bytes]:
        def read() -> None:
            with contextlib.suppress(Exception):
                list(requests)

        reader = threading.Thread(target=read)
        reader.start()
        context.add_callback(over.set)
        assert over.wait(PATIENCE)
        reader.join()
        yield b"late"

    kind = "stream_stream"
    verifier = new_verifier(jwks=jwks(ec_key), clock=SYSTEM_CLOCK)
    channel = serve({method(kind): handler(kind, stream, TYPES[kind].FromString)}, door.interceptor(verifier))
    metadata = bearer(ec_key.sign(m2m_claims(SYSTEM_CLOCK.time())))

    outcome = call(channel, kind, metadata=metadata, requests=[naming(kind, OTHER)])

    assert (outcome.code, outcome.messages) == (grpc.StatusCode.CANCELLED, [])
