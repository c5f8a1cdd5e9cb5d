"""Where proxies ask over HTTP: a port or a Unix socket, in the event loop of the server."""

import asyncio
import socket
from collections.abc import Callable
from functools import partial

from authz.runtime import telemetry
from authz.runtime.network.addresses import parse
from authz.runtime.network.listening import bind
from authz.runtime.network.unix_sockets import Permissions, bind_socket, check_not_in_use, check_path
from authz.server.forward_auth.check import ForwardAuth
from authz.server.forward_auth.connection import HEAD_SECONDS, Connection
from authz.server.serving.certificates import Certificates
from authz.server.serving.health import STOPPING

SETTING = "forward_auth"

MAX_CONNECTIONS = 1024
"""At a time: proxies reuse theirs, a few for each of their processes. For one more, the one that was not used for the
longest time is closed."""

_BACKLOG = 1024
_SHUTDOWN_SECONDS = 2.0


def check_forward_auth_address(text: str) -> None:
    """Check that proxies could ask at an address, without binding it.

    Raises:
        ConfigError: they could not.

    """
    address = parse(SETTING, text)
    if address.kind == "unix":
        check_path(address.path, SETTING)


class HttpListener:
    """Serve one address; see :class:`authz.server.serving.server.Listener`.

    Args:
        check: answers questions.
        address: ``HOST:PORT``, ``tls:HOST:PORT`` or ``unix:PATH``; port 0 is any free one.
        certificates: for TLS.
        permissions: of the Unix socket.
        is_shared: whether other workers serve the same port, or this process takes over the socket of another.

    Attributes:
        is_ending: whether each connection closes after its next answer.

    Raises:
        ConfigError: the address cannot be bound.

    """

    def __init__(
        self,
        check: ForwardAuth,
        address: str,
        *,
        certificates: Certificates | None = None,
        permissions: Permissions | None = None,
        is_shared: bool = False,
    ) -> None:
        self._check, self._certificates = check, certificates
        self._server: asyncio.Server | None = None
        # In the order in which they were used last.
        self._connections: dict[Connection, None] = {}
        self.is_ending = False
        self._remove: Callable[[], None] = lambda: None
        parsed = parse(SETTING, address)
        if parsed.kind != "unix":
            self._socket = bind(parsed.target, SETTING, reuse_port=is_shared)
            self.address = parsed.at(self._socket.getsockname()[1])
            if certificates is None and not parsed.is_local:
                telemetry.event(telemetry.WARNING, "listening_without_tls", address=self.address)
            return
        if not is_shared:
            check_not_in_use([parsed.path], SETTING)
        self._socket, self.address = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM), address
        own = bind_socket(parsed.path, permissions or Permissions(), self._listen_at, setting=SETTING)
        self._remove = own.remove

    def _listen_at(self, path: str) -> None:
        self._socket.bind(path)
        self._socket.listen(_BACKLOG)

    async def start(self) -> None:
        """Begin to answer."""
        loop, connect = asyncio.get_running_loop(), partial(Connection, self._check, self)
        if self._socket.family == socket.AF_UNIX:
            self._server = await loop.create_unix_server(connect, sock=self._socket, backlog=_BACKLOG)
        elif self._certificates is None:
            self._server = await loop.create_server(connect, sock=self._socket, backlog=_BACKLOG)
        else:
            self._server = await loop.create_server(
                connect,
                sock=self._socket,
                backlog=_BACKLOG,
                ssl=self._certificates.context(),
                ssl_handshake_timeout=HEAD_SECONDS,
                ssl_shutdown_timeout=_SHUTDOWN_SECONDS,
            )
        telemetry.event(telemetry.INFO, "forward_auth_listening", address=self.address)

    async def tell_health(self, reason: str) -> None:
        """Have proxies ask over new connections, and so other servers, once this one is to end."""
        self.is_ending = reason == STOPPING

    async def stop(self, grace: float) -> None:
        """Give running checks ``grace`` seconds, and stop."""
        self.is_ending = True
        self._remove()
        if self._server is None:
            self._socket.close()
            return
        self._server.close()
        waiting = [connection.waiting for connection in self._connections if connection.waiting is not None]
        for connection in list(self._connections):
            connection.end()
        if waiting:
            await asyncio.wait(waiting, timeout=grace)
        for connection in list(self._connections):
            connection.abort()

    def opened(self, connection: Connection) -> None:
        """See :class:`authz.server.forward_auth.connection.Owner`."""
        if len(self._connections) >= MAX_CONNECTIONS:
            idle = (one for one in self._connections if one.waiting is None)
            least = next(idle, next(iter(self._connections)))
            self.closed(least)
            least.abort()
        self._connections[connection] = None

    def used(self, connection: Connection) -> None:
        """See :class:`authz.server.forward_auth.connection.Owner`."""
        if self._connections.pop(connection, connection) is None:
            self._connections[connection] = None

    def closed(self, connection: Connection) -> None:
        """See :class:`authz.server.forward_auth.connection.Owner`."""
        self._connections.pop(connection, None)
