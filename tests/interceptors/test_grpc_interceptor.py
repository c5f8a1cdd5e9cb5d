"""Interceptors made with the grpc-interceptor package, on either side of ours: both do all they do alone."""

import functools
from collections.abc import Callable, Iterable
from typing import Any

import grpc
import pytest
from google.protobuf.wrappers_pb2 import BytesValue
from grpc_interceptor import AsyncServerInterceptor, ServerInterceptor
from grpc_interceptor.exception_to_status import AsyncExceptionToStatusInterceptor, ExceptionToStatusInterceptor
from grpc_interceptor.exceptions import NotFound

from authz import Verifier
from tests.doubles import ORG
from tests.interceptors.client import Outcome, bearer, call, finish, start
from tests.interceptors.conftest import Serve, Served, WatchedTransport
from tests.interceptors.servers import DOORS, Door
from tests.interceptors.service import (
    PUBLIC_METHODS,
    Witness,
    caller,
    expected_replies,
    handler,
    method,
    public_method,
)

REQUESTS = [b"1", b"2"]

# The package awaits what it wraps on an aio server: synchronous handlers it cannot serve there.
pytestmark = pytest.mark.parametrize("door", DOORS[:3], ids=lambda door: door.name)


class Forwarding(ServerInterceptor):
    """Does nothing but what the package does."""

    def intercept(self, method: Any, request_or_iterator: Any, context: Any, method_name: str) -> Any:
        del method_name
        return method(request_or_iterator, context)


class AsyncForwarding(AsyncServerInterceptor):
    """Does nothing but what the package does."""

    async def intercept(self, method: Any, request_or_iterator: Any, context: Any, method_name: str) -> Any:
        del method_name
        replies = method(request_or_iterator, context)
        return replies if hasattr(replies, "__aiter__") else await replies


class Curious(ServerInterceptor):
    """Looks at the context before a handler does."""

    def __init__(self, witness: Witness) -> None:
        self._witness = witness

    def intercept(self, method: Any, request_or_iterator: Any, context: Any, method_name: str) -> Any:
        del method_name
        self._witness.look(context)
        return method(request_or_iterator, context)


class AsyncCurious(AsyncForwarding):
    """Looks at the context before a handler does."""

    def __init__(self, witness: Witness) -> None:
        self._witness = witness

    async def intercept(self, method: Any, request_or_iterator: Any, context: Any, method_name: str) -> Any:
        self._witness.look(context)
        return await super().intercept(method, request_or_iterator, context, method_name)


def forwarding(door: Door) -> Any:
    return AsyncForwarding() if door.is_aio else Forwarding()


def exception_to_status(door: Door) -> Any:
    made = AsyncExceptionToStatusInterceptor if door.is_aio else ExceptionToStatusInterceptor
    return made(status_on_unknown_exception=grpc.StatusCode.DATA_LOSS)


Answer = Callable[[], Any]


def answer() -> BytesValue:
    # Bytes would not do: the package takes whatever can be iterated for a stream.
    return BytesValue(value=caller())


def fail_on_purpose() -> None:
    raise NotFound("no such entry")


def fail() -> None:
    raise LookupError("of the handler")


def expected(kind: str, organization: str, requests: list[bytes]) -> list[bytes]:
    return expected_replies(kind, BytesValue(value=organization.encode()).SerializeToString(), requests)


@pytest.fixture(params=[forwarding, exception_to_status])
def theirs(request: pytest.FixtureRequest, door: Door) -> Any:
    return request.param(door)


@pytest.fixture(params=["outside", "inside"])
def side(request: pytest.FixtureRequest) -> str:
    """Return the side of our interceptor on which theirs stands."""
    return request.param


Begin = Callable[..., Served]


@pytest.fixture
def begin(door: Door, serve: Serve) -> Begin:
    """Return a function that starts a server behind ``chain``, whose handlers send what ``answer`` returns."""

    def run(*chain: Any, answer: Answer = answer, witness: Witness | None = None) -> Served:
        witness = witness or Witness()
        behaviours = door.behaviours(witness, answer)
        by_kind = {
            kind: handler(kind, behaviour, witness.parse, BytesValue.SerializeToString)
            for kind, behaviour in behaviours.items()
        }
        served = {name(kind): one for kind, one in by_kind.items() for name in (method, public_method)}
        return Served(serve(served, *chain), witness)

    return run


Beside = Callable[..., Served]


@pytest.fixture
def beside(door: Door, side: str, begin: Begin, verifier: Verifier, theirs: Any) -> Beside:
    """Return a function that starts a server behind both interceptors."""

    def run(judge: Verifier = verifier, **options: Any) -> Served:
        ours = door.interceptor(judge, public_methods=PUBLIC_METHODS)
        return begin(*((theirs, ours) if side == "outside" else (ours, theirs)), **options)

    return run


def test_admitted_call_has_its_principal(beside: Beside, kind: str, token: str) -> None:
    served = beside()

    outcome = served.call(kind, metadata=[("x-org-id", "org_forged"), *bearer(token)], requests=REQUESTS)

    assert outcome.messages == expected(kind, ORG, REQUESTS)
    assert (outcome.code, served.witness.sight.values("x-org-id")) == (grpc.StatusCode.OK, [ORG])


