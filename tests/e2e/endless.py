"""Upstreams that never end by themselves: gRPC in every direction, events, silence and a WebSocket."""

import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc

from tests.doubles import PATIENCE
from tests.interceptors.servers import on_loopback

CALLS = 200
"""How many calls of gRPC are served at a time."""
DOWN, BOTH, QUIET, UNARY = "/tests.Ends/Down", "/tests.Ends/Both", "/tests.Ends/Quiet", "/tests.Ends/Unary"
EVENTS, SLOW, SOCKET = "/events", "/slow", "/socket"


class Endless(grpc.GenericRpcHandler):
    """Serves calls for as long as they may go on, and remembers how long each may."""

    def __init__(self) -> None:
        self.remaining: list[float] = []

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        method = details.method

        def wait(_request: Any, context: grpc.ServicerContext) -> Iterator[bytes]:
            self.remaining.append(context.time_remaining())
            over = threading.Event()
            context.add_callback(over.set)
            if method == DOWN:
                yield b""
            over.wait(PATIENCE)

        if method == BOTH:
            return grpc.stream_stream_rpc_method_handler(lambda requests, _context: requests)
        if method == UNARY:
            return grpc.unary_unary_rpc_method_handler(lambda _request, _context: b"")
        return grpc.unary_stream_rpc_method_handler(wait)


class _Web(BaseHTTPRequestHandler):
    """Sends events, says nothing, or takes up a WebSocket, until its peer has gone."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path == SOCKET:
            self.send_response(101)
            self.send_header("upgrade", "websocket")
            self.send_header("connection", "upgrade")
            self.end_headers()
        elif self.path == EVENTS:
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.end_headers()
            self.wfile.write(b"data: 1\n\n")
        with contextlib.suppress(OSError):
            self.connection.recv(1)
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def endless_grpc(endless: Endless) -> Iterator[str]:
    with ThreadPoolExecutor(CALLS) as pool:
        server = grpc.server(pool, handlers=[endless])
        address = on_loopback(server)
        server.start()
        yield address
        server.stop(None).wait()


@contextlib.contextmanager
def endless_web() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Web) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
