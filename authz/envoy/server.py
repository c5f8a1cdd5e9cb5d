"""The external authorization server, from its addresses to its end."""

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Literal, Protocol

import grpc
from grpc_health.v1 import health_pb2

from authz import telemetry
from authz.authorizer import Authorizer
from authz.envoy import listeners, unix_sockets
from authz.envoy.certificates import Certificates
from authz.envoy.grpcio_engine import GrpcioEngine
from authz.envoy.listeners import Address
from authz.envoy.servicer import AuthorizationServicer
from authz.envoy.unix_sockets import Permissions
from authz.errors import ConfigError, UnavailableError
from authz.flow import arun

if TYPE_CHECKING:
    from authz.envoy.native_engine import NativeEngine

_HEALTH_SECONDS = 1.0

EngineName = Literal["grpcio", "native"]


class Engine(Protocol):
    """What speaks gRPC: it gives every ``Check`` to a servicer, and answers ``grpc.health.v1``."""

    @staticmethod
    def check(address: Address) -> None:
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

    async def set_health(self, status: int) -> None:
        """Tell ``status``, a ``HealthCheckResponse.ServingStatus``, to whoever asks or watches."""

    async def stop(self, grace: float) -> None:
        """Tell watchers, give what runs ``grace`` seconds, and stop."""


async def serve(
    authorizer: Authorizer,
    listen: Sequence[str],
    *,
    engine: EngineName = "grpcio",
    certificates: Certificates | None = None,
    permissions: Permissions | None = None,
    reflection: bool = False,
    remove_authorization: bool = False,
    grace: float = 5.0,
    started: Callable[[Sequence[str]], None] = lambda _: None,
) -> None:
    """Serve until SIGTERM or SIGINT, then finish what runs.

    ``grpc.health.v1`` says SERVING while calls can be decided, which needs the issuer's keys.

    Args:
        authorizer: the judge.
        listen: ``HOST:PORT``, ``tls:HOST:PORT`` or ``unix:PATH``, at least one; port 0 is any free one.
        engine: ``grpcio``, or ``native`` for loopback and Unix sockets at a fifth of the CPU time (extra ``native``).
        certificates: of the addresses with TLS.
        permissions: of the Unix sockets; by default nobody but their owner may connect.
        reflection: whether clients may ask what services there are; for ``grpcio``.
        remove_authorization: whether Envoy keeps the token from the upstream.
        grace: seconds that running checks get at the end.
        started: is called with the addresses in force.

    Raises:
        ConfigError: an address cannot be bound, or the engine is not installed.

    """
    addresses = check(listen, engine=engine, certificates=certificates, reflection=reflection)
    servicer = AuthorizationServicer(authorizer, remove_authorization=remove_authorization)
    serving: Engine = GrpcioEngine(servicer, reflection=reflection) if engine == "grpcio" else _native()(servicer)
    with contextlib.ExitStack() as sockets:
        bound = [
            _bind_socket(serving, address, permissions or Permissions(), sockets)
            if address.kind == "unix"
            else _bind(serving, address, certificates)
            for address in addresses
        ]
        stopping = asyncio.Event()
        with _on_signal(stopping.set):
            await serving.start()
            keeping = asyncio.create_task(_keep_health(serving, authorizer))
            started(bound)
            try:
                await stopping.wait()
            finally:
                keeping.cancel()
                sockets.close()
                await serving.stop(grace)
                authorizer.close()
                telemetry.event(telemetry.INFO, "stopped")


def check(
    listen: Sequence[str],
    *,
    engine: EngineName = "grpcio",
    certificates: Certificates | None = None,
    reflection: bool = False,
) -> Sequence[Address]:
    """Return the addresses to serve, checked as far as they can be without binding them; see :func:`serve`.

    Raises:
        ConfigError: one of them cannot be served, or the engine is not installed.

    """
    addresses = listeners.parse_all(listen)
    with_tls = [address for address in addresses if address.kind == "tls"]
    kind = GrpcioEngine if engine == "grpcio" else _native()
    for address in addresses:
        kind.check(address)
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
    try:
        from authz.envoy.native_engine import NativeEngine  # noqa: PLC0415 - the extra's
    except ModuleNotFoundError as error:
        if error.name != "pygrpc_native":
            raise
        raise ConfigError("engine: native needs the extra: pip install 'grpc-org-authz[native]'") from None
    return NativeEngine


def _bind(engine: Engine, address: Address, certificates: Certificates | None) -> str:
    credentials = certificates.credentials() if certificates is not None and address.kind == "tls" else None
    port = engine.bind(address.target, credentials)
    if credentials is None and not address.is_local:
        # Whoever reaches this port can ask whether a token is good, and sees nothing encrypted.
        telemetry.event(telemetry.WARNING, "listening_without_tls", address=address.text)
    return address.at(port)


def _bind_socket(engine: Engine, address: Address, permissions: Permissions, sockets: contextlib.ExitStack) -> str:
    own = unix_sockets.bind_socket(address.path, permissions, lambda path: engine.bind(f"unix:{path}"))
    sockets.callback(own.remove)
    return address.text


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
