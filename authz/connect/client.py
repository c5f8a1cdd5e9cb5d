"""Bearer tokens on the outgoing RPCs of clients of ``connectrpc``."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, TypeVar

from connectrpc.code import Code
from connectrpc.errors import ConnectError
from connectrpc.interceptor import Interceptor, InterceptorSync
from connectrpc.request import RequestContext

from authz.errors import AuthzError
from authz.issuer.credentials import bearer_metadata, unavailable
from authz.issuer.token_source import TokenSource, replace_token
from authz.runtime import telemetry
from authz.runtime.flow import Flow, arun, run
from authz.runtime.network.urls import is_loopback

T = TypeVar("T")
Context = RequestContext[Any, Any]

_NAME = "authorization"

# What connectrpc makes of a URL with http and without a port.
_PLAIN_PORT = ":80"


def bearer_interceptors(source: TokenSource, *, insecure_channel: bool = False) -> tuple[Interceptor, ...]:
    """Return interceptors that put a token of ``source`` on every RPC, for the ``interceptors`` of a ``…Client``.

    A token that a server refuses (UNAUTHENTICATED) is dropped, so that the next RPC bears another; a unary RPC is
    made once more with that. An RPC whose caller has given it an ``authorization`` keeps that, and is left alone.

    Args:
        source: where the tokens come from.
        insecure_channel: send them to port 80 of other machines as well, where others on the network can read them.
            connectrpc does not tell an interceptor whether the URL has ``https``, so a plain URL with another port is
            not noticed.

    """
    return (_Bearer(_Tokens(source, insecure_channel=insecure_channel)),)


def bearer_interceptors_sync(source: TokenSource, *, insecure_channel: bool = False) -> tuple[InterceptorSync, ...]:
    """Return the same as :func:`bearer_interceptors`, for the ``interceptors`` of a ``…ClientSync``.

    Args:
        source: as there.
        insecure_channel: as there.

    """
    return (_BearerSync(_Tokens(source, insecure_channel=insecure_channel)),)


class _Tokens:
    """Puts tokens on RPCs, and drops those that servers refuse."""

    def __init__(self, source: TokenSource, *, insecure_channel: bool) -> None:
        self._source, self._insecure = source, insecure_channel

    def begin(self, ctx: Context) -> Flow[str | None]:
        """Put a token on an RPC; return it, or ``None`` where the RPC is left alone."""
        if _NAME in ctx.request_headers:
            return None
        address = ctx.server_address or ""
        host = address.removesuffix(_PLAIN_PORT)
        if host != address and not self._insecure and not is_loopback(host.strip("[]")):
            raise ConnectError(Code.UNAUTHENTICATED, "no token is sent over plain http to another machine")
        token = yield from self._source.token_flow()
        return _bear(ctx, token)

    def begin_again(self, ctx: Context, refused: str) -> Flow[str | None]:
        """Put another token on an RPC than the one that was refused; return it, or ``None`` where there is none."""
        token = yield from replace_token(self._source, refused)
        return None if token is None or _seconds(ctx) == 0 else _bear(ctx, token)

    def drop(self, token: str) -> None:
        """Drop a token that was refused."""
        try:
            self._source.invalidate(token)
        except Exception as error:  # noqa: BLE001 - the caller has an answer already, the refusal
            telemetry.unforeseen("token source", error)


def _bear(ctx: Context, token: str) -> str:
    [(_, value)] = bearer_metadata(token)
    ctx.request_headers[_NAME] = value
    return token


def _is_refusal(error: ConnectError, token: str | None) -> bool:
    return token is not None and error.code is Code.UNAUTHENTICATED


def _seconds(ctx: Context) -> float | None:
    """Return the time until the deadline of an RPC, or ``None`` where it has none."""
    return None if ctx.timeout_ms is None else max(0.0, ctx.timeout_ms / 1000)


def _failed(ctx: Context, error: Exception) -> ConnectError:
    """Return how an RPC ends for which no token could be had."""
    if isinstance(error, ConnectError):
        return error
    if _seconds(ctx) == 0:
        return ConnectError(Code.DEADLINE_EXCEEDED, "Request timed out")
    code = Code[error.code.name] if isinstance(error, AuthzError) else Code.UNAVAILABLE
    return ConnectError(code, str(unavailable(error)))


class _Bearer:
    def __init__(self, tokens: _Tokens) -> None:
        self._tokens = tokens

    async def intercept_unary(self, call_next: Callable[[Any, Context], Awaitable[T]], request: Any, ctx: Context) -> T:
        """See ``connectrpc.interceptor.UnaryInterceptor``."""
        token = await self._begin(ctx)
        with _bearing(self._tokens, ctx, token, is_repeatable=True):
            try:
                return await call_next(request, ctx)
            except ConnectError as error:
                if not _is_refusal(error, token) or await self._begin_again(ctx, str(token)) is None:
                    raise
            return await call_next(request, ctx)

    async def intercept_client_stream(
        self,
        call_next: Callable[[AsyncIterator[Any], Context], Awaitable[T]],
        request: AsyncIterator[Any],
        ctx: Context,
    ) -> T:
        """See ``connectrpc.interceptor.ClientStreamInterceptor``."""
        token = await self._begin(ctx)
        with _bearing(self._tokens, ctx, token):
            return await call_next(request, ctx)

    async def intercept_server_stream(
        self, call_next: Callable[[Any, Context], AsyncIterator[T]], request: Any, ctx: Context
    ) -> AsyncIterator[T]:
        """See ``connectrpc.interceptor.ServerStreamInterceptor``."""
        token = await self._begin(ctx)
        replies: Any = call_next(request, ctx)
        with _bearing(self._tokens, ctx, token):
            async with contextlib.aclosing(replies) if hasattr(replies, "aclose") else contextlib.nullcontext():
                async for reply in replies:
                    yield reply

    def intercept_bidi_stream(
        self,
        call_next: Callable[[AsyncIterator[Any], Context], AsyncIterator[T]],
        request: AsyncIterator[Any],
        ctx: Context,
    ) -> AsyncIterator[T]:
        """See ``connectrpc.interceptor.BidiStreamInterceptor``."""
        return self.intercept_server_stream(call_next, request, ctx)

    async def _begin(self, ctx: Context) -> str | None:
        try:
            async with asyncio.timeout(_seconds(ctx)):
                return await arun(self._tokens.begin(ctx))
        except Exception as error:  # noqa: BLE001 - callers expect a ConnectError, whatever a source raises
            failure = _failed(ctx, error)
        raise failure

    async def _begin_again(self, ctx: Context, refused: str) -> str | None:
        try:
            async with asyncio.timeout(_seconds(ctx)):
                return await arun(self._tokens.begin_again(ctx, refused))
        except TimeoutError:
            return None


class _BearerSync:
    def __init__(self, tokens: _Tokens) -> None:
        self._tokens = tokens

    def intercept_unary_sync(self, call_next: Callable[[Any, Context], T], request: Any, ctx: Context) -> T:
        """See ``connectrpc.interceptor.UnaryInterceptorSync``."""
        token = self._begin(ctx)
        with _bearing(self._tokens, ctx, token, is_repeatable=True):
            try:
                return call_next(request, ctx)
            except ConnectError as error:
                again = self._tokens.begin_again(ctx, str(token))
                if not _is_refusal(error, token) or run(again, _seconds(ctx)) is None:
                    raise
            return call_next(request, ctx)

    def intercept_client_stream_sync(
        self, call_next: Callable[[Iterator[Any], Context], T], request: Iterator[Any], ctx: Context
    ) -> T:
        """See ``connectrpc.interceptor.ClientStreamInterceptorSync``."""
        with _bearing(self._tokens, ctx, self._begin(ctx)):
            return call_next(request, ctx)

    def intercept_server_stream_sync(
        self, call_next: Callable[[Any, Context], Iterator[T]], request: Any, ctx: Context
    ) -> Iterator[T]:
        """See ``connectrpc.interceptor.ServerStreamInterceptorSync``."""
        with _bearing(self._tokens, ctx, self._begin(ctx)):
            yield from call_next(request, ctx)

    def intercept_bidi_stream_sync(
        self, call_next: Callable[[Iterator[Any], Context], Iterator[T]], request: Iterator[Any], ctx: Context
    ) -> Iterator[T]:
        """See ``connectrpc.interceptor.BidiStreamInterceptorSync``."""
        return self.intercept_server_stream_sync(call_next, request, ctx)

    def _begin(self, ctx: Context) -> str | None:
        try:
            return run(self._tokens.begin(ctx), _seconds(ctx))
        except Exception as error:  # noqa: BLE001 - callers expect a ConnectError, whatever a source raises
            failure = _failed(ctx, error)
        raise failure


@contextlib.contextmanager
def _bearing(tokens: _Tokens, ctx: Context, token: str | None, *, is_repeatable: bool = False) -> Iterator[None]:
    """Take ``token`` back from an RPC at the end of the block, and drop it if it was refused and could not be replaced.

    Args:
        tokens: drops it.
        ctx: the RPC, which another interceptor may make once more.
        token: the token, or ``None`` where the RPC is left alone.
        is_repeatable: whether the block drops it itself.

    """
    try:
        yield
    except ConnectError as error:
        if token is not None and not is_repeatable and _is_refusal(error, token):
            tokens.drop(token)
        raise
    finally:
        if token is not None:
            del ctx.request_headers[_NAME]
