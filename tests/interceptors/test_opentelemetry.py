"""OpenTelemetry's server instrumentation on either side of ours: both do all they do alone."""

import queue
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from opentelemetry.instrumentation.grpc import aio_server_interceptor, server_interceptor
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider

from authz import Verifier
from tests.doubles import CLIENT, ORG
from tests.interceptors.client import Outcome, bearer, call, finish, start
from tests.interceptors.conftest import Serve, Served, WatchedTransport
from tests.interceptors.servers import DOORS, PATIENCE, Act, Door, acting
from tests.interceptors.service import (
    PUBLIC_METHODS,
    Witness,
    expected_replies,
    handlers,
    method,
    public_method,
)

REQUESTS = [b"1", b"2"]
SECRET = "a.token.that-nobody-may-see-again"
TRACE = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = ("traceparent", f"00-{TRACE}-b7ad6b7169203331-01")

# It awaits and iterates what it wraps: synchronous handlers on an aio server, and those that write, it cannot serve.
pytestmark = pytest.mark.parametrize("door", DOORS[:2], ids=lambda door: door.name)


class Spans(SpanProcessor):
    """The spans that have ended, in order."""

    def __init__(self) -> None:
        self._ended: queue.SimpleQueue[ReadableSpan] = queue.SimpleQueue()

    def on_end(self, span: ReadableSpan) -> None:
        self._ended.put(span)

    def next(self) -> ReadableSpan:
        """Return the next span; it may end after its client knows the outcome."""
        return self._ended.get(timeout=PATIENCE)


@dataclass(frozen=True)
class Traced(Served):
    """A server whose calls are traced."""

    spans: Spans


def telemetry(door: Door, spans: Spans) -> Any:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(spans)
    return (aio_server_interceptor if door.is_aio else server_interceptor)(tracer_provider=provider)


@pytest.fixture(params=["outside", "inside"])
def side(request: pytest.FixtureRequest) -> str:
    """Return the side of our interceptor on which OpenTelemetry's stands."""
    return request.param


Trace = Callable[..., Traced]


@pytest.fixture
def trace(door: Door, side: str, serve: Serve, verifier: Verifier) -> Trace:
    """Return a function that starts a server whose calls are traced."""

    def begin(served: dict[str, Any] | None = None, judge: Verifier = verifier) -> Traced:
        witness, spans = Witness(), Spans()
        ours = door.interceptor(judge, public_methods=PUBLIC_METHODS)
        theirs = telemetry(door, spans)
        chain = [theirs, ours] if side == "outside" else [ours, theirs]
        channel = serve(served or handlers(door.behaviours(witness), witness), *chain)
        return Traced(channel, witness, spans)

    return begin


def status_of(span: ReadableSpan) -> int:
    return span.attributes["rpc.grpc.status_code"]


def test_admitted_call_has_its_principal_and_its_span(trace: Trace, kind: str, token: str) -> None:
    traced = trace()
    metadata = [("x-org-id", "org_forged"), *bearer(token), TRACEPARENT]

    outcome = traced.call(kind, metadata=metadata, requests=REQUESTS)

    assert outcome.messages == expected_replies(kind, ORG.encode(), REQUESTS)
    sight, span = traced.witness.sight, traced.spans.next()
    assert (sight.principal.org_id, sight.values("x-org-id"), sight.values("x-client-id")) == (ORG, [ORG], [CLIENT])
    assert (span.name, status_of(span)) == (method(kind), 0)
    assert f"{span.context.trace_id:032x}" == TRACE


def test_public_call_has_its_span(trace: Trace, kind: str) -> None:
    traced = trace()

    outcome = traced.call(kind, public_method(kind), metadata=[("x-org-id", "org_forged")])

    assert outcome.messages == expected_replies(kind, b"anonymous")
    assert traced.witness.sight.values("x-org-id") == []
    assert traced.spans.next().name == public_method(kind)


@pytest.fixture
def untraced(door: Door, serve: Serve, verifier: Verifier) -> grpc.Channel:
    witness = Witness()
    return serve(handlers(door.behaviours(witness), witness), door.interceptor(verifier))


