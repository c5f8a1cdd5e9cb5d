"""Places of open streams that several processes count together: each stream is a member of its organization's set.

A place is taken for half a minute and taken again while its stream is open. So those of a process that has crashed come
free by themselves.
"""

import itertools
import math
import secrets
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import Future

from authz.errors import QuotaUnavailableError, ResourceExhaustedError
from authz.judge.streams import Stream
from authz.runtime import fork
from authz.runtime.alarms import Alarms
from authz.runtime.clock import SYSTEM_CLOCK, Clock, Moment
from authz.runtime.flow import Flow, Wait
from authz.store.connection import Script
from authz.store.leases import EMPTY, IfUnavailable
from authz.store.trips import PATIENCE, Request, Trips

LEASE_SECONDS = 30.0
"""How long a place is kept for a process that gives no sign of life."""

# How many places are taken again in one request.
_AT_ONCE = 500
# Seconds between attempts to take places again while the store does not answer.
_SOON = 1.0

# The set of an organization: its streams, each with the end of its lease as score, in milliseconds of the store.
# ARGV: milliseconds of a lease, streams at the most, the stream. Returns whether there is a place for it.
TAKE = Script("""\
local time = redis.call('TIME')
local now = time[1] * 1e3 + math.floor(time[2] / 1e3)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[2]) then return 0 end
redis.call('ZADD', KEYS[1], now + ARGV[1], ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return 1
""")
# ARGV: milliseconds of a lease, streams, which are open, whether or not they were forgotten meanwhile.
RENEW = Script("""\
local time = redis.call('TIME')
local ends = time[1] * 1e3 + math.floor(time[2] / 1e3) + ARGV[1]
for each = 2, #ARGV do redis.call('ZADD', KEYS[1], ends, ARGV[each]) end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return 1
""")
GIVE_BACK = Script("return redis.call('ZREM', KEYS[1], ARGV[1])")


class SharedPlaces:
    """The places of open streams, in all processes that share a store; see :class:`authz.judge.streams.Places`.

    While the store does not answer, or not within 50 ms, each process counts for itself against its share of the limit.

    Args:
        trips: lead to the store.
        replicas: returns how many processes share the limits, as far as is known; called without the store.
        if_unavailable: what happens to streams for which the store gives no place: ``local`` counts them here,
            ``deny`` refuses them.
        lease: seconds for which a place is taken; it is taken again three times as often.
        clock: only its ``monotonic`` is read.

    """

    def __init__(
        self,
        trips: Trips,
        *,
        replicas: Callable[[], int] = lambda: 1,
        if_unavailable: IfUnavailable = "local",
        lease: float = LEASE_SECONDS,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._trips, self._replicas, self._if_unavailable = trips, replicas, if_unavailable
        self._lease, self._monotonic = lease, clock.monotonic
        self._alarms = Alarms("authz-places", clock=clock)
        self.after_fork()
        fork.register(self)

    def after_fork(self) -> None:
        """Forget the streams, which are the parent's."""
        self._lock = threading.Lock()
        # The members of two processes must differ.
        self._own, self._numbers = secrets.token_hex(8), itertools.count()
        self._held: dict[Stream, tuple[str, str]] = {}
        self._full: dict[str, float] = {}
        self._is_renewing = False

    def __len__(self) -> int:
        """Return how many streams have a place."""
        return len(self._held)

    def check(self, org_id: str) -> None:
        """See :meth:`authz.judge.streams.Places.check`."""
        if self._full and self._monotonic() < self._full.get(org_id, 0):
            raise _full()

    def take(self, stream: Stream, org_id: str, at_most: int) -> Flow[float]:
        """See :meth:`authz.judge.streams.Places.take`."""
        self.check(org_id)
        with self._lock:
            if stream in self._held:
                return at_most
            member = f"{self._own}-{next(self._numbers)}"
            # From now on, so that what was taken is given back however this ends.
            self._held[stream] = org_id, member
            self._renew_later(self._lease / 3)
        try:
            found = None
            if self._trips.is_answering:
                answer: Future[int | None] = Future()
                self._send(TAKE, org_id, [at_most, member], answer.set_result)
                found = yield from _answer(answer, org_id)
        except BaseException:
            self.give_back(stream)
            raise
        if found == 1:
            return math.inf
        if found == 0 or self._if_unavailable == "deny":
            self.give_back(stream)
            if found is None:
                raise QuotaUnavailableError
            self._remember_full(org_id)
            raise _full()
        return max(at_most // max(self._replicas(), 1), 1)

    def give_back(self, stream: Stream) -> None:
        """See :meth:`authz.judge.streams.Places.give_back`."""
        with self._lock:
            org_id, member = self._held.pop(stream, ("", ""))
        # While the store does not answer, the lease ends by itself.
        if member and self._trips.is_open:
            self._send(GIVE_BACK, org_id, [member], _nothing, lease=False)

    def renew(self) -> None:
        """Take again the places of all open streams, if it is time; a thread does so."""
        self._alarms.ring()

    def close(self) -> None:
        """Give back all places."""
        for stream in list(self._held):
            self.give_back(stream)

    def _send(
        self, script: Script, org_id: str, args: list[str | int], then: Callable[..., object], *, lease: bool = True
    ) -> None:
        key = self._trips.store.key(f"s:{org_id}")
        self._trips.send(Request(script, key, [round(self._lease * 1000), *args] if lease else args, then))

    def _remember_full(self, org_id: str) -> None:
        now = self._monotonic()
        with self._lock:
            self._full = {org: until for org, until in self._full.items() if until > now}
            self._full[org_id] = now + EMPTY

    def _renew_later(self, seconds: float) -> None:
        if not self._is_renewing:
            self._is_renewing = True
            self._alarms.set(Moment(monotonic=self._monotonic() + seconds), self._renew)

    def _renew(self) -> None:
        members: defaultdict[str, list[str]] = defaultdict(list)
        with self._lock:
            self._is_renewing = False
            for org_id, member in self._held.values():
                members[org_id].append(member)
            if not members:
                return
            self._renew_later(self._lease / 3 if self._trips.is_answering else min(_SOON, self._lease / 3))
            # With the lock: a place that is given back meanwhile must not be taken again afterwards.
            for org_id, all_of_it in members.items() if self._trips.is_open else ():
                for some in _parts(all_of_it):
                    self._send(RENEW, org_id, some, _nothing)


def _answer(answer: "Future[int | None]", org_id: str) -> Flow[int | None]:
    try:
        found: int | None = yield Wait(answer, PATIENCE, whose=org_id)
    except TimeoutError:
        return None
    return found


def _parts(members: list[str]) -> Iterable[list[str | int]]:
    for start in range(0, len(members), _AT_ONCE):
        yield [*members[start : start + _AT_ONCE]]


def _full() -> ResourceExhaustedError:
    return ResourceExhaustedError("the organization has as many streams open as it may")


def _nothing(_answer: object) -> None:
    pass
