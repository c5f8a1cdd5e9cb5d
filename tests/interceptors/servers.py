"""Real servers on loopback, and the doors: each way of serving handlers behind an interceptor."""

import asyncio
import contextlib
import inspect
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc
import grpc.aio

import interceptors
import interceptors.aio
from tests.interceptors.service import (
    Behaviour,
    async_behaviours,
    handler,
    is_response_streaming,
    read_write_behaviours,
    sync_behaviours,
)

PATIENCE = 120.0
"""Seconds after which something that must happen counts as never happening."""

_OPTIONS = (
    # Another server on the same port must be an error, not a silent share.
    ("grpc.so_reuseport", 0),
    # grpc's own limits are not certain to apply to every client: ours must do without them.
    ("grpc.max_metadata_size", 1 << 20),
    ("grpc.absolute_max_metadata_size", 1 << 20),
)

T = TypeVar("T")

Bind = Callable[[Any], str]
"""Gives a server its ports, and returns the address of the one that matters."""


def on_loopback(server: Any) -> str:
    return f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"


def bound(credentials: grpc.ServerCredentials | None = None, address: str = "127.0.0.1:0") -> Bind:
    """Return what binds a server to ``address``, with ``credentials`` if there are any."""

    def bind(server: Any) -> str:
        port = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
        return address.replace(":0", f":{port}")

    return bind


class Loop:
    """An event loop on a thread of its own."""

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self.loop = loop or asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="test-loop")
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(PATIENCE)

    def close(self) -> None:
        self.run(self.loop.shutdown_asyncgens())
        self.run(self.loop.shutdown_default_executor())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


def _register(server: Any, handlers: Mapping[str, Any]) -> None:
    # In both of the ways that generated code uses.
    services: dict[str, dict[str, Any]] = {}
    for full_name, one in handlers.items():
        _, service, name = full_name.split("/")
        services.setdefault(service, {})[name] = one
    for service, methods in services.items():
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, methods),))
        server.add_registered_method_handlers(service, methods)


@contextlib.contextmanager
def sync_server(
    handlers: Mapping[str, Any],
    interceptors: Sequence[Any] = (),
    *,
    pool: ThreadPoolExecutor | None = None,
    bind: Bind = on_loopback,
) -> Iterator[str]:
    """Serve ``handlers`` with ``grpc.server``; yield the address."""
    pool = pool or ThreadPoolExecutor(8)
    server = grpc.server(pool, interceptors=interceptors, options=_OPTIONS)
    _register(server, handlers)
    address = bind(server)
    server.start()
    try:
        yield address
    finally:
        # Not None, which would wait without end for a server that is dead.
        stopped = server.stop(0).wait(PATIENCE)
        pool.shutdown()
    assert stopped, "the server's polling thread is dead"


@contextlib.contextmanager
def aio_server(
    loop: Loop,
    handlers: Mapping[str, Any],
    interceptors: Sequence[Any] = (),
    *,
    pool: ThreadPoolExecutor | None = None,
    bind: Bind = on_loopback,
) -> Iterator[str]:
    """Serve ``handlers`` with ``grpc.aio.server``, synchronous ones in ``pool``; yield the address."""
    pool = pool or ThreadPoolExecutor(8)

    async def start() -> tuple[grpc.aio.Server, str]:
        server = grpc.aio.server(pool, interceptors=interceptors, options=_OPTIONS)
        _register(server, handlers)
        address = bind(server)
        await server.start()
        return server, address

    server, address = loop.run(start())
    try:
        yield address
    finally:
        loop.run(server.stop(None))
        pool.shutdown()


@dataclass(frozen=True)
class Door:
    """One way of serving: a server, and the sort of handlers it gets."""

    name: str
    is_aio: bool
    has_sync_handlers: bool
    behaviours: Callable[..., dict[str, Behaviour]]

    @property
    def interceptor(self) -> Callable[..., Any]:
        return interceptors.aio.AuthzInterceptor if self.is_aio else interceptors.AuthzInterceptor

    @contextlib.contextmanager
    def listen(
        self, loop: Loop, handlers: Mapping[str, Any], interceptors: Sequence[Any] = (), **options: Any
    ) -> Iterator[str]:
        """Serve ``handlers``; yield the address. The options are those of the servers."""
        if self.is_aio:
            serving = aio_server(loop, handlers, interceptors, **options)
        else:
            serving = sync_server(handlers, interceptors, **options)
        with serving as address:
            yield address

    @contextlib.contextmanager
    def serve(
        self, loop: Loop, handlers: Mapping[str, Any], interceptors: Sequence[Any] = ()
    ) -> Iterator[grpc.Channel]:
        """Serve ``handlers``; yield a channel."""
        with self.listen(loop, handlers, interceptors) as address, channel_to(address) as channel:
            yield channel


def channel_to(address: str) -> grpc.Channel:
    # Channels of one process share their connections otherwise.
    return grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)])


DOORS = (
    Door("grpc", is_aio=False, has_sync_handlers=True, behaviours=sync_behaviours),
    Door("aio", is_aio=True, has_sync_handlers=False, behaviours=async_behaviours),
    Door("aio-read-write", is_aio=True, has_sync_handlers=False, behaviours=read_write_behaviours),
    Door("aio-sync-handlers", is_aio=True, has_sync_handlers=True, behaviours=sync_behaviours),
)


Act = Callable[[Any], Any]


def acting(door: Door, kind: str, act: Act) -> Any:
    """Return a handler of the door's sort that does ``act`` with its context, and then answers once."""

    def behave(_request: Any, context: Any) -> bytes:
        act(context)
        return b"done"

    def generate(_request: Any, context: Any) -> Iterator[bytes]:
        act(context)
        yield b"done"

    async def behave_async(_request: Any, context: Any) -> bytes:
        result = act(context)
        if inspect.isawaitable(result):
            await result
        return b"done"

    async def generate_async(request: Any, context: Any) -> AsyncIterator[bytes]:
        yield await behave_async(request, context)

    async def write(request: Any, context: Any) -> None:
        await context.write(await behave_async(request, context))

    is_streaming = is_response_streaming(kind)
    if door.has_sync_handlers:
        return handler(kind, generate if is_streaming else behave)
    if not is_streaming:
        return handler(kind, behave_async)
    return handler(kind, write if door.name == "aio-read-write" else generate_async)
