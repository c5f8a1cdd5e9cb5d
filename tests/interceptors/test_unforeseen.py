"""Whatever goes wrong while a call is decided: the door stays shut, tells nothing, and serves the next call."""

import asyncio
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
import pytest

import interceptors.aio
from authz import Authorizer, Call, Principal, Verifier
from authz.decisions.decision import Evidence
from authz.runtime.flow import Flow, Wait
from interceptors import AuthzInterceptor
from tests.interceptors.client import Outcome, bearer, call
from tests.interceptors.conftest import ServeAll
from tests.interceptors.servers import channel_to, sync_server
from tests.interceptors.service import Witness, handlers, sync_behaviours

SECRET = "what-no-caller-may-read"


class UnprintableError(Exception):
    def __str__(self) -> str:
        raise ValueError(SECRET)

    __repr__ = __str__


ERRORS: dict[str, BaseException] = {
    "an exception": RuntimeError(SECRET),
    "a key error": KeyError(SECRET),
    "an unprintable one": UnprintableError(),
    "a timeout": TimeoutError(SECRET),
    "a grpc error": grpc.RpcError(SECRET),
    "the end of an iteration": StopIteration(SECRET),
    "the end of an async iteration": StopAsyncIteration(SECRET),
    "a base exception": BaseException(SECRET),
    "a cancellation": asyncio.CancelledError(SECRET),
    "the end of a generator": GeneratorExit(SECRET),
}
EXITS: dict[str, BaseException] = {
    "the end of the program": SystemExit(SECRET),
    "an interrupt": KeyboardInterrupt(SECRET),
}


def done() -> Wait:
    future: Future[None] = Future()
    future.set_result(None)
    return Wait(future, 1.0)


class AtOnce(Authorizer):
    """Raises before there is a flow, where the caller says so."""

    def authorize(self, call: Call, _evidence: Evidence | None = None) -> Flow[Principal]:
        error = wanted(call)
        if error is not None:
            raise error
        return super().authorize(call)


class FirstStep(Authorizer):
    """Raises as the flow begins."""

    def authorize(self, call: Call, _evidence: Evidence | None = None) -> Flow[Principal]:
        error = wanted(call)
        if error is not None:
            raise error
        return (yield from super().authorize(call))


class AfterWaiting(Authorizer):
    """Raises when the flow has waited, so on another thread of a ``grpc.server``."""

    def authorize(self, call: Call, _evidence: Evidence | None = None) -> Flow[Principal]:
        yield done()
        error = wanted(call)
        if error is not None:
            raise error
        return (yield from super().authorize(call))


class Nobody(Authorizer):
    """Names no principal at all, where the caller says so."""

    def authorize(self, call: Call, _evidence: Evidence | None = None) -> Flow[Principal]:
        if wanted(call) is not None:
            return None
        return (yield from super().authorize(call))


class NobodyAfterWaiting(Authorizer):
    """Names no principal at all after it has waited, where the caller says so."""

    def authorize(self, call: Call, _evidence: Evidence | None = None) -> Flow[Principal]:
        yield done()
        if wanted(call) is not None:
            return None
        return (yield from super().authorize(call))


def wanted(call: Call) -> BaseException | None:
    for key, value in call.metadata:
        if key == "x-raise":
            return {**ERRORS, **EXITS}[value]
    return None


@pytest.fixture
def attempt(
    kind: str, serve_all: ServeAll, verifier: Verifier, token: str, least: Iterable[bytes]
) -> Callable[..., tuple[Outcome, Outcome, Witness]]:
    """Return a function that makes a call during which something is raised, and then a good one."""

    def run(judge: type[Authorizer], error: str) -> tuple[Outcome, Outcome, Witness]:
        served = serve_all(judge=judge(verifier))
        bad = served.call(kind, metadata=[("x-raise", error), *bearer(token)], requests=least)
        good = served.call(kind, metadata=bearer(token))
        return bad, good, served.witness

    return run


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("judge", [AtOnce, FirstStep, AfterWaiting])
def test_whatever_is_raised_is_an_internal_error(attempt: Any, judge: type[Authorizer], error: str) -> None:
    bad, good, witness = attempt(judge, error)

    assert (bad.code, bad.reason, bad.details) == (grpc.StatusCode.INTERNAL, "INTERNAL", "Internal error")
    assert not bad.leaks(SECRET)
    assert good.code is grpc.StatusCode.OK
    assert len(witness.sights) == 1


