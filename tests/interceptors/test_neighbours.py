"""Other people's servicers behind a door: health checking and reflection work as they do without one."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc

from authz import Authorizer, Verifier
from tests.interceptors.client import DEADLINE, Silence, bearer, call
from tests.interceptors.conftest import Serve, WatchedTransport
from tests.interceptors.servers import DOORS, Door, Loop, channel_to, sync_server
from tests.interceptors.service import Witness, handlers, is_request_streaming, is_response_streaming

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
HEALTH_METHODS = ("/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch")
WATCHERS = 3

BOTH = pytest.mark.parametrize("door", DOORS[:2], ids=lambda door: door.name)


class Collector:
    """Stands for the server to which generated code adds a servicer."""

    def __init__(self) -> None:
        self.handlers: dict[str, Any] = {}

    def add_generic_rpc_handlers(self, handlers: Iterable[Any]) -> None:
        """Do nothing: the same handlers come by the other way too."""

    def add_registered_method_handlers(self, service: str, handlers: dict[str, Any]) -> None:
        self.handlers |= {f"/{service}/{name}": handler for name, handler in handlers.items()}


def handlers_of(add: Callable[[Any, Any], None], servicer: Any) -> dict[str, Any]:
    collector = Collector()
    add(servicer, collector)
    return collector.handlers


def check_and_watch(channel: grpc.Channel, metadata: Any, change: Callable[[], None]) -> list[int]:
    """Open more watches than there are threads, check, change the status; return every status that is seen."""
    stub = health_pb2_grpc.HealthStub(channel)
    request = health_pb2.HealthCheckRequest()
    watches = [stub.Watch(request, metadata=metadata, timeout=DEADLINE) for _ in range(WATCHERS)]
    seen = [next(watch).status for watch in watches]
    seen.append(stub.Check(request, metadata=metadata, timeout=DEADLINE).status)
    change()
    seen += [next(watch).status for watch in watches]
    for watch in watches:
        watch.cancel()
    return seen


EXPECTED = [SERVING] * (WATCHERS + 1) + [NOT_SERVING] * WATCHERS


def sync_health(judge: Authorizer | Verifier, metadata: Any) -> list[int]:
    """Check and watch on a ``grpc.server`` with one thread."""
    servicer = health.HealthServicer(experimental_non_blocking=True)
    served = handlers_of(health_pb2_grpc.add_HealthServicer_to_server, servicer)
    with (
        sync_server(served, [DOORS[0].interceptor(judge)], pool=ThreadPoolExecutor(1)) as address,
        channel_to(address) as channel,
    ):
        return check_and_watch(channel, metadata, lambda: servicer.set("", NOT_SERVING))


def test_watches_do_not_take_the_only_thread(verifier: Verifier) -> None:
    assert sync_health(Authorizer(verifier, public_methods=HEALTH_METHODS), ()) == EXPECTED


def test_watches_of_known_callers_do_not_take_the_only_thread(verifier: Verifier, token: str) -> None:
    assert sync_health(verifier, bearer(token)) == EXPECTED


def test_watches_that_had_to_wait_for_keys_do_not_take_the_only_thread(
    cold_verifier: Verifier, transport: WatchedTransport, token: str
) -> None:
    transport.up()

    assert sync_health(cold_verifier, bearer(token)) == EXPECTED


@pytest.mark.parametrize("door", [DOORS[1]], ids=lambda door: door.name)
@pytest.mark.parametrize("is_public", [True, False], ids=["public", "guarded"])
def test_watches_on_an_aio_server_follow_the_status(
    loop: Loop, serve: Serve, verifier: Verifier, token: str, *, is_public: bool
) -> None:
    servicer = health.aio.HealthServicer()
    served = handlers_of(health_pb2_grpc.add_HealthServicer_to_server, servicer)
    judge = Authorizer(verifier, public_methods=HEALTH_METHODS if is_public else ())
    channel = serve(served, DOORS[1].interceptor(judge))

    seen = check_and_watch(channel, () if is_public else bearer(token), lambda: loop.run(servicer.set("", NOT_SERVING)))

    assert seen == EXPECTED


@BOTH
def test_list_of_services_is_not_public_because_check_is(door: Door, serve: Serve, verifier: Verifier) -> None:
    servicer = health.aio.HealthServicer() if door.is_aio else health.HealthServicer()
    served = handlers_of(health_pb2_grpc.add_HealthServicer_to_server, servicer)
    channel = serve(served, door.interceptor(Authorizer(verifier, public_methods=HEALTH_METHODS)))

    outcome = call(channel, "unary_unary", "/grpc.health.v1.Health/List")

    assert outcome.reason == "TOKEN_MISSING"


@BOTH
def test_reflection_tells_strangers_nothing(door: Door, serve: Serve, verifier: Verifier, silence: Silence) -> None:
    servicer = (reflection.aio if door.is_aio else reflection).ReflectionServicer(["authz.demo.v1.LedgerService"])
    served = handlers_of(reflection_pb2_grpc.add_ServerReflectionServicer_to_server, servicer)
    channel = serve(served, door.interceptor(verifier))

    outcome = call(channel, "stream_stream", next(iter(served)), requests=silence)

    assert (outcome.reason, outcome.messages) == ("TOKEN_MISSING", [])


@BOTH
def test_reflection_lists_services_to_known_callers(door: Door, serve: Serve, verifier: Verifier, token: str) -> None:
    servicer = (reflection.aio if door.is_aio else reflection).ReflectionServicer(["authz.demo.v1.LedgerService"])
    served = handlers_of(reflection_pb2_grpc.add_ServerReflectionServicer_to_server, servicer)
    channel = serve(served, door.interceptor(verifier))
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    requests = [reflection_pb2.ServerReflectionRequest(list_services="")]

    [answer] = stub.ServerReflectionInfo(iter(requests), metadata=bearer(token), timeout=DEADLINE)

    assert [service.name for service in answer.list_services_response.service] == ["authz.demo.v1.LedgerService"]


# ---- Observers before ours ----


class Observer(grpc.ServerInterceptor):
    """Notes of which kind handlers are, as those do that count RPCs by kind."""

    def __init__(self) -> None:
        self.kinds: list[tuple[bool, bool]] = []

    def note(self, handler: Any) -> Any:
        self.kinds.append((bool(handler.request_streaming), bool(handler.response_streaming)))
        return handler

    def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        return self.note(continuation(handler_call_details))


class AioObserver(Observer, grpc.aio.ServerInterceptor):
    """The same for grpc.aio."""

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        return self.note(await continuation(handler_call_details))


@BOTH
def test_observer_sees_the_kind_of_a_call_that_is_admitted_and_a_stream_refused(
    door: Door, serve: Serve, verifier: Verifier, token: str, kind: str
) -> None:
    """As unary calls they would wait for a request, which a caller without a token need not send."""
    observer, witness = AioObserver() if door.is_aio else Observer(), Witness()
    channel = serve(handlers(door.behaviours(witness), witness), observer, door.interceptor(verifier))
    call(channel, kind, metadata=bearer(token))
    call(channel, kind)

    own = (is_request_streaming(kind), is_response_streaming(kind))
    assert observer.kinds == [own, (True, False)]
