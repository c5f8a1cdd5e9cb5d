"""The loop that follows the events of WorkOS: reads a page, puts its orders in force, moves the cursor.

Whatever fails is done again from the cursor, which moves last: events are read twice rather than never, and orders
that are known already do no harm. So any process may end at any moment, and the next one goes on.
"""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Protocol, get_args

from authz.judge.orders.order import Order
from authz.runtime import telemetry
from authz.runtime.asking import NoAnswerError
from authz.runtime.backoff import Backoff
from authz.runtime.clock import SYSTEM_CLOCK, Clock
from authz.runtime.network import causes
from authz.runtime.threads import Repeating
from authz.server.workos.events import WORKOS, EventName, Page
from authz.server.workos.place import Cursor, Place

MAX_EVENTS = 100
"""How many events WorkOS gives at a time, at the most."""

FIRST_SECONDS = 86_400.0
"""How far back to begin where there is no cursor: no token is good for longer."""

# Where WorkOS does not know the cursor: its clocks may differ among themselves by so much.
_OVERLAP_SECONDS = 60.0
# How often to say that this process still leads, or to look whether the one that leads is gone.
_LEAD_SECONDS = 2.0
# Between two questions at the most, however often it is nudged; so often one that leads looks whether another was.
_NUDGE_SECONDS = 0.5
# Between two full pages: WorkOS takes 100 requests a second.
_PACE_SECONDS = 0.1
_LONGEST_PAUSE = 15.0
# After so long without a failure of its own, one that does not lead says the next one again.
_FORGET_SECONDS = 60.0
# What asking for fewer events may help against.
_SLOW = frozenset({"too_large", "timeout"})


class Source(Protocol):
    """What gives pages of events, see :class:`authz.server.workos.api.EventsApi`."""

    def page(self, cursor: Cursor, limit: int, now: float) -> Page:
        """Return what has happened after the cursor."""

    def close(self) -> None:
        """End what is under way."""


