import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import grpc
import pytest

from authz import Authorizer, Call, Principal, Verifier
from authz.decisions.decision import Evidence
from authz.demo.issuer.signing import SigningKey
from authz.runtime.flow import Flow
from authz.runtime.network.transport import HttpResponse
from tests.certificates import Authority
from tests.doubles import AUDIENCE, ISSUER, NOW, FakeTransport, ManualClock, json_response, jwks, m2m_claims
from tests.interceptors.client import Outcome, Silence, call, finish, start
from tests.interceptors.servers import DOORS, PATIENCE, Door, Loop
from tests.interceptors.service import KINDS, PUBLIC_METHODS, Witness, handlers, is_request_streaming
from tests.interceptors.ways import Reachable


@pytest.fixture(scope="session")
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.close()


@pytest.fixture(scope="session")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="session", params=DOORS, ids=lambda door: door.name)
def door(request: pytest.FixtureRequest) -> Door:
    return request.param


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def silence() -> Iterator[Silence]:
    silence = Silence()
    yield silence
    silence.end()


@pytest.fixture
def least(kind: str, silence: Silence) -> Iterable[bytes]:
    """Return the requests of a client that sends as little as the kind allows: nothing, if it can."""
    return silence if is_request_streaming(kind) else [b""]


@pytest.fixture
def token(ec_key: SigningKey) -> str:
    return ec_key.sign(m2m_claims())


@pytest.fixture
def verifier(new_verifier: Callable[..., Verifier], ec_key: SigningKey) -> Verifier:
    """Return a verifier that has its keys."""
    return new_verifier(jwks=jwks(ec_key))


@dataclass(frozen=True)
class Served:
    """A server, what its handlers have seen, and a client of it."""

    channel: grpc.Channel
    witness: Witness

    def call(self, kind: str, name: str | None = None, **options: Any) -> Outcome:
        return call(self.channel, kind, name, **options)


@dataclass(frozen=True)
class Guarded(Served):
    """A server whose interceptor has its keys."""

    clock: ManualClock


@pytest.fixture(scope="session")
def shared_guarded(door: Door, loop: Loop, ec_key: SigningKey) -> Iterator[Guarded]:
    witness, clock = Witness(), ManualClock()
    verifier = Verifier(issuer=ISSUER, audience=AUDIENCE, jwks=jwks(ec_key), algorithms=["ES256"], clock=clock.clock)
    interceptor = door.interceptor(verifier, public_methods=PUBLIC_METHODS)
    with door.serve(loop, handlers(door.behaviours(witness), witness), [interceptor]) as channel:
        yield Guarded(channel, witness, clock)


@pytest.fixture
def guarded(shared_guarded: Guarded) -> Guarded:
    shared_guarded.witness.forget()
    shared_guarded.clock.now = NOW
    return shared_guarded


Serve = Callable[..., grpc.Channel]


@pytest.fixture
def serve(door: Door, loop: Loop) -> Iterator[Serve]:
    """Return a function that starts a server for one test: ``serve(handlers, *interceptors)``."""
    with contextlib.ExitStack() as stack:

        def begin(handlers: Mapping[str, Any], *interceptors: Any) -> grpc.Channel:
            return stack.enter_context(door.serve(loop, handlers, interceptors))

        yield begin


ServeAll = Callable[..., Served]


@pytest.fixture
def serve_all(door: Door, serve: Serve, verifier: Verifier) -> ServeAll:
    """Return a function that serves every method behind an interceptor, and others behind that."""

    def begin(*inner: Any, judge: Authorizer | Verifier = verifier) -> Served:
        witness = Witness()
        channel = serve(handlers(door.behaviours(witness), witness), door.interceptor(judge), *inner)
        return Served(channel, witness)

    return begin


Reach = Callable[..., Reachable]


@contextlib.contextmanager
def reaching(door: Door, loop: Loop, authority: Authority, factory: pytest.TempPathFactory) -> Iterator[Reach]:
    with contextlib.ExitStack() as stack:

        def begin(
            *judge: Any, inner: Iterable[Any] = (), pool: ThreadPoolExecutor | None = None, **options: Any
        ) -> Reachable:
            chain = [door.interceptor(*judge, **options), *inner]
            return stack.enter_context(Reachable.serving(door, loop, authority, factory.mktemp("r"), *chain, pool=pool))

        yield begin


@pytest.fixture
def reach(door: Door, loop: Loop, authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reach]:
    """Return a function that starts a server which can be reached in every way: ``reach(verifier, trust=…)``."""
    with reaching(door, loop, authority, tmp_path_factory) as begin:
        yield begin


@pytest.fixture(scope="session")
def reach_for_long(
    door: Door, loop: Loop, authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Reach]:
    """Return the same function for servers that many tests share."""
    with reaching(door, loop, authority, tmp_path_factory) as begin:
        yield begin


class WatchedTransport(FakeTransport):
    """A network that hangs at first, and says when it is asked."""

    def __init__(self, *keys: SigningKey) -> None:
        super().__init__(lambda: json_response(jwks(*keys)))
        self._asked = threading.Semaphore(0)
        self.hang()

    def fetch(self, *args: Any, **options: Any) -> "Future[HttpResponse]":
        future = super().fetch(*args, **options)
        self._asked.release()
        return future

    def await_request(self) -> None:
        assert self._asked.acquire(timeout=PATIENCE), "nobody has asked"


class WatchedAuthorizer(Authorizer):
    """Says when a call is given up while it waits."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.given_up = threading.Semaphore(0)

    def authorize(self, call: Call, _evidence: Evidence | None = None) -> Flow[Principal]:
        try:
            return (yield from super().authorize(call))
        except GeneratorExit:
            self.given_up.release()
            raise


@dataclass(frozen=True)
class Cold(Served):
    """A server whose interceptor has no keys yet, and the network they come through."""

    transport: WatchedTransport
    authorizer: WatchedAuthorizer
    is_aio: bool

    def await_departure(self) -> None:
        """Return when the server knows that a client has gone; threads that wait are not told.

        A client knows it first. Were the keys to arrive in between, the handler would begin, and grpc.aio
        never gives back the thread of a synchronous one that streams replies to a client that has gone.
        """
        assert not self.is_aio or self.authorizer.given_up.acquire(timeout=PATIENCE), "nobody has gone"

    def call_until_fetch(self, kind: str, name: str | None = None, **options: Any) -> Callable[[], Outcome]:
        """Begin a call and return when it waits for keys; what is returned waits for its end."""
        begun = start(self.channel, kind, name, **options)
        self.transport.await_request()
        return lambda: finish(kind, begun)


@pytest.fixture
def transport(ec_key: SigningKey) -> WatchedTransport:
    return WatchedTransport(ec_key)


@pytest.fixture
def cold_verifier(new_verifier: Callable[..., Verifier], transport: WatchedTransport) -> Verifier:
    """Return a verifier that has no keys yet."""
    return new_verifier(transport=transport)


@pytest.fixture
def cold(serve_all: ServeAll, cold_verifier: Verifier, transport: WatchedTransport, door: Door) -> Cold:
    authorizer = WatchedAuthorizer(cold_verifier, public_methods=PUBLIC_METHODS)
    served = serve_all(judge=authorizer)
    return Cold(served.channel, served.witness, transport, authorizer, door.is_aio)
