"""The slot of one worker: the process in it now, and its successor."""

import asyncio
import contextlib
import signal
from collections.abc import Awaitable, Callable

from authz.errors import ConfigError
from authz.runtime import telemetry
from authz.runtime.backoff import Backoff
from authz.server.workers.child import Child
from authz.server.workers.silence import START_SECONDS

# Seconds of pause after a worker has died; a death after a long life counts as the first.
_FIRST, _LAST, _LONG_LIFE = 0.1, 10.0, 10.0


class Slot:
    """Keep one worker running.

    Args:
        number: the number of the worker.
        start: starts a process for it.
        patience: seconds that a process may take to end.
        ended: is called with the number whenever a process has ended.

    Attributes:
        child: the process that runs now, or ran last.
        restarts: how many processes were started because another had died.
        hangs: how many were killed because they gave no sign of life.

    """

    def __init__(
        self, number: int, start: Callable[[int], Awaitable[Child]], patience: float, ended: Callable[[int], object]
    ) -> None:
        self.number = number
        self.child: Child | None = None
        self.restarts = self.hangs = 0
        self._start, self._patience, self._ended = start, patience, ended
        self._successor: Child | None = None
        self._has_listened = self._is_ending = False
        self._backoff = Backoff(first=_FIRST, last=_LAST)
        self._filling, self._roused = asyncio.Lock(), asyncio.Event()

    async def keep(self) -> None:
        """Keep a process running until :meth:`end`, and return when the last one has ended.

        Raises:
            ConfigError: the first process says that it cannot work with this configuration.

        """
        while not self._is_ending:
            began = asyncio.get_running_loop().time()
            try:
                await self._one(began)
            except ConfigError:
                raise
            except OSError as error:
                # There are too many processes or open files now; later there may be fewer.
                await self._pause(began, error=error.strerror)
            except Exception as error:  # noqa: BLE001 - what befalls one worker must not end the others
                telemetry.unforeseen("workers", error)
                await self._pause(began, error="unforeseen")
        if self._successor is not None:
            await self._successor.ended

    async def replace(self) -> bool:
        """Start a successor, let it take over once it can decide checks, and return whether it does.

        It listens after its predecessor has ended: gRPC's core would remove the successor's Unix socket otherwise.
        """
        try:
            successor = await self._start(self.number)
        except OSError as error:
            return self._refuse(error.strerror)
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(START_SECONDS):
                    await successor.until(lambda: successor.is_able is not None)
            if not successor.is_able:
                # The process that runs now may have keys, and its configuration worked.
                return self._refuse(successor.error)
            async with self._filling:
                self._successor = successor
                if self.child is not None:
                    self.child.stop(signal.SIGTERM, self._patience)
                self._roused.set()
            return await successor.until(lambda: not successor.unready)
        finally:
            if successor not in (self._successor, self.child):
                successor.kill()
                await successor.ended

    def _refuse(self, error: str | None) -> bool:
        telemetry.event(telemetry.ERROR, "successor_unable", worker=self.number, error=error)
        return False

    def end(self, number: int) -> None:
        """Send the processes in this slot a signal to end, and start no other."""
        self._is_ending = True
        self._roused.set()
        for child in (self.child, self._successor):
            if child is not None:
                child.stop(number, self._patience)

    async def _one(self, began: float) -> None:
        child = await self._fill()
        status = await child.ended
        is_first = not self._has_listened and not self.restarts
        self._has_listened |= child.is_listening
        is_death = self._successor is None and not self._is_ending
        if child.is_hung:
            self.hangs += 1
            telemetry.event(telemetry.ERROR, "worker_hung", worker=self.number, pid=child.pid)
        if is_death and child.error and is_first and not child.is_listening:
            raise ConfigError(child.error)
        self._ended(self.number)
        if is_death:
            await self._pause(began, pid=child.pid, status=status, error=child.error)
            self.restarts += not self._is_ending

    async def _fill(self) -> Child:
        async with self._filling:
            if self._successor is not None:
                self.child, self._successor = self._successor, None
            else:
                self.child = await self._start(self.number)
        if self._is_ending:
            self.child.stop(signal.SIGTERM, self._patience)
        self.child.let_listen()
        telemetry.event(telemetry.INFO, "worker_started", worker=self.number, pid=self.child.pid)
        return self.child

    async def _pause(self, began: float, **why: object) -> None:
        now = asyncio.get_running_loop().time()
        if now - began >= _LONG_LIFE:
            self._backoff.succeeded()
        self._backoff.failed(now)
        pause = self._backoff.retry_at - now
        telemetry.event(telemetry.ERROR, "worker_died", worker=self.number, retry_in=round(pause, 3), **why)
        self._roused.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._roused.wait(), pause)
