"""The service that the door is tried with: one method of each kind, which answers who it thinks is calling."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from connectrpc.method import IdempotencyLevel, MethodInfo, StreamType
from connectrpc.server import ConnectASGIApplication, ConnectWSGIApplication, Endpoint, EndpointSync

from authz import ANONYMOUS, Principal, current_principal
from tests.connect.messages import Library
from tests.doubles import PATIENCE

SERVICE, PUBLIC = "tests.Guarded", "tests.Public"
KINDS = {
    "unary": StreamType.UNARY,
    "server_stream": StreamType.SERVER_STREAM,
    "client_stream": StreamType.CLIENT_STREAM,
    "bidi_stream": StreamType.BIDI_STREAM,
}
PUBLIC_METHODS = tuple(f"/{PUBLIC}/{kind}" for kind in KINDS)
REPLIES = 2
"""How many messages a method answers that has one request and streams its response."""


def method(library: Library, kind: str, service: str = SERVICE) -> MethodInfo[Any, Any]:
    order = library.types["Order"]
    level = IdempotencyLevel.NO_SIDE_EFFECTS if kind == "unary" else IdempotencyLevel.UNKNOWN
    return MethodInfo(
        name=kind,
        service_name=service,
        input=order,
        output=order,
        idempotency_level=level,
        stream_type=KINDS[kind],
    )


@dataclass(frozen=True)
class Sight:
    """What a handler found."""

    principal: Principal
    headers: list[tuple[str, str]]

    def values(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name]


@dataclass
class Witness:
    """What the handlers of one server have seen."""

    sights: list[Sight] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    is_over: threading.Event = field(default_factory=threading.Event)
    entered: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    may_go_on: threading.Event = field(default_factory=threading.Event)

    def look(self, ctx: Any) -> None:
        self.sights.append(Sight(current_principal(), list(ctx.request_headers.allitems())))
        self.entered.release()

    def take(self, request: Any) -> None:
        self.notes.append(request.note)

    @property
    def sight(self) -> Sight:
        [sight] = self.sights
        return sight


def caller() -> str:
    """Return the organization that calls; asked anew for every message."""
    principal = current_principal()
    return "anonymous" if principal is ANONYMOUS else principal.org_id


class Handlers:
    """The handlers of an ASGI application."""

    def __init__(self, library: Library, witness: Witness) -> None:
        self._library, self._witness = library, witness

    def reply(self) -> Any:
        return self._library.order(note=caller())

    async def unary(self, request: Any, ctx: Any) -> Any:
        self._witness.look(ctx)
        self._witness.take(request)
        return await asyncio.to_thread(self.reply)

    async def server_stream(self, request: Any, ctx: Any) -> AsyncIterator[Any]:
        self._witness.look(ctx)
        self._witness.take(request)
        for _ in range(REPLIES):
            yield self.reply()

    async def client_stream(self, requests: AsyncIterator[Any], ctx: Any) -> Any:
        self._witness.look(ctx)
        async for request in requests:
            self._witness.take(request)
        return self.reply()

    async def bidi_stream(self, requests: AsyncIterator[Any], ctx: Any) -> AsyncIterator[Any]:
        self._witness.look(ctx)
        async for request in requests:
            self._witness.take(request)
            yield self.reply()


class SyncHandlers:
    """The handlers of a WSGI application."""

    def __init__(self, library: Library, witness: Witness) -> None:
        self._library, self._witness = library, witness

    def reply(self) -> Any:
        return self._library.order(note=caller())

    def unary(self, request: Any, ctx: Any) -> Any:
        self._witness.look(ctx)
        self._witness.take(request)
        return self.reply()

    def server_stream(self, request: Any, ctx: Any) -> Iterator[Any]:
        self._witness.look(ctx)
        self._witness.take(request)
        for _ in range(REPLIES):
            yield self.reply()

    def client_stream(self, requests: Iterator[Any], ctx: Any) -> Any:
        self._witness.look(ctx)
        for request in requests:
            self._witness.take(request)
        return self.reply()

    def bidi_stream(self, requests: Iterator[Any], ctx: Any) -> Iterator[Any]:
        self._witness.look(ctx)
        for request in requests:
            self._witness.take(request)
            yield self.reply()


class AsgiApp(ConnectASGIApplication[Any]):
    """What protoc-gen-connectrpc generates of the service."""

    def __init__(self, library: Library, handlers: Any, interceptors: Iterable[Any] = (), **options: Any) -> None:
        super().__init__(
            service=handlers,
            endpoints=lambda service: _endpoints(Endpoint, library, service),
            interceptors=interceptors,
            codecs=library.codecs,
            **options,
        )

    @property
    def path(self) -> str:
        return f"/{SERVICE}"


class WsgiApp(ConnectWSGIApplication):
    """The same for WSGI."""

    def __init__(self, library: Library, handlers: Any, interceptors: Iterable[Any] = (), **options: Any) -> None:
        endpoints = _endpoints(EndpointSync, library, handlers)
        super().__init__(endpoints=endpoints, interceptors=interceptors, codecs=library.codecs, **options)

    @property
    def path(self) -> str:
        return f"/{SERVICE}"


def _endpoints(kinds: Any, library: Library, handlers: Any) -> dict[str, Any]:
    return {
        f"/{service}/{kind}": getattr(kinds, kind)(
            method=method(library, kind, service), function=getattr(handlers, kind)
        )
        for service in (SERVICE, PUBLIC)
        for kind in KINDS
    }


def wait(event: threading.Event) -> None:
    assert event.wait(PATIENCE), "it never came to that"


Behaviour = Callable[..., Any]
