"""Whether the threads that decide get on: those of an engine that are not the event loop, which says so itself."""

import asyncio
from collections.abc import Callable, Sequence

BEAT = 1.0
"""How often they are looked at, in seconds."""


class Pulse:
    """Look at the threads of an engine again and again.

    Args:
        progress: returns a number for each thread, another whenever that has gone on, which it does at least once
            in :data:`BEAT` even if it has nothing to do.

    Attributes:
        still: for how many seconds the slowest of them has not gone on. They are counted by looking, not by a clock:
            while the whole process was suspended nothing stood still.

    """

    def __init__(self, progress: Callable[[], Sequence[int]]) -> None:
        self.still = 0.0
        self._progress, self._seen = progress, list(progress())
        self._still = [0] * len(self._seen)

    def look(self) -> None:
        """Look once."""
        now = list(self._progress())
        if len(now) != len(self._seen):
            # They have only just been started.
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
