"""Quotas that several processes count together: each takes calls from the store by the dozen, and hands them out.

A lease is a number of calls that the store has counted already. So what is lost with an answer, or with a process, is
lost to the organization and never counted twice; and however many processes there are, all of them together admit no
more than the plan.
"""

import functools
import math
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Literal

from authz.errors import QuotaUnavailableError, ResourceExhaustedError
from authz.organizations.quota import MAX_COUNTED, Awaited, Quota
from authz.runtime import fork
from authz.runtime.alarms import Alarms
from authz.runtime.clock import SYSTEM_CLOCK, Clock, Moment
from authz.store.connection import Script
from authz.store.trips import PATIENCE, Request, Trips

IfUnavailable = Literal["local", "deny"]

MOST = 50
"""How many calls a lease holds at the most; it is also at most a tenth of what the organization may make just now."""

UNUSED = 1.0
"""Seconds after which what is left of a lease goes back."""

EMPTY = 0.05
"""Seconds for which a process remembers that an organization has used up its quota, and asks no more about it."""

# The next lease is asked for when a fifth of what there is is left.
_LAST_PART = 5

_MICROSECONDS = 1_000_000
# Seconds; what doubles cannot tell apart is no reason to refuse a call.
_ROUNDING = 1e-6

# GCRA: one number for each organization, the time at which its bucket will be full again, in microseconds. Lua counts
# in doubles, which hold such times exactly; what a lease costs is rounded up, so that the plan is never exceeded.
# ARGV: microseconds for each call, burst, calls at the most, calls that were made without asking (negative if calls are
# given back). Those may cost one burst more than there is, for that much may have been admitted without asking.
# Returns the calls of the lease, and the microseconds until the bucket is full.
LEASE = Script("""\
local time = redis.call('TIME')
local now, gap, burst = time[1] * 1e6 + time[2], tonumber(ARGV[1]), tonumber(ARGV[2])
local full = math.max(tonumber(redis.call('GET', KEYS[1]) or 0), now) + math.ceil(ARGV[4] * gap)
full = math.min(math.max(full, now), now + math.ceil(2 * burst * gap))
local held = burst - (full - now) / gap
local lease = math.max(math.floor(math.min(held, tonumber(ARGV[3]), math.max(held / 10, 1))), 0)
full = full + math.ceil(lease * gap)
if lease ~= 0 or ARGV[4] ~= '0' then
  redis.call('SET', KEYS[1], string.format('%.0f', full), 'PX', math.ceil((full - now) / 1000) + 1)
end
return {lease, full - now}
""")


