"""The external authorization server, from its addresses to its end."""

import asyncio
import contextlib
import signal
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, Protocol

from grpc_health.v1 import health_pb2

from authz import telemetry
from authz.authorizer import Authorizer
from authz.decision import Observer
from authz.envoy.config import check_address
from authz.envoy.grpcio_engine import GrpcioEngine
from authz.envoy.health import Health
from authz.envoy.servicer import MAX_PENDING, AuthorizationServicer
from authz.envoy.signals import on_signals
from authz.errors import ConfigError
from authz.transport import is_loopback

_SOCKETS = ("unix:", "unix-abstract:")

EngineName = Literal["grpcio", "native"]

Companion = Callable[[Health, AuthorizationServicer], contextlib.AbstractAsyncContextManager[object]]
"""What runs beside a server, from before it starts until it has stopped."""


class Engine(Protocol):
    """What speaks gRPC: it gives every ``Check`` to a servicer, and answers ``grpc.health.v1``."""

    def bind(self, address: str) -> int:
        """Listen on ``HOST:PORT`` or ``unix:PATH``, and return the port.

        Raises:
            ConfigError: that cannot be had.

        """

    async def start(self) -> None:
        """Begin to serve, NOT_SERVING at first."""

    async def set_health(self, status: int) -> None:
        """Tell ``status``, a ``HealthCheckResponse.ServingStatus``, to whoever asks or watches."""

    async def stop(self, grace: float) -> None:
        """Tell watchers, give what runs ``grace`` seconds, and stop."""


async def serve(
    authorizer: Authorizer,
    listen: Sequence[str],
    *,
    engine: EngineName = "grpcio",
    reuse_port: bool = False,
    remove_authorization: bool = False,
    observers: Sequence[Observer] = (),
    max_pending: int = MAX_PENDING,
    drain: float = 0.0,
    grace: float = 5.0,
    beside: Sequence[Companion] = (),
    started: Callable[[Sequence[str]], None] = lambda _: None,
    hung_up: Callable[[], None] = lambda: None,
) -> None:
    """Serve until SIGTERM or SIGINT, then finish what runs.

    ``grpc.health.v1`` says SERVING while calls can be decided, which needs the issuer's keys.

    Args:
        authorizer: the judge.
        listen: ``HOST:PORT`` or ``unix:PATH``, at least one; port 0 is any free one.
        engine: ``grpcio``, or ``native`` for loopback and Unix sockets at a fifth of the CPU time (extra ``native``).
        reuse_port: whether other processes of this user listen on the same TCP ports.
        remove_authorization: whether Envoy keeps the token from the upstream.
        observers: who is told of every decision.
        max_pending: how many checks may wait for keys or for the issuer; one more is answered UNAVAILABLE at once.
        drain: seconds from saying NOT_SERVING to the end, in which everything is still answered, for load balancers
            to go elsewhere. SIGINT cuts them short.
        grace: seconds that running checks get at the end.
        beside: what else runs meanwhile.
        started: is called with the addresses in force.
        hung_up: is called at SIGHUP.

    Raises:
        ConfigError: an address cannot be bound, or the engine is not installed.

    """
    servicer = AuthorizationServicer(
        authorizer, remove_authorization=remove_authorization, observers=observers, max_pending=max_pending
    )
    serving = _engine(engine)(servicer, reuse_port=reuse_port)
    addresses = [_bind(serving, address) for address in listen]
    health = Health(authorizer)
    health.watch(partial(_tell_health, serving))
    async with contextlib.AsyncExitStack() as ending:
        for companion in beside:
            await ending.enter_async_context(companion(health, servicer))
        stop = _Stop()
        handlers = {signal.SIGTERM: stop.ask, signal.SIGINT: stop.hurry, signal.SIGHUP: hung_up}
        ending.enter_context(on_signals(handlers))
        await serving.start()
        keeping = asyncio.create_task(health.keep())
        started(addresses)
        try:
            await stop.wait()
        finally:
            keeping.cancel()
            await health.end()
            await stop.drain(drain)
            await serving.stop(grace)
            authorizer.close()
            telemetry.event(telemetry.INFO, "stopped")


def _engine(name: EngineName) -> Callable[..., Engine]:
    if name == "grpcio":
        return GrpcioEngine
    try:
        from authz.envoy.native_engine import NativeEngine  # noqa: PLC0415 - the extra's
    except ModuleNotFoundError as error:
        if error.name != "pygrpc_native":
            raise
        raise ConfigError("engine: native needs the extra: pip install 'grpc-org-authz[native]'") from None
    return NativeEngine


def _bind(engine: Engine, address: str) -> str:
    is_socket = address.startswith(_SOCKETS) and address not in _SOCKETS
    if not is_socket:
        # Without a port grpc takes that of https.
        check_address("listen", address)
    port = engine.bind(address)
    if is_socket:
        return address
    host = address.rpartition(":")[0]
    if not is_loopback(host.strip("[]")):
        # Whoever reaches this port can ask whether a token is good, and sees nothing encrypted.
        telemetry.event(telemetry.WARNING, "listening_without_tls", address=address)
    return f"{host}:{port}"


async def _tell_health(engine: Engine, reason: str) -> None:
    status = health_pb2.HealthCheckResponse.NOT_SERVING if reason else health_pb2.HealthCheckResponse.SERVING
    await engine.set_health(int(status))
    name = health_pb2.HealthCheckResponse.ServingStatus.Name(status)
    telemetry.event(telemetry.INFO, "health", status=name, reason=reason)


class _Stop:
    """Whether the server is to end, and how fast."""

    def __init__(self) -> None:
        self._asked, self._hurried = asyncio.Event(), asyncio.Event()

    def ask(self) -> None:
        """Have the server end."""
        self._asked.set()

    def hurry(self) -> None:
        """Have it end without draining."""
        self._asked.set()
        self._hurried.set()

    async def wait(self) -> None:
        """Return when the server is to end."""
        await self._asked.wait()

    async def drain(self, seconds: float) -> None:
        """Return after that time, or when there is no more patience."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._hurried.wait(), seconds)