def test_refused_call_is_told_what_it_is_told_without_telemetry(
    untraced: grpc.Channel, trace: Trace, kind: str, least: Iterable[bytes]
) -> None:
    traced = trace()

    outcome = traced.call(kind, requests=least)

    assert outcome == call(untraced, kind, requests=least)
    assert (outcome.code, outcome.reason) == (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_MISSING")
    assert outcome.trailers["www-authenticate"]
    assert (traced.witness.sights, traced.witness.parsed) == ([], [])


@pytest.mark.parametrize("side", ["outside"], indirect=True)
def test_telemetry_outside_sees_refused_calls_but_no_token(trace: Trace, kind: str, least: Iterable[bytes]) -> None:
    traced = trace()

    traced.call(kind, metadata=bearer(SECRET), requests=least)

    span = traced.spans.next()
    assert (span.name, status_of(span)) == (method(kind), grpc.StatusCode.UNAUTHENTICATED.value[0])
    assert SECRET not in span.to_json()


@pytest.mark.parametrize("side", ["inside"], indirect=True)
def test_telemetry_inside_sees_admitted_calls_alone(trace: Trace, kind: str, token: str) -> None:
    traced = trace()

    traced.call(kind)
    traced.call(kind, metadata=bearer(token))

    assert status_of(traced.spans.next()) == 0


def abort(context: Any) -> Any:
    return context.abort(grpc.StatusCode.DATA_LOSS, "of the handler")


def set_status(context: Any) -> None:
    context.set_trailing_metadata((("x-handler", "1"),))
    context.set_details("of the handler")
    context.set_code(grpc.StatusCode.NOT_FOUND)


def fail(_context: Any) -> None:
    raise LookupError("of the handler")


def send_early(context: Any) -> Any:
    return context.send_initial_metadata((("x-early", "1"),))


def ask(context: Any) -> None:
    context.set_details(f"{context.peer().rpartition(':')[0]} {0 < context.time_remaining() < 60}")


def seen(span: ReadableSpan) -> tuple[Any, ...]:
    unlike = {"net.peer.port", "rpc.user_agent"}
    attributes = {name: value for name, value in span.attributes.items() if name not in unlike}
    return attributes, span.status.status_code, span.status.description, [event.name for event in span.events]


@pytest.fixture
def both(door: Door, serve: Serve, trace: Trace) -> tuple[Trace, Trace]:
    """Return two functions that start a server whose calls are traced: without our interceptor, and with it."""

    def begin(served: dict[str, Any]) -> Traced:
        spans = Spans()
        return Traced(serve(served, telemetry(door, spans)), Witness(), spans)

    return begin, trace


@pytest.mark.parametrize("act", [abort, set_status, fail, send_early, ask])
def test_span_of_a_handler_is_the_one_it_has_without_us(
    door: Door, kind: str, both: tuple[Trace, Trace], token: str, act: Act
) -> None:
    runs = [begin({method(kind): acting(door, kind, act)}) for begin in both]

    without, ours = [(traced.call(kind, metadata=bearer(token)), seen(traced.spans.next())) for traced in runs]

    assert ours == without


@pytest.fixture
def waiting(trace: Trace, cold_verifier: Verifier, transport: WatchedTransport, token: str) -> Callable[..., Any]:
    """Return a function that begins a call, returns its server when it waits for keys, and a function to end it."""

    def begin(kind: str, requests: Iterable[bytes]) -> tuple[Traced, Callable[[], Outcome]]:
        traced = trace(judge=cold_verifier)
        begun = start(traced.channel, kind, metadata=bearer(token), requests=requests)
        transport.await_request()
        return traced, lambda: finish(kind, begun)

    return begin


def test_call_that_waits_for_keys_is_served(waiting: Any, kind: str, transport: WatchedTransport) -> None:
    traced, end = waiting(kind, REQUESTS)
    transport.release()

    outcome = end()

    assert outcome.messages == expected_replies(kind, ORG.encode(), REQUESTS)
    assert status_of(traced.spans.next()) == 0


def test_call_that_waits_in_vain_is_refused(
    waiting: Any, kind: str, transport: WatchedTransport, least: Iterable[bytes]
) -> None:
    traced, end = waiting(kind, least)
    transport.down()
    transport.release()

    outcome = end()

    assert (outcome.code, outcome.reason) == (grpc.StatusCode.UNAVAILABLE, "KEY_SET_UNAVAILABLE")
    assert "retry-after" in outcome.trailers
    assert traced.witness.sights == []
