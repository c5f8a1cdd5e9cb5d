"""A mesh whose upstream believes everything: what reaches it is what Envoy and ``authz serve`` let through."""

import base64
import contextlib
import json
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import grpc

from authz.call.call import Call
from authz.call.metadata import TrustedMetadata
from authz.call.principal import Principal
from authz.decisions.decision import Evidence
from authz.demo.issuer.signing import SigningKey
from authz.demo.policy import ledger_descriptors
from authz.demo.processes import Envoy
from authz.envoy.check.servicer import AuthorizationServicer
from authz.envoy.config import bootstrap, cluster, grpc_route, http_route, listener, unary_route
from authz.envoy.config.authz_cluster import authz_cluster
from authz.errors import InternalError
from authz.issuer.verifier import Verifier
from authz.judge.authorizer import Authorizer
from authz.judge.mesh import MeshPeers
from authz.policy import Policy
from authz.runtime.flow import Flow, pause
from authz.server.serving.grpcio_engine import GrpcioEngine
from authz.server.serving.server import EngineName
from interceptors import AuthzInterceptor
from tests.certificates import Authority, Certificate
from tests.doubles import AUDIENCE, ISSUER, jwks
from tests.e2e.variants import PAYLOAD, ext_authz_of, manager_of, variants
from tests.interceptors.servers import Loop, on_loopback, sync_server
from tests.interceptors.service import Witness, handlers, sync_behaviours
from tests.programs import Program

PUBLIC = "/public"
PUBLIC_CALL = "/tests.Public/Call"
OPEN = "/tests.Open/Call"
"""A method on a route without any check."""
OPEN_PREFIX = "/open/"
"""Beginning of the paths on another such route."""
SHOWN = "/authz.demo.v1.LedgerService/PostEntry"
"""A method whose requests Envoy shows to the authorization server."""
UNSERVED = "/tests.Guarded/Unserved"
"""A method that the upstream does not have."""
DENIED = "/tests.Guarded/Denied"
"""A method that the policy denies."""
METERED = tuple(f"org_01JYMETERED000000000000000{number}" for number in range(5))
"""Organizations that may make three calls in a while, one for each test."""
SUSPENDED, TENANT = "org_01JYSUSPENDED00000000000000", "org_01JYTENANT000000000000000"
POLICY: dict[str, Any] = {
    "name": "mesh",
    "deny_rules": [
        {"name": "denied", "request": {"paths": [DENIED]}},
        {"name": "slow", "request": {"headers": [{"key": "x-mode", "values": ["slow"]}]}},
    ],
    "allow_rules": [{"name": "everything-else"}],
    "public": [PUBLIC_CALL],
    "organizations": {
        SUSPENDED: {"status": "suspended"},
        TENANT: {"tenant": "tenant-7"},
        **{org_id: {"quota": "metered"} for org_id in METERED},
    },
    "quotas": {"metered": {"requests_per_second": 0.001, "burst": 3, "concurrent_streams": 5}},
}


def echo(method: str, parse: Callable[[bytes], Any] | None = None) -> grpc.RpcMethodHandler:
    """Return a handler that answers with the method and the metadata that it saw; ``parse`` reads its requests."""

    def behave(_request: Any, context: grpc.ServicerContext) -> bytes:
        seen = [
            (key, value if isinstance(value, str) else base64.b64encode(value).decode())
            for key, value in context.invocation_metadata()
        ]
        return json.dumps({"path": method, "headers": seen}).encode()

    return grpc.unary_unary_rpc_method_handler(behave, request_deserializer=parse)


class Echo(grpc.GenericRpcHandler):
    """Answers every unary call with an echo, as if it had every method but one."""

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        return None if details.method == UNSERVED else echo(details.method)


