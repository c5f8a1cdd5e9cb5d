"""The two clocks a verdict reads, passed in wherever time matters."""

import time
from collections.abc import Callable
from typing import NamedTuple


class Clock(NamedTuple):
    """Where the time comes from, in seconds.

    ``time`` is POSIX time, for what a token says of itself.
    ``monotonic`` never steps back, for the age of what is cached.
    """

    time: Callable[[], float]
    monotonic: Callable[[], float]


SYSTEM_CLOCK = Clock(time.time, time.monotonic)
