"""An API that callers reach by gRPC-Web, Connect and gRPC, behind the Envoy that we print."""

import contextlib
import struct
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self

import grpc
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet, MethodOptions
from google.protobuf.empty_pb2 import DESCRIPTOR as EMPTY

from authz.call.call import Call
from authz.call.principal import Principal
from authz.decisions.decision import Evidence
from authz.demo.issuer.signing import SigningKey
from authz.demo.processes import Envoy
from authz.envoy.config.formats import Ingress, bootstrap
from authz.errors import AuthzError
from authz.issuer.verifier import Verifier
from authz.judge.authorizer import Authorizer
from authz.runtime.flow import Flow
from tests.doubles import AUDIENCE, ISSUER, jwks
from tests.e2e.mesh import serve_here

ORIGIN = "https://app.example"


class Judge(Authorizer):
    """One that refuses every call for the reason that a test gives it, or without one judges."""

    def __init__(self, key: SigningKey) -> None:
        super().__init__(Verifier(issuer=ISSUER, audience=AUDIENCE, jwks=jwks(key), algorithms=["ES256"]))
        self.error: AuthzError | None = None

    def authorize(self, call: Call, evidence: Evidence | None = None) -> Flow[Principal]:
        if self.error is not None:
            raise self.error
        return (yield from super().authorize(call, evidence))


class Site:
    """Envoy, the server that it asks, and both backends.

    Args:
        folder: for sockets and logs.
        key: signs good tokens.
        origins: of the pages that may call.

    Attributes (while it runs):
        judge: of the server.
        target: ``HOST:PORT`` of Envoy.
        seen: what came to the backends: the method of HTTP and the path, or that of gRPC.

    """

    def __init__(self, folder: Path, key: SigningKey, *origins: str) -> None:
        self._folder = folder
        self._origins = list(origins)
        self._running = contextlib.ExitStack()
        self.judge = Judge(key)
        self.seen: list[str] = []

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as starting:
            socket = f"unix:{self._folder}/authz.sock"
            starting.enter_context(serve_here(self.judge, socket))
            config = bootstrap(
                Ingress(
                    authz=[socket],
                    upstream=starting.enter_context(_grpc_backend(self.seen)),
                    http_upstream=starting.enter_context(_connect_backend(self.seen)),
                    listen="127.0.0.1:0",
                    admin="127.0.0.1:0",
                    cors_origins=self._origins,
                    grpc_web=True,
                )
            ).data
            envoy = Envoy(config, self._folder)
            starting.callback(envoy.stop)
            self.target = envoy.addresses()["ingress"]
            self._running = starting.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()


def descriptors() -> bytes:
    """Return the descriptor set of ``tests.Guarded``, all of whose messages are empty."""
    file = FileDescriptorProto(name="tests/guarded.proto", package="tests", syntax="proto3")
    file.dependency.append(EMPTY.name)
    service = file.service.add(name="Guarded")
    for name, streams in {"Unary": "", "ServerStream": "s", "ClientStream": "c", "Bidi": "cs"}.items():
        method = service.method.add(
            name=name, input_type=".google.protobuf.Empty", output_type=".google.protobuf.Empty"
        )
        method.client_streaming, method.server_streaming = "c" in streams, "s" in streams
    # What Connect asks for by a GET.
    service.method[0].options.idempotency_level = MethodOptions.NO_SIDE_EFFECTS
    empty = FileDescriptorProto()
    EMPTY.CopyToProto(empty)
    return FileDescriptorSet(file=[empty, file]).SerializeToString()


_PROTO, _JSON = ("application/proto", b""), ("application/json", b"{}")


class _OneAnswer(grpc.GenericRpcHandler):
    def __init__(self, seen: list[str]) -> None:
        self._seen = seen

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        self._seen.append(details.method)
        return grpc.stream_stream_rpc_method_handler(lambda requests, _: iter([b"" for _ in list(requests)[:1]]))


@contextlib.contextmanager
def _grpc_backend(seen: list[str]) -> Iterator[str]:
    with ThreadPoolExecutor(4) as pool:
        server = grpc.server(pool, handlers=[_OneAnswer(seen)], options=[("grpc.so_reuseport", 0)])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            server.stop(None).wait()


@contextlib.contextmanager
def _connect_backend(seen: list[str]) -> Iterator[str]:
    """Answer every call of Connect with one message, which is empty."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            if self.headers["transfer-encoding"]:
                while size := int(self.rfile.readline(), 16):
                    self.rfile.read(size + 2)
                self.rfile.readline()
            else:
                self.rfile.read(int(self.headers["content-length"] or 0))
            kind = self.headers["content-type"]
            message = b"{}" if kind.endswith("json") else b""
            if kind.startswith("application/connect+"):
                message = struct.pack(">BI", 0, len(message)) + message + struct.pack(">BI", 2, 2) + b"{}"
            self._answer(kind, message)

        def do_GET(self) -> None:
            self._answer(*(_PROTO if "encoding=proto" in self.path else _JSON))

        def do_OPTIONS(self) -> None:
            self._answer("text/plain", b"")

        def _answer(self, kind: str, body: bytes) -> None:
            seen.append(f"{self.command} {self.path.partition('?')[0]}")
            self.send_response(200)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
