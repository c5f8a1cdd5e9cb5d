"""The behaviours that stand in for those of handlers on a ``grpc.server``."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import grpc

from authz.call.principal import set_current_principal
from authz.call.refusal import Refusal
from authz.errors import ResourceExhaustedError, UnavailableError
from authz.runtime.flow import run

from .admission import Admission
from .context import TrustedContext
from .handlers import Behaviour, Handler, behaviour_of
from .relay import Relay
from .requests import SyncRequests
from .streams import SyncStream, abort, watched


def trusted(handler: Handler, admission: Admission, *, relay: bool) -> Behaviour:
    """Return the behaviour of ``handler`` for one RPC that has been admitted.

    The observers are told of the RPC here, unless it is allowed only later.

    Args:
        handler: serves the RPC.
        admission: what the RPC may do.
        relay: whether the handler of a stream runs on a thread of its own.

    """
    if not (handler.request_streaming or handler.response_streaming):
        if not admission.awaits_request:
            admission.allowed()
        return _Unary(behaviour_of(handler), admission)
    return _trusted_stream(handler, admission, relay=relay)


class _Unary:
    """The behaviour for one unary-unary RPC, which looks like that of its handler.

    No function with a copy of the other's attributes, which takes longer to make than the verdict.
    """

    __slots__ = ("__wrapped__", "_admission", "experimental_non_blocking", "experimental_thread_pool")

    def __init__(self, behaviour: Behaviour, admission: Admission) -> None:
        self.__wrapped__, self._admission = behaviour, admission
        # What grpc asks for in every call; where nothing is found, an exception would cost more than this.
        self.experimental_non_blocking = getattr(behaviour, "experimental_non_blocking", False)
        self.experimental_thread_pool = getattr(behaviour, "experimental_thread_pool", None)

    # grpc gives non-blocking handlers, which it knows by an attribute, one more argument to send replies with.
    def __call__(self, request: Any, context: grpc.ServicerContext, *send: Any) -> Any:
        admission = self._admission
        if admission.awaits_request:
            refusal = _refusal(request, admission)
            if refusal is not None:
                abort(context, refusal)
        set_current_principal(admission.principal)
        return self.__wrapped__(request, TrustedContext(context, admission.metadata), *send)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__wrapped__, name)


def _trusted_stream(handler: Handler, admission: Admission, *, relay: bool) -> Behaviour:
    behaviour = behaviour_of(handler)

    def serve(request: Any, context: grpc.ServicerContext, *send: Any) -> Any:
        set_current_principal(admission.principal)
        return behaviour(request, TrustedContext(context, admission.metadata), *send)

    if admission.may_end:
        serve = _until_ended(serve, handler, admission, relay=relay)
    if admission.awaits_request:
        serve = _checked(serve, admission)
    elif not admission.is_limited:
        admission.allowed()
    return functools.update_wrapper(serve, behaviour)


def _until_ended(serve: Behaviour, handler: Handler, admission: Admission, *, relay: bool) -> Behaviour:
    def serve_stream(request: Any, context: grpc.ServicerContext, *send: Any) -> Any:
        stream = SyncStream(context, admission.ended, admission.look, *send)
        _open(stream, admission, context)
        stream.check()
        if handler.request_streaming:
            request = SyncRequests(request, stream, admission)
        if send:
            return None if stream.refusal is not None else serve(request, context, stream.send)
        if relay:
            replies = _relayed(functools.partial(serve, request, context), handler, stream, context)
        else:
            replies = serve(request, context)
        if handler.response_streaming:
            return watched(replies, stream)
        stream.check()
        return replies

    return serve_stream


def _open(stream: SyncStream, admission: Admission, context: grpc.ServicerContext) -> None:
    refusal = None
    try:
        opening = admission.open(stream)
        if opening is not None:
            run(opening)
    except (ResourceExhaustedError, UnavailableError) as error:
        refusal = admission.refused(error)
    finally:
        # Only now: an RPC that ended before its stream was opened would close nothing, and leave the stream open.
        if not context.add_callback(functools.partial(admission.close, stream)):
            admission.close(stream)
    if refusal is not None:
        abort(context, refusal)
    if admission.is_limited:
        admission.allowed()


def _relayed(serve: Callable[[], Any], handler: Handler, stream: SyncStream, context: grpc.ServicerContext) -> Any:
    relay = Relay(stream, serve)
    if not context.add_callback(relay.stop):
        relay.stop()
    return relay.replies() if handler.response_streaming else relay.reply()


def _checked(serve: Behaviour, admission: Admission) -> Behaviour:
    def checked(request: Any, context: grpc.ServicerContext, *send: Any) -> Any:
        refusal = _refusal(request, admission)
        return serve(request, context, *send) if refusal is None else abort(context, refusal)

    return checked


def _refusal(request: Any, admission: Admission) -> Refusal | None:
    try:
        return admission.refusal(request)
    except BaseException as error:  # noqa: BLE001 - whatever happened, the handler must not see the request
        return admission.refused(error)


def decided(handler: Handler, decide: Callable[[grpc.ServicerContext], Behaviour]) -> Behaviour:
    """Return a behaviour that decides first, and then serves the RPC as the verdict says.

    It takes its requests as a stream, so that the only one of a unary method is neither read nor parsed before.

    Args:
        handler: the handler whose behaviour it stands in for.
        decide: returns the behaviour for the RPC, or aborts the RPC; may block.

    """

    @functools.wraps(behaviour_of(handler))
    def decided(requests: Iterator[Any], context: grpc.ServicerContext, *send: Any) -> Any:
        behaviour = decide(context)
        return behaviour(requests if handler.request_streaming else _only(requests, context), context, *send)

    return decided


def _only(requests: Iterator[Any], context: grpc.ServicerContext) -> Any:
    for request in requests:
        return request
    return context.abort(grpc.StatusCode.UNIMPLEMENTED, "The method requires exactly one request message.")
