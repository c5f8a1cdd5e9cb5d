"""The external authorization server: it binds its addresses, serves, drains and stops."""

import asyncio
import contextlib
import signal
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Literal, Protocol

import grpc
from grpc_health.v1 import health_pb2

from authz.envoy.check.servicer import AuthorizationServicer
from authz.errors import ConfigError
from authz.runtime import telemetry
from authz.runtime.configuration import extra
from authz.runtime.network import unix_sockets
from authz.runtime.network.addresses import Address, parse_all
from authz.runtime.network.unix_sockets import Permissions
from authz.server.serving.certificates import Certificates
from authz.server.serving.grpcio_engine import GrpcioEngine
from authz.server.serving.health import Health
from authz.server.serving.pulse import Pulse
from authz.server.signals import on_signals

if TYPE_CHECKING:
    from authz.server.serving.native_engine import NativeEngine

EngineName = Literal["grpcio", "native"]

Companion = Callable[[Health], contextlib.AbstractAsyncContextManager[object]]
"""Runs beside a server, from before it starts until it has stopped."""


class Engine(Protocol):
    """What speaks gRPC: it gives every ``Check`` to a servicer, and answers ``grpc.health.v1``."""

    @staticmethod
    def check_address(address: Address) -> None:
        """Check that this engine can serve ``address``, without binding it.

        Raises:
            ConfigError: it cannot; the message says what to use.

        """

    def bind(self, address: str, credentials: grpc.ServerCredentials | None = None) -> int:
        """Listen on ``HOST:PORT`` or ``unix:PATH``, with TLS if there are ``credentials``, and return the port.

        Raises:
            ConfigError: that cannot be had.

        """

    async def start(self) -> None:
        """Begin to serve, NOT_SERVING at first."""

    def progress(self) -> Sequence[int]:
        """Return a counter of each thread that decides, except the event loop; see :class:`Pulse`."""

    async def set_health(self, status: int) -> None:
        """Answer ``status``, a ``HealthCheckResponse.ServingStatus``, to clients that ask, and tell watchers."""

    async def stop(self, grace: float) -> None:
        """Tell watchers, give running calls ``grace`` seconds, and stop."""


class Listener(Protocol):
    """Another door of the same judge, with an address of its own that is bound already."""

    async def start(self) -> None:
        """Begin to answer."""

    async def tell_health(self, reason: str) -> None:
        """Note why checks cannot be decided, as :attr:`authz.server.serving.health.Health.reason` has it."""

    async def stop(self, grace: float) -> None:
        """Give running checks ``grace`` seconds, and stop; more than once has no effect."""


async def serve(
    servicer: AuthorizationServicer,
    listen: Sequence[str],
    *,
    engine: EngineName = "grpcio",
    reuse_port: bool = False,
    certificates: Certificates | None = None,
    permissions: Permissions | None = None,
    reflection: bool = False,
    drain: float = 0.0,
    grace: float = 5.0,
    also: Sequence[Listener] = (),
    beside: Sequence[Companion] = (),
    started: Callable[[Sequence[str]], None] = lambda _: None,
    hung_up: Callable[[], None] = lambda: None,
) -> None:
    """Serve until SIGTERM or SIGINT, then finish the running checks.

    ``grpc.health.v1`` says SERVING while calls can be decided, which needs the issuer's keys.

    Args:
        servicer: answers checks.
        listen: ``HOST:PORT``, ``tls:HOST:PORT`` or ``unix:PATH``, at least one; port 0 is any free one.
        engine: ``grpcio``, or ``native`` for loopback and Unix sockets at a fifth of the CPU time (extra ``native``).
        reuse_port: whether other processes of this user listen on the same TCP ports.
        certificates: of the addresses with TLS.
        permissions: of the Unix sockets; by default only their owner may connect.
        reflection: whether clients may ask which services there are; for ``grpcio``.
        drain: seconds between saying NOT_SERVING and the end, in which every call is still answered, so that load
            balancers can turn to other servers. SIGINT cuts them short.
        grace: seconds that running checks get at the end.
        also: what else answers questions, from when the server does to when it stops.
        beside: what runs beside the server.
        started: is called with the addresses in force.
        hung_up: is called at SIGHUP.

    Raises:
        ConfigError: an address cannot be bound, or the engine is not installed.

    """
    addresses = checked_addresses(listen, engine=engine, certificates=certificates, reflection=reflection)
    serving: Engine = (
        GrpcioEngine(servicer, reflection=reflection, reuse_port=reuse_port)
        if engine == "grpcio"
        else _native()(servicer, reuse_port=reuse_port)
    )
    async with contextlib.AsyncExitStack() as ending:
        sockets = ending.enter_context(contextlib.ExitStack())
        bound = [
            _bind_socket(serving, address, permissions or Permissions(), sockets)
            if address.kind == "unix"
            else _bind(serving, address, certificates)
            for address in addresses
        ]
        pulse = Pulse(serving.progress)
        health = Health(servicer.authorizer, pulse)
        health.watch(partial(_tell_health, serving))
        for listener in also:
            health.watch(listener.tell_health)
        for companion in beside:
            await ending.enter_async_context(companion(health))
        stop = _Stop()
        handlers = {signal.SIGTERM: stop.ask, signal.SIGINT: stop.hurry, signal.SIGHUP: hung_up}
        ending.enter_context(on_signals(handlers))
        await serving.start()
        for listener in also:
            await listener.start()
        keeping, looking = asyncio.create_task(health.keep()), asyncio.create_task(pulse.keep())
        started(bound)
        try:
            await stop.wait()
        finally:
            keeping.cancel()
            await health.end()
            await stop.drain(drain)
            sockets.close()
            # The threads of the engine end now, and stand still.
            looking.cancel()
            await asyncio.gather(serving.stop(grace), *(listener.stop(grace) for listener in also))
            servicer.authorizer.close()
            telemetry.event(telemetry.INFO, "stopped")


