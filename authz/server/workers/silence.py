"""How long a worker has shown no sign of life.

Counted in wakings of the supervisor, not in time that has passed: while the supervisor itself does not run, because
its process or its machine is suspended or has too much to do, no worker falls silent.
"""

import asyncio
import math

START_SECONDS = 120.0
"""How long one may take to load, and then to listen, on whatever machine; longer where the timeout is longer."""

# So that being late by one waking does not matter.
_TICKS = 10


class Silence:
    """The silence of one worker.

    Args:
        timeout: seconds of silence after which it counts as hung.

    Attributes:
        is_starting: whether it has not listened yet, for which it has :data:`START_SECONDS`.

    """

    def __init__(self, timeout: float) -> None:
        self._tick = timeout / _TICKS
        self._start_ticks = max(_TICKS, math.ceil(START_SECONDS / self._tick))
        self._ticks = 0.0
        self.is_starting = True

    def broken(self, seconds: float) -> None:
        """Note a sign of life of a worker some of whose threads have shown none for ``seconds``."""
        self._ticks = seconds / self._tick

    async def too_long(self) -> None:
        """Return when it has lasted too long."""
        while self._ticks <= (self._start_ticks if self.is_starting else _TICKS):
            await asyncio.sleep(self._tick)
            self._ticks += 1