class _HttpEcho(BaseHTTPRequestHandler):
    """Answers every request with the path and the headers that it saw."""

    def do_GET(self) -> None:
        headers = [(key.lower(), value) for key, value in self.headers.items()]
        body = json.dumps({"verb": self.command, "path": self.path, "headers": headers}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def __getattr__(self, name: str) -> Callable[[], None]:
        """Answer every other HTTP method as a GET."""
        if not name.startswith("do_"):
            raise AttributeError(name)
        return self.do_GET

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


class Told(Authorizer):
    """A judge that refuses every call for the reason that a test gives it, or without one says nothing for a while."""

    def __init__(self, key: SigningKey) -> None:
        super().__init__(Verifier(issuer=ISSUER, audience=AUDIENCE, jwks=jwks(key), algorithms=["ES256"]))
        self.error: BaseException | None = InternalError()

    def authorize(self, _call: Call, _evidence: Evidence | None = None) -> Flow[Principal]:
        if self.error is None:
            yield from pause(2)
        raise self.error or InternalError()


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
        mutual: ``HOST:PORT`` of a listener with TLS, where clients may show a certificate of ``authority``.
        joined: the same as ``target``, without ``encode_raw_headers``.
        removing: the same as ``target``, whose server has Envoy keep the token from the upstream.
        told: the same as ``target``, with ``judge`` to ask.
        told_lenient: the same as ``told``, with ``failure_mode_allow``.
        variants: the same of each listener of :mod:`tests.e2e.variants`, by its name.

    """

    def __init__(self, folder: Path, key: SigningKey, engine: EngineName) -> None:
        self._folder = folder
        self.authority = Authority()
        self.judge = Told(key)
        self._engine = engine
        self._running = contextlib.ExitStack()
        self._keys = jwks(key)
        self._jwks = folder / "jwks.json"
        self._jwks.write_text(json.dumps(self._keys), encoding="utf-8")
        self._policy = folder / "policy.yaml"
        self._policy.write_text(json.dumps(POLICY), encoding="utf-8")
        self._descriptors = folder / "api.binpb"
        self._descriptors.write_bytes(ledger_descriptors())

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as starting:
            upstreams = starting.enter_context(grpc_echo()), starting.enter_context(http_echo())
            self.backend = starting.enter_context(_believer(self._folder / "believer.sock"))
            starting.enter_context(serve_here(self.judge, f"unix:{self._folder}/told.sock"))
            removing = "--remove-authorization", "--jwt-authn-payload", PAYLOAD
            starting.enter_context(self._serve("removing", *self._known(), *removing))
            self._keyless = starting.enter_context(self._serve("keyless", "--jwks-url", "http://127.0.0.1:9/jwks"))
            # By default a line waits ten seconds for others.
            self._envoy = Envoy(self._config(*upstreams), self._folder, "--file-flush-interval-msec", "20")
            starting.callback(self._envoy.stop)
            self.start_server()
            starting.callback(self.kill_server)
            self.variants = addresses = self._envoy.addresses()
            self.target, self.lenient = addresses["main"], addresses["lenient"]
            self.tokenless, self.undecided = addresses["tokenless"], addresses["undecided"]
            self.removing = addresses["removing"]
            self.mutual, self.joined = addresses["mutual"], addresses["joined"]
            self.told, self.told_lenient = addresses["told"], addresses["told-lenient"]
            self._running = starting.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    def policy(self) -> Policy:
        """Return the policy of the authorization server."""
        return Policy.from_descriptors(self._descriptors, self._policy)

    def start_server(self) -> None:
        """Start the authorization server, with its keys."""
        self._server = self._serve("authz", *self._known(), "--descriptors", str(self._descriptors))

    def kill_server(self) -> None:
        """End it at once."""
        self._server.send(signal.SIGKILL)
        self._server.wait()
        self._server.__exit__(None, None, None)

    def _known(self) -> list[str]:
        return ["--jwks", str(self._jwks), "--policy", str(self._policy), "--public-methods", PUBLIC]

    def logged(self, path: str) -> dict[str, Any]:
        """Return what Envoy's access log says of the one request for ``path``, once it says it."""
        log = self._folder / "access.log"
        [line] = self._envoy.wait_for(lambda: [line for line in _json_lines(log) if line["path"] == path])
        found: dict[str, Any] = line
        return found

    def _serve(self, name: str, *flags: str) -> Program:
        folder = self._folder / name
        folder.mkdir(exist_ok=True)
        verifier = ("--issuer", ISSUER, "--audience", AUDIENCE, "--algorithms", "ES256")
        served = ("--engine", self._engine, "--listen", f"unix:{self._folder}/{name}.sock")
        program = Program("serve", *served, *verifier, *flags, folder=folder)
        program.await_event("listening")
        return program

    def _config(self, grpc_upstream: str, http_upstream: str) -> dict[str, Any]:
        # Forged names are to get as far as they can.
        trust: dict[str, Any] = {"trusted": TrustedMetadata(), "underscores": "ALLOW"}
        unchecked = [
            {"match": {"path": OPEN}, "route": {"cluster": "grpc"}, **_NO_CHECK},
            {**http_route("http", prefix=OPEN_PREFIX), **_NO_CHECK},
        ]
        routes = [*unchecked, unary_route("grpc", SHOWN), grpc_route("grpc"), http_route("http")]
        lenient = listener("lenient", "127.0.0.1:0", routes, authz="keyless", **trust)
        ext_authz_of(lenient)["failure_mode_allow"] = True
        without_token = {**grpc_route("believer"), "request_headers_to_remove": ["authorization"]}
        tokenless = listener("tokenless", "127.0.0.1:0", [without_token], authz="authz", **trust)
        removing = listener("removing", "127.0.0.1:0", routes, authz="removing", **trust)
        undecided = listener("undecided", "127.0.0.1:0", [without_token], authz="nobody", **trust)
        ext_authz_of(undecided).update(failure_mode_allow=True, failure_mode_allow_header_add=True)
        mutual = listener("mutual", "127.0.0.1:0", routes, authz="authz", **trust, max_request_bytes=65_536)
        mutual["filter_chains"][0]["transport_socket"] = _mutual_tls(self.authority)
        main = listener("main", "127.0.0.1:0", routes, authz="authz", **trust, max_request_bytes=65_536)
        manager_of(main)["access_log"] = [_access_log(self._folder / "access.log")]
        joined = listener("joined", "127.0.0.1:0", routes, authz="authz", **trust)
        ext_authz_of(joined)["encode_raw_headers"] = False
        told_lenient = listener("told-lenient", "127.0.0.1:0", routes, authz="told", **trust)
        ext_authz_of(told_lenient)["failure_mode_allow"] = True
        return bootstrap(
            [
                main,
                lenient,
                tokenless,
                undecided,
                mutual,
                joined,
                removing,
                listener("told", "127.0.0.1:0", routes, authz="told", **trust),
                told_lenient,
                *variants(PUBLIC_CALL, self._keys),
            ],
            [
                authz_cluster("told", [f"unix:{self._folder}/told.sock"]),
                authz_cluster("removing", [f"unix:{self._folder}/removing.sock"]),
                authz_cluster("nobody", [f"unix:{self._folder}/nobody.sock"]),
                cluster("believer", [f"unix:{self._folder}/believer.sock"], http2=True),
                authz_cluster("authz", [f"unix:{self._folder}/authz.sock"]),
                authz_cluster("keyless", [f"unix:{self._folder}/keyless.sock"]),
                cluster("grpc", [grpc_upstream], http2=True),
                cluster("http", [http_upstream], http2=False),
            ],
            admin="127.0.0.1:0",
        )


_NO_CHECK = {
    "typed_per_filter_config": {
        "envoy.filters.http.ext_authz": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute",
            "disabled": True,
        }
    }
}


