"""The interceptors of services in WSGI applications.

A stream ends between two of its messages: no thread can be interrupted that waits in a handler.
"""

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, TypeVar

from connectrpc.interceptor import InterceptorSync

from authz.call.call import UNREADABLE
from authz.connect.refusals import refused
from authz.connect.requests import Context, call_of
from authz.connect.rpcs import ConnectDoor, Rpc
from authz.http.door import Judge
from authz.judge.hearing import Hearing
from authz.judge.streams import StreamExpiry
from authz.runtime.flow import run

T = TypeVar("T")

_OVER: Any = object()


class SyncRpc(Rpc):
    """One RPC of a WSGI application."""

    def open(self) -> None:
        """Have the judge end the RPC from now on when it must end.

        Raises:
            RefusedError: it must end now, or its organization has as many streams open as it may.

        """
        with self.beginning():
            run(self.opening())

    @contextlib.contextmanager
    def handling(self) -> Iterator[None]:
        """Run the handler in the block.

        Raises:
            RefusedError: the RPC must end, whatever the handler makes of that.

        """
        try:
            # For each message anew: between two of them the thread may serve others.
            with self.acting():
                yield
        except Exception:
            if self._refusal is None:
                raise
        self.check_on()

    def replies(self, begin: Callable[[], Iterator[T]]) -> Iterator[T]:
        """Yield the replies of the handler that ``begin`` begins, until the RPC must end.

        Raises:
            RefusedError: it must end.

        """
        self.open()
        replies: Any = None
        try:
            with self.handling():
                replies = iter(begin())
            while True:
                with self.handling():
                    reply = next(replies, _OVER)
                if reply is _OVER:
                    return
                self._has_begun = True
                yield reply
                # Before the handler makes another one.
                self.check_on()
        finally:
            if hasattr(replies, "close"):
                with self.acting():
                    replies.close()


class SyncRequests:
    """The requests of a stream: the handler sees none that it may not see.

    Args:
        requests: those of the client.
        rpc: checks them, and ends with the first one that is refused.

    """

    def __init__(self, requests: Iterator[Any], rpc: SyncRpc) -> None:
        self._requests, self._rpc = iter(requests), rpc

    def __iter__(self) -> "SyncRequests":
        return self

    def __next__(self) -> Any:
        request = next(self._requests)
        self._rpc.check_next(request)
        return request


Door = ConnectDoor[SyncRpc]


def interceptors_sync(
    judge: Judge,
    *,
    public_methods: Collection[str] = (),
    stream_expiry: StreamExpiry | Mapping[str, StreamExpiry] = "token",
    grace: float = 0.0,
) -> tuple[InterceptorSync, ...]:
    """Return the same as :func:`authz.connect.interceptors`, for the ``interceptors`` of a ``…WSGIApplication``.

    A stream ends when its handler sends or reads its next message.

    Args:
        judge: as there.
        public_methods: as there.
        stream_expiry: as there.
        grace: as there.

    Raises:
        ConfigError: an argument that cannot work; the message names it.

    """
    door = Door(judge, public_methods, stream_expiry, grace)
    return _Verdict(door), _Requests(door)


class _Verdict:
    """Decides: before the body of the request is parsed."""

    def __init__(self, door: Door) -> None:
        self._door = door

    def on_start_sync(self, ctx: Context, /) -> SyncRpc:
        """See ``connectrpc.interceptor.MetadataInterceptorSync``."""
        hearing = Hearing(self._door.authorizer, UNREADABLE, "connect")
        try:
            hearing.call = call_of(ctx)
            rpc = SyncRpc(self._door, hearing, ctx)
            if not rpc.take_over():
                rpc.admit(hearing.decide())
            self._door.admit(ctx, rpc)
        # All else is no reason to refuse the request: the process ends, or the greenlet.
        except (Exception, GeneratorExit) as error:  # noqa: BLE001
            refusal = hearing.refused(error)
        else:
            return rpc
        raise refused(ctx, refusal)

    def on_end_sync(self, rpc: SyncRpc, ctx: Context, _error: Exception | None, /) -> None:
        """See ``connectrpc.interceptor.MetadataInterceptorSync``."""
        self._door.dismiss(ctx, rpc)


class _Requests:
    """Checks what requests name, and ends streams."""

    def __init__(self, door: Door) -> None:
        self._door = door

    def intercept_unary_sync(self, call_next: Callable[[Any, Context], T], request: Any, ctx: Context) -> T:
        """See ``connectrpc.interceptor.UnaryInterceptorSync``."""
        rpc = self._door.admitted(ctx)
        rpc.check_only(request)
        rpc.tell()
        with rpc.acting():
            return call_next(request, ctx)

    def intercept_server_stream_sync(
        self, call_next: Callable[[Any, Context], Iterator[T]], request: Any, ctx: Context
    ) -> Iterator[T]:
        """See ``connectrpc.interceptor.ServerStreamInterceptorSync``."""
        rpc = self._door.admitted(ctx)
        rpc.check_only(request)
        return self._replies(rpc, ctx, lambda: call_next(request, ctx))

    def intercept_client_stream_sync(
        self, call_next: Callable[[Iterator[Any], Context], T], request: Iterator[Any], ctx: Context
    ) -> T:
        """See ``connectrpc.interceptor.ClientStreamInterceptorSync``."""
        rpc = self._door.admitted(ctx)
        rpc.open()
        with rpc.handling():
            return call_next(SyncRequests(request, rpc), ctx)

    def intercept_bidi_stream_sync(
        self, call_next: Callable[[Iterator[Any], Context], Iterator[T]], request: Iterator[Any], ctx: Context
    ) -> Iterator[T]:
        """See ``connectrpc.interceptor.BidiStreamInterceptorSync``."""
        rpc = self._door.admitted(ctx)
        return self._replies(rpc, ctx, lambda: call_next(SyncRequests(request, rpc), ctx))

    def _replies(self, rpc: SyncRpc, ctx: Context, begin: Callable[[], Iterator[T]]) -> Iterator[T]:
        try:
            yield from rpc.replies(begin)
        finally:
            # A server may drop a response without reading any of it: then connectrpc does not tell of its end.
            self._door.dismiss(ctx, rpc)
