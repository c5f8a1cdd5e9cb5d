"""Envoy's extension config discovery service, for the one script that repeats our answers."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import grpc
import grpc.aio

from authz.envoy.memo.script import NAME
from authz.envoy.v3.discovery_pb2 import DiscoveryRequest, DiscoveryResponse
from authz.errors import ConfigError
from authz.runtime import telemetry
from authz.runtime.network.addresses import Address
from authz.runtime.network.unix_sockets import Permissions, bind_socket, check_not_in_use
from authz.server.memo import resource
from authz.server.serving.certificates import Certificates

SERVICE, _METHOD = "envoy.service.extension.v3.ExtensionConfigDiscoveryService", "StreamExtensionConfigs"

REPEAT = 1.0
"""Seconds until the same script is sent again; it lasts :data:`authz.server.memo.resource.LASTING`."""

MAX_ENVOYS = 64
# Its names of itself, with all that it can do, take 60 kB.
_MAX_REQUEST = 1024 * 1024
_LAST_WORDS_SECONDS = 0.5


class Discovery:
    """Tell every Envoy that listens which script to run, at once when it changes, and again each second.

    Args:
        source: makes the script of a generation.

    Attributes:
        envoys: how many listen now.
        refused: how often one has refused a script.

    """

    def __init__(self, source: Callable[[str], str]) -> None:
        self._source = source
        self._script = self._version = ""
        self._changed = asyncio.Event()
        self._nonces = itertools.count(1)
        self.envoys = self.refused = 0

    def publish(self, generation: str) -> None:
        """Have every Envoy run the script of another generation; on the event loop."""
        self._script, self._version = self._source(generation), generation or "none"
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def stream(self, requests: AsyncIterator[DiscoveryRequest], context: Any) -> None:
        """Answer one Envoy until it goes; a handler of ``grpc.aio``."""
        if self.envoys >= MAX_ENVOYS:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "as many listen as may")
        self.envoys += 1
        telling: asyncio.Task[None] | None = None
        try:
            async for request in requests:
                if request.HasField("error_detail"):
                    self.refused += 1
                    telemetry.event(telemetry.ERROR, "memo_refused", version=request.version_info)
                if telling is None and NAME in request.resource_names:
                    telling = asyncio.create_task(self._tell_on(context))
                    # It fails where the Envoy has gone, which ends this call as well.
                    telling.add_done_callback(lambda task: task.cancelled() or task.exception())
        finally:
            self.envoys -= 1
            if telling is not None:
                telling.cancel()

    async def _tell_on(self, context: Any) -> None:
        while True:
            changed = self._changed
            await context.write(resource.response(self._script, self._version, str(next(self._nonces))))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), REPEAT)


@contextlib.asynccontextmanager
async def serve_discovery(
    discovery: Discovery, address: Address, *, permissions: Permissions, certificates: Certificates | None
) -> AsyncIterator[None]:
    """Serve until the end of the block.

    Args:
        discovery: what to serve.
        address: ``unix:PATH``, or ``tls:HOST:PORT`` for clients with a certificate.
        permissions: of the Unix socket.
        certificates: for the latter.

    Raises:
        ConfigError: the address cannot be bound, or another server listens there.

    """
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", _MAX_REQUEST)])
    handler: grpc.RpcMethodHandler[DiscoveryRequest, DiscoveryResponse] = grpc.stream_stream_rpc_method_handler(
        discovery.stream,
        request_deserializer=DiscoveryRequest.FromString,
        response_serializer=DiscoveryResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {_METHOD: handler}),))
    with contextlib.ExitStack() as sockets:
        if address.kind == "unix":
            check_not_in_use([address.path], "xds")
            own = bind_socket(address.path, permissions, partial(_bind_socket, server), setting="xds")
            sockets.callback(own.remove)
        elif certificates is not None:
            credentials = certificates.credentials()
            _check_bound(address.text, lambda: server.add_secure_port(address.target, credentials))
        await server.start()
        try:
            yield
        finally:
            sockets.close()
            # So that an Envoy still hears that it is to forget everything.
            await server.stop(_LAST_WORDS_SECONDS)


def _bind_socket(server: grpc.aio.Server, path: str) -> None:
    _check_bound(f"unix:{path}", lambda: server.add_insecure_port(f"unix:{path}"))


def _check_bound(address: str, bind: Callable[[], int]) -> None:
    try:
        port = bind()
    except RuntimeError:
        port = 0
    if not port:
        raise ConfigError(f"xds: {address!a} cannot be bound; choose an address that is free")
