"""Slow work, done one piece at a time with pauses between, and once for all callers that want the same."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")

PAUSE = 1.0
"""Seconds between one making and the next, however many clients ask, and however often."""

# The pause is four times the work: at most a fifth of the time goes into it.
_SHARE = 4


class Paced:
    """One piece of work at a time, in the order of the requests, with a pause after each.

    Args:
        pause: seconds of the pause; it is longer after long work.

    """

    def __init__(self, pause: float) -> None:
        self._pause, self._due = pause, 0.0
        self._working = asyncio.Lock()

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a turn, which lasts until the end of the block."""
        loop = asyncio.get_running_loop()
        async with self._working:
            await asyncio.sleep(self._due - loop.time())
            began = loop.time()
            try:
                yield
            finally:
                ended = loop.time()
                self._due = ended + max(self._pause, _SHARE * (ended - began))


class Coalesced(Generic[T]):
    """Make something at most once in a while: callers who ask meanwhile wait, and all of them get the same result.

    A result is made after the call that gets it, so it is never older than the question.

    Args:
        make: makes the result.
        pause: seconds from the end of one making to the beginning of the next, at least.

    """

    def __init__(self, make: Callable[[], Awaitable[T]], *, pause: float = PAUSE) -> None:
        self._make, self._paced = make, Paced(pause)
        self._leaving = asyncio.Lock()
        self._next: asyncio.Task[T] | None = None

    async def get(self) -> T:
        """Return what was made after this call, or raise what the making raised."""
        if self._next is None:
            self._next = asyncio.create_task(self._make_in_turn())
            # The callers who asked may have gone by then.
            self._next.add_done_callback(lambda task: task.cancelled() or task.exception())
        made = await asyncio.shield(self._next)
        # One caller in each turn of the loop, so that what they all do next does not block it at once.
        async with self._leaving:
            await asyncio.sleep(0)
        return made

    async def _make_in_turn(self) -> T:
        async with self._paced.turn():
            self._next = None
            return await self._make()
