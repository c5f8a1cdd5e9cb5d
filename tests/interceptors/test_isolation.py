"""A request that names another organization is refused before its handler sees it, at every door and of every kind."""

from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.message import Message

from authz import Authorizer, Verifier
from authz.demo.v1 import ledger_pb2 as pb
from tests.doubles import ORG
from tests.interceptors.client import Outcome, bearer, call
from tests.interceptors.conftest import Reach, Serve
from tests.interceptors.servers import Door
from tests.interceptors.service import (
    KINDS,
    Behaviour,
    handler,
    is_request_streaming,
    is_response_streaming,
    method,
    public_method,
)
from tests.interceptors.streams import AIO_READ_WRITE, DOORS_OF_STREAMS, RELAY

OTHER = "org_01JYGLOBEX0000000000000000"
REPLY = b"served"

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

    def take(self, request: Any) -> None:
        self.requests.append(request)

    @property
    def bytes(self) -> list[bytes]:
        return [one if isinstance(one, bytes) else one.SerializeToString() for one in self.requests]


def behaviour(door: Door, kind: str, seen: Seen) -> Behaviour:
    """Return a behaviour of the door's sort that notes every request, and then answers once."""
    is_stream = is_request_streaming(kind)

    def note(request: Any) -> None:
        for one in request if is_stream else [request]:
            seen.take(one)
        seen.completed += 1

    def function(request: Any, _context: Any) -> bytes:
        note(request)
        return REPLY

    def generator(request: Any, _context: Any) -> Iterator[bytes]:
        note(request)
        yield REPLY

    async def note_async(request: Any, context: Any) -> None:
        if not is_stream:
            seen.take(request)
        elif door is AIO_READ_WRITE:
            while (one := await context.read()) is not grpc.aio.EOF:
                seen.take(one)
        else:
            async for one in request:
                seen.take(one)
        seen.completed += 1

    async def coroutine(request: Any, context: Any) -> bytes:
        await note_async(request, context)
        return REPLY

    async def async_generator(request: Any, context: Any) -> AsyncIterator[bytes]:
        await note_async(request, context)
        yield REPLY

    async def writer(request: Any, context: Any) -> None:
        await note_async(request, context)
        await context.write(REPLY)

    if door.has_sync_handlers:
        return generator if is_response_streaming(kind) else function
    if not is_response_streaming(kind):
        return coroutine
    return writer if door is AIO_READ_WRITE else async_generator


@pytest.fixture(params=DOORS_OF_STREAMS, ids=lambda door: door.name)
def door(request: pytest.FixtureRequest) -> Door:
    return request.param


@pytest.fixture
def seen() -> Seen:
    return Seen()


Ask = Callable[..., Outcome]


@pytest.fixture
def channel(door: Door, kind: str, seen: Seen, serve: Serve, verifier: Verifier) -> grpc.Channel:
    served = handler(kind, behaviour(door, kind, seen), TYPES[kind].FromString)
    judge = Authorizer(verifier, public_methods=[public_method(kind)])
    return serve({method(kind): served, public_method(kind): served}, door.interceptor(judge))


@pytest.fixture
def ask(channel: grpc.Channel, kind: str, token: str) -> Ask:
    """Return a function that makes a call with requests that name organizations."""

    def ask(*org_ids: str, name: str | None = None) -> Outcome:
        requests = [naming(kind, org_id) for org_id in org_ids]
        return call(channel, kind, name, metadata=bearer(token), requests=requests)

    return ask


def is_refused(outcome: Outcome) -> bool:
    return (
        (outcome.code, outcome.details) == (grpc.StatusCode.PERMISSION_DENIED, "Permission denied")
        and outcome.reason == "ORGANIZATION_MISMATCH"
        and not outcome.messages
        and "insufficient_scope" in outcome.trailers["www-authenticate"]
        and not outcome.leaks(OTHER)
    )


@pytest.mark.parametrize("org_id", [ORG, ""], ids=["own", "none"])
def test_requests_of_the_own_organization_are_served(ask: Ask, kind: str, seen: Seen, org_id: str) -> None:
    outcome = ask(org_id, org_id) if is_request_streaming(kind) else ask(org_id)

    assert (outcome.code, outcome.messages) == (grpc.StatusCode.OK, [REPLY])
    assert set(seen.bytes) == {naming(kind, org_id)}


def test_request_of_another_organization_is_not_seen(ask: Ask, seen: Seen) -> None:
    assert is_refused(ask(OTHER))
    assert (seen.requests, seen.completed) == ([], 0)


@pytest.mark.parametrize("kind", ["stream_unary", "stream_stream"], indirect=True)
def test_second_message_of_a_stream_is_checked_as_well(ask: Ask, kind: str, seen: Seen) -> None:
    assert is_refused(ask(ORG, OTHER, ORG))
    assert (seen.bytes, seen.completed) == ([naming(kind, ORG)], 0)


def test_nobody_may_name_an_organization(ask: Ask, kind: str, seen: Seen) -> None:
    assert is_refused(ask(OTHER, name=public_method(kind)))
    assert not seen.requests
    assert ask("", name=public_method(kind)).code is grpc.StatusCode.OK
