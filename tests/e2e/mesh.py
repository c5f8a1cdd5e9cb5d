"""A mesh whose upstream believes everything: what reaches it is what Envoy and ``authz serve`` let through."""

import base64
import contextlib
import json
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import grpc

from authz.demo.signing import SigningKey
from authz.demo.stack import Envoy
from authz.envoy.config import bootstrap, cluster, grpc_route, http_route, listener
from authz.envoy.server import EngineName
from authz.mesh import MeshPeers
from authz.metadata import TrustedMetadata
from interceptors import AuthzInterceptor
from tests.doubles import AUDIENCE, ISSUER, jwks
from tests.interceptors.servers import on_loopback, sync_server
from tests.interceptors.service import Witness, handlers, sync_behaviours
from tests.programs import Program

PUBLIC = "/public"
OPEN = "/tests.Open/Call"
"""A method on a route without any check."""


class Echo(grpc.GenericRpcHandler):
    """Answers every unary call with the method and the metadata that it saw."""

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        seen = [
            (key, value if isinstance(value, str) else base64.b64encode(value).decode())
            for key, value in details.invocation_metadata
        ]
        answer = json.dumps({"path": details.method, "headers": seen}).encode()
        return grpc.unary_unary_rpc_method_handler(lambda _request, _context: answer)


class _HttpEcho(BaseHTTPRequestHandler):
    """Answers every GET with the path and the headers that it saw."""

    def do_GET(self) -> None:
        headers = [(key.lower(), value) for key, value in self.headers.items()]
        body = json.dumps({"path": self.path, "headers": headers}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@dataclass(frozen=True)
class Seen:
    """What the upstream saw."""

    path: str
    headers: list[tuple[str, str]]

    @classmethod
    def of(cls, body: bytes | str) -> "Seen":
        seen = json.loads(body)
        return cls(seen["path"], [(key, value) for key, value in seen["headers"]])

    def values(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name]

    @property
    def names(self) -> set[str]:
        return {key for key, _ in self.headers}


class Mesh:
    """Envoy in front of the echoes, and the authorization server that it asks.

    Args:
        folder: for sockets and logs.
        key: signs good tokens.
        engine: what speaks gRPC in the authorization servers.

    Attributes (while it runs):
        target: ``HOST:PORT`` of Envoy.
        lenient: the same of a listener with ``failure_mode_allow``, whose server cannot get any keys.
        tokenless: the same of one that keeps tokens from its upstream, which has nobody's word but Envoy's.
        undecided: the same, with ``failure_mode_allow``, and without any server to ask.
        backend: ``HOST:PORT`` by which that upstream can be reached without Envoy.

    """

    def __init__(self, folder: Path, key: SigningKey, engine: EngineName) -> None:
        self._folder = folder
        self._engine = engine
        self._running = contextlib.ExitStack()
        self._jwks = folder / "jwks.json"
        self._jwks.write_text(json.dumps(jwks(key)), encoding="utf-8")

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as starting:
            upstreams = starting.enter_context(_grpc_echo()), starting.enter_context(_http_echo())
            self.backend = starting.enter_context(_believer(self._folder / "believer.sock"))
            self._keyless = starting.enter_context(self._serve("keyless", "--jwks-url", "http://127.0.0.1:9/jwks"))
            envoy = Envoy(self._config(*upstreams), self._folder)
            starting.callback(envoy.stop)
            self.start_server()
            starting.callback(self.kill_server)
            addresses = envoy.addresses()
            self.target, self.lenient = addresses["main"], addresses["lenient"]
            self.tokenless, self.undecided = addresses["tokenless"], addresses["undecided"]
            self._running = starting.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    def start_server(self) -> None:
        """Start the authorization server, with its keys."""
        self._server = self._serve("authz", "--jwks", str(self._jwks), "--public-methods", PUBLIC)

    def kill_server(self) -> None:
        """End it at once."""
        self._server.send(signal.SIGKILL)
        self._server.wait()
        self._server.__exit__(None, None, None)

    def _serve(self, name: str, *flags: str) -> Program:
        folder = self._folder / name
        folder.mkdir(exist_ok=True)
        verifier = ("--issuer", ISSUER, "--audience", AUDIENCE, "--algorithms", "ES256")
        served = ("--engine", self._engine, "--listen", f"unix:{self._folder}/{name}.sock")
        program = Program("serve", *served, *verifier, *flags, folder=folder)
        program.await_event("listening")
        return program

    def _config(self, grpc_upstream: str, http_upstream: str) -> dict[str, Any]:
        trusted = TrustedMetadata()
        without_check = {
            "match": {"path": OPEN},
            "route": {"cluster": "grpc"},
            "typed_per_filter_config": {
                "envoy.filters.http.ext_authz": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute",
                    "disabled": True,
                }
            },
        }
        routes = [without_check, grpc_route("grpc"), http_route("http")]
        lenient = listener("lenient", "127.0.0.1:0", routes, authz="keyless", trusted=trusted)
        _ext_authz_of(lenient)["failure_mode_allow"] = True
        without_token = {**grpc_route("believer"), "request_headers_to_remove": ["authorization"]}
        tokenless = listener("tokenless", "127.0.0.1:0", [without_token], authz="authz", trusted=trusted)
        undecided = listener("undecided", "127.0.0.1:0", [without_token], authz="nobody", trusted=trusted)
        _ext_authz_of(undecided).update(failure_mode_allow=True, failure_mode_allow_header_add=True)
        return bootstrap(
            [
                listener("main", "127.0.0.1:0", routes, authz="authz", trusted=trusted),
                lenient,
                tokenless,
                undecided,
            ],
            [
                cluster("nobody", [f"unix:{self._folder}/nobody.sock"], http2=True),
                cluster("believer", [f"unix:{self._folder}/believer.sock"], http2=True),
                cluster("authz", [f"unix:{self._folder}/authz.sock"], http2=True),
                cluster("keyless", [f"unix:{self._folder}/keyless.sock"], http2=True),
                cluster("grpc", [grpc_upstream], http2=True),
                cluster("http", [http_upstream], http2=False),
            ],
            admin="127.0.0.1:0",
        )


def _ext_authz_of(listening: dict[str, Any]) -> dict[str, Any]:
    [chain] = listening["filter_chains"]
    [manager] = chain["filters"]
    config: dict[str, Any] = manager["typed_config"]["http_filters"][0]["typed_config"]
    return config


@contextlib.contextmanager
def _believer(socket: Path) -> Iterator[str]:
    """Serve every kind of call to whoever comes by ``socket`` and says who calls."""

    def bind(server: grpc.Server) -> str:
        server.add_insecure_port(f"unix:{socket}")
        return on_loopback(server)

    witness = Witness()
    interceptor = AuthzInterceptor(trust=MeshPeers(unix_socket=True))
    with sync_server(handlers(sync_behaviours(witness), witness), [interceptor], bind=bind) as address:
        yield address


@contextlib.contextmanager
def _grpc_echo() -> Iterator[str]:
    with ThreadPoolExecutor(8) as pool:
        server = grpc.server(pool, options=[("grpc.so_reuseport", 0)])
        server.add_generic_rpc_handlers([Echo()])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            server.stop(None).wait()


@contextlib.contextmanager
def _http_echo() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _HttpEcho) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def seen_by_upstream(
    channel: grpc.Channel, path: str, metadata: Sequence[tuple[str, str | bytes]], timeout: float = 20
) -> Seen:
    """Make a unary call and return what the upstream saw."""
    return Seen.of(channel.unary_unary(path)(b"", metadata=metadata, timeout=timeout))
