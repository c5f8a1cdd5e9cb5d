"""When to try again after a failure, so that many clients do not ask a server in trouble at once."""

import math
import random
from collections.abc import Callable

FIRST, LAST = 1.0, 60.0
JITTER = 0.1


def uniform() -> float:
    """Return a random number between -1 and 1."""
    return random.uniform(-1, 1)  # noqa: S311 - spreads load, hides nothing


class Backoff:
    """Wait after a failure, by default 1 s, twice as long after each further one, 60 s at the most, ±10 %.

    It holds no lock: its owner guards it.

    Args:
        jitter: returns a number between -1 and 1.
        first: seconds after the first failure.
        last: seconds at the most.

    """

    def __init__(self, jitter: Callable[[], float] = uniform, *, first: float = FIRST, last: float = LAST) -> None:
        self._jitter = jitter
        self._first, self._last = first, last
        self._failures = 0
        self.retry_at = float("-inf")

    @property
    def is_failing(self) -> bool:
        """Whether the last attempt failed."""
        return self._failures > 0

    def failed(self, now: float, *, at_least: float = 0.0, began: float = math.inf) -> None:
        """Note a failure.

        Args:
            now: when it came.
            at_least: what the server asked for, in seconds.
            began: when the attempt began; one that began before the pause in force prolongs it without doubling it.

        """
        if began >= self.retry_at:
            self._failures += 1
        step = min(self._first * 2 ** min(self._failures - 1, 16), self._last) * (1 + JITTER * self._jitter())
        self.retry_at = max(self.retry_at, now + max(step, at_least))

    def succeeded(self) -> None:
        """Note a success: the next attempt need not wait."""
        self._failures = 0
        self.retry_at = float("-inf")
