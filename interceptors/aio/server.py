"""The door of a ``grpc.aio.server``."""

import asyncio
import contextlib
import contextvars
import functools
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine, Iterator
from typing import Any, NoReturn

import grpc
import grpc.aio

from authz.authorizer import Authorizer, as_authorizer
from authz.call import Call, set_current_principal
from authz.flow import arun, is_given_up
from authz.refusal import Refusal
from authz.verifier import Verifier
from authz.verifiers import Verifiers
from interceptors.context import Metadata, TrustedAioContext, TrustedSyncContextOnAio
from interceptors.handlers import Behaviour, Handler, behaviour_of, with_behaviour

Continuation = Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]]


class AuthzInterceptor(grpc.aio.ServerInterceptor):
    """Admit only calls that may be made, of every RPC kind, and tell their handlers who makes them.

    Handlers find the caller in ``context.invocation_metadata()`` (``x-org-id``
    and the other names of :class:`authz.TrustedMetadata`) and in
    :func:`authz.current_principal`. What a caller sends under those names
    never reaches them. Handlers may be coroutines, async generators or plain functions.

    Args:
        judge: a :class:`authz.Verifier`, or an :class:`authz.Authorizer` for more than defaults.
        public_methods: full names, such as ``/grpc.health.v1.Health/Check``, that anybody may call.

    Raises:
        ConfigError: an argument that cannot work; the message names it.

    """

    def __init__(self, judge: Authorizer | Verifier | Verifiers, *, public_methods: Collection[str] = ()) -> None:
        self._authorizer = as_authorizer(judge, public_methods)

    def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Coroutine[Any, Any, Handler | None]:
        """See ``grpc.aio.ServerInterceptor``."""
        # No coroutine function, so that grpc.server, which has no loop, fails here on every call.
        # It would else take the coroutine for a handler, and hang.
        asyncio.get_running_loop()
        return self._intercept(continuation, handler_call_details)

    async def _intercept(self, continuation: Continuation, details: grpc.HandlerCallDetails) -> Handler | None:
        call = Call(method=details.method, metadata=details.invocation_metadata)
        try:
            principal = await arun(self._authorizer.authorize(call))
            metadata = self._authorizer.trusted.believed(call.metadata, principal)
            set_current_principal(principal)
            handler = await continuation(details)
            return handler and with_behaviour(handler, _trusted(handler, metadata))
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError) and is_given_up():
                raise
            # Whatever else escaped would leave the client without any status, or tell it the exception's text.
            return _refused(self._authorizer.refusal(call, error))


def _refused(refusal: Refusal) -> Handler:
    async def refuse(_requests: Any, context: "grpc.aio.ServicerContext[Any, Any]") -> NoReturn:
        await context.abort(grpc.StatusCode[refusal.code.name], refusal.message, refusal.trailers)

    # Serves all four kinds, and answers before the client has sent anything.
    return grpc.stream_unary_rpc_method_handler(refuse)


def _trusted(handler: Handler, metadata: Metadata) -> Behaviour:
    # grpc looks at the function to learn how to call it, so each sort is wrapped in its own sort.
    behaviour = behaviour_of(handler)
    if inspect.iscoroutinefunction(behaviour):
        return _coroutine(behaviour, metadata)
    if inspect.isasyncgenfunction(behaviour):
        return _async_generator(behaviour, metadata)
    if handler.response_streaming:
        return _generator(behaviour, metadata)
    return _function(behaviour, metadata)


def _async_generator(behaviour: Behaviour, metadata: Metadata) -> Behaviour:
    async def trusted(request: Any, context: Any) -> AsyncIterator[Any]:
        async with contextlib.aclosing(behaviour(request, TrustedAioContext(context, metadata))) as replies:
            async for reply in replies:
                yield reply

    return trusted


def _coroutine(behaviour: Behaviour, metadata: Metadata) -> Behaviour:
    async def trusted(request: Any, context: Any) -> Any:
        return await behaviour(request, TrustedAioContext(context, metadata))

    return trusted


def _function(behaviour: Behaviour, metadata: Metadata) -> Behaviour:
    # Runs on a thread, which has no context variables of the RPC's task.
    run = contextvars.copy_context().run

    @functools.wraps(behaviour)
    def trusted(request: Any, context: Any) -> Any:
        return run(behaviour, request, TrustedSyncContextOnAio(context, metadata))

    return trusted


def _generator(behaviour: Behaviour, metadata: Metadata) -> Behaviour:
    run = contextvars.copy_context().run

    # A generator function: grpc calls the function on the loop's thread, and iterates on another.
    @functools.wraps(behaviour)
    def trusted(request: Any, context: Any) -> Iterator[Any]:
        replies = run(behaviour, request, TrustedSyncContextOnAio(context, metadata))
        iterator = iter(replies)
        try:
            while True:
                try:
                    reply = run(next, iterator)
                except StopIteration:
                    return
                yield reply
        finally:
            if inspect.isgenerator(replies):
                run(replies.close)

    return trusted
