"""The door of a ``grpc.server``."""

import functools
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn

import grpc

from authz import fork
from authz.authorizer import Authorizer, as_authorizer
from authz.call import Call, Principal, set_current_principal
from authz.flow import Flow, Wait, run
from authz.refusal import Refusal
from authz.verifier import Verifier
from authz.verifiers import Verifiers
from interceptors.context import Metadata, TrustedContext
from interceptors.handlers import Handler, behaviour_of, with_behaviour


class AuthzInterceptor(grpc.ServerInterceptor):
    """Admit only calls that may be made, of every RPC kind, and tell their handlers who makes them.

    Handlers find the caller in ``context.invocation_metadata()`` (``x-org-id``
    and the other names of :class:`authz.TrustedMetadata`) and in
    :func:`authz.current_principal`. What a caller sends under those names
    never reaches them.

    Args:
        judge: a :class:`authz.Verifier`, or an :class:`authz.Authorizer` for more than defaults.
        public_methods: full names, such as ``/grpc.health.v1.Health/Check``, that anybody may call.

    Raises:
        ConfigError: an argument that cannot work; the message names it.

    """

    def __init__(self, judge: Authorizer | Verifier | Verifiers, *, public_methods: Collection[str] = ()) -> None:
        self._authorizer = as_authorizer(judge, public_methods)
        self.after_fork()
        fork.register(self)

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Handler | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """See ``grpc.ServerInterceptor``."""
        # grpc runs this on its one polling thread: what waits here stops every RPC, and what escapes
        # from here, BaseException included, ends the server. So the flow takes its first step only.
        call = Call(method=handler_call_details.method, metadata=handler_call_details.invocation_metadata)
        try:
            flow = self._authorizer.authorize(call)
            try:
                wait = next(flow)
            except StopIteration as done:
                return self._admitted(continuation(handler_call_details), call, done.value)
            return self._undecided(continuation(handler_call_details), call, flow, wait)
        except BaseException as error:  # noqa: BLE001 - see above
            return self._refused(self._authorizer.refusal(call, error))

    def after_fork(self) -> None:
        """Forget the thread that refuses, which is the parent's."""
        self._refusals = ThreadPoolExecutor(1, thread_name_prefix="authz-refusal")

    def _admitted(self, handler: Handler | None, call: Call, principal: Principal) -> Handler | None:
        if handler is None:
            return None
        behaviour = behaviour_of(handler)
        metadata = self._authorizer.trusted.believed(call.metadata, principal)

        # *args and the attributes that wraps() copies: grpc's non-blocking streams need both.
        @functools.wraps(behaviour)
        def trusted(request: Any, context: grpc.ServicerContext, *args: Any) -> Any:
            set_current_principal(principal)
            return behaviour(request, TrustedContext(context, metadata), *args)

        return with_behaviour(handler, trusted)

    def _undecided(self, handler: Handler | None, call: Call, flow: Flow[Principal], wait: Wait) -> Handler:
        # The behaviour runs on a thread of the server's pool, which may wait.
        def decide(context: grpc.ServicerContext) -> tuple[Principal, Metadata]:
            try:
                principal = run(flow, context.time_remaining(), waiting=wait)
                return principal, self._authorizer.trusted.believed(call.metadata, principal)
            except BaseException as error:  # noqa: BLE001 - a verdict is owed, whatever happened
                refusal = self._authorizer.refusal(call, error)
            _abort(context, refusal)

        if handler is None:

            def unknown(_requests: Any, context: grpc.ServicerContext) -> NoReturn:
                decide(context)
                context.abort(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")

            return grpc.stream_unary_rpc_method_handler(unknown)
        behaviour = behaviour_of(handler)

        @functools.wraps(behaviour)
        def decided(requests: Iterator[Any], context: grpc.ServicerContext, *args: Any) -> Any:
            principal, metadata = decide(context)
            set_current_principal(principal)
            request = requests if handler.request_streaming else _only(requests, context)
            return behaviour(request, TrustedContext(context, metadata), *args)

        # As a stream the request is neither read nor parsed before the verdict.
        return with_behaviour(handler, decided, request_streaming=True)

    def _refused(self, refusal: Refusal) -> Handler:
        def refuse(_requests: Any, context: grpc.ServicerContext) -> NoReturn:
            _abort(context, refusal)

        # A thread of its own: a pool full of slow handlers must not keep refusals waiting.
        refuse.experimental_thread_pool = self._refusals  # type: ignore[attr-defined]
        # Serves all four kinds, and answers before the client has sent anything.
        return grpc.stream_unary_rpc_method_handler(refuse)


def _abort(context: grpc.ServicerContext, refusal: Refusal) -> NoReturn:
    context.set_trailing_metadata(refusal.trailers)
    context.abort(grpc.StatusCode[refusal.code.name], refusal.message)


def _only(requests: Iterator[Any], context: grpc.ServicerContext) -> Any:
    for request in requests:
        return request
    return context.abort(grpc.StatusCode.UNIMPLEMENTED, "The method requires exactly one request message.")
