"""The external authorization server on ``grpc.aio``."""

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from authz import telemetry
from authz.authorizer import Authorizer
from authz.envoy.config import check_address
from authz.envoy.servicer import SERVICE, AuthorizationServicer
from authz.errors import ConfigError, UnavailableError
from authz.flow import arun
from authz.transport import is_loopback

_SOCKETS = ("unix:", "unix-abstract:")

# A request is a message here, so gRPC's metadata limits do not bound it. One that is too large is an RPC
# error, which failure_mode_allow lets through: leave room for all headers (60 KiB) and a buffered body.
_MAX_REQUEST_BYTES = 16 * 1024 * 1024
_HEALTH_SECONDS = 1.0


async def serve(
    authorizer: Authorizer,
    listen: Sequence[str],
    *,
    grace: float = 5.0,
    started: Callable[[Sequence[str]], None] = lambda _: None,
) -> None:
    """Serve until SIGTERM or SIGINT, then finish what runs.

    ``grpc.health.v1`` says SERVING while calls can be decided, which needs the issuer's keys.

    Args:
        authorizer: the judge.
        listen: ``HOST:PORT`` or ``unix:PATH``, at least one; port 0 is any free one.
        grace: seconds that running checks get at the end.
        started: is called with the addresses in force.

    Raises:
        ConfigError: an address cannot be bound.

    """
    options = [("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", _MAX_REQUEST_BYTES)]
    server = grpc.aio.server(options=options)
    # Bytes in, bytes out: a request that does not parse must be denied, not fail as an RPC.
    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(
        AuthorizationServicer(authorizer).check
    )
    # Not add_registered_method_handlers: for aio it does nothing before grpcio 1.77.
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"Check": handler}),))
    servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    addresses = [_bind(server, address) for address in listen]
    stopping = asyncio.Event()
    with _on_signal(stopping.set):
        # Else the whole server counts as SERVING until the first keys, or their absence, are known.
        await _set_health(servicer, health_pb2.HealthCheckResponse.NOT_SERVING)
        await server.start()
        keeping = asyncio.create_task(_keep_health(servicer, authorizer))
        started(addresses)
        try:
            await stopping.wait()
        finally:
            keeping.cancel()
            # Watchers learn it before connections close.
            await servicer.enter_graceful_shutdown()
            await server.stop(grace)
            authorizer.close()
            telemetry.event(telemetry.INFO, "stopped")


def _bind(server: grpc.aio.Server, address: str) -> str:
    if not address.startswith(_SOCKETS):
        # Without a port grpc takes that of https.
        check_address("listen", address)
    try:
        port = server.add_insecure_port(address)
    except RuntimeError:
        port = 0
    if not port:
        raise ConfigError(
            f"listen: {address!a} cannot be bound: it is in use or not an address of this machine; choose another"
        )
    if address.startswith(_SOCKETS):
        return address
    host = address.rpartition(":")[0]
    if not is_loopback(host.strip("[]")):
        # Whoever reaches this port can ask whether a token is good, and sees nothing encrypted.
        telemetry.event(telemetry.WARNING, "listening_without_tls", address=address)
    return f"{host}:{port}"


async def _keep_health(servicer: Any, authorizer: Authorizer) -> None:
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
            await _set_health(servicer, status)
            telemetry.event(telemetry.INFO, "health", status=health_pb2.HealthCheckResponse.ServingStatus.Name(status))
        await asyncio.sleep(pause)


async def _set_health(servicer: Any, status: int) -> None:
    for name in ("", SERVICE):
        await servicer.set(name, status)


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
