"""Bearer tokens on the outgoing RPCs of a ``grpc.aio`` channel."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import grpc
import grpc.aio

from authz.errors import TokenEndpointError
from authz.issuer.credentials import unavailable
from authz.issuer.token_source import TokenSource
from authz.runtime.flow import Flow, arun
from interceptors.aio.calls import RepeatableStream, code_now, when_ended
from interceptors.aio.kinds import Continuation, Intercept, changed, every_kind
from interceptors.bearer import Bearer, WatchedSource, has_authorization

T = TypeVar("T")


def bearer_interceptors(
    source: TokenSource, *, insecure_channel: bool = False
) -> tuple[grpc.aio.ClientInterceptor, ...]:
    """Return what puts a token of ``source`` on every call; see :func:`interceptors.bearer_interceptors`.

    For the ``interceptors`` of ``grpc.aio.secure_channel``: all of them, for each serves one kind of RPC.

    Args:
        source: where the tokens come from.
        insecure_channel: send them on any channel, one without TLS included, which gives them to whoever
            listens. By default gRPC itself refuses, with UNAUTHENTICATED, all but TLS and
            ``grpc.local_channel_credentials()``.

    """
    watched = WatchedSource(source)

    def intercept(begin: Callable[["_Rpc"], Awaitable[Any]], *, is_repeatable: bool) -> Intercept:
        async def begin_rpc(continuation: Continuation, details: grpc.aio.ClientCallDetails, request: Any) -> Any:
            if has_authorization(details.metadata):
                return await continuation(details, request)
            rpc = _Rpc(watched, details, is_repeatable=is_repeatable, insecure_channel=insecure_channel)
            await rpc.prepare(continuation, request)
            return await begin(rpc)

        return begin_rpc

    return every_kind(
        unary_unary=intercept(_unary_unary, is_repeatable=True),
        unary_stream=intercept(_unary_stream, is_repeatable=True),
        stream_unary=intercept(_stream_unary, is_repeatable=False),
        stream_stream=intercept(_stream_stream, is_repeatable=False),
    )


class _Rpc(Bearer):
    async def prepare(self, continuation: Continuation, request: Any) -> None:
        """Get ready for the first attempt."""
        self._continuation, self._request = continuation, request
        try:
            await self._in_time(self.begin())
        except Exception as error:  # noqa: BLE001 - whatever a source raises, gRPC's callers expect this
            raise _failed(self.failure_code(error), unavailable(error)) from None

    async def send(self) -> Any:
        """Begin an attempt."""
        try:
            return await self._continuation(changed(self._details, **self.attempt()._asdict()), self._request)
        except grpc.aio.UsageError as error:
            # Thus grpc.aio.insecure_channel meets call credentials; all other channels end the RPC, as here.
            raise _failed(grpc.StatusCode.UNAUTHENTICATED, error) from None

    async def has_replaced_token(self) -> bool:
        """Get another token; say whether there is one, and time to use it."""
        try:
            return await self._in_time(self.begin_again())
        except TokenEndpointError:
            return False

    async def _in_time(self, flow: Flow[T]) -> T:
        try:
            async with asyncio.timeout(self.time_remaining()):
                return await arun(flow)
        except TimeoutError:
            raise TokenEndpointError("the deadline has passed before there was a token") from None


def _failed(code: grpc.StatusCode, error: Exception) -> grpc.aio.AioRpcError:
    nothing = grpc.aio.Metadata()
    return grpc.aio.AioRpcError(code, nothing, nothing, str(error))


async def _unary_unary(rpc: _Rpc) -> Any:
    call = await rpc.send()
    try:
        code = await call.code()
    except asyncio.CancelledError:
        call.cancel()
        raise
    denial = rpc.denial(code)
    if denial is not None:
        raise _failed(grpc.StatusCode.UNAUTHENTICATED, denial)
    return await rpc.send() if rpc.is_refusal(code) and await rpc.has_replaced_token() else call


async def _unary_stream(rpc: _Rpc) -> Any:
    return RepeatableStream(await rpc.send(), rpc)


async def _stream_unary(rpc: _Rpc) -> Any:
    call = await rpc.send()

    async def settle() -> None:
        with contextlib.suppress(grpc.RpcError, asyncio.CancelledError):
            await call

    return _dropping(rpc, call, settle)


async def _stream_stream(rpc: _Rpc) -> Any:
    async def settle() -> None:
        """Do nothing: there is no end but the one that is told."""

    return _dropping(rpc, await rpc.send(), settle)


def _dropping(rpc: _Rpc, call: Any, settle: Callable[[], Awaitable[None]]) -> Any:
    """Return ``call``, whose token is dropped if it ends as refused.

    Where a refusal meets a request on its way, grpc.aio says INTERNAL: of requests and responses first the truth
    and then that, of a single response either first, and the truth once it is awaited.
    """

    def has_dropped() -> bool:
        is_refused = rpc.is_refusal(code_now(call))
        if is_refused:
            rpc.drop_token()
        return is_refused

    async def look() -> None:
        await settle()
        if rpc.is_refusal(await call.code()):
            rpc.drop_token()

    when_ended(call, look, unless=has_dropped)
    return call