def checked_addresses(
    listen: Sequence[str],
    *,
    engine: EngineName = "grpcio",
    certificates: Certificates | None = None,
    reflection: bool = False,
) -> Sequence[Address]:
    """Return the addresses to serve, checked as far as possible without binding them; see :func:`serve`.

    Raises:
        ConfigError: one of them cannot be served, or the engine is not installed.

    """
    addresses = parse_all(listen)
    with_tls = [address for address in addresses if address.kind == "tls"]
    kind = GrpcioEngine if engine == "grpcio" else _native()
    for address in addresses:
        kind.check_address(address)
        if address.kind == "unix":
            unix_sockets.check_path(address.path)
    if reflection and engine != "grpcio":
        raise ConfigError("reflection: the native engine has none; use --engine grpcio")
    if certificates is not None and engine != "grpcio":
        raise ConfigError("tls_cert_file: the native engine has no TLS; use --engine grpcio")
    if certificates is None and with_tls:
        raise ConfigError(f"tls_cert_file: missing; {with_tls[0].text!a} needs tls_cert_file and tls_key_file")
    if certificates is not None and not with_tls:
        raise ConfigError("tls_cert_file: no address uses it; listen on tls:HOST:PORT")
    return addresses


def _native() -> "type[NativeEngine]":
    with extra("native", "engine: native needs the extra", package="pygrpc_native"):
        from authz.server.serving.native_engine import NativeEngine  # noqa: PLC0415 - the extra's
    return NativeEngine


def _bind(engine: Engine, address: Address, certificates: Certificates | None) -> str:
    credentials = certificates.credentials() if certificates is not None and address.kind == "tls" else None
    port = engine.bind(address.target, credentials)
    if credentials is None and not address.is_local:
        # Any machine that reaches this port can ask whether a token is good, and nothing is encrypted.
        telemetry.event(telemetry.WARNING, "listening_without_tls", address=address.text)
    return address.at(port)


def _bind_socket(engine: Engine, address: Address, permissions: Permissions, sockets: contextlib.ExitStack) -> str:
    own = unix_sockets.bind_socket(address.path, permissions, lambda path: engine.bind(f"unix:{path}"))
    sockets.callback(own.remove)
    return address.text


async def _tell_health(engine: Engine, reason: str) -> None:
    status = health_pb2.HealthCheckResponse.NOT_SERVING if reason else health_pb2.HealthCheckResponse.SERVING
    await engine.set_health(int(status))
    name = health_pb2.HealthCheckResponse.ServingStatus.Name(status)
    telemetry.event(telemetry.INFO, "health", status=name, reason=reason)


class _Stop:
    """Whether the server is to end, and whether it is to drain first."""

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
        """Return after that time, or as soon as the server is to end without draining."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._hurried.wait(), seconds)
