"""Servers whose pool has one thread: nothing leaks from call to call, and nobody is kept waiting."""

import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import grpc
import pytest

from authz import ANONYMOUS, Authorizer, Call, Principal, Verifier, current_principal
from authz.decisions.decision import Evidence
from authz.demo.issuer.signing import SigningKey
from authz.runtime.flow import Flow, Wait
from interceptors import AuthzInterceptor
from tests.doubles import ORG, m2m_claims
from tests.interceptors.client import Outcome, Silence, bearer, call, start
from tests.interceptors.servers import DOORS, PATIENCE, Loop, aio_server, channel_to, sync_server
from tests.interceptors.service import (
    PUBLIC_METHODS,
    Witness,
    expected_replies,
    handler,
    handlers,
    method,
    public_method,
    sync_behaviours,
)

OTHER_ORG = "org_01JYGLOBEX0000000000000000"


@dataclass(frozen=True)
class Single:
    """A server with one thread for all its synchronous handlers."""

    channel: grpc.Channel
    pool: ThreadPoolExecutor

    def call(self, kind: str, name: str | None = None, **options: Any) -> Outcome:
        return call(self.channel, kind, name, **options)


@dataclass(frozen=True)
class Narrow(Single):
    """A server whose one thread can be occupied."""

    occupied: threading.Event
    relieve: threading.Event

    def occupy(self, token: str) -> Any:
        """Begin a call whose handler keeps the one thread."""
        occupying = start(self.channel, "unary_unary", "/tests.Guarded/occupy", metadata=bearer(token))
        assert self.occupied.wait(PATIENCE)
        return occupying


@pytest.fixture
def narrow(verifier: Verifier) -> Iterator[Narrow]:
    witness, occupied, relieve = Witness(), threading.Event(), threading.Event()

    def occupy(_request: bytes, _context: grpc.ServicerContext) -> bytes:
        occupied.set()
        relieve.wait(PATIENCE)
        return b""

    served = {
        **handlers(sync_behaviours(witness), witness),
        "/tests.Guarded/occupy": handler("unary_unary", occupy),
    }
    pool = ThreadPoolExecutor(1)
    interceptor = AuthzInterceptor(verifier, public_methods=PUBLIC_METHODS)
    with sync_server(served, [interceptor], pool=pool) as address, channel_to(address) as channel:
        yield Narrow(channel, pool, occupied, relieve)
        relieve.set()


@pytest.fixture(params=[DOORS[0], DOORS[3]], ids=lambda door: door.name)
def single(request: pytest.FixtureRequest, loop: Loop, verifier: Verifier) -> Iterator[Single]:
    witness, pool, door = Witness(), ThreadPoolExecutor(1), request.param
    served = handlers(door.behaviours(witness), witness)
    chain = [door.interceptor(verifier, public_methods=PUBLIC_METHODS)]
    serving = aio_server(loop, served, chain, pool=pool) if door.is_aio else sync_server(served, chain, pool=pool)
    with serving as address, channel_to(address) as channel:
        yield Single(channel, pool)


def test_no_caller_is_left_over_for_the_next_call(single: Single, kind: str, ec_key: SigningKey, token: str) -> None:
    other = ec_key.sign(m2m_claims(org_id=OTHER_ORG))

    replies = [
        single.call(kind, metadata=bearer(token)).messages,
        single.call(kind, public_method(kind)).messages,
        single.call(kind, metadata=bearer(other)).messages,
        single.call(kind, public_method(kind), metadata=bearer(token)).messages,
    ]

    callers = [ORG, "anonymous", OTHER_ORG, "anonymous"]
    assert replies == [expected_replies(kind, caller.encode()) for caller in callers]


def test_no_caller_is_left_over_on_the_thread(single: Single, kind: str, token: str) -> None:
    single.call(kind, metadata=bearer(token))

    with pytest.raises(LookupError):
        single.pool.submit(current_principal).result(PATIENCE)


def test_refusal_does_not_queue_behind_a_slow_handler(
    narrow: Narrow, kind: str, token: str, least: Iterable[bytes]
) -> None:
    occupying = narrow.occupy(token)

    outcome = narrow.call(kind, requests=least)

    assert outcome.reason == "TOKEN_MISSING"
    assert not occupying.done()


def test_silent_callers_without_a_token_take_no_thread(narrow: Narrow, token: str, silence: Silence) -> None:
    refused = [start(narrow.channel, "stream_stream", requests=silence) for _ in range(5)]

    outcome = narrow.call("unary_unary", metadata=bearer(token))

    assert outcome.code is grpc.StatusCode.OK
    assert [one.code() for one in refused] == [grpc.StatusCode.UNAUTHENTICATED] * 5


def test_threads_of_a_handler_must_be_told_the_caller(verifier: Verifier, token: str) -> None:
    found: list[str] = []

    def ask() -> None:
        with pytest.raises(LookupError, match="does not run inside an RPC") as error:
            current_principal()
        found.append(str(error.value))

    def behaviour(_request: bytes, _context: grpc.ServicerContext) -> bytes:
        thread = threading.Thread(target=ask)
        thread.start()
        thread.join()
        return b""

    served = {method("unary_unary"): handler("unary_unary", behaviour)}
    with sync_server(served, [AuthzInterceptor(verifier)]) as address, channel_to(address) as channel:
        call(channel, "unary_unary", metadata=bearer(token))

    assert len(found) == 1


class PatientAuthorizer(Authorizer):
    """Waits for what never comes, longer than any client of these tests."""

    def authorize(self, call: Call, _evidence: Evidence | None = None) -> Flow[Principal]:
        if call.method not in PUBLIC_METHODS:
            yield Wait(Future(), PATIENCE)
        return ANONYMOUS


def test_thread_waits_no_longer_than_its_client(kind: str, verifier: Verifier) -> None:
    witness = Witness()
    served = handlers(sync_behaviours(witness), witness)
    interceptor = AuthzInterceptor(PatientAuthorizer(verifier))
    with (
        sync_server(served, [interceptor], pool=ThreadPoolExecutor(1)) as address,
        channel_to(address) as channel,
    ):
        late = call(channel, kind, timeout=0.05)
        after = call(channel, kind, public_method(kind))

    assert late.code is not grpc.StatusCode.OK
    assert after.messages == expected_replies(kind, b"anonymous")
