"""How a stream of an ASGI application ends before its handler does.

Like the block of ``asyncio.timeout``: the task is cancelled while it is in the handler, and there that becomes the
error of the RPC, which connectrpc sends in the protocol of the caller.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, TypeVar, cast

from authz.connect.requests import Context
from authz.connect.rpcs import Rpc
from authz.http.door import HttpDoor
from authz.judge.hearing import Hearing
from authz.runtime.flow import arun

T = TypeVar("T")

COURTESY = 1.0
"""Seconds that a client has to take a message before the RPC breaks off, and a handler to end once it is cancelled."""

_OVER: Any = object()


class AsyncRpc(Rpc):
    """One RPC of an ASGI application; built in the task that serves it.

    Args:
        door: what admitted it.
        hearing: its hearing.
        ctx: its context.

    Attributes:
        is_cut_off: whether it has been broken off, because its client takes no message.

    """

    is_cut_off = False

    _is_in_handler = _is_over = False
    _interrupts = 0

    def __init__(self, door: HttpDoor, hearing: Hearing, ctx: Context) -> None:
        super().__init__(door, hearing, ctx)
        # There is a task: interceptors are coroutines.
        self._loop, self._task = asyncio.get_running_loop(), cast("asyncio.Task[Any]", asyncio.current_task())

    def end(self, error: Exception) -> float | None:
        """See :class:`authz.judge.streams.Stream`."""
        if self._is_ending:
            self._soon(self._cut_off)
            return None
        super().end(error)
        return COURTESY

    def interrupt(self) -> None:
        """Cancel the task, while it is in the handler."""
        self._soon(self._interrupt)

    def leave(self) -> None:
        """Tell the judge and the observers that the RPC is over."""
        self._is_over = True
        super().leave()

    async def open(self) -> None:
        """Have the judge end the RPC from now on when it must end.

        Raises:
            RefusedError: it must end now, or its organization has as many streams open as it may.

        """
        with self.beginning():
            await arun(self.opening())

    @contextlib.contextmanager
    def handling(self) -> Iterator[None]:
        """Run the handler in the block, until the RPC must end.

        Raises:
            RefusedError: it must end, whatever the handler makes of that.

        """
        # Another interceptor may take each message in a task of its own.
        self._task = cast("asyncio.Task[Any]", asyncio.current_task())
        cancelling = self._task.cancelling()
        self._is_in_handler = True
        try:
            with self.acting():
                yield
        except asyncio.CancelledError:
            if not self._interrupts or self._task.cancelling() > cancelling + self._interrupts:
                # Another cancellation than ours: the client has gone, or its deadline has passed.
                raise
        except Exception:
            if self._refusal is None:
                raise
        finally:
            self._is_in_handler = False
            while self._interrupts:
                self._interrupts -= 1
                self._task.uncancel()
        self.check_on()

    async def replies(self, begin: Callable[[], AsyncIterator[T]]) -> AsyncIterator[T]:
        """Yield the replies of the handler that ``begin`` begins, until the RPC must end.

        Raises:
            RefusedError: it must end.

        """
        await self.open()
        replies: Any = None
        try:
            with self.handling():
                replies = aiter(begin())
            while True:
                with self.handling():
                    reply = await anext(replies, _OVER)
                if reply is _OVER:
                    return
                self._has_begun = True
                yield reply
                # Before the handler makes another one.
                self.check_on()
        finally:
            if hasattr(replies, "aclose"):
                with self.acting():
                    await replies.aclose()

    def _soon(self, do: Callable[[], None]) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(do)

    def _interrupt(self) -> None:
        if self._is_in_handler:
            self._interrupts += 1
            self._task.cancel()

    def _cut_off(self) -> None:
        if self._is_in_handler:
            # It has taken the cancellation for something else.
            self._interrupt()
        elif not self._is_over:
            # connectrpc is sending a message: the client does not take it, and would not take our error either.
            self.is_cut_off = True
            self._task.cancel()


class AsyncRequests:
    """The requests of a stream: the handler sees none that it may not see.

    Args:
        requests: those of the client.
        rpc: checks them, and ends with the first one that is refused.

    """

    def __init__(self, requests: AsyncIterator[Any], rpc: AsyncRpc) -> None:
        self._requests, self._rpc = aiter(requests), rpc

    def __aiter__(self) -> "AsyncRequests":
        return self

    async def __anext__(self) -> Any:
        request = await anext(self._requests)
        self._rpc.check_next(request)
        return request
