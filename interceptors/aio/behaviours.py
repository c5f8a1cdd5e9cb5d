"""The behaviours that stand in for those of handlers, each of the same sort as what it wraps.

grpc.aio looks at a function to learn how to call it: as a coroutine, an async
generator, or on a thread. What wraps it must look the same.
"""

import contextlib
import contextvars
import enum
import functools
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, Self, cast

import grpc
import grpc.aio

from authz.call.principal import Principal, set_current_principal
from interceptors.aio.requests import RequestRule, Requests, checked_on_thread, refusing
from interceptors.aio.streams import Stream, StreamOnThreads
from interceptors.context import Metadata, TrustedAioContext, TrustedSyncContextOnAio
from interceptors.handlers import Behaviour, Handler, behaviour_of


class Sort(enum.Enum):
    """How grpc.aio calls a behaviour."""

    COROUTINE = enum.auto()
    ASYNC_GENERATOR = enum.auto()
    FUNCTION = enum.auto()
    """On a thread; returns the one reply."""
    GENERATOR = enum.auto()
    """On a thread; returns an iterator of replies."""

    @property
    def is_async(self) -> bool:
        """Whether it runs in the RPC's own task."""
        return self in {Sort.COROUTINE, Sort.ASYNC_GENERATOR}


def sort_of(handler: Handler) -> Sort:
    """Return how grpc.aio will call the behaviour of ``handler``."""
    behaviour = behaviour_of(handler)
    # What inspect would find out, at a tenth of its price; it knows rarer things as well.
    flags = behaviour.__code__.co_flags if hasattr(behaviour, "__code__") else 0
    if flags & inspect.CO_COROUTINE or inspect.iscoroutinefunction(behaviour):
        return Sort.COROUTINE
    if inspect.isasyncgenfunction(behaviour):
        return Sort.ASYNC_GENERATOR
    return Sort.GENERATOR if handler.response_streaming else Sort.FUNCTION


class Admission:
    """What an admitted RPC brings along.

    Args:
        principal: who makes it.
        metadata: what its handler is shown.
        stream: what may end it before its handler does; ``None`` for one that nothing ends.
        rule: what its handler may see of its requests; ``None`` where it may see all.
        variables: the context variables of the RPC's task, for handlers that run elsewhere.

    """

    __slots__ = ("metadata", "principal", "rule", "stream", "variables")

    def __init__(
        self,
        principal: Principal,
        metadata: Metadata,
        stream: Stream | None,
        rule: RequestRule | None,
        variables: contextvars.Context | None,
    ) -> None:
        self.principal = principal
        self.metadata = metadata
        self.stream = stream
        self.rule = rule
        self.variables = variables


def trusted(behaviour: Behaviour, sort: Sort, admission: Admission) -> Behaviour:
    """Return ``behaviour`` for one RPC that has been admitted."""
    trusted = _TRUSTED[sort](behaviour, admission)
    if admission.rule is None or sort.is_async:
        return trusted
    return checked_on_thread(trusted, admission.rule, admission.stream, is_generator=sort is Sort.GENERATOR)


class _Context(TrustedAioContext):
    """A context that reads only what the handler may see."""

    def __init__(self, context: Any, metadata: Metadata, rule: RequestRule | None) -> None:
        super().__init__(context, metadata)
        self._rule = rule
        self.requests: Requests | None = None
        """What reads for the handler of a stream, where it may not see all."""

    def read(self) -> Awaitable[Any]:
        """See ``grpc.aio.ServicerContext``."""
        if self._rule is not None and not self._rule.is_stream:
            return _no_more()
        reading = cast("Awaitable[Any]", self._context.read())
        return reading if self.requests is None else self.requests.checked(reading)


async def _no_more() -> Any:
    # The only request has been handed out. Another one, which no client of ours sends, is not checked.
    return grpc.aio.EOF


class _StreamContext(_Context):
    """The context of a stream, which takes no more messages when it must end."""

    def __init__(self, context: Any, metadata: Metadata, rule: RequestRule | None, stream: Stream) -> None:
        super().__init__(context, metadata, rule)
        self._stream = stream
        self._has_begun = False

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
    """An asynchronous behaviour, called with a context that can be believed.

    A partial, for grpc looks through those at the function itself, and takes what comes back as it is:
    so no coroutine or generator of ours stands between grpc and the handler's, and a message costs nothing more.
    """

    _admission: Admission

    def __new__(cls, behaviour: Behaviour, admission: Admission) -> Self:
        self = super().__new__(cls, behaviour)
        self._admission = admission
        return self

    def __call__(self, request: Any, context: Any) -> Any:
        stream, rule = self._admission.stream, self._admission.rule
        if rule is not None and not rule.is_stream:
            refusal = rule.refusal(request)
            if refusal is not None:
                return refusing(context, refusal, is_generator=inspect.isasyncgenfunction(self.func))
        if stream is None:
            metadata = self._admission.metadata
            return self.func(
                request, TrustedAioContext(context, metadata) if rule is None else _Context(context, metadata, rule)
            )
        stream.begin(context)
        if stream.refusal is not None and not inspect.isasyncgenfunction(self.func):
            # It must end before it has begun, as it will in a moment: so its handler never begins.
            return stream.never()
        trusted = _StreamContext(context, self._admission.metadata, rule, stream)
        if rule is not None and rule.is_stream:
            request = trusted.requests = Requests(request, rule, stream)
        result = self.func(request, trusted)
        return stream.watched(result) if inspect.isasyncgen(result) else result


