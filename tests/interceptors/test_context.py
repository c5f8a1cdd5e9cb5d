"""The contexts that handlers get: grpc's own in everything but the metadata."""

import itertools
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import grpc
import grpc.aio
import pytest
from google.rpc.error_details_pb2 import BadRequest
from google.rpc.status_pb2 import Status
from grpc_status.rpc_status import to_status

from authz import TrustedMetadata, Verifier
from authz.call.call import MAX_ENTRIES, Call
from authz.call.principal import ANONYMOUS
from interceptors.context import (
    TrustedAioContext,
    TrustedContext,
    TrustedSyncContextOnAio,
    arrived,
    shown,
    told,
)
from tests.interceptors.client import DEADLINE, bearer, details, finish, start
from tests.interceptors.conftest import Serve
from tests.interceptors.servers import DOORS, PATIENCE, Act, Door, acting
from tests.interceptors.service import KINDS, is_response_streaming, method

PROXIES = [
    pytest.param(TrustedContext, grpc.ServicerContext, id="grpc"),
    pytest.param(TrustedAioContext, grpc.aio.ServicerContext, id="aio"),
]


UNARY = [kind for kind in KINDS if not is_response_streaming(kind)]


class Inner:
    """A context of which every name says where it comes from."""

    def __getattr__(self, name: str) -> tuple[str, str]:
        return "inner", name


def public(names: Any) -> set[str]:
    return {name for name in names if not name.startswith("_")}


@pytest.mark.parametrize(("proxy", "base"), PROXIES)
def test_every_name_of_the_interface_leads_to_grpcs_context(proxy: Any, base: type) -> None:
    context = proxy(Inner(), ())
    names = public(dir(base)) - {"invocation_metadata"}

    found = {name: getattr(context, name) for name in names}

    assert found == {name: ("inner", name) for name in names}
    assert {"abort", "code", "time_remaining", "trailing_metadata"} <= names


@pytest.mark.parametrize(("proxy", "base"), PROXIES)
def test_proxy_is_what_annotations_promise(proxy: Any, base: type) -> None:
    assert isinstance(proxy(Inner(), ()), base)


class Untouched(TrustedMetadata):
    """Names that no metadata may be compared with."""

    def glance(self, metadata: Any) -> Any:  # noqa: ARG002 - the name of its base
        pytest.fail("it was looked at")


@pytest.mark.parametrize("metadata", [None, [("name",)], [([], "")]])
def test_a_call_that_cannot_be_looked_through_is_left_to_the_judge(metadata: Any) -> None:
    assert arrived(told("/s/m", metadata), TrustedMetadata()) == Call("/s/m", metadata)


def test_of_too_many_entries_none_is_looked_at() -> None:
    metadata = (("x", ""),) * (MAX_ENTRIES + 1)

    assert arrived(told("/s/m", metadata), Untouched()) == Call("/s/m", metadata)


def test_of_usual_metadata_the_judge_need_not_look_for_more() -> None:
    trusted = TrustedMetadata()
    metadata = (("user-agent", "grpc"), ("authorization", "Bearer t"))
    before = arrived(told("/s/m", metadata), trusted)
    shown(before, ANONYMOUS, trusted)
    after = arrived(told("/s/m", metadata), trusted)

    assert before == Call("/s/m", metadata)
    assert after == Call("/s/m", metadata, credentials=["Bearer t"], size=35)
    assert shown(after, ANONYMOUS, trusted) == metadata


@pytest.mark.parametrize("proxy", [TrustedContext, TrustedAioContext, TrustedSyncContextOnAio])
def test_metadata_is_the_trusted_one(proxy: Any) -> None:
    metadata = (("x-org-id", "org_1"),)

    assert proxy(Inner(), metadata).invocation_metadata() is metadata


@pytest.mark.parametrize("proxy", [TrustedContext, TrustedAioContext, TrustedSyncContextOnAio])
def test_names_that_a_framework_adds_are_found(proxy: Any) -> None:
    context = proxy(Inner(), ())
    context.user = "somebody"

    assert (context.user, context.tracing) == ("somebody", ("inner", "tracing"))


class Result(NamedTuple):
    """What a client sees of a call."""

    code: grpc.StatusCode
    details: str
    messages: list[bytes]
    initial: dict[str, str | bytes]
    trailers: dict[str, str | bytes]


Compare = Callable[[Act], tuple[Result, Result]]


@pytest.fixture
def compare(
    door: Door, kind: str, serve: Serve, verifier: Verifier, token: str
) -> Callable[[Act], tuple[Result, Result]]:
    """Return a function that has a handler do something without and with the interceptor."""

    def run(act: Act) -> tuple[Result, Result]:
        served = {method(kind): acting(door, kind, act)}
        results = []
        for chain in ([], [door.interceptor(verifier)]):
            call = start(serve(served, *chain), kind, metadata=bearer(token))
            outcome = finish(kind, call)
            initial = {entry.key: entry.value for entry in call.initial_metadata()}
            results.append(Result(outcome.code, outcome.details, outcome.messages, initial, outcome.trailers))
        bare, guarded = results
        return bare, guarded

    return run


