"""Interceptors that decide nothing: they wrap the handler, its context and the details, as any must that tells more.

The least that an interceptor costs in Python which shows handlers other metadata than the caller's.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import grpc.aio


class _Details(grpc.HandlerCallDetails):
    __slots__ = ("invocation_metadata", "method")

    def __init__(self, method: str, invocation_metadata: Any) -> None:
        self.method, self.invocation_metadata = method, invocation_metadata


class _Context:
    __slots__ = ("_context", "_metadata")

    def __init__(self, context: Any, metadata: Any) -> None:
        self._context, self._metadata = context, metadata

    def invocation_metadata(self) -> Any:
        return self._metadata

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)


class SyncWrapping(grpc.ServerInterceptor):
    """Wrap unary RPCs of a ``grpc.server``."""

    def intercept_service(self, continuation: Callable[[Any], Any], details: Any) -> Any:
        """See ``grpc.ServerInterceptor``."""
        metadata = details.invocation_metadata
        handler = continuation(_Details(details.method, metadata))
        behaviour = handler.unary_unary

        def wrapped(request: Any, context: Any) -> Any:
            return behaviour(request, _Context(context, metadata))

        return grpc.unary_unary_rpc_method_handler(wrapped, handler.request_deserializer, handler.response_serializer)


class AioWrapping(grpc.aio.ServerInterceptor):
    """Wrap unary RPCs of a ``grpc.aio.server``."""

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], details: Any) -> Any:
        """See ``grpc.aio.ServerInterceptor``."""
        metadata = details.invocation_metadata
        # grpc.aio takes no other class than its own.
        handler = await continuation(type(details)(details.method, metadata))
        behaviour = handler.unary_unary

        async def wrapped(request: Any, context: Any) -> Any:
            return await behaviour(request, _Context(context, metadata))

        return grpc.unary_unary_rpc_method_handler(wrapped, handler.request_deserializer, handler.response_serializer)


class SyncStreamWrapping(grpc.ServerInterceptor):
    """Wrap RPCs of a ``grpc.server`` that stream both ways."""

    def intercept_service(self, continuation: Callable[[Any], Any], details: Any) -> Any:
        """See ``grpc.ServerInterceptor``."""
        metadata = details.invocation_metadata
        behaviour = continuation(_Details(details.method, metadata)).stream_stream

        def wrapped(requests: Any, context: Any) -> Any:
            return behaviour(requests, _Context(context, metadata))

        return grpc.stream_stream_rpc_method_handler(wrapped)


class AioStreamWrapping(grpc.aio.ServerInterceptor):
    """Wrap RPCs of a ``grpc.aio.server`` that stream both ways."""

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], details: Any) -> Any:
        """See ``grpc.aio.ServerInterceptor``."""
        metadata = details.invocation_metadata
        handler = await continuation(type(details)(details.method, metadata))
        behaviour = handler.stream_stream

        async def wrapped(requests: Any, context: Any) -> AsyncIterator[Any]:
            async for reply in behaviour(requests, _Context(context, metadata)):
                yield reply

        return grpc.stream_stream_rpc_method_handler(wrapped)