class SharedQuotas:
    """How much of their plans organizations have used, in all processes that share a store.

    A call is counted against the lease of its organization, which takes no trip. Where none is left, the call waits for
    the next lease, together with all others of the organization, for 50 ms at the most. While the store does not
    answer, or not soon enough, no call waits: each process counts for itself against its share of the plan, beginning
    with its share of what there was when the store last answered. Later it tells the store of the calls that it has
    admitted so.

    Args:
        trips: lead to the store.
        replicas: returns how many processes share the plans, as far as is known; called without the store.
        if_unavailable: what happens to calls for which the store gives no lease: ``local`` counts them here, ``deny``
            refuses them.
        clock: only its ``monotonic`` is read; the plans themselves go by the clock of the store.
        max_counted: how many organizations are counted at a time.

    Attributes:
        counts: how many leases were ``granted``, how many requests found the quota used up (``empty``), and how many
            calls were counted here because there was no lease in time (``local``).

    """

    def __init__(
        self,
        trips: Trips,
        *,
        replicas: Callable[[], int] = lambda: 1,
        if_unavailable: IfUnavailable = "local",
        clock: Clock = SYSTEM_CLOCK,
        max_counted: int = MAX_COUNTED,
    ) -> None:
        self._trips, self._replicas, self._if_unavailable = trips, replicas, if_unavailable
        self._monotonic, self._max_counted = clock.monotonic, max_counted
        self._alarms = Alarms("authz-leases", clock=clock)
        self._counts = {"granted": 0, "empty": 0, "local": 0}
        self.counts: Mapping[str, int] = self._counts
        self.after_fork()
        fork.register(self)

    def after_fork(self) -> None:
        """Forget the leases, which are the parent's: a child takes its own."""
        self._lock = threading.Lock()
        self._leases: dict[tuple[str, float, int], _Lease] = {}

    def __len__(self) -> int:
        """Return how many organizations have a lease, or wait for one, or are remembered to get none."""
        return len(self._leases)

    def check(self, org_id: str, quota: Quota) -> None:
        """See :meth:`authz.organizations.quota.Counting.check`."""
        if quota.requests_per_second is None:
            return
        lease = self._leases.get((org_id, quota.requests_per_second, quota.burst))
        if lease is None or lease.left:
            return
        lease.check(self._monotonic())
        if not self._trips.is_answering:
            self._count_here(lease, is_made=False)

    def take(self, org_id: str, quota: Quota, waited: Awaited | None = None) -> Awaited | None:
        """See :meth:`authz.organizations.quota.Counting.take`."""
        rate = quota.requests_per_second
        if rate is None:
            return None
        key = org_id, rate, quota.burst
        with self._lock:
            lease = self._leases.get(key)
            if lease is not None and lease.left:
                lease.left -= 1
                if lease.left == lease.low and self._trips.is_answering:
                    # The next lease comes while this one lasts, so that no call waits for it.
                    self._ask(lease)
                return None
            if lease is None:
                lease = self._new_lease(key)
            now = self._monotonic()
            lease.check(now)
            if self._trips.is_answering:
                until = now + PATIENCE if waited is None else waited.until
                if now < until:
                    return Awaited(org_id, self._ask(lease), until - now, until)
            elif self._trips.is_open:
                self._ask(lease)
            self._count_here(lease, is_made=True)
        return None

    def settle(self) -> None:
        """Give back what leases have left, and tell the store of calls that were counted here; a thread does so."""
        self._alarms.ring()

    def close(self) -> None:
        """Give back what is left of every lease."""
        with self._lock:
            for lease in self._leases.values():
                self._settle(lease, lease.left)
            self._leases.clear()

    def _count_here(self, lease: "_Lease", *, is_made: bool) -> None:
        if self._if_unavailable == "deny":
            raise QuotaUnavailableError
        lease.count_here(self._monotonic(), max(self._replicas(), 1), is_made=is_made)
        self._counts["local"] += is_made

    def _new_lease(self, key: tuple[str, float, int]) -> "_Lease":
        if len(self._leases) >= self._max_counted:
            # Its calls are lost to the organization that has had it longest.
            del self._leases[next(iter(self._leases))]
        lease = self._leases[key] = _Lease(key)
        self._look_later(lease)
        return lease

    def _ask(self, lease: "_Lease") -> "Future[None]":
        """Ask for the next lease, unless that is being done; return what is done when there is an answer."""
        if lease.answer is None:
            lease.answer = Future()
            owed = lease.take_owed(self._monotonic())
            self._send(lease, MOST, owed, functools.partial(self._answered, lease, owed))
        return lease.answer

    def _send(self, lease: "_Lease", most: int, owed: int, then: "Callable[[list[int] | None], object]") -> None:
        org_id, rate, burst = lease.key
        key = self._trips.store.key(f"q:{org_id}:{rate!r}:{burst}")
        self._trips.send(Request(LEASE, key, (repr(_MICROSECONDS / rate), burst, most, owed), then))

    def _answered(self, lease: "_Lease", owed: int, answer: list[int] | None) -> None:
        with self._lock:
            future, lease.answer = lease.answer, None
            if answer is None:
                # It may have been told all the same: then it counts these calls twice, rather than not at all.
                lease.owed += owed
            else:
                self._counts["granted" if answer[0] else "empty"] += 1
                lease.hear(self._monotonic(), *answer)
        if future is not None:
            future.set_result(None)

    def _told(self, lease: "_Lease", owed: int, answer: list[int] | None) -> None:
        if answer is None:
            with self._lock:
                lease.owed += max(owed, 0)

    def _settle(self, lease: "_Lease", unused: int) -> None:
        lease.left -= unused
        if (unused or lease.owed) and self._trips.is_open:
            owed = lease.take_owed(self._monotonic()) - unused
            self._send(lease, 0, owed, functools.partial(self._told, lease, owed))

    def _look_later(self, lease: "_Lease") -> None:
        self._alarms.set(Moment(monotonic=self._monotonic() + UNUSED), functools.partial(self._look_at, lease))

    def _look_at(self, lease: "_Lease") -> None:
        with self._lock:
            if self._leases.get(lease.key) is not lease:
                return
            now = self._monotonic()
            if lease.answer is None:
                self._settle(lease, lease.left if now >= lease.granted_at + UNUSED else 0)
            if lease.left or lease.owed or lease.answer is not None or now < lease.empty_until:
                self._look_later(lease)
            else:
                del self._leases[lease.key]


