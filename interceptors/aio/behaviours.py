"""The behaviours that stand in for those of handlers on a ``grpc.aio.server``, each of the same sort as what it wraps.

grpc.aio looks at a function to learn how to call it: as a coroutine, an async
generator, or on a thread. What wraps it must look the same. What stands in for
synchronous handlers is in :mod:`interceptors.aio.threads`.
"""

import asyncio
import contextlib
import functools
import inspect
from collections.abc import AsyncIterator, Awaitable
from typing import Any, cast

import grpc
import grpc.aio

from authz.call.principal import set_current_principal
from authz.runtime.flow import arun, is_given_up

from ..aio import threads
from ..context import TrustedAioContext
from ..handlers import Behaviour, Handler, behaviour_of, status_of
from .admission import AioAdmission, Sort, Undecided
from .requests import AioRequests, refusing
from .streams import AioStream


def trusted(handler: Handler, sort: Sort, admission: AioAdmission) -> Behaviour:
    """Return the behaviour of ``handler``, which is of this ``sort``, for one RPC that has been admitted."""
    behaviour = behaviour_of(handler)
    if not sort.is_async:
        return threads.trusted(behaviour, sort, admission)
    asynchronous = _Asynchronous(behaviour)
    asynchronous.admission = admission
    return asynchronous


class _OneRequestContext(TrustedAioContext):
    """The context of a handler that has got its only request already, which was checked."""

    __slots__ = ()

    def read(self) -> Awaitable[Any]:
        """See ``grpc.aio.ServicerContext``."""
        return _no_more()


async def _no_more() -> Any:
    # The handler has the only request already. A second one, which only a faulty client sends, would be unchecked.
    return grpc.aio.EOF


class _StreamContext(TrustedAioContext):
    """The context of a stream: it reads what the handler may see, and takes no more messages when it must end."""

    __slots__ = ("_admission", "_has_begun", "_stream", "requests")

    def __init__(self, context: Any, admission: AioAdmission, stream: AioStream) -> None:
        super().__init__(context, admission.metadata)
        self._admission = admission
        self._stream = stream
        self._has_begun = False
        self.requests: AioRequests | None = None
        """Reads for the handler of a stream of requests."""

    def read(self) -> Awaitable[Any]:
        """See ``grpc.aio.ServicerContext``."""
        if self._admission.awaits_request:
            return _no_more()
        reading = cast("Awaitable[Any]", self._context.read())
        return reading if self.requests is None else self.requests.checked(reading)

    def send_initial_metadata(self, metadata: Any) -> Awaitable[None]:
        """See ``grpc.aio.ServicerContext``."""
        return self._stream.begin_reply(self._context.send_initial_metadata(metadata))

    def write(self, message: Any) -> Awaitable[None]:
        """See ``grpc.aio.ServicerContext``."""
        if self._stream.is_waiting:
            return self._stream.never()
        if not self._has_begun:
            self._has_begun = True
            return self._stream.begin_reply(self._context.write(message))
        return cast("Awaitable[None]", self._context.write(message))


class _Asynchronous(functools.partial[Any]):
    """An asynchronous behaviour, called with a trusted context.

    A partial: grpc looks through those at the function itself, and takes what comes back as it is.
    So no coroutine or generator of ours stands between grpc and the handler's, and a message costs nothing more.
    """

    __slots__ = ("admission",)

    # Set afterwards: a constructor in Python would take longer than all of a partial's own.
    admission: AioAdmission

    def __call__(self, request: Any, context: Any) -> Any:
        admission = self.admission
        if admission.awaits_request:
            refusal = admission.refusal(request)
            if refusal is not None:
                return refusing(context, refusal, is_generator=inspect.isasyncgenfunction(self.func))
        stream = admission.stream
        if stream is None:
            kind = _OneRequestContext if admission.awaits_request else TrustedAioContext
            return self.func(request, kind(context, admission.metadata))
        stream.begin(context, admission.reopen)
        if stream.refusal is not None and not inspect.isasyncgenfunction(self.func):
            # The stream must end before its handler has begun, and is about to be aborted: do not begin the handler.
            return stream.never()
        trusted = _StreamContext(context, admission, stream)
        if admission.streams_requests:
            request = trusted.requests = AioRequests(request, stream, admission)
        result = self.func(request, trusted)
        return stream.watched(result) if inspect.isasyncgen(result) else result


def decided(handler: Handler, sort: Sort, undecided: Undecided) -> Behaviour:
    """Return a behaviour that decides first, and then serves the RPC as the verdict says.

    It takes its requests as a stream, so that the only one of a unary method is neither read nor parsed before.

    Args:
        handler: the handler whose behaviour it stands in for.
        sort: the sort of that behaviour.
        undecided: how to decide.

    """
    if not sort.is_async:
        return threads.decided(handler, sort, undecided)

    async def begun(requests: Any, context: Any) -> Any:
        behaviour = await _decide(undecided, context)
        return behaviour(requests if handler.request_streaming else await _only(requests, context), context)

    async def coroutine(requests: Any, context: Any) -> Any:
        return await (await begun(requests, context))

    async def async_generator(requests: Any, context: Any) -> AsyncIterator[Any]:
        async with contextlib.aclosing(await begun(requests, context)) as replies:
            async for reply in replies:
                yield reply

    return coroutine if sort is Sort.COROUTINE else async_generator


async def _decide(undecided: Undecided, context: Any) -> Behaviour:
    try:
        principal, behaviour = await arun(undecided.decide(context))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        if isinstance(error, asyncio.CancelledError) and is_given_up():
            raise
        refusal = undecided.hearing.refused(error)
    else:
        set_current_principal(principal)
        return behaviour
    return cast("Behaviour", await context.abort(*status_of(refusal)))


async def _only(requests: Any, context: Any) -> Any:
    async with contextlib.aclosing(aiter(requests)) as messages:
        async for request in messages:
            return request
    return await context.abort(*threads.ONE_REQUEST)