class WorkOSEvents:
    """Puts in force what happens in WorkOS, on a thread, from ``start`` to ``stop``; of several replicas one does.

    Args:
        api: gives the events.
        place: keeps the cursor, and puts orders in force.
        interval: seconds between two questions.
        issuer: the issuer of WorkOS, if the organizations of others may have the same ids.
        is_told: whether webhooks are taken, here or in other replicas, so that :meth:`nudge` may be called there.
        clock: tells the time.

    Attributes:
        counts: how many events have become orders, by their name, and how many were none (``other``).
        is_leading: whether this process is the one that follows.
        error: why the last page could not be had, or not be kept; empty if it was.

    """

    def __init__(
        self,
        api: Source,
        place: Place,
        *,
        interval: float = 2.0,
        issuer: str = "",
        is_told: bool = False,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._api, self._place, self._interval, self._issuer, self._clock = api, place, interval, issuer, clock
        self.counts = Counter[str](dict.fromkeys((*get_args(EventName), "other"), 0))
        self.is_leading, self.error = False, ""
        self._is_led_elsewhere = False
        self._cursor: Cursor | None = None
        self._kept: Cursor | None = None
        self._limit = MAX_EVENTS
        self._pause = Backoff(last=_LONGEST_PAUSE)
        self._ask_at = self._lead_at = self._nudge_at = -math.inf
        self._is_told, self._is_nudged = is_told, False
        self._heard = self._failed_at = clock.now()
        self._thread = Repeating("authz-workos-events", self.work)
        self.start = self._thread.start

    @property
    def age(self) -> float:
        """Seconds since WorkOS was last heard here, or since there is this object."""
        return self._clock.since(self._heard)

    @property
    def is_up(self) -> bool:
        """Whether the events are followed, as far as is known here."""
        return not self.error or self._is_led_elsewhere

    @property
    def cursor(self) -> Cursor | None:
        """How far events have become orders, as far as that is known here."""
        return self._kept

    def stop(self) -> None:
        """Stop following, and let another process begin."""
        # Whatever it waits for ends.
        self._api.close()
        self._thread.stop()
        self._api.close()
        self._place.leave()

    def nudge(self) -> None:
        """Have WorkOS asked soon, by the process that follows; never blocks.

        However often this is called, it counts as once in half a second, and no pause that WorkOS asked for is cut.
        """
        # Noted first: the thread forgets it when it acts on it.
        if not self._is_nudged:
            self._is_nudged = True
            self._thread.wake()

    def work(self) -> float:
        """Do what is to be done now, and return after how many seconds there is more."""
        try:
            is_leading = self._leads()
            self._hear_nudges()
            if is_leading and self._clock.monotonic() >= self._ask_at:
                self._ask()
        except NoAnswerError as failure:
            self._failed(failure)
        next_at = min(self._ask_at, self._lead_at) if self.is_leading else self._lead_at
        if self._is_nudged or (self._is_told and self.is_leading):
            next_at = min(next_at, self._nudge_at)
        return max(0.0, next_at - self._clock.monotonic())

    def _hear_nudges(self) -> None:
        now = self._clock.monotonic()
        if now < self._nudge_at:
            return
        self._nudge_at = now + _NUDGE_SECONDS
        is_nudged, self._is_nudged = self._is_nudged, False
        if not self.is_leading:
            if is_nudged:
                self._place.nudge()
        elif is_nudged or (self._is_told and self._place.is_nudged()):
            self._ask_at = min(self._ask_at, max(now, self._pause.retry_at))

    def _leads(self) -> bool:
        now = self._clock.monotonic()
        if now >= self._lead_at:
            was_leading, self.is_leading = self.is_leading, self._place.lead()
            self._lead_at, self._is_led_elsewhere = now + _LEAD_SECONDS, not self.is_leading
            if self.is_leading and not was_leading:
                # Another one may have moved it.
                self._cursor, self._ask_at = None, now
                telemetry.event(telemetry.INFO, "source_followed", source=WORKOS)
            elif not self.is_leading and self._clock.since(self._failed_at) >= _FORGET_SECONDS:
                self.error = ""
        return self.is_leading

    def _ask(self) -> None:
        if self._cursor is None:
            self._kept = self._place.cursor()
            self._cursor = self._kept or Cursor("", self._clock.time() - FIRST_SECONDS)
        page = self._api.page(self._cursor, self._limit, self._clock.time())
        self._heard = self._clock.now()
        self._take(page, self._cursor)
        self._limit = min(self._limit * 2, MAX_EVENTS)

    def _take(self, page: Page, before: Cursor) -> None:
        """Put in force what a page says, and move the cursor to its end."""
        now = self._clock.time()
        orders = [event.order(now, self._issuer) for event in page.events]
        cursor = before
        for event in page.events:
            cursor = Cursor(event.id, before.at if event.at is None else min(event.at, now))
        if page.events and cursor.id == before.id:
            # What was read already: there would be no end.
            raise NoAnswerError("not events")
        found = [order for order in orders if order is not None]
        if cursor != self._kept:
            if not self._place.move(found, cursor):
                # It was this one's turn no longer.
                self.is_leading, self._lead_at = False, -math.inf
                return
            self._kept = cursor
        self._cursor = cursor
        self._ask_at = self._clock.monotonic() + (_PACE_SECONDS if page.has_more and page.events else self._interval)
        self._count(page, orders)
        self._succeeded()

    def _count(self, page: Page, orders: Sequence[Order | None]) -> None:
        for event, order in zip(page.events, orders, strict=True):
            self.counts["other" if order is None else event.name] += 1
        ignored = page.unread + orders.count(None)
        self.counts["other"] += page.unread
        if ignored:
            telemetry.event(telemetry.WARNING, "source_events_ignored", source=WORKOS, events=ignored)

    def _succeeded(self) -> None:
        self._pause.succeeded()
        if self.error:
            telemetry.event(telemetry.INFO, "source_recovered", source=WORKOS)
        self.error = ""

    def _failed(self, failure: NoAnswerError) -> None:
        now, cause = self._clock.monotonic(), str(failure)
        if failure.is_about_one and self._cursor is not None and self._cursor.id:
            # An event that WorkOS has forgotten, or that was another environment's: by the time there is a way on.
            self._cursor = Cursor("", max(0.0, self._cursor.at - _OVERLAP_SECONDS))
            telemetry.event(telemetry.WARNING, "source_cursor_unknown", source=WORKOS)
            return
        if cause in _SLOW and self._limit > 1:
            self._limit = max(1, self._limit // 4)
        self._pause.failed(now, at_least=failure.pause)
        self._ask_at, self._cursor, self._failed_at = self._pause.retry_at, None, self._clock.now()
        if causes.label(cause) != "status 4xx" or failure.is_ours:
            # Perhaps another process has better luck. Where WorkOS asks for patience, it would not.
            self._place.leave()
            self.is_leading, self._lead_at = False, self._pause.retry_at
        if cause != self.error:
            level = telemetry.ERROR if failure.is_ours else telemetry.WARNING
            telemetry.event(level, "source_failed", source=WORKOS, error=cause)
        self.error = cause
