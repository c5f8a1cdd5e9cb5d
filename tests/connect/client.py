"""Calls by the clients of connectrpc, and what became of them."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from connectrpc.client import ConnectClientSync, ResponseMetadata
from connectrpc.errors import ConnectError
from connectrpc.protocol import ProtocolType
from connectrpc.request import Headers
from google.rpc.error_details_pb2 import ErrorInfo
from pyqwest import HTTPVersion, SyncClient, SyncHTTPTransport

from tests.connect.messages import Library
from tests.connect.service import SERVICE, method

OK = "ok"


@dataclass(frozen=True)
class Way:
    """How a client speaks.

    Attributes:
        protocol: that of RPCs.
        codec: what the messages are written in.
        is_http2: whether it speaks HTTP/2.
        use_get: whether unary calls are made by ``GET``.

    """

    name: str
    protocol: ProtocolType = ProtocolType.CONNECT
    codec: str = "proto"
    is_http2: bool = False
    use_get: bool = False
    kinds: tuple[str, ...] = ("unary", "server_stream", "client_stream", "bidi_stream")


CONNECT = Way("connect")
CONNECT_JSON = Way("connect-json", codec="json")
CONNECT_GET = Way("connect-get", use_get=True, kinds=("unary",))
CONNECT_HTTP2 = Way("connect-h2", is_http2=True)
GRPC_WEB = Way("grpc-web", ProtocolType.GRPC_WEB)
GRPC = Way("grpc", ProtocolType.GRPC, is_http2=True)
GRPC_JSON = Way("grpc-json", ProtocolType.GRPC, codec="json", is_http2=True)
OVER_HTTP1 = (CONNECT, CONNECT_JSON, CONNECT_GET, GRPC_WEB)
WAYS = (*OVER_HTTP1, CONNECT_HTTP2, GRPC, GRPC_JSON)


@dataclass
class Outcome:
    """What became of a call."""

    code: str = OK
    message: str = ""
    reason: str = ""
    details: list[tuple[str, bytes]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    """Those of the response, and its trailers."""


def client(port: int, library: Library, way: Way = CONNECT, **options: Any) -> ConnectClientSync:
    version = HTTPVersion.HTTP2 if way.is_http2 else HTTPVersion.HTTP1
    transport = SyncHTTPTransport(http_version=version)
    return ConnectClientSync(
        f"http://127.0.0.1:{port}",
        codec=library.by_name[way.codec],
        protocol=way.protocol,
        http_client=SyncClient(transport),
        **options,
    )


def begin(
    client: ConnectClientSync,
    library: Library,
    kind: str,
    requests: Iterable[Any],
    *,
    service: str = SERVICE,
    use_get: bool = False,
    **options: Any,
) -> Iterator[Any]:
    """Make a call, and yield its replies."""
    info = method(library, kind, service)
    if kind == "unary":
        [request] = requests
        yield client.execute_unary(request=request, method=info, use_get=use_get, **options)
    elif kind == "server_stream":
        [request] = requests
        yield from client.execute_server_stream(request=request, method=info, **options)
    elif kind == "client_stream":
        yield client.execute_client_stream(request=iter(requests), method=info, **options)
    else:
        yield from client.execute_bidi_stream(request=iter(requests), method=info, **options)


def finish(replies: Iterator[Any]) -> Outcome:
    """Return what becomes of a call that has begun."""
    outcome = Outcome()
    with ResponseMetadata() as response:
        try:
            for reply in replies:
                outcome.notes.append(reply.note)
        except ConnectError as error:
            outcome.code, outcome.message = error.code.value, error.message
            outcome.details = [(each.type_name, each.message_bytes) for each in error.details]
            infos = [value for name, value in outcome.details if name == "google.rpc.ErrorInfo"]
            outcome.reason = ErrorInfo.FromString(infos[0]).reason if infos else ""
        outcome.headers = {**dict(response.headers), **dict(response.trailers)}
    return outcome


def bearer(*tokens: str, **more: str) -> Headers:
    """Return headers with these tokens, and others."""
    return Headers(
        [
            *(("authorization", f"Bearer {token}") for token in tokens),
            *((name.replace("_", "-"), value) for name, value in more.items()),
        ]
    )
