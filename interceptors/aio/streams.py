"""How a stream of a ``grpc.aio.server`` ends before its handler does.

The abort comes from a task of its own, so that it does not depend on a handler
that sleeps, waits, or sends without pause; then the handler is cancelled. A
synchronous handler cannot be cancelled: its client gets the status all the
same, and its thread is free once it sends or reads a message, or returns.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any, cast

from authz.call.refusal import Refusal
from authz.judge.hearing import Hearing
from authz.judge.streams import OpenStreams

from ..handlers import status_of
from .endings import endings_on

# Seconds. An abort waits for a client that does not read; the handler is cancelled without waiting for longer.
_PATIENCE = 0.2

# The loop keeps only weak references to tasks.
_ending: "set[asyncio.Task[None]]" = set()


class AioStream:
    """One streaming RPC with an asynchronous handler; see :class:`authz.judge.streams.Stream`.

    Built in the RPC's own task, and used on its loop's thread but for :meth:`end`.

    Thousands may be open, so it refers to what is there anyway, and makes no functions of its own.

    Args:
        hearing: is told why it ends.
        streams: those that are open, which forget it when it is over.

    """

    __slots__ = (
        *("_beginning", "_context", "_ending", "_hearing", "_is_ending", "_loop", "_replies", "_streams", "_task"),
        "refusal",
    )

    def __init__(self, hearing: Hearing, streams: OpenStreams) -> None:
        self._hearing, self._streams = hearing, streams
        self._loop = asyncio.get_running_loop()
        self._task: Any = None
        self._context: Any = None
        self._replies: Replies | None = None
        self._ending = threading.Lock()
        self._is_ending = False
        self._beginning: asyncio.Future[None] | None = None
        self.refusal: Refusal | None = None
        """Why the RPC must end, or ``None`` as long as it may go on."""
        self._watch(asyncio.current_task())

    def end(self, error: Exception) -> float | None:
        """See :class:`authz.judge.streams.Stream`."""
        with self._ending:
            if self.refusal is not None:
                return None
            self.refusal = self._hearing.ended(error)
        if not self._loop.is_closed():
            endings_on(self._loop).add(self._loop, self._end)
        return None

    @property
    def must_end(self) -> bool:
        """Whether the RPC must end, and no message of it may go on."""
        if self.refusal is None:
            self._streams.look(self)
        return self.refusal is not None

    @property
    def is_over(self) -> bool:
        """Whether the RPC is over."""
        return bool(self._task.done())

    def begin(self, context: Any, reopen: Callable[[], None]) -> None:
        """Note grpc's context, with which the RPC can be ended from now on, and end it if it must end already.

        Args:
            context: grpc's own.
            reopen: opens the stream once more, where it was closed too early.

        """
        self._context = context
        task = asyncio.current_task()
        if task is not self._task:
            # An outer interceptor decided in a task of its own, which is over before the RPC is.
            self._watch(task)
            reopen()
        if self.refusal is not None:
            self._end()

    async def begin_reply(self, sending: Awaitable[None]) -> None:
        """Wait until initial metadata has been sent, or the first message with it, and make aborts wait for that.

        An abort meanwhile would send initial metadata once more, and fail, and the client would get no status.
        """
        beginning = self._beginning = self._loop.create_future()
        try:
            await sending
        finally:
            beginning.set_result(None)
        if self.is_waiting:
            await self.never()

    @property
    def is_waiting(self) -> bool:
        """Whether the RPC must end, and has not been aborted yet."""
        return self.must_end and not self._context.done()

    def watched(self, replies: Any) -> "Replies":
        """Return the replies of an async generator, until its RPC must end."""
        self._replies = watched = Replies(replies, self)
        return watched

    async def never(self) -> None:
        """Wait until the handler is cancelled."""
        await self._loop.create_future()

    async def abort(self) -> None:
        """End the RPC, in any task."""
        # If the handler has returned already, grpc is sending its status.
        if self.refusal is not None and not self._context.done():
            await self._context.abort(*status_of(self.refusal))

    def _end(self) -> "asyncio.Task[None] | None":
        if self._context is None or self._is_ending:
            return None
        self._is_ending = True
        return self._interrupt()

    def _watch(self, task: Any) -> None:
        self._task = task
        task.add_done_callback(self._over)

    def _over(self, task: object) -> None:
        if task is not self._task:
            return
        # This breaks a reference cycle, which would leave the cleanup of the handler to the garbage collector.
        self._replies = None
        self._streams.close(self)

    def _interrupt(self) -> "asyncio.Task[None] | None":
        return _go_on(self._loop.create_task(self._abort_and_cancel()))

    async def _abort_and_cancel(self) -> None:
        if self._beginning is not None:
            await asyncio.wait({self._beginning})
        # From here to the abort no other task runs.
        if self._replies is not None and not self._replies.is_making:
            # grpc is sending a message, and asks for the next one when the client has taken it.
            await self._replies.aclose()
            return
        if self._context.done():
            return
        late = self._loop.call_later(_PATIENCE, self._task.cancel)
        try:
            await self.abort()
        finally:
            late.cancel()
            self._task.cancel()


class Replies:
    """The replies of an async generator, until its stream must end.

    It is no generator itself, and returns what the handler's generator does, so that a message costs nothing more.
    """

    __slots__ = ("_replies", "_stream")

    def __init__(self, replies: Any, stream: AioStream) -> None:
        self._replies = replies
        self._stream = stream

    @property
    def is_making(self) -> bool:
        """Whether the handler is making a reply, rather than grpc sending one."""
        return bool(getattr(self._replies, "ag_running", True))

    def __aiter__(self) -> "Replies":
        return self

    def __anext__(self) -> Awaitable[Any]:
        if self._stream.must_end:
            return self._stream.abort()
        return cast("Awaitable[Any]", self._replies.__anext__())

    async def aclose(self) -> None:
        """Close the generator."""
        await self._replies.aclose()


def _go_on(task: "asyncio.Task[None]") -> "asyncio.Task[None]":
    _ending.add(task)
    task.add_done_callback(_forget)
    return task


def _forget(task: "asyncio.Task[None]") -> None:
    _ending.discard(task)
    if not task.cancelled():
        # An abort ends by raising. Without this line asyncio would log the exception, which says nothing new.
        task.exception()
