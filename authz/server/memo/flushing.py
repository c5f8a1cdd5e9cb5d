"""Generations: all that Envoy remembers belongs to one, and is forgotten with the next."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Callable

from authz.runtime import telemetry
from authz.runtime.clock import SYSTEM_CLOCK, Clock

PAUSE = 0.05
"""Seconds between two generations at least: each has Envoy load a script, while many orders may come at once."""

Publish = Callable[[str], object]
"""Is called with every new generation, on the event loop; empty at the end, after which nothing is remembered."""


class Flushing:
    """Begin a new generation whenever something has changed: at once, or soon after the one before.

    Whatever has changed is in force everywhere before :meth:`flush` is called. So an answer that was found before that
    belongs to an older generation, whose name was read even earlier.

    Args:
        publish: tells every new generation to all who must know it.
        clock: only its ``monotonic`` is read, for the age.

    Attributes:
        generation: the present one.
        flushes: how many have begun, besides the first.

    """

    def __init__(self, *publish: Publish, clock: Clock = SYSTEM_CLOCK) -> None:
        self._publish, self._monotonic = publish, clock.monotonic
        # No other server, and no earlier run of this one, has a generation of that name.
        self._run = secrets.token_hex(6)
        self.generation, self.flushes = "", 0
        self._began = clock.monotonic()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wanted = asyncio.Event()

    @property
    def age(self) -> float:
        """Seconds since the present generation began."""
        return self._monotonic() - self._began

    def flush(self) -> None:
        """Have Envoy forget all that it has remembered so far; on any thread, without waiting."""
        loop = self._loop
        if loop is not None:
            # It is closed when the process ends.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self._wanted.set)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Have answers remembered from here to the end of the block."""
        self._loop = asyncio.get_running_loop()
        self._begin()
        keeping = asyncio.create_task(self._keep())
        try:
            yield
        finally:
            self._loop = None
            keeping.cancel()
            # The process ends: what the file still says then is over soon.
            with contextlib.suppress(OSError):
                self._tell("")

    async def _keep(self) -> None:
        while True:
            await self._wanted.wait()
            # Before the new generation: what changes from here on wants another one.
            self._wanted.clear()
            self.flushes += 1
            try:
                self._begin()
            except Exception as error:  # noqa: BLE001 - whatever it is, Envoy still remembers what it may not
                telemetry.event(telemetry.ERROR, "memo_not_flushed", error=type(error).__name__)
                self._wanted.set()
            await asyncio.sleep(PAUSE)

    def _begin(self) -> None:
        self._tell(f"{self._run}-{self.flushes}")
        self._began = self._monotonic()

    def _tell(self, generation: str) -> None:
        self.generation = generation
        for publish in self._publish:
            publish(generation)
