"""An authorization server in this process, and a key server that answers when it is told to."""

import asyncio
import contextlib
import json
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self, TypeVar

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from authz.demo.issuer.signing import SigningKey
from authz.envoy.check.servicer import AuthorizationServicer
from authz.envoy.v3.external_auth_pb2 import CheckRequest, CheckResponse
from authz.judge.authorizer import Authorizer
from authz.server.serving.server import EngineName, serve
from tests.doubles import FakeIssuer, jwks, m2m_claims
from tests.envoy.check.messages import GRPC, bearer, in_headers

LOOPBACK = "127.0.0.1:0"
CHECK = "/envoy.service.auth.v3.Authorization/Check"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING

PATIENCE = 120.0
"""Seconds after which something that must happen counts as never happening."""

T = TypeVar("T")


def ask(address: str, question: CheckRequest, *, wait_for_ready: bool = False) -> int:
    """Return the code of the answer to one check, asked on a connection of its own."""
    with grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        check = channel.unary_unary(CHECK, CheckRequest.SerializeToString, CheckResponse.FromString)
        return int(check(question, timeout=PATIENCE, wait_for_ready=wait_for_ready).status.code)


class Served:
    """A server of this thread, which runs while the test waits for something; that leaves signals to it.

    Args:
        runner: the loop.
        addresses: where it listens.
        ended: done when it has ended.

    """

    def __init__(self, runner: asyncio.Runner, addresses: Sequence[str], ended: "asyncio.Task[None]") -> None:
        self._runner = runner
        self.addresses = addresses
        self.ended = ended
        self.channel = self.connect(addresses[0])

    def run(self, work: Awaitable[T]) -> T:
        """Let everything run until ``work`` is done."""

        async def wait() -> T:
            async with asyncio.timeout(PATIENCE):
                return await work

        return self._runner.run(wait())

    def connect(self, address: str, credentials: grpc.ChannelCredentials | None = None) -> grpc.aio.Channel:
        async def connect() -> grpc.aio.Channel:
            # Channels of one process share their connections otherwise.
            options = [("grpc.use_local_subchannel_pool", 1)]
            if credentials is None:
                return grpc.aio.insecure_channel(address, options)
            return grpc.aio.secure_channel(address.removeprefix("tls:"), credentials, options)

        return self.run(connect())

    def begin(
        self,
        question: CheckRequest | bytes,
        channel: grpc.aio.Channel | None = None,
        *,
        compression: grpc.Compression | None = None,
    ) -> Any:
        """Begin a check; the server sees it once something else waits."""
        body = question if isinstance(question, bytes) else question.SerializeToString()

        async def begin() -> Any:
            return (channel or self.channel).unary_unary(CHECK)(body, timeout=PATIENCE, compression=compression)

        return self.run(begin())

    def check(self, question: CheckRequest | bytes, channel: grpc.aio.Channel | None = None) -> CheckResponse:
        """Return the answer; an RPC error is raised."""
        return CheckResponse.FromString(self.run(self.begin(question, channel)))

    def health(self, service: str = "") -> int:
        stub = health_pb2_grpc.HealthStub(self.channel)
        request = health_pb2.HealthCheckRequest(service=service)

        async def health() -> int:
            response = await stub.Check(request, timeout=PATIENCE)
            return int(response.status)

        return self.run(health())

    def watch(self, service: str = "") -> Iterator[int]:
        """Yield the status, and then every change of it."""
        stub = health_pb2_grpc.HealthStub(self.channel)

        async def watch() -> Any:
            return stub.Watch(health_pb2.HealthCheckRequest(service=service), timeout=PATIENCE)

        watching = self.run(watch())
        try:
            while True:
                yield self.run(watching.read()).status
        finally:
            watching.cancel()

    def until(self, condition: Callable[[], object]) -> None:
        """Let everything run until ``condition`` holds."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, "it never came to that"
            self.health()

    def stop(self) -> None:
        """End it as an operator would."""
        signal.raise_signal(signal.SIGTERM)
        self.run(self.ended)


@contextlib.contextmanager
def serving(authorizer: Authorizer, *listen: str, engine: EngineName = "grpcio", **options: Any) -> Iterator[Served]:
    """Serve until the end of the block; ``options`` are those of ``serve``."""

    async def start() -> tuple[Sequence[str], "asyncio.Task[None]"]:
        started = asyncio.get_running_loop().create_future()
        servicer = AuthorizationServicer(authorizer)
        ended = asyncio.create_task(serve(servicer, listen, engine=engine, started=started.set_result, **options))
        await asyncio.wait((started, ended), return_when=asyncio.FIRST_COMPLETED)
        if not started.done():
            await ended
        return started.result(), ended

    with asyncio.Runner() as runner:
        addresses, ended = runner.run(start())
        server = Served(runner, addresses, ended)
        try:
            yield server
        finally:
            runner.run(server.channel.close())
            if not ended.done():
                server.stop()


class BeginWaiting:
    """Begins a check, and returns when it waits for a key which the server does not have yet."""

    def __init__(self, issuer: FakeIssuer, key: SigningKey) -> None:
        self.question = in_headers(GRPC, bearer(key.sign(m2m_claims())))
        self._issuer, self._key = issuer, key

    def __call__(self, server: Served) -> Any:
        transport = self._issuer.transport
        server.until(lambda: transport.fetches == 1 and server.health() == SERVING)
        transport.hang()
        running = server.begin(self.question)
        server.until(lambda: transport.fetches == 2)
        self._issuer.keys.append(self._key)
        return running


class KeyServer:
    """Serves keys over HTTP; a context manager. Once told to hold, requests wait until :meth:`release`."""

    def __init__(self, *keys: SigningKey, port: int = 0) -> None:
        self._keys = keys
        self._asked = threading.Semaphore(0)
        self._open = threading.Event()
        self._open.set()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = outer.answer()
                self.send_response(200)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/jwks"

    def answer(self) -> bytes:
        self._asked.release()
        self._open.wait()
        return json.dumps(jwks(*self._keys)).encode()

    def hold(self) -> None:
        self._open.clear()

    def release(self, *keys: SigningKey) -> None:
        """Answer those who wait with ``keys``."""
        self._keys = keys
        self._open.set()

    def await_request(self) -> None:
        assert self._asked.acquire(timeout=PATIENCE), "nobody has asked"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._open.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
