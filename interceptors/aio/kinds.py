"""Client interceptors of every RPC kind, made of functions.

One object for each kind: ``grpc.aio`` uses one of every kind for unary-unary RPCs only, without a warning.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import grpc.aio

Continuation = Callable[[grpc.aio.ClientCallDetails, Any], Awaitable[Any]]
Intercept = Callable[[Continuation, grpc.aio.ClientCallDetails, Any], Awaitable[Any]]


def every_kind(
    *, unary_unary: Intercept, unary_stream: Intercept, stream_unary: Intercept, stream_stream: Intercept
) -> tuple[grpc.aio.ClientInterceptor, ...]:
    """Return interceptors, one for each kind of RPC, that call these functions."""
    return (
        _UnaryUnary(unary_unary),
        _UnaryStream(unary_stream),
        _StreamUnary(stream_unary),
        _StreamStream(stream_stream),
    )


def changed(details: grpc.aio.ClientCallDetails, **changes: Any) -> grpc.aio.ClientCallDetails:
    """Return ``details`` with ``changes``; metadata may be any entries."""
    metadata = changes.get("metadata", details.metadata)
    return grpc.aio.ClientCallDetails(
        method=details.method,
        timeout=changes.get("timeout", details.timeout),
        # Always a copy, which is shared neither with the caller nor with another attempt.
        metadata=grpc.aio.Metadata(*metadata or ()),
        credentials=changes.get("credentials", details.credentials),
        wait_for_ready=details.wait_for_ready,
    )


class _UnaryUnary(grpc.aio.UnaryUnaryClientInterceptor):
    def __init__(self, intercept: Intercept) -> None:
        self._intercept = intercept

    async def intercept_unary_unary(
        self, continuation: Continuation, client_call_details: grpc.aio.ClientCallDetails, request: Any
    ) -> Any:
        return await self._intercept(continuation, client_call_details, request)


class _UnaryStream(grpc.aio.UnaryStreamClientInterceptor):
    def __init__(self, intercept: Intercept) -> None:
        self._intercept = intercept

    async def intercept_unary_stream(
        self, continuation: Continuation, client_call_details: grpc.aio.ClientCallDetails, request: Any
    ) -> Any:
        return await self._intercept(continuation, client_call_details, request)


class _StreamUnary(grpc.aio.StreamUnaryClientInterceptor):
    def __init__(self, intercept: Intercept) -> None:
        self._intercept = intercept

    async def intercept_stream_unary(
        self, continuation: Continuation, client_call_details: grpc.aio.ClientCallDetails, request_iterator: Any
    ) -> Any:
        return await self._intercept(continuation, client_call_details, request_iterator)


class _StreamStream(grpc.aio.StreamStreamClientInterceptor):
    def __init__(self, intercept: Intercept) -> None:
        self._intercept = intercept

    async def intercept_stream_stream(
        self, continuation: Continuation, client_call_details: grpc.aio.ClientCallDetails, request_iterator: Any
    ) -> Any:
        return await self._intercept(continuation, client_call_details, request_iterator)
