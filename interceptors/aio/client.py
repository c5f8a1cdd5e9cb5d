"""Bearer tokens on the outgoing RPCs of a ``grpc.aio`` channel."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import grpc
import grpc.aio

from authz.errors import TokenEndpointError
from authz.issuer.credentials import unavailable
from authz.issuer.token_source import TokenSource
from authz.runtime.flow import Flow, arun

from ..bearer import Bearer, WatchedSource, has_authorization
from .calls import when_ended
from .kinds import Continuation, Intercept, changed, every_kind

T = TypeVar("T")


def bearer_interceptors(
    source: TokenSource, *, insecure_channel: bool = False
) -> tuple[grpc.aio.ClientInterceptor, ...]:
    """Return interceptors that put a token of ``source`` on every call; see :func:`interceptors.bearer_interceptors`.

    For the ``interceptors`` of ``grpc.aio.secure_channel``: all of them, for each serves one kind of RPC.

    Args:
        source: where the tokens come from.
        insecure_channel: send them on any channel, one without TLS included, where others on the network can read
            them. By default gRPC itself refuses, with UNAUTHENTICATED, all but TLS and
            ``grpc.local_channel_credentials()``.

    """
    watched = WatchedSource(source)

    def intercept(begin: Callable[["_Rpc"], Awaitable[Any]]) -> Intercept:
        async def begin_rpc(continuation: Continuation, details: grpc.aio.ClientCallDetails, request: Any) -> Any:
            if has_authorization(details.metadata):
                return await continuation(details, request)
            rpc = _Rpc(watched, details, insecure_channel=insecure_channel)
            await rpc.prepare(continuation, request)
            return await begin(rpc)

        return begin_rpc

    return every_kind(
        unary_unary=intercept(_unary_unary),
        unary_stream=intercept(_responses),
        stream_unary=intercept(_stream_unary),
        stream_stream=intercept(_responses),
    )


class _Rpc(Bearer):
    async def prepare(self, continuation: Continuation, request: Any) -> None:
        """Get ready for the first attempt."""
        self._continuation, self._request = continuation, request
        try:
            await self._in_time(self.begin())
        except Exception as error:  # noqa: BLE001 - callers expect an RpcError, whatever a source raises
            raise _failed(self.failure_code(error), unavailable(error)) from None

    async def send(self) -> Any:
        """Begin an attempt."""
        try:
            return await self._continuation(changed(self._details, **self.attempt()._asdict()), self._request)
        except grpc.aio.UsageError as error:
            # grpc.aio.insecure_channel raises this for call credentials; other channels end the RPC, as this does.
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


async def _stream_unary(rpc: _Rpc) -> Any:
    call = await rpc.send()
    when_ended(call, rpc.ended, has_one_response=True)
    return call


async def _responses(rpc: _Rpc) -> Any:
    call = await rpc.send()
    when_ended(call, rpc.ended, has_one_response=False)
    return call
