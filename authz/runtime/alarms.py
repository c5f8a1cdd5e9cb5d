"""Callbacks at given times, on one thread that sleeps until the first of them is due."""

import heapq
import itertools
import math
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from authz.runtime import fork, telemetry
from authz.runtime.clock import SYSTEM_CLOCK, Clock, Moment
from authz.runtime.threads import Pace, restarting

# Seconds that the thread stays without work, so that not every alarm starts one.
_LINGER = 10.0
# Up to so many alarms that are over are not worth sweeping.
_FEW = 64

LOOK_SECONDS = 5.0
"""How late an alarm may be where the time of day was set forward, or the machine was suspended. The thread sleeps by
the other clock, so once in so many seconds it looks at the time of day, and at the first alarm however many wait."""


@dataclass(slots=True, eq=False)
class Alarm:
    """A callback that is due at ``at``; see :meth:`Alarms.set`."""

    at: Moment
    callback: Callable[[], object] | None


class Alarms:
    """Call back, each time on the same thread; callbacks must not block.

    There is one thread while any alarm is set; each alarm takes only memory.

    Args:
        name: of the thread.
        clock: the clocks that alarms are set by.
        look_seconds: how often the thread looks at the time of day while an alarm is set by it.

    """

    def __init__(self, name: str, *, clock: Clock = SYSTEM_CLOCK, look_seconds: float = LOOK_SECONDS) -> None:
        self._name = name
        self._clock = clock
        self._look_seconds = look_seconds
        self.after_fork()
        fork.register(self)

    def after_fork(self) -> None:
        """Forget the alarms and the thread, which are the parent's."""
        self._changed = threading.Condition(threading.Lock())
        self._ringing = threading.Lock()
        # Each alarm is in both, for after a step of a clock their orders differ.
        self._by_time, self._by_monotonic = _Heap(), _Heap()
        self._thread: threading.Thread | None = None
        self._wakes_at = math.inf

    def set(self, at: Moment, callback: Callable[[], object]) -> Alarm:
        """Have ``callback`` called at ``at``, once, by whichever clock comes to it first."""
        alarm = Alarm(at, callback)
        with self._changed:
            is_first_by_time = at.time < math.inf and not self._by_time
            self._by_time.push(at.time, alarm)
            self._by_monotonic.push(at.monotonic, alarm)
            if self._thread is None:
                thread = threading.Thread(target=restarting(self._keep_time), name=self._name, daemon=True)
                thread.start()
                # Not before: where no thread can be had, the next alarm must ask for one again.
                self._thread = thread
            elif at.monotonic < self._wakes_at or is_first_by_time:
                self._changed.notify()
        return alarm

    def cancel(self, alarm: Alarm) -> None:
        """Cancel ``alarm``, if it has not called back yet."""
        with self._changed:
            if alarm.callback is None:
                return
            alarm.callback = None
            self._by_time.lose(alarm.at.time)
            self._by_monotonic.lose(alarm.at.monotonic)

    @property
    def is_ringing(self) -> bool:
        """Whether callbacks are under way, and others may be due."""
        return self._ringing.locked()

    def ring(self) -> None:
        """Call back what is due by now, on this thread."""
        # One thread at a time, so that when this returns everything that was due has been called.
        with self._ringing:
            now, pace = self._clock.now(), Pace()
            # An alarm stays in the heaps until its turn: if this thread dies, the next one calls it.
            while (callback := self._next_due(now)) is not None:
                try:
                    callback()
                except BaseException as error:  # noqa: BLE001 - SystemExit too: the others must be called all the same
                    telemetry.unforeseen(self._name, error)
                pace.step()

    def _next_due(self, now: Moment) -> Callable[[], object] | None:
        with self._changed:
            for alarm, callback in self._by_monotonic.pop(now.monotonic):
                self._by_time.lose(alarm.at.time)
                return callback
            for alarm, callback in self._by_time.pop(now.time):
                self._by_monotonic.lose(alarm.at.monotonic)
                return callback
        return None

    def _keep_time(self) -> None:
        is_idle = False
        while True:
            with self._changed:
                now = self._clock.monotonic()
                has_work = bool(self._by_time or self._by_monotonic)
                if not has_work and is_idle:
                    self._thread = None
                    return
                self._wakes_at = min(
                    self._by_monotonic.first,
                    now + self._look_seconds if self._by_time else math.inf,
                    math.inf if has_work else now + _LINGER,
                )
                is_idle = not has_work
                if self._wakes_at > now:
                    self._changed.wait(min(self._wakes_at - now, threading.TIMEOUT_MAX))
            self.ring()


class Spaced:
    """Call back at once, but if many callbacks come together, one after the other, on one thread.

    It is for those that set much in motion, such as threads, which other threads would have to wait for.

    Args:
        name: of the thread.
        few: so many are called at once.
        seconds: from one of the others to the next.
        clock: its ``monotonic`` is read.

    """

    def __init__(self, name: str, *, few: int, seconds: float, clock: Clock = SYSTEM_CLOCK) -> None:
        self._few, self._seconds, self._clock = few, seconds, clock
        self._alarms = Alarms(name, clock=clock)
        self.after_fork()
        fork.register(self)

    def after_fork(self) -> None:
        """Forget the callbacks, which are the parent's."""
        self._lock = threading.Lock()
        self._next = -math.inf

    def call(self, callback: Callable[[], object]) -> None:
        """Call ``callback``, now or in its turn; it must do no harm if it is called twice."""
        with self._lock:
            now = self._clock.monotonic()
            at = max(now, self._next)
            self._next = at + self._seconds
        if at - now < self._few * self._seconds:
            callback()
            return
        try:
            self._alarms.set(Moment(monotonic=at), callback)
        except RuntimeError:
            # No thread can be had.
            callback()


class _Heap:
    """Alarms in the order of one clock; those that are over stay until their turn, or until most alarms are over."""

    def __init__(self) -> None:
        self._entries: list[tuple[float, int, Alarm]] = []
        self._numbers = itertools.count()
        self._over = 0

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def first(self) -> float:
        """When the first one is due."""
        return self._entries[0][0] if self._entries else math.inf

    def push(self, at: float, alarm: Alarm) -> None:
        """Take in an alarm, if it goes by this clock."""
        if at < math.inf:
            heapq.heappush(self._entries, (at, next(self._numbers), alarm))

    def pop(self, now: float) -> Iterator[tuple[Alarm, Callable[[], object]]]:
        """Take out the alarms that are due by ``now``, and yield those that are not over, with their callbacks."""
        while self._entries and self._entries[0][0] <= now:
            alarm = heapq.heappop(self._entries)[2]
            callback, alarm.callback = alarm.callback, None
            if callback is None:
                self._over -= 1
            else:
                yield alarm, callback

    def lose(self, at: float) -> None:
        """Count an alarm that is over and was due at ``at``; to take it out would need a search."""
        if at == math.inf:
            return
        self._over += 1
        if self._over > max(_FEW, len(self._entries) // 2):
            self._entries = [entry for entry in self._entries if entry[2].callback is not None]
            heapq.heapify(self._entries)
            self._over = 0
