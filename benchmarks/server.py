"""The server of one measurement, as a process of its own; it prints its port, and ends with its standard input.

Its kinds: ``aio`` and ``sync``, each bare, or ``-wrapped`` by an interceptor that decides nothing, or ``-authz`` behind
ours; with ``-streams``, such an interceptor wraps streams, and a synchronous server has a thread for each of many;
``constant``, which answers a check as ours does, without reading it; ``cache``, which parses the question and looks up
the token first: the least that any server must do; ``check``, which answers it with our handler on a server without any
option; ``native-constant``, which parses the question, and ``native-cache``, which looks up the token as well.
"""

import asyncio
import json
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from typing import Any

import grpc
import grpc.aio
import uvloop
from pygrpc_native import EVENT_CALL, NativeGrpcFront

import interceptors
import interceptors.aio
from authz import Authorizer
from authz.demo.issuer.signing import SigningKey
from authz.envoy.check.servicer import AuthorizationServicer
from authz.envoy.v3.external_auth_pb2 import CheckRequest
from benchmarks.material import check_request, claims, verifier
from benchmarks.wrapping import AioStreamWrapping, AioWrapping, SyncStreamWrapping, SyncWrapping

SERVICE = "benchmark.Service"
CALL, STREAM, WAIT = f"/{SERVICE}/Call", f"/{SERVICE}/Stream", f"/{SERVICE}/Wait"
CHECK = "/envoy.service.auth.v3.Authorization/Check"
MESSAGES = 1000
"""How many messages ``STREAM`` sends."""

_ANSWER = b"an answer of some bytes"
_MANY_THREADS = 20_000


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


def _sync_wait(requests: Iterator[bytes], _context: Any) -> Iterator[bytes]:
    yield _ANSWER
    yield from (b"" for _ in requests)


def _methods(call: Any, stream: Any, wait: Any) -> dict[str, Any]:
    return {
        "Call": grpc.unary_unary_rpc_method_handler(call),
        "Stream": grpc.unary_stream_rpc_method_handler(stream),
        "Wait": grpc.stream_stream_rpc_method_handler(wait),
    }


def _serve(server: grpc.aio.Server, method: str, handler: Any) -> None:
    _, service, name = method.split("/")
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {name: handler}),))


async def _aio(kind: str, key: SigningKey) -> None:
    kinds = {
        "aio-authz": lambda: interceptors.aio.AuthzInterceptor(verifier(key)),
        "aio-wrapped": AioWrapping,
        "aio-wrapped-streams": AioStreamWrapping,
    }
    server = grpc.aio.server(interceptors=[kinds[kind]()] if kind in kinds else [])
    if kind in {"constant", "cache"}:
        allowed, answers = await _allowed(key), dict[bytes, bytes]()

        async def check(body: bytes, _context: Any) -> bytes:
            return _looked_up(body, answers, allowed) if kind == "cache" else allowed

        _serve(server, CHECK, grpc.unary_unary_rpc_method_handler(check))
    elif kind == "check":
        servicer = AuthorizationServicer(Authorizer(verifier(key)))
        _serve(server, CHECK, grpc.unary_unary_rpc_method_handler(servicer.check))
    else:
        server.add_registered_method_handlers(SERVICE, _methods(_answer, _stream, _wait))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(None)


async def _allowed(key: SigningKey) -> bytes:
    """Return our answer, so that all servers' answers have the same length."""
    servicer = AuthorizationServicer(Authorizer(verifier(key)))
    return await servicer.check(check_request(key.sign(claims())), None)


def _token(body: bytes) -> bytes:
    return CheckRequest.FromString(body).attributes.request.http.headers["authorization"].encode()


def _looked_up(body: bytes, answers: dict[bytes, bytes], allowed: bytes) -> bytes:
    return answers.setdefault(sha256(_token(body)).digest(), allowed)


def _native(key: SigningKey, *, is_caching: bool) -> None:
    # The cost of the library and of reading the question, without a verdict.
    allowed = asyncio.run(_allowed(key))
    front = NativeGrpcFront("127.0.0.1:0", [(CHECK, False)])
    front.start()
    print(front.bound_port, flush=True)

    answers: dict[bytes, bytes] = {}

    def answer(body: bytes) -> bytes:
        if is_caching:
            return _looked_up(body, answers, allowed)
        CheckRequest.FromString(body)
        return allowed

    def serve() -> None:
        while (events := front.recv_batch(64)) is not None:
            for event, call_id, _, body, _ in events:
                if event == EVENT_CALL:
                    front.respond(call_id, answer(body or b""))

    threading.Thread(target=serve, daemon=True).start()
    sys.stdin.read()
    front.close()


def _sync(kind: str, key: SigningKey) -> None:
    def ours() -> grpc.ServerInterceptor:
        return interceptors.AuthzInterceptor(verifier(key))

    kinds: dict[str, Callable[[], grpc.ServerInterceptor]] = {
        "sync-authz": ours,
        "sync-authz-streams": ours,
        "sync-wrapped": SyncWrapping,
        "sync-wrapped-streams": SyncStreamWrapping,
    }
    threads = _MANY_THREADS if kind.endswith("-streams") else 8
    server = grpc.server(ThreadPoolExecutor(threads), interceptors=[kinds[kind]()] if kind in kinds else [])
    server.add_registered_method_handlers(SERVICE, _methods(_sync_answer, _sync_stream, _sync_wait))
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
        _native(key, is_caching=kind == "native-cache")
    else:
        factory = uvloop.new_event_loop if kind in {"constant", "cache", "check"} else None
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(_aio(kind, key))


if __name__ == "__main__":
    _main(*sys.argv[1:])
