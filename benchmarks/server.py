"""The server of one measurement, as a process of its own; it says its port and ends with its standard input."""

import asyncio
import json
import sys
from typing import Any

import grpc
import grpc.aio

from authz import Authorizer
from authz.demo.signing import SigningKey
from authz.envoy.server import AuthorizationServicer
from benchmarks.material import verifier
from interceptors.aio import AuthzInterceptor

METHOD = "/benchmark.Service/Call"
CHECK = "/envoy.service.auth.v3.Authorization/Check"


async def _answer(_request: bytes, _context: Any) -> bytes:
    return b"an answer of some bytes"


def _build(kind: str, key: SigningKey) -> grpc.aio.Server:
    handler = grpc.unary_unary_rpc_method_handler(_answer)
    interceptors = [AuthzInterceptor(verifier(key))] if kind == "interceptor" else []
    server = grpc.aio.server(interceptors=interceptors)
    if kind == "ext_authz":
        AuthorizationServicer(Authorizer(verifier(key))).add_to(server)
    elif kind == "constant":
        server.add_registered_method_handlers(CHECK.split("/")[1], {"Check": handler})
    else:
        server.add_registered_method_handlers(METHOD.split("/")[1], {"Call": handler})
    return server


async def _main(kind: str, jwk: str) -> None:
    server = _build(kind, SigningKey.from_jwk(json.loads(jwk)))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(None)


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