def test_public_call_is_anonymous(beside: Beside, kind: str) -> None:
    served = beside()

    outcome = served.call(kind, public_method(kind), metadata=[("x-org-id", "org_forged")], requests=REQUESTS)

    assert outcome.messages == expected(kind, "anonymous", REQUESTS)
    assert served.witness.sight.values("x-org-id") == []


@pytest.fixture
def alone(door: Door, begin: Begin, verifier: Verifier) -> grpc.Channel:
    """Return a channel to a server that has our interceptor only."""
    return begin(door.interceptor(verifier)).channel


def test_refused_call_is_told_what_our_interceptor_alone_tells_it(
    beside: Beside, alone: grpc.Channel, kind: str, least: Iterable[bytes]
) -> None:
    served = beside()

    outcome = served.call(kind, requests=least)

    assert outcome == call(alone, kind, requests=least)
    assert (outcome.code, outcome.reason) == (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_MISSING")
    assert (served.witness.sights, served.witness.parsed) == ([], [])


class Blind(Witness):
    """Does not ask for a principal, which without our interceptor is an error."""

    def look(self, context: Any) -> None:
        """Do nothing."""


@pytest.fixture
def both(begin: Begin, theirs: Any, beside: Beside) -> tuple[Begin, Beside]:
    """Return two functions that start a server behind their interceptor: without ours, and with it."""
    return functools.partial(begin, theirs), beside


@pytest.mark.parametrize("failing", [fail_on_purpose, fail])
def test_failure_of_a_handler_has_the_status_it_has_without_us(
    both: tuple[Begin, Beside], kind: str, token: str, failing: Answer
) -> None:
    bare, ours = [begin(answer=failing, witness=Blind()).call(kind, metadata=bearer(token)) for begin in both]

    assert ours == bare


@pytest.mark.parametrize("theirs", [exception_to_status], indirect=True)
def test_exceptions_still_become_their_status(beside: Beside, kind: str, token: str) -> None:
    outcome = beside(answer=fail_on_purpose).call(kind, metadata=bearer(token))

    assert (outcome.code, outcome.details) == (grpc.StatusCode.NOT_FOUND, "no such entry")


def test_inner_interceptor_sees_what_the_handler_sees(
    door: Door, begin: Begin, verifier: Verifier, kind: str, token: str
) -> None:
    witness = Witness()
    theirs = AsyncCurious(witness) if door.is_aio else Curious(witness)
    served = begin(door.interceptor(verifier), theirs)

    served.call(kind, metadata=[("x-org-id", "org_forged"), *bearer(token)])

    assert witness.sight == served.witness.sight


@pytest.fixture
def waiting(beside: Beside, cold_verifier: Verifier, transport: WatchedTransport, token: str) -> Callable[..., Any]:
    """Return a function that begins a call, returns its server when it waits for keys, and a function to end it."""

    def run(kind: str, requests: Iterable[bytes]) -> tuple[Served, Callable[[], Outcome]]:
        served = beside(cold_verifier)
        begun = start(served.channel, kind, metadata=bearer(token), requests=requests)
        transport.await_request()
        return served, lambda: finish(kind, begun)

    return run


def test_call_that_waits_for_keys_is_served(waiting: Any, kind: str, transport: WatchedTransport) -> None:
    served, end = waiting(kind, REQUESTS)
    transport.release()

    outcome = end()

    assert outcome.messages == expected(kind, ORG, REQUESTS)
    assert served.witness.sight.values("x-org-id") == [ORG]


def test_call_that_waits_in_vain_is_refused(
    waiting: Any, kind: str, transport: WatchedTransport, least: Iterable[bytes]
) -> None:
    served, end = waiting(kind, least)
    transport.down()
    transport.release()

    outcome = end()

    assert (outcome.code, outcome.reason) == (grpc.StatusCode.UNAVAILABLE, "KEY_SET_UNAVAILABLE")
    assert (served.witness.sights, served.witness.parsed) == ([], [])


class Swallowing(ServerInterceptor):
    """Takes no exception for an answer."""

    def intercept(self, method: Any, request_or_iterator: Any, context: Any, method_name: str) -> Any:
        del method_name
        try:
            return method(request_or_iterator, context)
        except Exception:  # noqa: BLE001 - that is what is wrong with it
            return BytesValue(value=b"as if nothing had happened")


class AsyncSwallowing(AsyncForwarding):
    """Takes no exception for an answer."""

    async def intercept(self, method: Any, request_or_iterator: Any, context: Any, method_name: str) -> Any:
        try:
            return await super().intercept(method, request_or_iterator, context, method_name)
        except Exception:  # noqa: BLE001 - that is what is wrong with it
            return BytesValue(value=b"as if nothing had happened")


def test_outer_interceptor_that_swallows_a_refusal_lets_nobody_in(
    door: Door, begin: Begin, verifier: Verifier, kind: str, least: Iterable[bytes]
) -> None:
    served = begin(AsyncSwallowing() if door.is_aio else Swallowing(), door.interceptor(verifier))

    outcome = served.call(kind, requests=least)

    assert (outcome.code, outcome.reason) == (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_MISSING")
    assert (served.witness.sights, served.witness.parsed) == ([], [])
