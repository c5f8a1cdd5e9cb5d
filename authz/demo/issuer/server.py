"""The development issuer on a port: binds it, serves it from a thread, and stops it cleanly."""

import contextlib
import socket
import threading
from collections import Counter
from types import TracebackType
from typing import Self

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from authz.demo.issuer.http import app
from authz.demo.issuer.tokens import Issuer
from authz.demo.issuer.webhooks import Webhooks
from authz.errors import ConfigError
from authz.runtime.network.urls import is_loopback

_MAX_PORT = 65_535

# Seconds for requests under way when the server stops.
_GRACE = 2


class IssuerServer:
    """Serve an issuer from a thread of this process; a context manager.

    The port is bound before anything is served, so ``url`` is known as soon
    as :meth:`start` returns. After :meth:`stop` it can be started again: on
    the same port, with the same keys and revocations.

    Args:
        issuer: the issuer to serve, by default a new one; if it has no URL, it gets that of the bound address.
        listen: ``HOST:PORT``; port 0 chooses a free one.
        allow_remote: permit an address that other machines can reach.
        webhooks: the URL to which what happens is posted; by default it is not.

    """

    def __init__(
        self,
        issuer: Issuer | None = None,
        *,
        listen: str = "127.0.0.1:0",
        allow_remote: bool = False,
        webhooks: str | None = None,
    ) -> None:
        self.issuer = issuer or Issuer()
        self.requests: Counter[str] = Counter()
        """How many requests each path has had."""
        self._host, self._port = _parse_listen(listen)
        self._allow_remote = allow_remote
        self._webhooks = None if webhooks is None else Webhooks(self.issuer.environment, webhooks)
        self._running: tuple[_Server, threading.Thread] | None = None

    @property
    def url(self) -> str:
        """The issuer that tokens name."""
        return self.issuer.url

    @property
    def address(self) -> str:
        """The URL at which it listens; the same as ``url`` unless the issuer was given another."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._port}"

    def start(self) -> None:
        """Bind the port and serve it; when this returns, requests are answered.

        Raises:
            ConfigError: the address cannot be bound, or is not loopback.

        """
        if self._running is not None:
            raise RuntimeError("the server runs already")
        listener = _bind(self._host, self._port, allow_remote=self._allow_remote)
        try:
            self._port = listener.getsockname()[1]
            self.issuer.served_at(self.address)
        except ConfigError:
            listener.close()
            raise
        server = _Server(self._counting(app(self.issuer)))
        thread = threading.Thread(target=server.run, args=([listener],), name="development-issuer", daemon=True)
        self._running = server, thread
        thread.start()
        server.ready.wait()
        if self._webhooks is not None:
            self._webhooks.start()

    def stop(self) -> None:
        """Finish what is under way and free the port; harmless when nothing runs."""
        if self._running is not None:
            server, thread = self._running
            server.should_exit = True
            thread.join()
            self._running = None
        if self._webhooks is not None:
            self._webhooks.stop()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _counting(self, application: ASGIApp) -> ASGIApp:
        async def counted(scope: Scope, receive: Receive, send: Send) -> None:
            self.requests[scope["path"]] += 1
            await application(scope, receive, send)

        return counted


class _Server(uvicorn.Server):
    def __init__(self, application: ASGIApp) -> None:
        super().__init__(
            uvicorn.Config(
                application,
                loop="asyncio",
                http="h11",
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=_GRACE,
            )
        )
        self.ready = threading.Event()

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        with contextlib.ExitStack() as finally_:
            # Whatever happens, no thread waits for ever and no socket stays open.
            finally_.callback(self.ready.set)
            for listener in sockets or ():
                finally_.callback(listener.close)
            super().run(sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()


def _parse_listen(listen: str) -> tuple[str, int]:
    host, _, port = listen.rpartition(":")
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not host or not (port.isascii() and port.isdigit()) or int(port) > _MAX_PORT:
        raise ConfigError(f"listen: {listen!r} must be HOST:PORT, such as 127.0.0.1:9190")
    return host, int(port)


def _bind(host: str, port: int, *, allow_remote: bool) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"listen: {host} is not a known host; use 127.0.0.1") from error
    # The resolved address is checked and bound itself, so that the name cannot resolve to another one meanwhile.
    if not allow_remote and not is_loopback(str(address[0])):
        raise ConfigError(
            f"listen: {host} can be reached from other machines, and this issuer signs tokens for anybody;"
            " use 127.0.0.1, or --allow-remote if that is meant"
        )
    # With its protocol named, because only then does asyncio turn off Nagle's algorithm; with it,
    # every answer on a persistent connection waits 40 ms for the client's delayed ACK.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address[0], port))
        listener.listen()
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"listen: {host}:{port} cannot be bound ({error.strerror}); choose another port, or 0 for a free one"
        ) from error
    return listener
