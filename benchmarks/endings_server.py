"""The server of :mod:`benchmarks.endings`, as a process of its own: it prints its port, and ends with its input.

It is asked by RPCs: ``Give`` gives an order or replaces the policy, ``Ended`` says how many streams were told to end
and when the last of them was.
"""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import grpc.aio

import interceptors
import interceptors.aio
from authz import Authorizer, Policy
from authz.decisions.decision import Decision
from authz.demo.issuer.signing import SigningKey
from benchmarks.material import verifier

SERVICE = "benchmark.Endings"
CALL, WAIT, GIVE, ENDED = (f"/{SERVICE}/{name}" for name in ("Call", "Wait", "Give", "Ended"))
ORG = "org_01JYACME000000000000000001"
"""The organization whose streams end."""


class Control:
    """What the server is asked to do, and what came of it."""

    def __init__(self, key: SigningKey) -> None:
        self.authorizer = Authorizer(verifier(key), public_methods=(GIVE, ENDED), policy=_policy("active"))
        self.authorizer.telling.observe(self._note)
        self._told, self._last, self._began = 0, 0.0, 0.0

    def give(self, request: bytes) -> bytes:
        """Give the order that ``request`` names, and return for how many milliseconds that held its giver."""
        self._told, self._began = 0, time.perf_counter()
        _GIVEN[request.decode()](self.authorizer)
        return json.dumps({"ms": (time.perf_counter() - self._began) * 1e3}).encode()

    def ended(self, _request: bytes) -> bytes:
        """Return how many streams were told to end, after how many seconds the last one was, and how many are open."""
        told = {"told": self._told, "seconds": self._last - self._began, "open": len(self.authorizer.streams)}
        return json.dumps(told).encode()

    def _note(self, decision: Decision) -> None:
        if decision.event == "stream_ended":
            self._told += 1
            self._last = time.perf_counter()


def _policy(status: str) -> Policy:
    everything = [{"name": "everything"}]
    return Policy.from_document({"name": "p", "allow_rules": everything, "organizations": {ORG: {"status": status}}})


_GIVEN: dict[str, Callable[[Authorizer], None]] = {
    "revoke": lambda authorizer: authorizer.revoke(org_id=ORG),
    "policy": lambda authorizer: authorizer.replace_policy(_policy("suspended")),
    "policy that ends none": lambda authorizer: authorizer.replace_policy(_policy("active")),
}


async def _aio(control: Control) -> None:
    async def wait(requests: AsyncIterator[bytes], _context: Any) -> AsyncIterator[bytes]:
        yield b"open"
        async for _ in requests:
            pass

    async def call(request: bytes, _context: Any) -> bytes:
        return request

    async def give(request: bytes, _context: Any) -> bytes:
        return await asyncio.to_thread(control.give, request)

    async def ended(request: bytes, _context: Any) -> bytes:
        return control.ended(request)

    server = grpc.aio.server(interceptors=[interceptors.aio.AuthzInterceptor(control.authorizer)])
    server.add_registered_method_handlers(SERVICE, _methods(wait, call, give, ended))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(None)


def _sync(control: Control) -> None:
    def wait(requests: Iterator[bytes], _context: Any) -> Iterator[bytes]:
        yield b"open"
        yield from (b"" for _ in requests)

    server = grpc.server(
        ThreadPoolExecutor(30_000), interceptors=[interceptors.AuthzInterceptor(control.authorizer, relay=False)]
    )
    methods = _methods(
        wait,
        lambda request, _context: request,
        lambda request, _context: control.give(request),
        lambda request, _context: control.ended(request),
    )
    server.add_registered_method_handlers(SERVICE, methods)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    sys.stdin.read()
    server.stop(None)


def _methods(wait: Any, call: Any, give: Any, ended: Any) -> dict[str, Any]:
    unary = {"Call": call, "Give": give, "Ended": ended}
    return {
        "Wait": grpc.stream_stream_rpc_method_handler(wait),
        **{name: grpc.unary_unary_rpc_method_handler(serve) for name, serve in unary.items()},
    }


if __name__ == "__main__":
    made = Control(SigningKey.from_jwk(json.loads(sys.argv[2])))
    if sys.argv[1] == "sync":
        _sync(made)
    else:
        asyncio.run(_aio(made))
