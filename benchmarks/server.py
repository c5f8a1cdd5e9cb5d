"""The server of one measurement, as a process of its own; it says its port and ends with its standard input.

Its kinds: ``aio`` and ``sync``, each bare or ``-authz`` behind the interceptor;
``ext_authz``, and ``constant``, which answers the same without looking;
``native``, and ``native-constant``, which only parses the question.
"""

import asyncio
import json
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import grpc.aio
from pygrpc_native import EVENT_CALL, NativeGrpcFront

import interceptors
import interceptors.aio
from authz import Authorizer
from authz.demo.signing import SigningKey
from authz.envoy.check import parse
from authz.envoy.native_engine import NativeEngine
from authz.envoy.servicer import AuthorizationServicer
from benchmarks.material import verifier

SERVICE = "benchmark.Service"
CALL, STREAM, WAIT = f"/{SERVICE}/Call", f"/{SERVICE}/Stream", f"/{SERVICE}/Wait"
CHECK = "/envoy.service.auth.v3.Authorization/Check"
MESSAGES = 1000
"""How many messages ``STREAM`` sends."""

_ANSWER = b"an answer of some bytes"


async def _answer(_request: bytes, _context: Any) -> bytes:
    return _ANSWER


async def _stream(_request: bytes, _context: Any) -> AsyncIterator[bytes]:
    for _ in range(MESSAGES):
        yield _ANSWER


async def _wait(requests: AsyncIterator[bytes], _context: Any) -> AsyncIterator[bytes]:
    yield _ANSWER
    async for _ in requests:
        pass


def _sync_answer(_request: bytes, _context: Any) -> bytes:
    return _ANSWER


def _sync_stream(_request: bytes, _context: Any) -> Iterator[bytes]:
    for _ in range(MESSAGES):
        yield _ANSWER


def _methods(call: Any, stream: Any) -> dict[str, Any]:
    return {
        "Call": grpc.unary_unary_rpc_method_handler(call),
        "Stream": grpc.unary_stream_rpc_method_handler(stream),
        "Wait": grpc.stream_stream_rpc_method_handler(_wait),
    }


def _serve(server: grpc.aio.Server, method: str, handler: Any) -> None:
    _, service, name = method.split("/")
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {name: handler}),))


async def _aio(kind: str, key: SigningKey) -> None:
    server = grpc.aio.server(
        interceptors=[interceptors.aio.AuthzInterceptor(verifier(key))] if kind == "aio-authz" else []
    )
    if kind == "ext_authz":
        check = AuthorizationServicer(Authorizer(verifier(key))).check
        _serve(server, CHECK, grpc.unary_unary_rpc_method_handler(check))
    elif kind == "constant":
        _serve(server, CHECK, grpc.unary_unary_rpc_method_handler(_answer))
    else:
        server.add_registered_method_handlers(SERVICE, _methods(_answer, _stream))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(None)


def _native(kind: str, key: SigningKey) -> None:
    if kind == "native":
        asyncio.run(_native_engine(key))
        return
    # What the library and reading the question cost, without any verdict.
    answer = AuthorizationServicer(Authorizer(verifier(key))).unforeseen(RuntimeError())
    front = NativeGrpcFront("127.0.0.1:0", [(CHECK, False)])
    front.start()
    print(front.bound_port, flush=True)

    def serve() -> None:
        while (events := front.recv_batch(64)) is not None:
            for event, call_id, _, body, _ in events:
                if event == EVENT_CALL:
                    parse(body or b"")
                    front.respond(call_id, answer)

    threading.Thread(target=serve, daemon=True).start()
    sys.stdin.read()
    front.close()


async def _native_engine(key: SigningKey) -> None:
    engine = NativeEngine(AuthorizationServicer(Authorizer(verifier(key))))
    port = engine.bind("127.0.0.1:0")
    await engine.start()
    print(port, flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await engine.stop(0)


def _sync(kind: str, key: SigningKey) -> None:
    server = grpc.server(
        ThreadPoolExecutor(8),
        interceptors=[interceptors.AuthzInterceptor(verifier(key))] if kind == "sync-authz" else [],
    )
    server.add_registered_method_handlers(SERVICE, _methods(_sync_answer, _sync_stream))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    sys.stdin.read()
    server.stop(None)


def _main(kind: str, jwk: str) -> None:
    key = SigningKey.from_jwk(json.loads(jwk))
    if kind.startswith("sync"):
        _sync(kind, key)
    elif kind.startswith("native"):
        _native(kind, key)
    else:
        asyncio.run(_aio(kind, key))


if __name__ == "__main__":
    _main(*sys.argv[1:])
