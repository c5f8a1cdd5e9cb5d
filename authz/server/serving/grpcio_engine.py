"""The authorization server on ``grpc.aio``: every kind of address, in one event loop."""

import asyncio
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from authz.envoy.check.outline import MAX_QUESTION_BYTES
from authz.envoy.check.servicer import SERVICE, AuthorizationServicer
from authz.errors import ConfigError
from authz.runtime.network.addresses import Address
from authz.server.serving.bounds import (
    KEEPALIVE_MS,
    KEEPALIVE_TIMEOUT_MS,
    MAX_CONCURRENT_STREAMS,
    MAX_METADATA_BYTES,
    MAX_QUEUED_CALLS,
    MIN_PING_INTERVAL_MS,
)
from authz.server.serving.generic import GenericServer

_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_QUESTION_BYTES),
    # Only the first algorithm, identity: Envoy does not compress, and a kilobyte could expand to a megabyte.
    ("grpc.compression_enabled_algorithms_bitset", 1),
    ("grpc.max_concurrent_streams", MAX_CONCURRENT_STREAMS),
    ("grpc.server.max_pending_requests", MAX_QUEUED_CALLS),
    ("grpc.server.max_pending_requests_hard_limit", MAX_QUEUED_CALLS),
    # Both: between the two numbers gRPC refuses calls at random.
    ("grpc.max_metadata_size", MAX_METADATA_BYTES),
    ("grpc.absolute_max_metadata_size", MAX_METADATA_BYTES),
    ("grpc.keepalive_time_ms", KEEPALIVE_MS),
    ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
    ("grpc.keepalive_permit_without_calls", 1),
    # Without it gRPC ends the connection of an Envoy whose connection_keepalive is less than 5 minutes.
    ("grpc.http2.min_ping_interval_without_data_ms", MIN_PING_INTERVAL_MS),
)


class GrpcioEngine:
    """Serve ``Check`` and ``grpc.health.v1``; see :class:`authz.server.serving.server.Engine`.

    Args:
        servicer: answers ``Check``.
        reflection: whether clients may ask which services there are (``grpc.reflection.v1alpha``).
        reuse_port: whether other processes of this user listen on the same TCP ports.

    """

    def __init__(self, servicer: AuthorizationServicer, *, reflection: bool = False, reuse_port: bool = False) -> None:
        # Without reuse_port a second server on the same port must fail, not share its calls.
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", int(reuse_port)), *_OPTIONS])
        # Bytes in, bytes out: a request that cannot be parsed must be denied, not fail as an RPC.
        handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(servicer.check)
        # No registered methods, neither ours nor those of the other services: each would cost every check something.
        services: Any = GenericServer(self._server)
        services.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"Check": handler}),))
        self._health = _Health()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, services)
        if reflection:
            from authz.server.serving.reflection import add_reflection  # noqa: PLC0415 - seldom needed

            add_reflection(services)

    @staticmethod
    def check_address(address: Address) -> None:
        """See :class:`authz.server.serving.server.Engine`."""

    def bind(self, address: str, credentials: grpc.ServerCredentials | None = None) -> int:
        """See :class:`authz.server.serving.server.Engine`."""
        try:
            if credentials is None:
                port = self._server.add_insecure_port(address)
            else:
                port = self._server.add_secure_port(address, credentials)
        except RuntimeError:
            port = 0
        if not port:
            raise ConfigError(
                f"listen: {address!a} cannot be bound: it is in use or not an address of this machine; choose another "
                "(`authz doctor` says which program has it)"
            )
        return port

    async def start(self) -> None:
        """See :class:`authz.server.serving.server.Engine`."""
        await self._server.start()

    def progress(self) -> tuple[int, ...]:
        """See :class:`authz.server.serving.server.Engine`: the event loop alone decides."""
        return ()

    async def set_health(self, status: int) -> None:
        """See :class:`authz.server.serving.server.Engine`."""
        self._health.set(status)

    async def stop(self, grace: float) -> None:
        """See :class:`authz.server.serving.server.Engine`."""
        # Watchers are told before connections close.
        self._health.set(health_pb2.HealthCheckResponse.NOT_SERVING)
        await self._server.stop(grace)


class _Health(health_pb2_grpc.HealthServicer):
    """``grpc.health.v1`` for the server and its one service, NOT_SERVING at first.

    Not ``grpc_health.v1.health.aio``, which writes under a lock: one watcher that
    does not read would freeze the health for all, and keep the server from ending.
    """

    def __init__(self) -> None:
        self._status = int(health_pb2.HealthCheckResponse.NOT_SERVING)
        self._changed = asyncio.Event()

    def set(self, status: int) -> None:
        """Answer ``status`` to clients that ask, and tell those that watch."""
        self._status = status
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def Check(self, request: HealthCheckRequest, context: Any) -> HealthCheckResponse:  # noqa: N802 - gRPC's name
        status = self._status_of(request)
        if status is None:
            await context.abort(grpc.StatusCode.NOT_FOUND)
        return _response(status)

    async def Watch(self, request: HealthCheckRequest, context: Any) -> None:  # noqa: N802 - as above
        told = None
        while True:
            changed, status = self._changed, self._status_of(request)
            if status is None:
                # As gRPC's health checking protocol has it: the service may be registered later.
                status = int(health_pb2.HealthCheckResponse.SERVICE_UNKNOWN)
            if status != told:
                told = status
                await context.write(_response(status))
            await changed.wait()

    def _status_of(self, request: HealthCheckRequest) -> int | None:
        return self._status if request.service in ("", SERVICE) else None


def _response(status: int | None) -> HealthCheckResponse:
    return HealthCheckResponse(status=status)
