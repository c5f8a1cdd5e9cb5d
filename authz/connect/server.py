"""The interceptors of services in ASGI applications."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from typing import Any, TypeVar

from connectrpc.interceptor import Interceptor

from authz.call.call import UNREADABLE
from authz.connect.refusals import refused
from authz.connect.requests import Context, call_of
from authz.connect.rpcs import ConnectDoor
from authz.connect.streams import AsyncRequests, AsyncRpc
from authz.http.door import Judge
from authz.judge.hearing import Hearing
from authz.judge.streams import StreamExpiry
from authz.runtime.flow import ends_request

T = TypeVar("T")
Door = ConnectDoor[AsyncRpc]


def interceptors(
    judge: Judge,
    *,
    public_methods: Collection[str] = (),
    stream_expiry: StreamExpiry | Mapping[str, StreamExpiry] = "token",
    grace: float = 0.0,
) -> tuple[Interceptor, ...]:
    """Return interceptors that admit only RPCs that may be made, and tell their handlers who makes them.

    For the ``interceptors`` of a ``…ASGIApplication``: all of them, in this order, and before any other, because
    what stands before them sees requests that have not been judged. The same ones serve any number of applications.

    Handlers find the caller in :func:`authz.current_principal`, and in ``ctx.request_headers`` (``x-org-id`` and the
    other names of :class:`authz.TrustedMetadata`). What a caller sends under those names never reaches them.

    Args:
        judge: a :class:`authz.Verifier`, or an :class:`authz.Authorizer` for more than defaults.
        public_methods: full names, such as ``/grpc.health.v1.Health/Check``, that need no token.
        stream_expiry: ``token`` ends a stream when its token expires, ``never`` does not; or one of them by full
            method name, where ``*`` stands for all other methods.
        grace: seconds that a stream may go on after its token has expired.

    Raises:
        ConfigError: an argument that cannot work; the message names it.

    """
    door = Door(judge, public_methods, stream_expiry, grace)
    return _Verdict(door), _Requests(door)


class _Verdict:
    """Decides: before the body of the request is read."""

    def __init__(self, door: Door) -> None:
        self._door = door

    async def on_start(self, ctx: Context) -> AsyncRpc:
        """See ``connectrpc.interceptor.MetadataInterceptor``."""
        hearing = Hearing(self._door.authorizer, UNREADABLE, "connect")
        try:
            hearing.call = call_of(ctx)
            rpc = AsyncRpc(self._door, hearing, ctx)
            if not rpc.take_over():
                rpc.admit(await hearing.adecide())
            self._door.admit(ctx, rpc)
        except BaseException as error:
            if ends_request(error):
                raise
            refusal = hearing.refused(error)
        else:
            return rpc
        raise refused(ctx, refusal)

    async def on_end(self, rpc: AsyncRpc, ctx: Context, _error: Exception | None, /) -> None:
        """See ``connectrpc.interceptor.MetadataInterceptor``.

        Raises:
            CancelledError: the RPC has been broken off.

        """
        self._door.dismiss(ctx, rpc)
        if rpc.is_cut_off:
            # In place of an error that the client would not take either.
            raise asyncio.CancelledError


class _Requests:
    """Checks what requests name, and ends streams."""

    def __init__(self, door: Door) -> None:
        self._door = door

    async def intercept_unary(self, call_next: Callable[[Any, Context], Awaitable[T]], request: Any, ctx: Context) -> T:
        """See ``connectrpc.interceptor.UnaryInterceptor``."""
        rpc = self._door.admitted(ctx)
        rpc.check_only(request)
        rpc.tell()
        with rpc.acting():
            return await call_next(request, ctx)

    def intercept_server_stream(
        self, call_next: Callable[[Any, Context], AsyncIterator[T]], request: Any, ctx: Context
    ) -> AsyncIterator[T]:
        """See ``connectrpc.interceptor.ServerStreamInterceptor``."""
        rpc = self._door.admitted(ctx)
        rpc.check_only(request)
        return rpc.replies(lambda: call_next(request, ctx))

    async def intercept_client_stream(
        self,
        call_next: Callable[[AsyncIterator[Any], Context], Awaitable[T]],
        request: AsyncIterator[Any],
        ctx: Context,
    ) -> T:
        """See ``connectrpc.interceptor.ClientStreamInterceptor``."""
        rpc = self._door.admitted(ctx)
        await rpc.open()
        with rpc.handling():
            return await call_next(AsyncRequests(request, rpc), ctx)

    def intercept_bidi_stream(
        self,
        call_next: Callable[[AsyncIterator[Any], Context], AsyncIterator[T]],
        request: AsyncIterator[Any],
        ctx: Context,
    ) -> AsyncIterator[T]:
        """See ``connectrpc.interceptor.BidiStreamInterceptor``."""
        rpc = self._door.admitted(ctx)
        return rpc.replies(lambda: call_next(AsyncRequests(request, rpc), ctx))
