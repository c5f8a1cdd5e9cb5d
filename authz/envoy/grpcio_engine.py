"""The authorization server on ``grpc.aio``: every kind of address, in one event loop."""

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from authz.envoy.servicer import SERVICE, AuthorizationServicer
from authz.errors import ConfigError

# A request is a message here, so gRPC's metadata limits do not bound it. One that is too large is an RPC
# error, which failure_mode_allow lets through: leave room for all headers (60 KiB) and a buffered body.
_MAX_REQUEST_BYTES = 16 * 1024 * 1024


class GrpcioEngine:
    """Serve ``Check`` and ``grpc.health.v1``; see :class:`authz.envoy.server.Engine`."""

    def __init__(self, servicer: AuthorizationServicer) -> None:
        options = [("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", _MAX_REQUEST_BYTES)]
        self._server = grpc.aio.server(options=options)
        # Bytes in, bytes out: a request that does not parse must be denied, not fail as an RPC.
        handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(servicer.check)
        # Not add_registered_method_handlers: for aio it does nothing before grpcio 1.77.
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"Check": handler}),))
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)

    def bind(self, address: str) -> int:
        """See :class:`authz.envoy.server.Engine`."""
        try:
            port = self._server.add_insecure_port(address)
        except RuntimeError:
            port = 0
        if not port:
            raise ConfigError(
                f"listen: {address!a} cannot be bound: it is in use or not an address of this machine; choose another"
            )
        return port

    async def start(self) -> None:
        """See :class:`authz.envoy.server.Engine`."""
        # Else the whole server counts as SERVING until the first keys, or their absence, are known.
        await self.set_health(health_pb2.HealthCheckResponse.NOT_SERVING)
        await self._server.start()

    async def set_health(self, status: int) -> None:
        """See :class:`authz.envoy.server.Engine`."""
        for name in ("", SERVICE):
            await self._health.set(name, status)

    async def stop(self, grace: float) -> None:
        """See :class:`authz.envoy.server.Engine`."""
        # Watchers learn it before connections close.
        await self._health.enter_graceful_shutdown()
        await self._server.stop(grace)
