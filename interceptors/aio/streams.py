"""How a stream of a ``grpc.aio.server`` ends before its handler does.

The abort comes from a task of its own, so that it needs no help from a handler
that sleeps, floods or waits; then the handler is cancelled. A synchronous
handler cannot be: its client gets the status all the same, and its thread
comes free when it comes by for the next message, or returns.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Any

import grpc

from authz.errors import AuthzError
from authz.refusal import Refusal

# An abort waits for a client that does not read. The handler must not wait with it.
_PATIENCE = 0.2

# The loop holds tasks by weak references only.
_aborting: "set[asyncio.Task[None]]" = set()


class Stream:
    """One streaming RPC with an asynchronous handler; see :class:`authz.streams.Stream`.

    Built in the RPC's own task, and used on its loop's thread but for :meth:`end`.

    Args:
        refuse: makes what the caller sees.

    """

    def __init__(self, refuse: Callable[[AuthzError], Refusal]) -> None:
        self._refuse = refuse
        self._loop = asyncio.get_running_loop()
        self._task: Any = asyncio.current_task()
        self._context: Any = None
        self._refusal: Refusal | None = None

    def end(self, error: AuthzError) -> float | None:
        """See :class:`authz.streams.Stream`."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._end, error)
        return None

    @property
    def is_over(self) -> bool:
        """Whether the RPC is over."""
        return bool(self._task.done())

    def when_over(self, callback: Callable[[], None]) -> None:
        """Have ``callback`` called on the loop's thread when the RPC is over."""
        self._task.add_done_callback(lambda _task: callback())

    def begin(self, context: Any) -> None:
        """Note grpc's context, with which the RPC can be ended from now on, and end it if it must end already."""
        self._context = context
        if self._refusal is not None:
            self._interrupt(self._refusal)

    def _end(self, error: AuthzError) -> None:
        if self._refusal is None and not self._task.done():
            self._refusal = self._refuse(error)
            if self._context is not None:
                self._interrupt(self._refusal)

    def _interrupt(self, refusal: Refusal) -> None:
        if not self._context.done():
            task = self._loop.create_task(self._abort_and_cancel(refusal))
            _aborting.add(task)
            task.add_done_callback(_aborting.discard)

    async def _abort_and_cancel(self, refusal: Refusal) -> None:
        abort = self._loop.create_task(self._abort(refusal))
        _aborting.add(abort)
        # It ends by raising, and whoever looked at that would find nothing new.
        abort.add_done_callback(_forget)
        await asyncio.wait({abort}, timeout=_PATIENCE)
        self._task.cancel()

    async def _abort(self, refusal: Refusal) -> None:
        await self._context.abort(grpc.StatusCode[refusal.code.name], refusal.message, refusal.trailers)


def _forget(abort: "asyncio.Task[None]") -> None:
    _aborting.discard(abort)
    if not abort.cancelled():
        abort.exception()


class StreamOnThreads(Stream):
    """One streaming RPC with a synchronous handler, which runs on threads."""

    def __init__(self, refuse: Callable[[AuthzError], Refusal]) -> None:
        super().__init__(refuse)
        self._aborting = threading.Lock()
        self._aborted: BaseException | None = None

    def begin_on_thread(self, context: Any) -> None:
        """Note the context of the synchronous handler, with which the RPC can be ended from now on."""
        with self._aborting:
            self._context = context
        self.check()

    def check(self) -> None:
        """Abort the RPC, on a thread of the handler's, if it must end."""
        if self._refusal is not None:
            self._abort_on_thread(self._refusal)

    def _interrupt(self, refusal: Refusal) -> None:
        # The abort of such a context blocks its thread until the loop has done it, so it cannot be the loop's.
        threading.Thread(target=self._abort_quietly, args=(refusal,), name="authz-abort", daemon=True).start()

    def _abort_quietly(self, refusal: Refusal) -> None:
        # An abort ends by raising, and nobody is here to be told.
        with contextlib.suppress(BaseException):
            self._abort_on_thread(refusal)

    def _abort_on_thread(self, refusal: Refusal) -> None:
        # Whoever comes second raises what the first one's abort has raised, by which grpc knows it.
        with self._aborting:
            if self._aborted is None:
                try:
                    self._context.abort(grpc.StatusCode[refusal.code.name], refusal.message, refusal.trailers)
                except BaseException as error:  # noqa: BLE001 - raised below
                    self._aborted = error
        if self._aborted is not None:
            raise self._aborted