class _Lease:
    """What one organization has of one plan in this process. Its owner guards it."""

    __slots__ = (
        *("answer", "empty_until", "full_at", "gap", "granted_at", "key", "left", "low", "owed", "ready_at"),
        "seconds_to_full",
    )

    def __init__(self, key: tuple[str, float, int]) -> None:
        self.key = key
        self.left = 0
        """How many calls of the lease are left."""
        self.low = -1
        """With how many left the next lease is asked for."""
        self.granted_at = 0.0
        self.empty_until = self.ready_at = 0.0
        self.answer: Future[None] | None = None
        """Is done when the request that is under way has an answer; ``None`` if there is none."""
        self.seconds_to_full: float | None = None
        """How long the bucket in the store would have taken to be full, when it last answered."""
        self.full_at: float | None = None
        """When the bucket of this process will be full, from which calls are taken without a lease."""
        self.gap = 0.0
        """Seconds for each call from that bucket."""
        self.owed = 0
        """Calls from it of which the store has not been told."""

    def check(self, now: float) -> None:
        """Check that the quota is not known to be used up.

        Raises:
            ResourceExhaustedError: it is.

        """
        if now < self.empty_until:
            raise ResourceExhaustedError(retry_after=max(self.ready_at - now, 0.0))

    def hear(self, now: float, calls: int, microseconds: int) -> None:
        """Take in what the store has said: how many calls it grants, and when its bucket will be full."""
        _, rate, burst = self.key
        self.seconds_to_full, self.full_at = microseconds / _MICROSECONDS, None
        if calls:
            self.left += calls
            self.low = self.left // _LAST_PART if calls >= _LAST_PART else -1
            self.granted_at = now
        else:
            self.empty_until, self.ready_at = now + EMPTY, now + self.seconds_to_full - (burst - 1) / rate

    def count_here(self, now: float, replicas: int, *, is_made: bool) -> None:
        """Count a call, if it is made, against this process's share of the plan.

        Raises:
            ResourceExhaustedError: it is used up.

        """
        _, rate, burst = self.key
        gap, most = replicas / rate, max(burst // replicas, 1)
        full_at = self.full_at
        if full_at is None:
            held = most if self.seconds_to_full is None else (burst - self.seconds_to_full * rate) / replicas
            # Kept even if this call is refused: from here on the bucket fills.
            full_at = self.full_at = now + (most - min(held, most)) * gap
            self.gap = gap
        full_at = max(full_at, now) + gap
        wait = full_at - most * gap - now
        if wait > _ROUNDING:
            raise ResourceExhaustedError(retry_after=wait)
        if is_made:
            self.full_at, self.gap = full_at, gap
            self.owed += 1

    def take_owed(self, now: float) -> int:
        """Return of how many calls the store is to be told now."""
        # What has flowed into the bucket of this process meanwhile has flowed into the store's as well.
        missing = self.owed if self.full_at is None else math.ceil((self.full_at - now) / self.gap)
        owed, self.owed = min(self.owed, max(missing, 0)), 0
        return owed