@pytest.mark.parametrize("judge", [Nobody, NobodyAfterWaiting])
def test_verdict_that_names_nobody_is_an_internal_error(attempt: Any, judge: type[Authorizer]) -> None:
    bad, good, witness = attempt(judge, "an exception")

    assert (bad.code, bad.details) == (grpc.StatusCode.INTERNAL, "Internal error")
    assert good.code is grpc.StatusCode.OK
    assert len(witness.sights) == 1


@pytest.mark.parametrize("error", EXITS)
@pytest.mark.parametrize("judge", [AtOnce, FirstStep, AfterWaiting])
def test_exit_on_a_servers_own_thread_is_an_internal_error(
    verifier: Verifier, token: str, kind: str, judge: type[Authorizer], error: str
) -> None:
    witness = Witness()
    served = handlers(sync_behaviours(witness), witness)
    with sync_server(served, [AuthzInterceptor(judge(verifier))]) as address, channel_to(address) as channel:
        bad = call(channel, kind, metadata=[("x-raise", error), *bearer(token)])
        good = call(channel, kind, metadata=bearer(token))

    assert (bad.code, bad.details) == (grpc.StatusCode.INTERNAL, "Internal error")
    assert good.code is grpc.StatusCode.OK


@dataclass(frozen=True)
class Details(grpc.HandlerCallDetails):
    method: str
    invocation_metadata: tuple[tuple[str, str], ...]


@pytest.mark.parametrize("error", EXITS)
@pytest.mark.parametrize("judge", [AtOnce, FirstStep, AfterWaiting])
def test_exit_on_a_programs_loop_ends_the_program(verifier: Verifier, judge: type[Authorizer], error: str) -> None:
    interceptor = interceptors.aio.AuthzInterceptor(judge(verifier))

    async def serve() -> None:
        await interceptor.intercept_service(continuation, Details("/tests.Guarded/unary_unary", (("x-raise", error),)))

    with pytest.raises((SystemExit, KeyboardInterrupt), match=SECRET):
        asyncio.run(serve())


async def continuation(_details: grpc.HandlerCallDetails) -> None:
    raise AssertionError


class Broken(grpc.ServerInterceptor, grpc.aio.ServerInterceptor):
    """Another's interceptor, for either server, which raises or returns what it is told to where the caller says so."""

    def __init__(self, error: BaseException | None = None, returned: Any = None) -> None:
        self._error, self._returned = error, returned

    def intercept_service(self, continuation: Any, handler_call_details: grpc.HandlerCallDetails) -> Any:
        if not any(key == "x-break" for key, _ in handler_call_details.invocation_metadata):
            return continuation(handler_call_details)
        if self._error is not None:
            raise self._error
        return self._returned


@pytest.mark.parametrize(
    "broken",
    [
        *(pytest.param(Broken(error), id=name) for name, error in ERRORS.items()),
        pytest.param(Broken(returned=SECRET), id="no handler"),
        pytest.param(Broken(returned=object()), id="anything"),
    ],
)
def test_what_escapes_from_another_interceptor_is_an_internal_error(
    kind: str, serve_all: ServeAll, token: str, least: Iterable[bytes], broken: Broken
) -> None:
    served = serve_all(broken)

    bad = served.call(kind, metadata=[("x-break", "1"), *bearer(token)], requests=least)
    good = served.call(kind, metadata=bearer(token))

    assert (bad.code, bad.details) == (grpc.StatusCode.INTERNAL, "Internal error")
    assert not bad.leaks(SECRET)
    assert good.code is grpc.StatusCode.OK


def test_other_interceptors_are_not_asked_about_a_refused_call(kind: str, serve_all: ServeAll) -> None:
    served = serve_all(Broken(RuntimeError(SECRET)))

    outcome = served.call(kind, metadata=[("x-break", "1")])

    assert outcome.reason == "TOKEN_MISSING"
