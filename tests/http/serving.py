"""Real servers for applications, on loopback, and what is sent to them byte by byte."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any

import uvicorn

from tests.doubles import PATIENCE, eventually


@contextlib.contextmanager
def served(app: Any, **options: Any) -> Iterator[int]:
    """Serve an ASGI application by uvicorn until the end of the block; yield the port."""
    listener = socket.create_server(("127.0.0.1", 0))
    # Byte by byte what was sent, where a test does not ask for another parser.
    options.setdefault("http", "h11")
    config = uvicorn.Config(app, log_config=None, log_level="critical", timeout_graceful_shutdown=1, **options)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        assert eventually(lambda: server.started or not thread.is_alive())
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(PATIENCE)
        listener.close()