RICH = details(
    grpc.StatusCode.INVALID_ARGUMENT,
    BadRequest(field_violations=[BadRequest.FieldViolation(field="draft.amount", description="is zero")]),
)
RICH_TRAILERS = (("grpc-status-details-bin", RICH), ("x-handler", "1"))


def abort(context: Any) -> Any:
    return context.abort(grpc.StatusCode.DATA_LOSS, "dèr händler")


def abort_with_trailers(context: Any) -> Any:
    context.set_trailing_metadata(RICH_TRAILERS)
    return context.abort(grpc.StatusCode.INVALID_ARGUMENT, "from the handler")


def abort_with_status(context: Any) -> Any:
    return context.abort_with_status(to_status(Status.FromString(RICH)))


def set_everything(context: Any) -> None:
    context.set_code(grpc.StatusCode.NOT_FOUND)
    context.set_details("no such entry")
    context.set_trailing_metadata(RICH_TRAILERS)


def send_initial_metadata(context: Any) -> Any:
    return context.send_initial_metadata((("x-early", "1"), ("x-early-bin", b"\x00")))


def compress(context: Any) -> None:
    context.set_compression(grpc.Compression.Gzip)


def do_not_compress(context: Any) -> None:
    context.disable_next_message_compression()


def fail(_context: Any) -> None:
    raise LookupError("of the handler")


def cancel(context: Any) -> None:
    context.cancel()


def misspell(context: Any) -> None:
    context.abrot()


ACTS = [
    abort,
    abort_with_trailers,
    abort_with_status,
    set_everything,
    send_initial_metadata,
    compress,
    do_not_compress,
    fail,
    cancel,
    misspell,
]


@pytest.mark.parametrize("act", ACTS)
def test_client_sees_what_it_saw_without_the_interceptor(compare: Compare, act: Act) -> None:
    bare, guarded = compare(act)

    assert guarded == bare


def test_rich_error_of_a_handler_arrives_unchanged(compare: Compare) -> None:
    _, guarded = compare(abort_with_trailers)

    assert (guarded.code, guarded.details) == (grpc.StatusCode.INVALID_ARGUMENT, "from the handler")
    assert guarded.trailers == dict(RICH_TRAILERS)


# grpc gives synchronous handlers on an aio server a context without abort_with_status.
@pytest.mark.parametrize("door", DOORS[:3], ids=lambda door: door.name)
def test_rich_status_of_a_handler_arrives_unchanged(compare: Compare) -> None:
    _, guarded = compare(abort_with_status)

    assert (guarded.code, guarded.details) == (grpc.StatusCode.INVALID_ARGUMENT, "from the handler")
    assert guarded.trailers == {"grpc-status-details-bin": RICH}


def test_no_name_of_grpcs_context_is_lost(compare: Compare) -> None:
    found: list[Any] = []

    compare(found.append)

    bare, guarded = found
    assert {name for name in public(dir(bare)) if not hasattr(guarded, name)} == set()


# What a handler may ask, where its context knows it; the answers do not depend on the connection.
QUESTIONS: dict[str, Act] = {
    "auth_context": lambda context: context.auth_context(),
    "peer_identities": lambda context: context.peer_identities(),
    "peer_identity_key": lambda context: context.peer_identity_key(),
    "code": lambda context: (context.set_code(grpc.StatusCode.NOT_FOUND), context.code()),
    "details": lambda context: (context.set_details("text"), context.details()),
    "trailing_metadata": lambda context: (context.set_trailing_metadata(RICH_TRAILERS), context.trailing_metadata()),
    "is_active": lambda context: context.is_active(),
    "cancelled": lambda context: context.cancelled(),
    "done": lambda context: context.done(),
    "peer": lambda context: context.peer().rpartition(":")[0],
    "time_remaining": lambda context: 0 < context.time_remaining() < DEADLINE + 1,
}


@pytest.mark.parametrize("name", QUESTIONS)
def test_handlers_are_told_what_they_were_told_without_the_interceptor(compare: Compare, name: str) -> None:
    answers: list[Any] = []

    def ask(context: Any) -> None:
        answers.append(QUESTIONS[name](context) if hasattr(context, name) else "no such name")

    compare(ask)

    bare, guarded = answers
    assert guarded == bare


# grpc itself forgets the callbacks of synchronous handlers that stream their responses on an aio server.
CALLBACKS = [(door, kind) for door, kind in itertools.product(DOORS, KINDS) if door is not DOORS[-1] or kind in UNARY]


@pytest.mark.parametrize(("door", "kind"), CALLBACKS, ids=lambda one: getattr(one, "name", one))
def test_callbacks_are_called_when_the_call_ends(compare: Compare) -> None:
    ended = [threading.Event(), threading.Event()]
    waiting = iter(ended)

    def add(context: Any) -> None:
        event = next(waiting)
        if hasattr(context, "add_done_callback"):
            context.add_done_callback(lambda _context: event.set())
        else:
            context.add_callback(event.set)

    compare(add)

    assert [event.wait(PATIENCE) for event in ended] == [True, True]
