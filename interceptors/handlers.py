"""Method handlers of gRPC, their behaviour, and the status with which a refused RPC ends."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, cast

import grpc

from authz.call.call import Entry
from authz.call.refusal import Refusal

Behaviour = Callable[..., Any]
if TYPE_CHECKING:
    Handler: TypeAlias = grpc.RpcMethodHandler[Any, Any]
else:
    # Generic in the stubs, not subscriptable at run time.
    Handler = grpc.RpcMethodHandler

# By (request_streaming, response_streaming).
_CONSTRUCTORS: dict[tuple[bool, bool], Callable[..., Handler]] = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}


def behaviour_of(handler: Handler) -> Behaviour:
    """Return the function of ``handler`` that serves the RPC."""
    behaviour: Any = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
    return cast("Behaviour", behaviour)


def with_behaviour(handler: Handler, behaviour: Behaviour, *, request_streaming: bool | None = None) -> Handler:
    """Return ``handler`` with another behaviour; its kind stays, unless ``request_streaming`` says otherwise."""
    streaming = handler.request_streaming if request_streaming is None else request_streaming
    constructor = _CONSTRUCTORS[bool(streaming), bool(handler.response_streaming)]
    return constructor(behaviour, handler.request_deserializer, handler.response_serializer)


class Status(NamedTuple):
    """How a refused RPC ends, in the order of the arguments of ``grpc.aio.ServicerContext.abort``."""

    code: grpc.StatusCode
    message: str
    trailers: tuple[Entry, ...]


def status_of(refusal: Refusal) -> Status:
    """Return how an RPC that is refused with ``refusal`` ends."""
    return Status(grpc.StatusCode[refusal.code.name], refusal.message, refusal.trailers)
