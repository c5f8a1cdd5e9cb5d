"""Tells the store what it does not know: orders that were given here, and those that it has lost."""

import contextlib
import os
import secrets
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import islice

from authz.judge.orders.book import OrderBook, is_over
from authz.judge.orders.operator import listing
from authz.judge.orders.order import Order, Subject
from authz.runtime import telemetry
from authz.runtime.backoff import Backoff
from authz.runtime.clock import SYSTEM_CLOCK, Clock
from authz.runtime.threads import Repeating
from authz.store.connection import Store, StoreError
from authz.store.orders_store import PAGE, OrdersStore

# Who writes back says so again with every page.
_LEASE_SECONDS = 10.0
_WAIT_SECONDS = 0.3
_FORGET_SECONDS = 3600.0
# More than so many are found by comparing.
_MOST_UNSENT = 10_000


class Writer:
    """A thread that writes orders into a store; one replica at a time writes back what that has lost.

    Args:
        store: the store.
        book: all orders that are known here.
        clock: tells the time.

    Attributes:
        sent: how many orders that were given here the store has taken.
        written_back: how many that it lacked it has taken.
        failures: how often it did not take any.
        lacks: whether it may lack something that is known here.

    """

    def __init__(self, store: Store, book: OrderBook, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._orders, self._book, self._clock = OrdersStore(store), book, clock
        self._name = secrets.token_hex(8)
        self.sent = self.written_back = self.failures = 0
        self.lacks = False
        self._unsent: deque[Order] = deque(maxlen=_MOST_UNSENT)
        self._forget_at = clock.monotonic() + _FORGET_SECONDS
        self._pause = Backoff()
        self._told = ""
        self._thread = Repeating("authz-orders-writer", self.work)
        self.start, self.wake = self._thread.start, self._thread.wake

    def stop(self) -> None:
        """End the thread; what was given until now is written, if the store takes it."""
        self._thread.stop()
        with contextlib.suppress(StoreError):
            self._send()

    def send(self, orders: Sequence[Order]) -> None:
        """Have orders written that were given here; does not wait for that."""
        if len(self._unsent) + len(orders) > _MOST_UNSENT:
            self.lacks = True
        self._unsent.extend(orders)
        self.wake()

    def compare(self) -> None:
        """Have all that is known here compared with the store, and written back where it lacks something."""
        self.lacks = True
        self.wake()

    def work(self) -> float:
        """Do what is to be done, and return after how many seconds there may be more."""
        now = self._clock.monotonic()
        try:
            is_done = self._send() and (not self.lacks or self._write_back())
            if is_done and now >= self._forget_at:
                self._forget_at = now + _FORGET_SECONDS
                self._orders.forget()
        except StoreError as error:
            self._failed(error)
            return self._pause.retry_at - now
        self._pause.succeeded()
        self._told = ""
        return max(0.0, self._forget_at - now) if is_done else _WAIT_SECONDS

    def _send(self) -> bool:
        unsent = list(self._unsent)
        if unsent:
            # Kept until they are written: what fails on the way is sent again, or found by comparing.
            self.sent += self._orders.restore(unsent)
            for _ in unsent:
                self._unsent.popleft()
        return not self._unsent

    def _write_back(self) -> bool:
        """Compare and write back; say whether the store lacks nothing any more."""
        self.lacks = False
        # A forked child is another one.
        name, written, has_lease = f"{self._name}-{os.getpid()}", 0, False
        known = known_orders(self._book, self._clock.time())
        while page := list(islice(known, PAGE)):
            lacking = self._orders.lacking(page)
            if lacking:
                has_lease = self._orders.may_write_back(name, _LEASE_SECONDS)
                if not has_lease:
                    break
                taken = self._orders.restore(lacking)
                written += taken
                # At once: the next page may fail.
                self.written_back += taken
        else:
            lacking = []
        if has_lease:
            self._orders.may_write_back(name, 0)
        if written:
            telemetry.event(telemetry.WARNING, "orders_written_back", orders=written)
        if lacking or written:
            # Another replica writes back, or had to wait for this one: all is compared once more.
            self.lacks = True
        return not self.lacks

    def _failed(self, error: StoreError) -> None:
        self._pause.failed(self._clock.monotonic())
        self.failures += 1
        self.lacks = True
        # That the store is away, its reader logs.
        if not error.is_away and error.reason != self._told:
            self._told = error.reason
            telemetry.event(telemetry.WARNING, "orders_not_written", error=str(error))


def known_orders(book: OrderBook, now: float) -> Iterator[Order]:
    """Yield all orders of a book that still say something at ``now``, also those that list a token."""
    yield from (order for order in book if not is_over(order, now))
    for name, end in book.tokens:
        order = listing(name, end)
        if end > now and book.get(Subject("revoke", "token", order.id, order.issuer)) is None:
            yield order
