"""Client interceptors of every RPC kind, made of functions."""

from collections.abc import Callable
from typing import Any, NamedTuple

import grpc

Continuation = Callable[[grpc.ClientCallDetails, Any], Any]
Intercept = Callable[[Continuation, grpc.ClientCallDetails, Any], Any]


class _Fields(NamedTuple):
    method: Any
    timeout: Any
    metadata: Any
    credentials: Any
    wait_for_ready: Any
    compression: Any


class _Details(_Fields, grpc.ClientCallDetails):
    """Like grpc's own class, which is not public."""


def changed(details: grpc.ClientCallDetails, **changes: Any) -> grpc.ClientCallDetails:
    """Return ``details`` with ``changes``; what other interceptors left out stays at its default."""
    return _Details(*(changes.get(name, getattr(details, name, None)) for name in _Fields._fields))


class EveryKind(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    """An interceptor that calls one function for each kind of RPC.

    Args:
        unary_unary: called for an RPC of this kind.
        unary_stream: the same, and so on.
        stream_unary: the same.
        stream_stream: the same.

    """

    def __init__(
        self, *, unary_unary: Intercept, unary_stream: Intercept, stream_unary: Intercept, stream_stream: Intercept
    ) -> None:
        self._unary_unary, self._unary_stream = unary_unary, unary_stream
        self._stream_unary, self._stream_stream = stream_unary, stream_stream

    def intercept_unary_unary(
        self, continuation: Continuation, client_call_details: grpc.ClientCallDetails, request: Any
    ) -> Any:
        """See ``grpc.UnaryUnaryClientInterceptor``."""
        return self._unary_unary(continuation, client_call_details, request)

    def intercept_unary_stream(
        self, continuation: Continuation, client_call_details: grpc.ClientCallDetails, request: Any
    ) -> Any:
        """See ``grpc.UnaryStreamClientInterceptor``."""
        return self._unary_stream(continuation, client_call_details, request)

    def intercept_stream_unary(
        self, continuation: Continuation, client_call_details: grpc.ClientCallDetails, request_iterator: Any
    ) -> Any:
        """See ``grpc.StreamUnaryClientInterceptor``."""
        return self._stream_unary(continuation, client_call_details, request_iterator)

    def intercept_stream_stream(
        self, continuation: Continuation, client_call_details: grpc.ClientCallDetails, request_iterator: Any
    ) -> Any:
        """See ``grpc.StreamStreamClientInterceptor``."""
        return self._stream_stream(continuation, client_call_details, request_iterator)
