"""How much each organization may call: a plan, and how much of it has been used in this process.

``pyrate-limiter`` counts by a token bucket (GCRA): one number for each organization, however much it calls.
"""

import functools
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple, Protocol

from cachetools import LRUCache

from authz.errors import ResourceExhaustedError
from authz.runtime import fork
from authz.runtime.clock import SYSTEM_CLOCK, Clock
from authz.runtime.flow import Flow, Wait

if TYPE_CHECKING:
    from pyrate_limiter import Decision

_State = tuple[float, ...]
_Count = Callable[[_State, int], "tuple[_State, Decision]"]

MAX_COUNTED = 100_000
"""How many organizations are counted at a time; beyond them the count of the one that called longest ago is lost."""

_MICROSECONDS = 1_000_000


class Quota(NamedTuple):
    """A plan.

    Args:
        name: its name in the policy.
        requests_per_second: how many calls an organization may make in the long run; ``None`` for any number.
        burst: how many it may make at once, after a pause.
        concurrent_streams: how many streams it may have open; ``None`` for any number.

    """

    name: str
    requests_per_second: float | None = None
    burst: int = 0
    concurrent_streams: int | None = None


class Awaited(NamedTuple):
    """What a call has to wait for before it can be counted, because other processes count as well.

    Args:
        whose: the organization.
        future: is done when the call should be counted again.
        seconds: how long to wait for it, from now on.
        until: when the call has waited long enough, however often it does so, by the clock of what counts.

    """

    whose: str
    future: "Future[None]"
    seconds: float
    until: float

    def wait(self) -> Flow[None]:
        """Wait, on whichever driver runs the flow; to have waited for too long is no error."""
        try:
            yield Wait(self.future, self.seconds, whose=self.whose)
        except TimeoutError:
            return


class Counting(Protocol):
    """Counts the calls of organizations: those of this process (:class:`Quotas`), or of several.

    Attributes:
        counts: how often which result came of what takes more than counting here, for operators.

    """

    counts: Mapping[str, int]

    def check(self, org_id: str, quota: Quota) -> None:
        """Check that the organization could make one more call now, without counting one and without waiting.

        Raises:
            ResourceExhaustedError: it could not.
            UnavailableError: that cannot be said now.

        """

    def take(self, org_id: str, quota: Quota, waited: Awaited | None = None) -> Awaited | None:
        """Count one more call, without waiting.

        Args:
            org_id: the organization.
            quota: its plan.
            waited: what the call has waited for already.

        Returns:
            ``None`` if the call is counted. Otherwise what it must wait for, to be counted then; by that time it may
            be one that is to be refused.

        Raises:
            ResourceExhaustedError: the organization has used up its quota; this call is not counted.
            UnavailableError: that cannot be said now.

        """


class Quotas:
    """How much of their plans organizations have used. Never waits; one object serves any number of threads.

    When the policy changes, the counts of a plan that keeps its rate and burst go on; others start anew.

    Args:
        clock: only its ``monotonic`` is read, so that setting the system's clock gains no calls.
        max_counted: how many organizations are counted at a time.

    """

    counts: Mapping[str, int] = MappingProxyType({})

    def __init__(self, *, clock: Clock = SYSTEM_CLOCK, max_counted: int = MAX_COUNTED) -> None:
        self._monotonic = clock.monotonic
        self._max_counted = max_counted
        self.after_fork()
        fork.register(self)

    def check(self, org_id: str, quota: Quota) -> None:
        """Check that the organization could make one more call now, without counting one.

        Raises:
            ResourceExhaustedError: it could not.

        """
        self._count(org_id, quota, is_made=False)

    def take(self, org_id: str, quota: Quota, _waited: Awaited | None = None) -> None:
        """Count one more call.

        Raises:
            ResourceExhaustedError: the organization has used up its quota; this call is not counted.

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
                    # A call that is only checked must not displace another organization's count.
                    self._buckets[key] = bucket
            used, decision = bucket.count(bucket.used, now)
            if is_made:
                # Unchanged if the call is refused.
                bucket.used = used
        if not decision.allowed:
            raise ResourceExhaustedError(retry_after=(decision.retry_after_ms or 0) / _MICROSECONDS)


class _Bucket:
    """How much of one rate one organization has used."""

    __slots__ = ("count", "used")

    def __init__(self, count: _Count) -> None:
        self.count = count
        self.used: _State = (0,)


@functools.lru_cache(256)
def counter_of(requests_per_second: float, burst: int) -> _Count:
    """Return the function that takes what was used, and the microsecond of one more call, and decides about that call.

    Raises:
        ModuleNotFoundError: the extra ``policy`` is not installed.

    """
    from pyrate_limiter import GCRA, Rate  # noqa: PLC0415 - the extra's

    # The library means milliseconds, but only compares them, and a millisecond would be coarse. It takes limits as
    # whole numbers only, so the limit is for a million seconds.
    rates = [Rate(round(requests_per_second * 1_000_000), 1_000_000 * _MICROSECONDS, burst=burst)]
    algorithm = GCRA()
    return lambda used, now: algorithm.step(rates, used, now, 1)
