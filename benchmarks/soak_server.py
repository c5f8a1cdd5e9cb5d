"""A server with the interceptor for :mod:`benchmarks.soak`; it prints its port, and ends with its standard input."""

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio

import interceptors.aio
from authz import Authorizer, SharedState, Transport, Verifier

SERVICE = "benchmark.Soak"
CALL, WAIT = f"/{SERVICE}/Call", f"/{SERVICE}/Wait"


async def _call(request: bytes, _context: Any) -> bytes:
    return request


async def _wait(requests: AsyncIterator[bytes], _context: Any) -> AsyncIterator[bytes]:
    async for request in requests:
        yield request


async def _main(issuer: str, audience: str, store: str) -> None:
    authorizer = Authorizer(Verifier(issuer=issuer, audience=audience, algorithms=["ES256"], transport=Transport()))
    with SharedState(store, authorizer):
        server = grpc.aio.server(interceptors=[interceptors.aio.AuthzInterceptor(authorizer)])
        methods = {
            "Call": grpc.unary_unary_rpc_method_handler(_call),
            "Wait": grpc.stream_stream_rpc_method_handler(_wait),
        }
        server.add_registered_method_handlers(SERVICE, methods)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        print(port, flush=True)
        await asyncio.to_thread(sys.stdin.read)
        await server.stop(None)
    authorizer.close()


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
