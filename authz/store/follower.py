"""The follower: has the orders in the store carried out here, and the store told what it lacks.

It loads all orders, and then reads the log from where that was. After every pause in the log, and whenever it was cut
off, it looks whether the log still goes on from the entry that it read last. Where it does not, it loads all orders
anew. Nothing is ever lifted by that: an order that the store has lost stays in force here, and is written back.
"""

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from authz.judge.orders.book import OrderBook
from authz.judge.orders.order import Order
from authz.runtime import fork, telemetry
from authz.runtime.backoff import Backoff
from authz.runtime.clock import SYSTEM_CLOCK, Clock
from authz.runtime.threads import Repeating
from authz.store.connection import Store, StoreError
from authz.store.orders_store import OrdersStore, Position
from authz.store.writer import Writer

# After so many seconds without an order it is looked whether all is well; a server that hangs is noticed so as well.
_BLOCK_SECONDS = 1.0
# What is wrong with a store whose orders count all the same.
_READABLE = frozenset({"version", "readonly", "full", "eviction"})


class Target(Protocol):
    """What obeys the orders: the operator of this process, or a supervisor with all its workers."""

    @property
    def book(self) -> OrderBook:
        """All orders that it knows."""

    def carry_out(self, orders: Iterable[Order]) -> object:
        """Carry out orders that have their times; they are in force when this returns."""

    def list_tokens(self, tokens: Iterable[tuple[str, float]]) -> object:
        """List tokens as revoked; they are when this returns."""


class Follower:
    """Keeps a target and the orders in a store alike, from ``start`` to ``stop``, in forked children as well.

    Args:
        store: the store.
        target: obeys; a few thousand orders at a time.
        applied: is called when more of the log is in force, on the follower's thread.
        clock: tells the time.

    Attributes:
        writer: tells the store what it lacks.
        applied: the id of the last entry of the log that is in force here; empty before all orders are.
        loads: how often all orders were loaded.
        orders: how many have come by the log.
        regressed: how often the store was found to have lost something.
        error: why the store cannot be read now; ``None`` while it can.

    """

    def __init__(
        self,
        store: Store,
        target: Target,
        *,
        applied: Callable[[], object] = lambda: None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._store, self._orders, self._target = store, OrdersStore(store), target
        self._tell, self._clock = applied, clock
        self.writer = Writer(store, target.book, clock=clock)
        self.applied = ""
        self.loads = self.orders = self.regressed = 0
        self.error: StoreError | None = None
        self._position: Position | None = None
        self._heard, self._check_at = clock.now(), 0.0
        self._pause = Backoff(first=0.05, last=0.4)
        self._is_connected = self._is_regressing = False
        self._reader = Repeating("authz-orders-reader", self.work)
        self.after_fork()
        fork.register(self)

    @property
    def is_this_thread(self) -> bool:
        """Whether this code runs in the thread that carries out what comes from the store."""
        return self._reader.is_this_thread

    @property
    def age(self) -> float:
        """Seconds since the store was last heard of, or since there is this follower."""
        return self._clock.since(self._heard)

    @property
    def ignored(self) -> int:
        """How many entries were no orders that could be carried out."""
        return self._orders.ignored

    def start(self) -> None:
        """Begin to follow."""
        self.writer.start()
        self._reader.start()

    def stop(self) -> None:
        """Stop following; takes a second or two. What was ordered stays in force."""
        self._reader.stop()
        self.writer.stop()
        self._orders.close()

    def wait(self, seconds: float) -> bool:
        """Wait until all orders in the store are in force here, and say whether they are."""
        return self._caught_up.wait(seconds)

    def send(self, orders: Sequence[Order]) -> None:
        """Have orders written into the store that are in force here; those that came from there are left out."""
        if not self._reader.is_stopped and not self.is_this_thread:
            self.writer.send(orders)

    def after_fork(self) -> None:
        """Wait in the child anew: the threads that wait in the parent are not there."""
        self._caught_up = threading.Event()
        if self.applied:
            self._caught_up.set()

    def work(self) -> float:
        """Read what comes next, and return after how many seconds to read on."""
        try:
            if not self._is_connected:
                self._connect()
            self._read()
        except StoreError as error:
            self._failed(error)
            return self._pause.retry_at - self._clock.monotonic()
        self._heard = self._clock.now()
        return 0.0

    def _connect(self) -> None:
        try:
            self._store.check()
        except StoreError as error:
            if error.reason not in _READABLE:
                raise
            telemetry.event(telemetry.WARNING, "store_unfit", error=str(error))
        self._continue()
        self._is_connected = True
        self._pause.succeeded()
        if self.error is not None:
            self.error = None
            telemetry.event(telemetry.INFO, "store_found", store=self._store.address)
        # It may have waited for this.
        self.writer.wake()

    def _read(self) -> None:
        assert self._position is not None  # noqa: S101 - since it has connected
        entries = self._orders.entries(self._position.id, _BLOCK_SECONDS)
        if entries:
            orders = self._orders.parsed(entry for _, entry in entries)
            self._target.carry_out(orders)
            self.orders += len(orders)
            self._apply(Position(self._position.epoch, *entries[-1]))
        # A store that was empty has got its name with the first order.
        if not (entries and self._position.epoch) or self._clock.monotonic() >= self._check_at:
            self._continue()

    def _continue(self) -> None:
        """Load all orders where the log does not go on from what was read last."""
        self._check_at = self._clock.monotonic() + _BLOCK_SECONDS
        found = "behind" if self._position is None else self._orders.continues(self._position)
        if found == "yes":
            return
        if found == "lost" and not self._is_regressing:
            self._is_regressing = True
            self.regressed += 1
            telemetry.event(telemetry.ERROR, "store_regressed", store=self._store.address)
        self._load()
        self._is_regressing = False

    def _load(self) -> None:
        book = self._target.book
        knows = len(book) + len(book.tokens) > 0
        position = self._orders.position()
        for orders in self._orders.pages():
            self._target.carry_out(orders)
        for tokens in self._orders.token_pages():
            self._target.list_tokens(tokens)
        self.loads += 1
        if knows:
            self.writer.compare()
        self._apply(position)
        self._caught_up.set()

    def _apply(self, position: Position) -> None:
        self._position, self.applied = position, position.id
        self._tell()

    def _failed(self, error: StoreError) -> None:
        self._is_connected = False
        self._orders.close()
        self._pause.failed(self._clock.monotonic())
        if self.error is None or self.error.reason != error.reason:
            telemetry.event(telemetry.WARNING, "store_lost", error=str(error))
        self.error = error
