"""Method handlers of gRPC, their behaviour, and the status with which a refused RPC ends."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import grpc

from authz.call.call import Entry
from authz.call.refusal import Refusal

Behaviour = Callable[..., Any]
if TYPE_CHECKING:
    Handler: TypeAlias = grpc.RpcMethodHandler[Any, Any]
else:
    # Generic in the stubs, not subscriptable at run time.
    Handler = grpc.RpcMethodHandler

# grpc's own class, which the interceptors of others know how to change. Its functions import it anew for every handler,
# and the constructor of a named tuple is a function in Python: both cost more than making it does.
_Grpc: Any = type(grpc.unary_unary_rpc_method_handler(bool))


def behaviour_of(handler: Handler) -> Behaviour:
    """Return the function of ``handler`` that serves the RPC."""
    behaviour: Any = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
    found: Behaviour = behaviour
    return found


def with_behaviour(handler: Handler, behaviour: Behaviour, *, request_streaming: bool | None = None) -> Handler:
    """Return ``handler`` with another behaviour; its kind stays, unless ``request_streaming`` says otherwise."""
    requests = handler.request_streaming if request_streaming is None else request_streaming
    replies = handler.response_streaming
    parse, serialize = handler.request_deserializer, handler.response_serializer
    fields: tuple[Any, ...]
    if requests or replies:
        one_request = None if requests else behaviour
        one_reply = None if replies else behaviour
        both = behaviour if requests and replies else None
        fields = bool(requests), bool(replies), parse, serialize, None, one_request, one_reply, both
    else:
        fields = False, False, parse, serialize, behaviour, None, None, None
    made: Handler = tuple.__new__(_Grpc, fields)
    return made


class Status(NamedTuple):
    """How a refused RPC ends, in the order of the arguments of ``grpc.aio.ServicerContext.abort``."""

    code: grpc.StatusCode
    message: str
    trailers: tuple[Entry, ...]


def status_of(refusal: Refusal) -> Status:
    """Return how an RPC that is refused with ``refusal`` ends."""
    return Status(grpc.StatusCode[refusal.code.name], refusal.message, refusal.trailers)
