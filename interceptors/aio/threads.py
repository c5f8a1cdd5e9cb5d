"""Synchronous handlers on a ``grpc.aio.server``, which it runs on threads: their behaviours, streams and requests.

All of this is for such handlers alone.
"""

import asyncio
import contextlib
import contextvars
import functools
import inspect
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import grpc.aio

from authz.call.principal import set_current_principal
from authz.judge.hearing import Hearing
from authz.judge.streams import OpenStreams
from authz.runtime.flow import run

from ..admission import Admission
from ..context import TrustedSyncContextOnAio
from ..handlers import Behaviour, Handler, status_of
from .admission import AioAdmission, Sort, Undecided
from .streams import AioStream

ONE_REQUEST = (grpc.StatusCode.UNIMPLEMENTED, "The method requires exactly one request message.")

# How often to see whether the first message of a synchronous handler has been taken.
_PAUSE = 0.05

# On a thread context.abort raises nothing in the oldest releases of grpcio, so its caller must stop by itself.
_NO_REQUEST = object()


def trusted(behaviour: Behaviour, sort: Sort, admission: AioAdmission) -> Behaviour:
    """Return the synchronous ``behaviour`` for one RPC that has been admitted."""
    wrapped = _function(behaviour, admission) if sort is Sort.FUNCTION else _generator(behaviour, admission)
    is_fed = admission.stream is not None and admission.streams_requests
    return _checked(wrapped, sort, admission) if is_fed or admission.is_checked else wrapped


def _function(behaviour: Behaviour, admission: AioAdmission) -> Behaviour:
    metadata, stream = admission.metadata, admission.stream
    run_inside = _run_of(admission)

    @functools.wraps(behaviour)
    def trusted(request: Any, context: Any) -> Any:
        if not isinstance(stream, SyncStreamOnAio):
            return run_inside(behaviour, request, TrustedSyncContextOnAio(context, metadata))
        reply = None
        try:
            stream.begin_on_thread(context, admission.reopen)
            if stream.goes_on(is_making=True):
                reply = run_inside(behaviour, request, TrustedSyncContextOnAio(context, metadata))
                stream.goes_on(is_making=False)
        finally:
            stream.finish()
        # Where the RPC has been aborted, grpc discards it.
        return reply

    return trusted


def _generator(behaviour: Behaviour, admission: AioAdmission) -> Behaviour:
    metadata = admission.metadata
    stream = admission.stream if isinstance(admission.stream, SyncStreamOnAio) else None
    run_inside = _run_of(admission)

    # A generator function: grpc calls the function on the loop's thread, and iterates on another.
    @functools.wraps(behaviour)
    def trusted(request: Any, context: Any) -> Iterator[Any]:
        replies = None
        try:
            if stream is not None:
                stream.begin_on_thread(context, admission.reopen)
                if not stream.goes_on(is_making=True):
                    return
            replies = run_inside(behaviour, request, TrustedSyncContextOnAio(context, metadata))
            iterator = iter(replies)
            while stream is None or stream.goes_on(is_making=True):
                try:
                    reply = run_inside(next, iterator)
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
                run_inside(replies.close)

    return trusted


def _run_of(admission: AioAdmission) -> Callable[..., Any]:
    # A thread has no context variables of the RPC's task.
    variables = admission.variables or contextvars.copy_context()
    variables.run(set_current_principal, admission.principal)
    return variables.run


def _checked(behaviour: Behaviour, sort: Sort, admission: AioAdmission) -> Behaviour:
    def seen(request: Any, context: Any) -> Any:
        if isinstance(admission.stream, SyncStreamOnAio) and admission.streams_requests:
            return SyncRequestsOnAio(request, admission.stream, admission)
        refusal = admission.refusal(request)
        if refusal is None:
            return request
        context.abort(*status_of(refusal))
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

    return function if sort is Sort.FUNCTION else generator


def decided(handler: Handler, sort: Sort, undecided: Undecided) -> Behaviour:
    """Return a synchronous behaviour that decides first; see :func:`interceptors.aio.behaviours.decided`."""

    def prepared(requests: Any, context: Any) -> Callable[[], Any] | None:
        behaviour = _decide(undecided, context)
        if behaviour is None:
            return None
        request = requests if handler.request_streaming else _only(requests, context)
        return None if request is _NO_REQUEST else functools.partial(behaviour, request, context)

    def function(requests: Any, context: Any) -> Any:
        serve = prepared(requests, context)
        return None if serve is None else serve()

    def generator(requests: Any, context: Any) -> Iterator[Any]:
        serve = prepared(requests, context)
        if serve is not None:
            yield from serve()

    return function if sort is Sort.FUNCTION else generator


