"""How much each organization may call: a plan, and what has been used of it in this process.

The counting is a token bucket's (GCRA), by ``pyrate-limiter``: one number for each organization, however much it calls.
"""

import functools
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from cachetools import LRUCache

from authz.errors import ResourceExhaustedError
from authz.runtime import fork
from authz.runtime.clock import SYSTEM_CLOCK, Clock

if TYPE_CHECKING:
    from pyrate_limiter import Decision

_State = tuple[float, ...]
_Count = Callable[[_State, int], "tuple[_State, Decision]"]

MAX_COUNTED = 100_000
"""How many organizations are counted at a time; beyond them the one that called longest ago starts anew."""

_MICROSECONDS = 1_000_000


class Quota(NamedTuple):
    """A plan.

    Args:
        name: what the policy calls it.
        requests_per_second: how many calls an organization may make in the long run; ``None`` for any number.
        burst: how many it may make at once, after it has been quiet.
        concurrent_streams: how many streams it may have open; ``None`` for any number.

    """

    name: str
    requests_per_second: float | None = None
    burst: int = 0
    concurrent_streams: int | None = None


class Quotas:
    """What organizations have used of their plans. Never waits; one object serves any number of threads.

    Counts go on where a plan keeps its rate, whatever else becomes of the policy, and start anew where that changes.

    Args:
        clock: only its ``monotonic`` is read, so that nobody gains by a clock that is set.
        max_counted: how many organizations are counted at a time.

    """

    def __init__(self, *, clock: Clock = SYSTEM_CLOCK, max_counted: int = MAX_COUNTED) -> None:
        self._monotonic = clock.monotonic
        self._max_counted = max_counted
        self.after_fork()
        fork.register(self)

    def check(self, org_id: str, quota: Quota) -> None:
        """Check that one more call could be made now; it is not counted.

        Raises:
            ResourceExhaustedError: it could not.

        """
        self._count(org_id, quota, is_made=False)

    def take(self, org_id: str, quota: Quota) -> None:
        """Count one more call.

        Raises:
            ResourceExhaustedError: the organization has made as many as it may; this one is not counted.

        """
        self._count(org_id, quota, is_made=True)

    def after_fork(self) -> None:
        """Count afresh: a child counts for itself."""
        self._lock = threading.Lock()
        self._buckets: LRUCache[tuple[str, float, int], _Bucket] = LRUCache(self._max_counted)

    def _count(self, org_id: str, quota: Quota, *, is_made: bool) -> None:
        rate, burst = quota.requests_per_second, quota.burst
        if rate is None:
            return
        key = (org_id, rate, burst)
        now = round(self._monotonic() * _MICROSECONDS)
        with self._lock:
            bucket = self._buckets.get(key)
            if bucket is None:
                bucket = _Bucket(counter_of(rate, burst))
                if is_made:
                    # Whoever only asks takes nobody's place.
                    self._buckets[key] = bucket
            used, decision = bucket.count(bucket.used, now)
            if is_made:
                # As it was, if the call may not be made.
                bucket.used = used
        if not decision.allowed:
            raise ResourceExhaustedError(retry_after=(decision.retry_after_ms or 0) / _MICROSECONDS)


class _Bucket:
    """What one organization has used of one rate."""

    __slots__ = ("count", "used")

    def __init__(self, count: _Count) -> None:
        self.count = count
        self.used: _State = (0,)


@functools.lru_cache(256)
def counter_of(requests_per_second: float, burst: int) -> _Count:
    """Return what says of one more call, at some microsecond, whether it may be made, and what is used by then.

    Raises:
        ModuleNotFoundError: the extra ``policy`` is not installed.

    """
    from pyrate_limiter import GCRA, Rate  # noqa: PLC0415 - the extra's

    # To the library these are milliseconds, but it only compares them, and a millisecond would be coarse. Limits are
    # whole numbers there, so what is told is how many calls there may be in a million seconds.
    rates = [Rate(round(requests_per_second * 1_000_000), 1_000_000 * _MICROSECONDS, burst=burst)]
    algorithm = GCRA()
    return lambda used, now: algorithm.step(rates, used, now, 1)