def _function(behaviour: Behaviour, admission: Admission) -> Behaviour:
    metadata, stream = admission.metadata, admission.stream
    run = _run_of(admission)

    @functools.wraps(behaviour)
    def trusted(request: Any, context: Any) -> Any:
        if not isinstance(stream, StreamOnThreads):
            return run(behaviour, request, TrustedSyncContextOnAio(context, metadata))
        reply = None
        try:
            stream.begin_on_thread(context)
            if stream.goes_on(is_making=True):
                reply = run(behaviour, request, TrustedSyncContextOnAio(context, metadata))
                stream.goes_on(is_making=False)
        finally:
            stream.finish()
        # Where the RPC has been aborted, grpc discards it.
        return reply

    return trusted


def _generator(behaviour: Behaviour, admission: Admission) -> Behaviour:
    metadata = admission.metadata
    stream = admission.stream if isinstance(admission.stream, StreamOnThreads) else None
    run = _run_of(admission)

    # A generator function: grpc calls the function on the loop's thread, and iterates on another.
    @functools.wraps(behaviour)
    def trusted(request: Any, context: Any) -> Iterator[Any]:
        replies = None
        try:
            if stream is not None:
                stream.begin_on_thread(context)
                if not stream.goes_on(is_making=True):
                    return
            replies = run(behaviour, request, TrustedSyncContextOnAio(context, metadata))
            iterator = iter(replies)
            while stream is None or stream.goes_on(is_making=True):
                try:
                    reply = run(next, iterator)
                except StopIteration:
                    break
                if stream is not None and not stream.goes_on(is_making=False):
                    break
                yield reply
            if stream is not None:
                stream.goes_on(is_making=False)
        finally:
            if stream is not None:
                stream.finish()
            if inspect.isgenerator(replies):
                run(replies.close)

    return trusted


_TRUSTED: dict[Sort, Callable[[Behaviour, Admission], Behaviour]] = {
    Sort.COROUTINE: _Asynchronous,
    Sort.ASYNC_GENERATOR: _Asynchronous,
    Sort.FUNCTION: _function,
    Sort.GENERATOR: _generator,
}


def _run_of(admission: Admission) -> Callable[..., Any]:
    # A thread has no context variables of the RPC's task.
    variables = admission.variables or contextvars.copy_context()
    variables.run(set_current_principal, admission.principal)
    return variables.run


def decided(
    handler: Handler,
    sort: Sort,
    decide: Callable[[Any], Awaitable[Behaviour]],
    decide_on_thread: Callable[[Any], Behaviour | None],
) -> Behaviour:
    """Return a behaviour that decides first, and then does as the one that the verdict gives.

    It takes its requests as a stream, so that the only one of a unary method is neither read nor parsed before.

    Args:
        handler: whose behaviour it stands in for.
        sort: the sort of that behaviour.
        decide: decides in the RPC's task; aborts the RPC or returns the behaviour for it.
        decide_on_thread: the same for synchronous handlers; ``None`` where an abort has not raised anything.

    """
    if sort.is_async:
        return _decided(sort, decide, is_stream=bool(handler.request_streaming))
    return _decided_on_thread(sort, decide_on_thread, is_stream=bool(handler.request_streaming))


def _decided(sort: Sort, decide: Callable[[Any], Awaitable[Behaviour]], *, is_stream: bool) -> Behaviour:
    async def coroutine(requests: Any, context: Any) -> Any:
        behaviour = await decide(context)
        return await behaviour(requests if is_stream else await _only(requests, context), context)

    async def async_generator(requests: Any, context: Any) -> AsyncIterator[Any]:
        behaviour = await decide(context)
        request = requests if is_stream else await _only(requests, context)
        async with contextlib.aclosing(behaviour(request, context)) as replies:
            async for reply in replies:
                yield reply

    return coroutine if sort is Sort.COROUTINE else async_generator


def _decided_on_thread(sort: Sort, decide: Callable[[Any], Behaviour | None], *, is_stream: bool) -> Behaviour:
    def prepared(requests: Any, context: Any) -> Callable[[], Any] | None:
        behaviour = decide(context)
        if behaviour is None:
            return None
        request = requests if is_stream else _only_on_thread(requests, context)
        return None if request is _NO_REQUEST else functools.partial(behaviour, request, context)

    def function(requests: Any, context: Any) -> Any:
        serve = prepared(requests, context)
        return None if serve is None else serve()

    def generator(requests: Any, context: Any) -> Iterator[Any]:
        serve = prepared(requests, context)
        if serve is not None:
            yield from serve()

    return function if sort is Sort.FUNCTION else generator


# On such a thread an abort raises nothing in the oldest releases of grpcio, so whoever has called it must stop.
_NO_REQUEST = object()

_ONE_REQUEST = (grpc.StatusCode.UNIMPLEMENTED, "The method requires exactly one request message.")


async def _only(requests: Any, context: Any) -> Any:
    async with contextlib.aclosing(aiter(requests)) as messages:
        async for request in messages:
            return request
    return await context.abort(*_ONE_REQUEST)


def _only_on_thread(requests: Iterator[Any], context: Any) -> Any:
    for request in requests:
        return request
    context.abort(*_ONE_REQUEST)
    return _NO_REQUEST
