"""Callbacks at given times, on one thread that sleeps until the first of them is due."""

import heapq
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from authz import fork, telemetry

# How long the thread stays without work: long enough not to start one for every alarm.
_LINGER = 10.0
# Fewer than this, cancelled alarms are not worth sweeping.
_FEW = 64


@dataclass(order=True, slots=True)
class Alarm:
    """A callback that is due at ``at``; see :meth:`Alarms.set`."""

    at: float
    callback: Callable[[], object] | None = field(compare=False)


class Alarms:
    """Call back, each time on the same thread; what is called must not block.

    Costs a thread while there is anything to wait for, and nothing per alarm but memory.

    Args:
        name: of the thread.
        monotonic: the clock that alarms are set by, in seconds.

    """

    def __init__(self, name: str, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._name = name
        self._monotonic = monotonic
        self.after_fork()
        fork.register(self)

    def after_fork(self) -> None:
        """Forget the alarms and the thread, which are the parent's."""
        self._changed = threading.Condition(threading.Lock())
        self._ringing = threading.Lock()
        self._heap: list[Alarm] = []
        self._cancelled = 0
        self._thread: threading.Thread | None = None
        self._wakes_at = math.inf

    def set(self, at: float, callback: Callable[[], object]) -> Alarm:
        """Have ``callback`` called at ``at``, by the clock of this object."""
        alarm = Alarm(at, callback)
        with self._changed:
            heapq.heappush(self._heap, alarm)
            if self._thread is None:
                thread = threading.Thread(target=self._keep_time, name=self._name, daemon=True)
                thread.start()
                # Not before: where no thread can be had, the next alarm must ask for one again.
                self._thread = thread
            elif at < self._wakes_at:
                self._changed.notify()
        return alarm

    def cancel(self, alarm: Alarm) -> None:
        """Have nothing called, if it has not been yet."""
        with self._changed:
            if alarm.callback is None:
                return
            alarm.callback = None
            # Left in the heap, for taking it out would mean a search; swept when it is mostly such.
            self._cancelled += 1
            if self._cancelled > max(_FEW, len(self._heap) // 2):
                self._heap = [alarm for alarm in self._heap if alarm.callback is not None]
                heapq.heapify(self._heap)
                self._cancelled = 0

    def ring(self) -> None:
        """Call back what is due by now, on this thread."""
        # One at a time: whoever has rung knows that all that was due has been called.
        with self._ringing:
            for callback in self._due():
                try:
                    callback()
                except Exception as error:  # noqa: BLE001 - the others must be called all the same
                    telemetry.unforeseen(self._name, error)

    def _due(self) -> list[Callable[[], object]]:
        due = []
        with self._changed:
            now = self._monotonic()
            while self._heap and self._heap[0].at <= now:
                alarm = heapq.heappop(self._heap)
                if alarm.callback is None:
                    self._cancelled -= 1
                else:
                    due.append(alarm.callback)
                    alarm.callback = None
        return due

    def _keep_time(self) -> None:
        is_idle = False
        while True:
            with self._changed:
                now = self._monotonic()
                if self._heap:
                    self._wakes_at = self._heap[0].at
                elif is_idle:
                    self._thread = None
                    return
                else:
                    self._wakes_at = now + _LINGER
                is_idle = not self._heap
                if self._wakes_at > now:
                    self._changed.wait(min(self._wakes_at - now, threading.TIMEOUT_MAX))
            self.ring()
