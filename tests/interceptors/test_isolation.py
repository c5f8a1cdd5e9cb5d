"""A request that names another organization is refused before its handler sees it, at every door and of every kind."""

import contextlib
import functools
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.message import Message

from authz import Authorizer, Policy, Verifier
from authz.clock import SYSTEM_CLOCK
from authz.decision import Decision
from authz.demo.signing import SigningKey
from authz.demo.v1 import ledger_pb2 as pb
from authz.mesh import MeshPeers
from tests.doubles import ORG, jwks, m2m_claims
from tests.interceptors.client import Metadata, Outcome, bearer, call
from tests.interceptors.conftest import Serve
from tests.interceptors.servers import PATIENCE, Door
from tests.interceptors.service import (
    Behaviour,
    handler,
    is_request_streaming,
    is_response_streaming,
    method,
    public_method,
)
from tests.interceptors.streams import AIO_READ_WRITE, DOORS_OF_STREAMS, GRPC
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
