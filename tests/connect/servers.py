"""Real servers for both kinds of applications, each on a thread of its own."""

import asyncio
import contextlib
import enum
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import hypercorn.asyncio
import hypercorn.protocol
import waitress.server
from h2.events import DataReceived
from hypercorn.config import Config
from hypercorn.protocol.h2 import H2Protocol
from waitress import wasyncore
from werkzeug.serving import WSGIRequestHandler, make_server

from tests.doubles import PATIENCE
from tests.http.serving import served


class _Patient(H2Protocol):
    """hypercorn 0.18 breaks off a connection when more of a body comes whose request has been answered already."""

    async def _handle_events(self, events: list[Any]) -> None:
        for event in events:
            if isinstance(event, DataReceived) and event.stream_id not in self.streams:
                self.connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            else:
                await super()._handle_events([event])


hypercorn.protocol.H2Protocol = _Patient  # type: ignore[misc]


@contextlib.contextmanager
def hypercorn_serving(app: Any) -> Iterator[int]:
    """Serve an ASGI application over HTTP/1.1 and HTTP/2, with trailers; yield the port."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = Config()
    port = listener.getsockname()[1]
    config.bind = [f"fd://{listener.detach()}"]
    config.errorlog = config.accesslog = None
    config.graceful_timeout = 0.2
    loop, over, ready = asyncio.new_event_loop(), asyncio.Event(), threading.Event()

    async def until() -> None:
        ready.set()
        await over.wait()

    def run() -> None:
        with contextlib.closing(loop):
            loop.run_until_complete(hypercorn.asyncio.serve(app, config, shutdown_trigger=until))

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert ready.wait(PATIENCE)
        yield port
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(PATIENCE)


class _Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, *_args: Any) -> None:
        """Say nothing."""


@contextlib.contextmanager
def werkzeug_serving(app: Any) -> Iterator[int]:
    """Serve a WSGI application by a server that hands bodies on as they come; yield the port."""
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=_Quiet)
    server.daemon_threads, server.block_on_close = True, False
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join(PATIENCE)
        server.server_close()


@contextlib.contextmanager
def waitress_serving(app: Any) -> Iterator[int]:
    """Serve a WSGI application by a server that reads bodies before it calls the application; yield the port."""
    listener = socket.create_server(("127.0.0.1", 0))
    opened: dict[int, Any] = {}
    server = waitress.server.create_server(app, sockets=[listener], threads=4, map=opened)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        # It ends when nothing is open, the pipe included that this writes to.
        with contextlib.suppress(OSError):
            server.trigger.pull_trigger(lambda: wasyncore.close_all(opened, ignore_all=True))
        thread.join(PATIENCE)
        server.task_dispatcher.shutdown()
        listener.close()


class Server(enum.Enum):
    """The servers."""

    UVICORN = "uvicorn"
    HYPERCORN = "hypercorn"
    WERKZEUG = "werkzeug"
    WAITRESS = "waitress"

    @property
    def is_asgi(self) -> bool:
        """Whether it is one for ASGI applications."""
        return self in {Server.UVICORN, Server.HYPERCORN}

    def serve(self, app: Any) -> AbstractContextManager[int]:
        """Serve ``app`` until the end of the block; yield the port."""
        return _SERVING[self](app)


_SERVING: dict[Server, Callable[[Any], AbstractContextManager[int]]] = {
    Server.UVICORN: served,
    Server.HYPERCORN: hypercorn_serving,
    Server.WERKZEUG: werkzeug_serving,
    Server.WAITRESS: waitress_serving,
}
