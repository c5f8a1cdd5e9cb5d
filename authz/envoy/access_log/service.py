"""``envoy.service.accesslog.v3.AccessLogService``: tells the observers of calls that the judge was not asked about."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio

from authz.envoy.access_log.address import SETTING, SOCKET, check_access_log_address
from authz.envoy.access_log.entries import UnreadableError, repeated_decision
from authz.envoy.v3.access_log_pb2 import HTTPAccessLogEntry, StreamAccessLogsMessage
from authz.errors import ConfigError
from authz.judge.telling import Telling
from authz.runtime import telemetry
from authz.runtime.clock import Clock
from authz.runtime.network.unix_sockets import Permissions, bind_socket, check_not_in_use

SERVICE, METHOD = "envoy.service.accesslog.v3.AccessLogService", "StreamAccessLogs"

MAX_STREAMS = 256
"""How many streams there may be; each thread of an Envoy has one."""

MAX_MESSAGE_BYTES = 768 * 1024
"""Of one message: 256 KiB that Envoy tells at once, one entry more with the headers of a caller, and in the first
message Envoy itself, which are 64 KiB each; twice that."""

_SLICE = 50
"""How many entries are told before checks of the same event loop have a turn."""

# Longer than Envoy waits for more entries.
_LAST_SECONDS = 0.8


class AccessLog:
    """Tell the observers of each call whose answer Envoy has repeated, when that call is over.

    Args:
        telling: tells the observers.
        clock: says what time it is.

    Attributes:
        counts: of how many calls they were ``told``, how many entries and messages were ``unreadable``, and how many
            streams were too many, and ``refused``.

    """

    def __init__(self, telling: Telling, clock: Clock) -> None:
        self._telling, self._clock = telling, clock
        self._streams = 0
        self.counts = {"told": 0, "unreadable": 0, "refused": 0}

    async def stream(self, messages: AsyncIterator[bytes], context: Any) -> bytes:
        """Read one stream of an Envoy until it ends, as a handler of ``grpc.aio``."""
        if self._streams >= MAX_STREAMS:
            self.counts["refused"] += 1
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "Too many streams already")
        self._streams += 1
        try:
            async for message in messages:
                await self._take_in(message)
        finally:
            self._streams -= 1
        return b""

    async def _take_in(self, message: bytes) -> None:
        try:
            entries = StreamAccessLogsMessage.FromString(message).http_logs.log_entry
        except Exception:  # noqa: BLE001 - the stream goes on: what follows may be good
            self._cannot_read()
            return
        now = self._clock.time()
        for number, entry in enumerate(entries, 1):
            self._tell(entry, now)
            if number % _SLICE == 0:
                await asyncio.sleep(0)

    def _tell(self, entry: HTTPAccessLogEntry, now: float) -> None:
        try:
            decision = repeated_decision(entry, now)
        except UnreadableError:
            self._cannot_read()
            return
        if decision is not None:
            self._telling.repeated(decision)
            self.counts["told"] += 1

    def _cannot_read(self) -> None:
        self.counts["unreadable"] += 1
        if self.counts["unreadable"] == 1:
            # Once: a client that sends such entries sends many.
            telemetry.event(telemetry.WARNING, "access_log_unreadable")


@contextlib.asynccontextmanager
async def serve_access_log(
    access_log: AccessLog, address: str, *, permissions: Permissions | None = None, takes_over: bool = False
) -> AsyncIterator[str]:
    """Serve ``access_log`` until the end of the block; yield the address.

    Whoever connects can write into the audit, so there is no port: the file system says who may.

    Args:
        access_log: what to serve.
        address: ``unix:PATH``.
        permissions: of the socket; by default only its owner may connect.
        takes_over: whether to replace a server that listens on that socket; by default that is an error.

    Raises:
        ConfigError: it is no such address, cannot be bound, or another server listens there.

    """
    check_access_log_address(address)
    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.stream_unary_rpc_method_handler(access_log.stream)
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            # Only the first algorithm, identity: a kilobyte could expand to a megabyte.
            ("grpc.compression_enabled_algorithms_bitset", 1),
        ]
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {METHOD: handler}),))

    def bind(path: str) -> None:
        try:
            server.add_insecure_port(SOCKET + path)
        except RuntimeError:
            raise ConfigError(f"{SETTING}: {path!a} cannot be bound; choose another path") from None

    path = address.removeprefix(SOCKET)
    if not takes_over:
        check_not_in_use([path], SETTING)
    own = bind_socket(path, permissions or Permissions(), bind, setting=SETTING)
    try:
        await server.start()
        yield address
    finally:
        own.remove()
        # Envoy's streams never end by themselves; what it still holds back comes within that time.
        await server.stop(_LAST_SECONDS)
