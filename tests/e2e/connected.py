"""The same methods in an application of connectrpc, which speaks gRPC behind a server for HTTP/2."""

import base64
import contextlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from connectrpc.method import IdempotencyLevel, MethodInfo, StreamType
from connectrpc.server import ConnectASGIApplication, Endpoint

from authz.connect import interceptors
from authz.judge.authorizer import Authorizer
from tests.connect.servers import Server


class _Raw:
    """Leaves messages as they are, unless a class is to read them."""

    def name(self) -> str:
        return "proto"

    def encode(self, message: bytes) -> bytes:
        return message

    def decode(self, data: bytes | bytearray, message_class: Any) -> Any:
        return bytes(data) if message_class is bytes else message_class.FromString(bytes(data))


class _App(ConnectASGIApplication[Mapping[str, Any]]):
    @property
    def path(self) -> str:
        return ""


async def _echo(_request: Any, ctx: Any) -> bytes:
    seen = [
        (name, _padded(value) if name.endswith("-bin") else value) for name, value in ctx.request_headers.allitems()
    ]
    return json.dumps({"path": f"/{ctx.method.service_name}/{ctx.method.name}", "headers": seen}).encode()


def _padded(value: str) -> str:
    return base64.b64encode(base64.b64decode(value + "===")).decode()


def _endpoint(method: str, request: Any) -> Any:
    _, service, name = method.split("/")
    info: MethodInfo[Any, Any] = MethodInfo(
        name=name,
        service_name=service,
        input=request,
        output=bytes,
        idempotency_level=IdempotencyLevel.UNKNOWN,
        stream_type=StreamType.UNARY,
    )
    return Endpoint.unary(info, _echo)


@contextlib.contextmanager
def connect_server(judge: Authorizer, methods: Mapping[str, Any]) -> Iterator[str]:
    """Serve unary methods that answer with the headers that they saw; yield ``HOST:PORT``.

    Args:
        judge: decides.
        methods: the classes of their requests, by full name.

    """
    app = _App(
        service=methods,
        endpoints=lambda service: {name: _endpoint(name, request) for name, request in service.items()},
        interceptors=interceptors(judge),
        codecs=[_Raw()],
    )
    with Server.HYPERCORN.serve(app) as port:
        yield f"127.0.0.1:{port}"
