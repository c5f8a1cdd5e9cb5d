"""What one RPC of a ``grpc.aio.server`` may still do once it has been admitted, and how grpc.aio calls its handler."""

import contextvars
import enum
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

from authz.call.principal import Principal
from authz.errors import ResourceExhaustedError
from authz.judge.hearing import Hearing
from authz.runtime.flow import Flow, start

from ..admission import Admission
from ..handlers import Behaviour, Handler, behaviour_of
from .streams import AioStream

_COROUTINE = inspect.CO_COROUTINE


class Sort(enum.Enum):
    """How grpc.aio calls a behaviour.

    Attributes:
        is_async: whether it runs in the RPC's own task.

    """

    COROUTINE = "coroutine", True
    ASYNC_GENERATOR = "async generator", True
    FUNCTION = "function", False
    """On a thread; returns the one reply."""
    GENERATOR = "generator", False
    """On a thread; returns an iterator of replies."""

    def __init__(self, _name: str, is_async: bool) -> None:  # noqa: FBT001 - the values above
        self.is_async = is_async


def sort_of(handler: Handler) -> Sort:
    """Return how grpc.aio will call the behaviour of ``handler``."""
    behaviour = behaviour_of(handler)
    # inspect finds out the same, and knows rarer cases, but takes ten times as long.
    code = getattr(behaviour, "__code__", None)
    if (code is not None and code.co_flags & _COROUTINE) or inspect.iscoroutinefunction(behaviour):
        return Sort.COROUTINE
    if inspect.isasyncgenfunction(behaviour):
        return Sort.ASYNC_GENERATOR
    return Sort.GENERATOR if handler.response_streaming else Sort.FUNCTION


class AioAdmission(Admission):
    """One admitted RPC of a ``grpc.aio.server``; see :class:`interceptors.admission.Admission`.

    Its ``stream`` is ``None`` where nothing ends the RPC before its handler does. ``variables`` are the context
    variables of the RPC's task, for handlers that run elsewhere; ``None`` where the caller of the behaviour has them.
    """

    __slots__ = ("stream", "variables")

    stream: AioStream | None
    variables: contextvars.Context | None

    def begin(self, stream: AioStream | None, variables: contextvars.Context | None) -> Flow[None] | None:
        """Open ``stream`` if it may have to end, and tell that the RPC is allowed, unless its request is checked first.

        Returns:
            ``None`` where that is done; otherwise the flow that does it.

        Raises:
            ResourceExhaustedError: the organization has as many streams open as it may.
            UnavailableError: that cannot be said now.

        """
        self.stream, self.variables = stream if self.may_end else None, variables
        opening = None if self.stream is None else self.open(self.stream)
        if opening is not None:
            return self._begin_after(opening)
        self._begin()
        return None

    def _begin_after(self, opening: Flow[None]) -> Flow[None]:
        yield from opening
        self._begin()

    def _begin(self) -> None:
        self._close_what_is_over()
        if not self.awaits_request:
            self.allowed()

    def reopen(self) -> None:
        """Open the stream once more, which was closed when the task that decided ended."""
        if self.stream is None:
            return
        try:
            opening = self.open(self.stream)
        except ResourceExhaustedError as error:
            self._reopened(None, error)
        else:
            if opening is not None:
                start(opening, self._reopened)

    def _reopened(self, _: None, error: BaseException | None) -> None:
        if self.stream is not None and isinstance(error, Exception):
            # Another stream of the organization has taken its place in between.
            self._authorizer.streams.end_one(self.stream, error)
        self._close_what_is_over()

    def _close_what_is_over(self) -> None:
        if self.stream is not None and self.stream.is_over:
            # It ended while a thread was deciding, or waiting, and was closed before it was opened.
            self.close(self.stream)


class Undecided(NamedTuple):
    """One RPC whose verdict needs the handler's context, because only that knows the peer of the connection."""

    hearing: Hearing
    decide: Callable[[Any], Flow[tuple[Principal, Behaviour]]]
    """Takes the handler's context; returns the flow that finds the verified caller, and the behaviour for the RPC."""
