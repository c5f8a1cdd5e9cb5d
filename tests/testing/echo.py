"""A server whose handler notes what it finds."""

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import grpc

from authz import Principal, current_principal

METHOD = "/echo/Echo"


class Seen(NamedTuple):
    principal: Principal
    metadata: tuple[tuple[str, str | bytes], ...]


@contextlib.contextmanager
def serving(
    interceptor: grpc.ServerInterceptor,
    server_credentials: grpc.ServerCredentials | None = None,
    channel_credentials: grpc.ChannelCredentials | None = None,
) -> Iterator[tuple[grpc.Channel, list[Seen]]]:
    """Serve ``/echo/Echo`` and ``/echo/Public`` on loopback; yield a channel, and what the handlers find."""
    seen: list[Seen] = []

    def echo(request: bytes, context: Any) -> bytes:
        seen.append(Seen(current_principal(), tuple(context.invocation_metadata())))
        return request

    handler = grpc.unary_unary_rpc_method_handler(echo)
    server = grpc.server(ThreadPoolExecutor(2), interceptors=[interceptor])
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler("echo", {"Echo": handler, "Public": handler})]
    )
    if server_credentials is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        port = server.add_secure_port("127.0.0.1:0", server_credentials)
    server.start()
    target = f"127.0.0.1:{port}"
    try:
        with (
            grpc.insecure_channel(target)
            if channel_credentials is None
            else grpc.secure_channel(target, channel_credentials)
        ) as channel:
            yield channel, seen
    finally:
        server.stop(None).wait()
