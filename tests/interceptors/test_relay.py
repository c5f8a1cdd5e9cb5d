"""Handlers on a thread of their own: nothing but the end of a blocked one is different."""

import threading
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from authz import Authorizer, Verifier, current_principal
from tests.doubles import ORG, ManualClock
from tests.interceptors.client import details
from tests.interceptors.conftest import Serve
from tests.interceptors.servers import PATIENCE, Door
from tests.interceptors.service import handler, is_response_streaming, method
from tests.interceptors.streams import GRPC, RELAY, STREAMING, Live, Stage


@pytest.fixture(params=[GRPC, RELAY], ids=lambda door: door.name)
def door(request: pytest.FixtureRequest) -> Door:
    return request.param


@pytest.fixture(params=STREAMING)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def live(door: Door, verifier: Verifier, clock: ManualClock, serve: Serve, token: str) -> Iterator[Live]:
    live = Live(door, Authorizer(verifier), clock, serve, token)
    yield live
    live.over()


def serve_one(live: Live, kind: str, act: Any) -> None:
    """Serve a method that does ``act``, and answers what that returns."""

    def stream(request: Any, context: Any) -> Iterator[bytes]:
        yield act(request, context)

    live.serve({method(kind): handler(kind, stream if is_response_streaming(kind) else act)})


def test_caller_is_known_to_the_handler(live: Live, kind: str) -> None:
    def act(_request: Any, context: Any) -> bytes:
        metadata = dict(context.invocation_metadata())
        return f"{current_principal().org_id} {metadata['x-org-id']}".encode()

    serve_one(live, kind, act)

    assert live.start(kind).end().messages == [f"{ORG} {ORG}".encode()]


def test_abort_of_the_handler_is_its_own(live: Live, kind: str) -> None:
    def act(_request: Any, context: Any) -> bytes:
        context.set_trailing_metadata(
            [("grpc-status-details-bin", details(grpc.StatusCode.DATA_LOSS)), ("x-why", "so")]
        )
        context.abort(grpc.StatusCode.DATA_LOSS, "from the handler")

    serve_one(live, kind, act)
    outcome = live.start(kind).end()

    assert (outcome.code, outcome.details) == (grpc.StatusCode.DATA_LOSS, "from the handler")
    assert outcome.trailers["x-why"] == "so"
    assert outcome.status.message == "from the handler"


def test_exception_of_the_handler_is_its_own(live: Live, kind: str) -> None:
    def act(_request: Any, _context: Any) -> bytes:
        raise ValueError("from the handler")

    serve_one(live, kind, act)
    outcome = live.start(kind).end()

    assert outcome.code is grpc.StatusCode.UNKNOWN
    assert outcome.details.endswith(": from the handler")
    assert live.streams.are(0)


def test_metadata_and_status_of_the_handler_arrive(live: Live, kind: str) -> None:
    def act(_request: Any, context: Any) -> bytes:
        context.send_initial_metadata([("x-first", "1")])
        context.set_trailing_metadata([("x-last", "2")])
        context.set_code(grpc.StatusCode.ALREADY_EXISTS)
        context.set_details("there")
        return b"reply"

    serve_one(live, kind, act)
    running = live.start(kind)
    outcome = running.end()

    assert ("x-first", "1") in [(entry.key, entry.value) for entry in running.call.initial_metadata()]
    assert (outcome.code, outcome.details, outcome.trailers["x-last"]) == (
        grpc.StatusCode.ALREADY_EXISTS,
        "there",
        "2",
    )


def test_messages_keep_their_order(live: Live) -> None:
    running, _stage = live.act("stream_stream", "answers")
    messages = [str(number).encode() for number in range(500)]
    for message in messages:
        running.feed.send(message)
    running.feed.end()

    assert running.end().messages == messages


def test_handler_is_asked_for_one_message_at_a_time(live: Live) -> None:
    made = []
    blocked = threading.Event()

    def generate(_request: bytes, _context: Any) -> Iterator[bytes]:
        for number in range(100):
            made.append(number)
            yield bytes(1 << 20)
            blocked.set()

    live.serve({method("unary_stream"): handler("unary_stream", generate)})
    running = live.start("unary_stream")
    running.read()
    assert blocked.wait(PATIENCE)
    running.leave()
    assert live.streams.are(0)

    # Those that gRPC takes in ahead of its client, and no more.
    assert len(made) < 20


def test_thread_is_the_handlers_own_and_gone_with_it(kind: str, live: Live) -> None:
    before = set(threading.enumerate())
    running, stage = live.act(kind, "sleeps")
    own = [thread for thread in threading.enumerate() if thread not in before and thread.name == "authz-relay"]
    live.expire()
    live.lose_patience()
    running.end()
    stage.release.set()
    for thread in own:
        thread.join(PATIENCE)

    assert len(own) == (1 if live.door is RELAY else 0)
    assert not any(thread.is_alive() for thread in own)


@pytest.mark.parametrize("doing", ["waits", "answers"])
def test_thread_is_gone_when_the_client_is(live: Live, doing: str) -> None:
    running, stage = live.act("stream_stream", doing)
    thread = stage.thread
    running.leave()
    if live.door is RELAY:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    assert live.streams.are(0)


def test_handlers_that_return_any_iterator_are_served(live: Live) -> None:
    live.serve({method("unary_stream"): handler("unary_stream", lambda _request, _context: iter([b"1", b"2"]))})

    assert live.start("unary_stream").end().messages == [b"1", b"2"]


def test_message_that_is_made_too_late_is_not_sent(live: Live) -> None:
    stage = Stage()
    live.stages.append(stage)

    def generate(_request: bytes, _context: Any) -> Iterator[bytes]:
        stage.begin()
        stage.release.wait(PATIENCE)
        yield b"late"

    live.serve({method("unary_stream"): handler("unary_stream", generate)})
    running = live.start("unary_stream")
    assert stage.started.wait(PATIENCE)
    live.expire()
    stage.release.set()
    outcome = running.end()

    assert (outcome.reason, outcome.messages) == ("TOKEN_EXPIRED", [])


def test_unary_calls_have_no_thread_of_their_own(live: Live) -> None:
    threads = []

    def unary(_request: bytes, _context: Any) -> bytes:
        threads.append(threading.current_thread().name)
        return b""

    live.serve({method("unary_unary"): handler("unary_unary", unary)})
    live.start("unary_unary").end()

    assert "authz-relay" not in threads


def test_replies_are_the_same_without_a_relay(live: Live, kind: str) -> None:
    running, _stage = live.act(kind, "answers" if kind != "unary_stream" else "sleeps")
    for stage in live.stages:
        stage.release.set()
    running.feed.send(b"1")
    running.feed.end()

    expected = {"unary_stream": [], "stream_unary": [b"1"], "stream_stream": [b"1"]}
    assert running.end().messages == expected[kind]
