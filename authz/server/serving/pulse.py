"""Whether the threads of an engine that decide stand still; the event loop itself gives a sign of life of its own."""

import asyncio
from collections.abc import Callable, Sequence

BEAT = 1.0
"""Seconds between two looks."""


class Pulse:
    """Watch the threads of an engine.

    Args:
        progress: returns a counter of each thread. A thread that does not hang changes it at least once in
            :data:`BEAT`, even if it has nothing to do.

    Attributes:
        still: for how many seconds the slowest thread has stood still. They are counted in looks, not by a clock:
            while the whole process is suspended no thread counts as standing still.

    """

    def __init__(self, progress: Callable[[], Sequence[int]]) -> None:
        self.still = 0.0
        self._progress, self._seen = progress, list(progress())
        self._still = [0] * len(self._seen)

    def look(self) -> None:
        """Look once."""
        now = list(self._progress())
        if len(now) != len(self._seen):
            # The threads have only just been started.
            self._still = [0] * len(now)
        else:
            self._still = [
                times + 1 if before == after else 0
                for times, before, after in zip(self._still, self._seen, now, strict=True)
            ]
        self._seen = now
        self.still = max(self._still, default=0) * BEAT

    async def keep(self) -> None:
        """Look until cancelled."""
        while True:
            self.look()
            await asyncio.sleep(BEAT)