def _access_log(path: Path) -> dict[str, Any]:
    told = "%DYNAMIC_METADATA(envoy.filters.http.ext_authz{})%"
    fields = {name: told.format(f":{name}") for name in ("organization", "client", "reason")}
    return {
        "name": "envoy.access_loggers.file",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
            "path": str(path),
            "log_format": {"json_format": {"path": "%REQ(:PATH)%", "all": told.format(""), **fields}},
        },
    }


def _json_lines(path: Path) -> list[dict[str, Any]]:
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def _mutual_tls(authority: Authority) -> dict[str, Any]:
    own = authority.issue_for_loopback()
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            "require_client_certificate": False,
            "common_tls_context": {
                "alpn_protocols": ["h2"],
                "tls_certificates": [
                    {
                        "certificate_chain": {"inline_string": own.chain.decode()},
                        "private_key": {"inline_string": own.key.decode()},
                    }
                ],
                "validation_context": {"trusted_ca": {"inline_string": authority.root.decode()}},
            },
        },
    }


@contextlib.contextmanager
def serve_here(judge: Authorizer, address: str, **options: Any) -> Iterator[None]:
    """Serve Envoy's checks in this process; the options are those of the servicer."""
    loop = Loop()

    async def start() -> GrpcioEngine:
        engine = GrpcioEngine(AuthorizationServicer(judge, **options))
        engine.bind(address)
        await engine.start()
        return engine

    try:
        engine = loop.run(start())
        yield
        loop.run(engine.stop(0))
    finally:
        loop.close()


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
def grpc_echo() -> Iterator[str]:
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
def http_echo() -> Iterator[str]:
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


def tls_channel(mesh: Mesh, certificate: Certificate | None) -> grpc.Channel:
    """Return a channel to the listener with TLS that shows ``certificate``."""
    pair = (certificate.key, certificate.chain) if certificate else (None, None)
    credentials = grpc.ssl_channel_credentials(mesh.authority.root, *pair)
    return grpc.secure_channel(mesh.mutual, credentials, [("grpc.use_local_subchannel_pool", 1)])
