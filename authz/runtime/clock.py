"""The two clocks that verdicts read, passed in wherever time matters.

Neither is enough where something must end. The time of day can be set back, and
then what should have ended goes on. The other clock stands still while the
machine is suspended, and is not set forward with the time of day when a
machine that was paused learns how late it is. So anything that closes something,
such as the end of a token or the age of a remembered answer, goes by the clock
that ran further; anything that opens something, such as a quota, by one of them.
"""

import math
import time
from collections.abc import Callable
from typing import NamedTuple


class Moment(NamedTuple):
    """A point in time on both clocks of a :class:`Clock`; infinite on a clock that does not matter."""

    time: float = math.inf
    monotonic: float = math.inf

    def after(self, seconds: float) -> "Moment":
        """Return the moment ``seconds`` later, or earlier if they are negative."""
        return Moment(self.time + seconds, self.monotonic + seconds)

    def has_reached(self, other: "Moment") -> bool:
        """Say whether ``other`` is not later than this moment, by either clock."""
        return self.time >= other.time or self.monotonic >= other.monotonic


class Clock(NamedTuple):
    """Where the time comes from, in seconds.

    ``time`` is POSIX time, by which tokens say when they end; it can be set.
    ``monotonic`` never steps, and may stand still while the machine is suspended.
    """

    time: Callable[[], float]
    monotonic: Callable[[], float]

    def now(self) -> Moment:
        """Return this moment."""
        return Moment(self.time(), self.monotonic())

    def at(self, time: float) -> Moment:
        """Return the moment of a POSIX time; it has come when the first of the clocks reaches it."""
        now = self.now()
        return now.after(time - now.time)

    def has_reached(self, moment: Moment) -> bool:
        """Say whether ``moment`` has come, by either clock."""
        return self.time() >= moment.time or self.monotonic() >= moment.monotonic

    def until(self, moment: Moment) -> float:
        """Return the seconds until ``moment``, by the clock that reaches it first; negative once it has come."""
        return min(moment.time - self.time(), moment.monotonic - self.monotonic())

    def since(self, moment: Moment) -> float:
        """Return the seconds that have passed since ``moment``, by the clock that ran further."""
        return max(self.time() - moment.time, self.monotonic() - moment.monotonic)


SYSTEM_CLOCK = Clock(time.time, time.monotonic)
