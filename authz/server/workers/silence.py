"""How long a worker has shown no sign of life.

Counted in ticks of the supervisor's event loop, not by a clock: while the supervisor itself does not run, because its
process or its machine is suspended or overloaded, no worker counts as silent.
"""

import asyncio
import math

START_SECONDS = 120.0
"""How long a worker may take to load, and then to listen, on a slow machine; longer if the timeout is longer."""

# So many that one late tick does not matter.
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
        """Return when the silence has lasted too long."""
        while self._ticks <= (self._start_ticks if self.is_starting else _TICKS):
            await asyncio.sleep(self._tick)
            self._ticks += 1
