"""The ends of thousands of streams on one loop, which begin a few at a time."""

import asyncio
from collections import deque
from collections.abc import Callable
from weakref import WeakKeyDictionary

from authz.runtime import telemetry

FEW, MANY, MOMENT = 2, 64, 0.05
"""So many streams end at a time, and the next ones after so many seconds at the latest. Where clients do not read, more
end at a time, for then grpc.aio has nothing to tell the loop."""

# The loop keeps only weak references to tasks.
_working: "set[asyncio.Task[None]]" = set()

End = Callable[[], "asyncio.Task[None] | None"]
"""Begins to end a stream; returns the task that does it, if there is one."""


class Endings:
    """Streams of one loop that must end: a few begin to, and the next ones when these have ended.

    grpc.aio tells a loop of what it has sent through a socket that holds some hundred words, and the loop reads one in
    each turn. If thousands of streams ended at once, new calls would wait behind all of these words.
    """

    def __init__(self) -> None:
        self._waiting: deque[End] = deque()
        self._is_awake = False

    def add(self, loop: asyncio.AbstractEventLoop, end: End) -> None:
        """Have ``end`` called on the thread of ``loop``, soon; from any thread."""
        self._waiting.append(end)
        if not self._is_awake:
            # Two threads may both come here; then two tasks share the work.
            self._is_awake = True
            loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        task = asyncio.get_running_loop().create_task(self._work())
        _working.add(task)
        task.add_done_callback(_working.discard)

    async def _work(self) -> None:
        number = FEW
        while True:
            begun = [self._begin() for _ in range(min(number, len(self._waiting)))]
            ending = [task for task in begun if task is not None]
            _, stuck = await asyncio.wait(ending, timeout=MOMENT) if ending else (None, None)
            number = min(2 * number, MANY) if stuck else FEW
            # Before the last look: what is added after that wakes the loop.
            self._is_awake = False
            if not self._waiting:
                return
            self._is_awake = True

    def _begin(self) -> "asyncio.Task[None] | None":
        try:
            return self._waiting.popleft()()
        except Exception as error:  # noqa: BLE001 - such as no thread to be had: the others must end all the same
            telemetry.unforeseen("stream", error)
            return None


_endings: "WeakKeyDictionary[asyncio.AbstractEventLoop, Endings]" = WeakKeyDictionary()


def endings_on(loop: asyncio.AbstractEventLoop) -> Endings:
    """Return the ends of the streams of ``loop``."""
    endings = _endings.get(loop)
    return _endings.setdefault(loop, Endings()) if endings is None else endings