def _decide(undecided: Undecided, context: Any) -> Behaviour | None:
    try:
        # The principal is not set in this thread's own variables, which outlive the RPC: the behaviour brings its own.
        return run(undecided.decide(context), context.time_remaining())[1]
    except BaseException as error:  # noqa: BLE001 - a verdict is owed, whatever happened
        refusal = undecided.hearing.refused(error)
    context.abort(*status_of(refusal))
    return None


def _only(requests: Iterator[Any], context: Any) -> Any:
    for request in requests:
        return request
    context.abort(*ONE_REQUEST)
    return _NO_REQUEST


class SyncStreamOnAio(AioStream):
    """One streaming RPC with a synchronous handler."""

    __slots__ = ("_aborting", "_has_replied", "_is_aborted", "_is_finished", "_is_making")

    def __init__(self, hearing: Hearing, streams: OpenStreams) -> None:
        super().__init__(hearing, streams)
        self._aborting = threading.Lock()
        self._is_aborted = False
        self._is_making = False
        self._has_replied = False
        self._is_finished = False

    @property
    def is_over(self) -> bool:
        """Whether the RPC is over, or its handler has returned."""
        return self._is_finished or super().is_over

    def begin_on_thread(self, context: Any, reopen: Callable[[], None]) -> None:
        """Note the context of the handler, with which the RPC can be ended from now on; see :meth:`begin`."""
        with self._aborting:
            self._context = context
        if self.is_over:
            # Either the client has left, or an outer interceptor decided in a task of its own, which is over.
            self._task = asyncio.Future(loop=self._loop)
            reopen()
        self._is_making = True

    def goes_on(self, *, is_making: bool) -> bool:
        """Say whether a handler may make its next message, or pass on what it has made; abort the RPC if not."""
        self._is_making = is_making
        if not self.must_end:
            self._has_replied = self._has_replied or not is_making
            return True
        self._abort_once()
        return False

    def finish(self) -> None:
        """Note that the handler has returned."""
        self._is_making = False
        # Before it is closed: a stream that is opened at this moment is closed where it is opened.
        self._is_finished = True
        self._streams.close(self)

    def _interrupt(self) -> None:  # no task: it is a thread that aborts
        # A thread that waits until grpc takes its message aborts by itself when it asks for the next. It must not be
        # forestalled: after an abort grpc takes no more messages, and blocks a thread that brings one for ever.
        if self._is_making:
            # The abort of such a context blocks its thread until the loop has done it, so it cannot be the loop's.
            threading.Thread(target=self._abort_once, name="authz-abort", daemon=True).start()

    def _abort_once(self) -> None:
        with self._aborting:
            if self._is_aborted or self.refusal is None:
                return
            self._is_aborted = True
            # An abort ends by raising, in most releases of grpcio. The error is of no use: grpc has noted the abort,
            # and discards what the handler returns.
            with contextlib.suppress(BaseException):
                if self._has_replied:
                    self._await_first_message()
                self._context.abort(*status_of(self.refusal))

    def _await_first_message(self) -> None:
        # The first message takes the initial metadata along. An abort meanwhile would send that once more, and fail.
        while not self.is_over:
            try:
                self._context.send_initial_metadata(())
            except grpc.aio.UsageError:
                return
            except grpc.aio.InternalError:
                time.sleep(_PAUSE)
            else:
                return


class _EndedError(grpc.aio.AbortError):
    """Takes a handler out of its requests; grpc knows already how the RPC ends."""


class SyncRequestsOnAio:
    """The requests of a stream with a synchronous handler, each checked before the handler sees it.

    Like :class:`interceptors.aio.requests.AioRequests`, it passes on nothing else of grpc's own iterator.
    """

    __slots__ = ("_admission", "_requests", "_stream")

    def __init__(self, requests: Any, stream: SyncStreamOnAio, admission: Admission) -> None:
        self._requests = requests
        self._stream = stream
        self._admission = admission

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        request = next(self._requests)
        try:
            if self._admission.is_checked:
                self._admission.check(request)
        except Exception as error:  # noqa: BLE001 - whatever happened, the handler must not see the request
            self._admission.end(self._stream, error)
            self._stream.goes_on(is_making=True)
            # StopIteration would tell the handler that the client has sent all its requests.
            raise _EndedError from None
        if not self._stream.goes_on(is_making=True):
            raise _EndedError
        return request
