"""The requests of a ``grpc.aio.server`` that are checked before their handler sees them."""

import contextlib
import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, cast

import grpc
import grpc.aio

from authz.call.refusal import Refusal
from interceptors.aio.streams import Stream, StreamOnThreads
from interceptors.handlers import Behaviour
from interceptors.isolation import Check

_NO_REQUEST = object()


class _EndedError(grpc.aio.AbortError):
    """Takes a handler out of its requests; grpc knows already how the RPC ends."""


class RequestRule:
    """What the handler of one RPC may see of its requests.

    Args:
        check: raises for a request that it may not.
        is_stream: whether there can be several requests.
        allow: tells that the only request may be seen.
        refuse: tells that it may not, and makes what the caller sees.
        end: ends a stream for what has been raised.

    """

    __slots__ = ("_allow", "_end", "_refuse", "check", "is_stream")

    def __init__(
        self,
        check: Check,
        *,
        is_stream: bool,
        allow: Callable[[], None],
        refuse: Callable[[Exception], Refusal],
        end: Callable[[Stream, Exception], None],
    ) -> None:
        self.check = check
        self.is_stream = is_stream
        self._allow = allow
        self._refuse = refuse
        self._end = end

    def refusal(self, request: Any) -> Refusal | None:
        """Return why the only request of an RPC is refused, or ``None`` if it is not."""
        try:
            self.check(request)
            self._allow()
        except Exception as error:  # noqa: BLE001 - whatever happened, the handler must not see it
            return self._refuse(error)
        return None

    def end(self, stream: Stream, error: Exception) -> None:
        """End ``stream`` for ``error``.

        Raises:
            Exception: ``error``, if that has not worked.

        """
        self._end(stream, error)
        if stream.refusal is None:
            raise error


class Requests:
    """The requests of a stream, until one of them ends it.

    Nothing else of grpc's own is passed on, here and below: it would hand out requests unchecked.
    """

    def __init__(self, requests: Any, rule: RequestRule, stream: Stream) -> None:
        self._requests = requests
        self._rule = rule
        self._stream = stream

    def __aiter__(self) -> "Requests":
        return self

    def __anext__(self) -> Awaitable[Any]:
        return self.checked(self._requests.__anext__())

    async def checked(self, reading: Awaitable[Any]) -> Any:
        """Return what is read, unless the handler may not see it."""
        request = await reading
        try:
            self._rule.check(request)
        except Exception as error:  # noqa: BLE001 - whatever happened, the handler must not see it
            self._rule.end(self._stream, error)
            await self._stream.never()
        return request


class RequestsOnThread:
    """The requests of a stream with a synchronous handler, until one of them ends it."""

    def __init__(self, requests: Any, rule: RequestRule, stream: StreamOnThreads) -> None:
        self._requests = requests
        self._rule = rule
        self._stream = stream

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        request = next(self._requests)
        try:
            self._rule.check(request)
        except Exception as error:  # noqa: BLE001 - as above
            self._rule.end(self._stream, error)
            self._stream.goes_on(is_making=True)
            # Not the end of the requests, which a handler would take for all there are.
            raise _EndedError from None
        return request


def refusing(context: Any, refusal: Refusal, *, is_generator: bool) -> Any:
    """Return what refuses an RPC in place of a coroutine or an async generator."""

    async def refuse() -> None:
        await context.abort(*_status(refusal))

    async def refuse_with_generator() -> AsyncIterator[Any]:
        await refuse()
        yield  # a generator that yields nothing

    return refuse_with_generator() if is_generator else refuse()


def checked_on_thread(
    behaviour: Behaviour, rule: RequestRule, stream: Stream | None, *, is_generator: bool
) -> Behaviour:
    """Return a synchronous behaviour, which grpc calls on a thread, that sees only requests it may see."""

    def seen(request: Any, context: Any) -> Any:
        if rule.is_stream:
            return RequestsOnThread(request, rule, cast("StreamOnThreads", stream))
        refusal = rule.refusal(request)
        if refusal is None:
            return request
        # In the oldest releases of grpcio that raises nothing.
        context.abort(*_status(refusal))
        return _NO_REQUEST

    @functools.wraps(behaviour)
    def function(request: Any, context: Any) -> Any:
        request = seen(request, context)
        with contextlib.suppress(_EndedError):
            return None if request is _NO_REQUEST else behaviour(request, context)

    @functools.wraps(behaviour)
    def generator(request: Any, context: Any) -> Iterator[Any]:
        request = seen(request, context)
        if request is not _NO_REQUEST:
            with contextlib.suppress(_EndedError):
                yield from behaviour(request, context)

    return generator if is_generator else function


def _status(refusal: Refusal) -> tuple[grpc.StatusCode, str, Any]:
    return grpc.StatusCode[refusal.code.name], refusal.message, refusal.trailers
