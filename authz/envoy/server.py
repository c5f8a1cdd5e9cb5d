"""The external authorization server, from its addresses to its end."""

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, Protocol

from grpc_health.v1 import health_pb2

from authz import telemetry
from authz.authorizer import Authorizer
from authz.decision import Observer
from authz.envoy.config import check_address
from authz.envoy.grpcio_engine import GrpcioEngine
from authz.envoy.isolation import RequestIsolation
from authz.envoy.servicer import MAX_PENDING, AuthorizationServicer
from authz.errors import ConfigError, UnavailableError
from authz.flow import arun
from authz.transport import is_loopback

_SOCKETS = ("unix:", "unix-abstract:")

_HEALTH_SECONDS = 1.0

EngineName = Literal["grpcio", "native"]


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
    remove_authorization: bool = False,
    observers: Sequence[Observer] = (),
    isolation: RequestIsolation | None = None,
    max_pending: int = MAX_PENDING,
    grace: float = 5.0,
    started: Callable[[Sequence[str]], None] = lambda _: None,
) -> None:
    """Serve until SIGTERM or SIGINT, then finish what runs.

    ``grpc.health.v1`` says SERVING while calls can be decided, which needs the issuer's keys.

    Args:
        authorizer: the judge.
        listen: ``HOST:PORT`` or ``unix:PATH``, at least one; port 0 is any free one.
        engine: ``grpcio``, or ``native`` for loopback and Unix sockets at a fifth of the CPU time (extra ``native``).
        remove_authorization: whether Envoy keeps the token from the upstream.
        observers: who is told of every decision.
        isolation: checks what requests name, where Envoy shows them.
        max_pending: how many checks may wait for keys or for the issuer; one more is answered UNAVAILABLE at once.
        grace: seconds that running checks get at the end.
        started: is called with the addresses in force.

    Raises:
        ConfigError: an address cannot be bound, or the engine is not installed.

    """
    servicer = AuthorizationServicer(
        authorizer,
        remove_authorization=remove_authorization,
        observers=observers,
        isolation=isolation,
        max_pending=max_pending,
    )
    serving = _engine(engine)(servicer)
    addresses = [_bind(serving, address) for address in listen]
    stopping = asyncio.Event()
    with _on_signal(stopping.set):
        await serving.start()
        keeping = asyncio.create_task(_keep_health(serving, authorizer))
        started(addresses)
        try:
            await stopping.wait()
        finally:
            keeping.cancel()
            await serving.stop(grace)
            authorizer.close()
            telemetry.event(telemetry.INFO, "stopped")


def _engine(name: EngineName) -> Callable[[AuthorizationServicer], Engine]:
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


async def _keep_health(engine: Engine, authorizer: Authorizer) -> None:
    status: int | None = None
    while True:
        pause, new = _HEALTH_SECONDS, int(health_pb2.HealthCheckResponse.SERVING)
        try:
            await arun(authorizer.verifier.warm_up_flow(timeout=0))
        except UnavailableError as error:
            pause, new = error.retry_after, int(health_pb2.HealthCheckResponse.NOT_SERVING)
        except Exception as error:  # noqa: BLE001 - without this task the last status would stay for ever
            telemetry.unforeseen("health", error)
            new = int(health_pb2.HealthCheckResponse.NOT_SERVING)
        if new != status:
            status = new
            await engine.set_health(status)
            telemetry.event(telemetry.INFO, "health", status=health_pb2.HealthCheckResponse.ServingStatus.Name(status))
        await asyncio.sleep(pause)


@contextlib.contextmanager
def _on_signal(stop: Callable[[], object]) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    signals = (signal.SIGTERM, signal.SIGINT)
    for number in signals:
        loop.add_signal_handler(number, stop)
    try:
        yield
    finally:
        for number in signals:
            loop.remove_signal_handler(number)
