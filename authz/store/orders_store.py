"""Orders in the store: of each subject the latest, and a log of all, which replicas read on from where they were.

A hash holds the latest order about each subject; a sorted set the revoked tokens, each with its end, for there may be a
million; a stream everything in the order in which it came. One script writes all three in one step, and takes no order
that is older than what it knows. So nothing is lost between the load of the state and the reading of the log, what
is read twice does no harm, and what a store has lost can be brought back from replicas.
"""

import math
import secrets
import time
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Literal, NamedTuple

from authz.errors import ConfigError
from authz.judge.orders.book import OrderBook, is_over
from authz.judge.orders.order import Order, Subject
from authz.judge.orders.tokens import member
from authz.runtime import telemetry
from authz.store.connection import FORMAT, OwnClient, Store, StoreError
from authz.store.entries import (
    FIELD,
    FORGET,
    LEASE,
    TOKEN,
    WRITE,
    Name,
    at_text,
    ending,
    entry_of,
    escaped,
    is_behind,
    is_over_text,
    number_of,
    parsed,
    spelled_out,
    subject_of,
    subject_text,
)

MAX_LOG = 100_000
"""How many orders the log keeps, about: who was away for longer loads all of them anew."""

PAGE = 1000
"""How many orders are written in one step, which takes the store some 20 ms."""


# How often it is logged that something was ignored.
_TELL_SECONDS = 10.0


class Position(NamedTuple):
    """How far the log was read, and in which one.

    Args:
        epoch: the name that the store got with its first order; empty before.
        id: of the entry that was read last; ``0-0`` if there was none.
        entry: what it says.

    """

    epoch: bytes = b""
    id: str = "0-0"
    entry: bytes = b""


class OrdersStore:
    """The orders in a store.

    Args:
        store: the store.

    Attributes:
        ignored: how many entries were no orders that could be carried out.

    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._state, self._tokens, self._log, self._epoch = (
            store.key(f"{{orders}}:{name}") for name in ("state", "tokens", "log", "epoch")
        )
        self._reader = OwnClient()
        self._reader_seconds = 0.0
        self.ignored = self._told = 0
        self._tell_at = -math.inf

    def write(self, orders: Sequence[Order]) -> str:
        """Write orders that are given now: they get their times of the store's clock, after what it knows already.

        One that takes back what was ordered about a name without saying whose takes it back for every issuer.

        Args:
            orders: what is ordered.

        Returns:
            The id of the last entry in the log: a replica that has applied that one obeys these orders.

        Raises:
            ConfigError: an order that says nothing that can be carried out.
            StoreError: they are not all written, as far as is known; to write them again does no harm.

        """
        now = time.time()
        for order in orders:
            order.check()
        new = [ending(order, now)._replace(at=0) for order in spelled_out(orders, partial(_named, self._store))]
        return self._write([entry_of(order, "") for order in new])[0]

    def restore(self, orders: Iterable[Order]) -> int:
        """Write orders that have their times, and tokens that are listed, where the store knows no later ones.

        Returns:
            How many were news to it.

        Raises:
            StoreError: they are not all written, as far as is known; to write them again does no harm.

        """
        return self._write([entry_of(order, at_text(order)) for order in orders])[1]

    def load(self) -> tuple[OrderBook, str]:
        """Return all orders, and the id of the entry from which on the log says what comes later.

        Raises:
            StoreError: the store did not give them all.

        """
        position, book = self.position(), OrderBook()
        for orders in self.pages():
            for order in orders:
                book.take(order)
        for tokens in self.token_pages():
            book.tokens.add(tokens)
        return book, position.id

    def read(self, after: str, seconds: float) -> tuple[list[Order], str]:
        """Return the next orders in the log, and the id of the last of them.

        Args:
            after: the id of the entry that was read last.
            seconds: how long to wait for one; then there are none, and the id is ``after``.

        Raises:
            StoreError: the store did not answer.

        """
        entries = self.entries(after, seconds)
        return self.parsed(entry for _, entry in entries), entries[-1][0] if entries else after

    def position(self) -> Position:
        """Return where the log ends: from there on it says what a load that begins now may not.

        Raises:
            StoreError: the store did not answer, or has another format.

        """
        with self._store.asking() as client:
            epoch = client.get(self._epoch) or b""
            last = client.xrevrange(self._log, count=1)
        if epoch and not epoch.startswith(FORMAT):
            raise StoreError("format", self._store.address)
        return Position(epoch, last[0][0].decode(), last[0][1].get(FIELD, b"")) if last else Position(epoch)

    def continues(self, position: Position) -> Literal["yes", "behind", "lost"]:
        """Say whether the log goes on from a position that it was read to.

        It does not where entries after that one were thrown away (``behind``), because there were too many; nor where
        the store was emptied, or is an older copy of what it was (``lost``), which no answer to a reader ever tells.

        Raises:
            StoreError: the store did not answer.

        """
        with self._store.asking() as client, client.pipeline(transaction=False) as asking:
            asking.get(self._epoch)
            asking.xrange(self._log, min=position.id, max=position.id)
            asking.xrange(self._log, count=1)
            epoch, found, first = asking.execute()
        is_there = position.id == "0-0" or (found and found[0][1].get(FIELD, b"") == position.entry)
        if is_there and position.epoch == (epoch or b""):
            return "yes"
        if is_there and not position.epoch:
            # The store was empty, and its first order has named it.
            return "behind"
        if position.epoch != epoch:
            return "lost"
        return "behind" if first and number_of(first[0][0].decode()) > number_of(position.id) else "lost"

    def may_write_back(self, name: str, seconds: float) -> bool:
        """Say whether the replica of this name may write back now, as one at a time may; and for so many seconds.

        Raises:
            StoreError: the store did not answer.

        """
        return bool(self._store.call(LEASE, [self._store.key("{orders}:writing")], [name, round(seconds * 1000)]))

    def entries(self, after: str, seconds: float) -> list[tuple[str, bytes]]:
        """Return the next entries of the log, each with its id; see :meth:`read`."""
        if self._reader.client is None or self._reader_seconds != seconds:
            self._reader.close()
            self._reader.client, self._reader_seconds = self._store.client(block=seconds), seconds
        with self._store.asking(self._reader.client) as client:
            # A server that hangs is noticed by this wait, which must end in time.
            found = client.xread({self._log: after}, count=PAGE, block=max(1, round(seconds * 1000)))
        return [(name.decode(), fields.get(FIELD, b"")) for _, entries in found or () for name, fields in entries]

    def parsed(self, entries: Iterable[bytes]) -> list[Order]:
        """Return the orders that entries are; what is none is left out, counted and logged."""
        orders, ignored = [], 0
        for entry in entries:
            try:
                orders.append(parsed(entry))
            except ConfigError:
                ignored += 1
        self.ignored += ignored
        if self.ignored > self._told and time.monotonic() >= self._tell_at:
            # However much is written there, it does not fill the log.
            telemetry.event(telemetry.WARNING, "orders_ignored", orders=self.ignored - self._told)
            self._told, self._tell_at = self.ignored, time.monotonic() + _TELL_SECONDS
        return orders

    def pages(self) -> Iterator[list[Order]]:
        """Yield the latest order about each subject, without the tokens that are listed; some may come twice.

        Raises:
            StoreError: the store did not answer.

        """
        cursor, now = 0, time.time()
        while True:
            with self._store.asking() as client:
                cursor, found = client.hscan(self._state, cursor, count=PAGE)
            yield [order for order in self.parsed(found.values()) if not is_over(order, now)]
            if not cursor:
                return

    def token_pages(self) -> Iterator[list[tuple[str, float]]]:
        """Yield the tokens that are listed, each by its name in the list and with its end; some may come twice.

        Raises:
            StoreError: the store did not answer.

        """
        cursor, now = 0, time.time()
        # Of a million, texts by the parser take half as long as bytes that become texts here.
        with self._store.client(returns_text=True) as reader:
            while True:
                with self._store.asking(reader) as client:
                    cursor, found = client.zscan(self._tokens, cursor, count=5 * PAGE)
                yield [token for token in found if token[1] > now]
                if not cursor:
                    return

    def lacking(self, orders: Sequence[Order]) -> list[Order]:
        """Return those of ``orders``, which have their times, that the store does not know, nor later ones.

        Raises:
            StoreError: the store did not answer.

        """
        timed = [order for order in orders if not order.is_listing]
        listed = [order for order in orders if order.is_listing]
        values: list[bytes | None] = []
        ends: list[float | None] = []
        with self._store.asking() as client:
            if timed:
                values = client.hmget(self._state, [subject_text(order) for order in timed])
            if listed:
                ends = client.zmscore(self._tokens, [member(order.id, order.issuer) for order in listed])
        lacking = [order for order, value in zip(timed, values, strict=True) if is_behind(value, order)]
        # Ends are known to the hour.
        lacking += [
            each for each, end in zip(listed, ends, strict=True) if end is None or end <= (each.until or 0) - 3600
        ]
        return lacking

    def forget(self) -> None:
        """Remove what no longer says anything.

        Raises:
            StoreError: it is not all removed.

        """
        keys, cursor = [self._state, self._tokens], 0
        with self._store.asking() as client:
            # A replica whose clock is wrong must not remove what others need.
            now = min(time.time(), client.time()[0])
        while True:
            with self._store.asking() as client:
                cursor, found = client.hscan(self._state, cursor, count=PAGE)
            over = [item for item in found.items() if is_over_text(item[1], now)]
            self._store.call(FORGET, keys, [now, *(part for item in over for part in item)])
            if not cursor:
                break
        while self._store.call(FORGET, keys, [now]):
            pass

    def close(self) -> None:
        """Close the connection that reads the log."""
        self._reader.close()

    def _write(self, entries: Sequence[tuple[str | bytes, ...]]) -> tuple[str, int]:
        keys, last, written = [self._state, self._tokens, self._log, self._epoch], b"0-0", 0
        epoch = FORMAT + secrets.token_hex(16).encode()
        for start in range(0, max(len(entries), 1), PAGE):
            page = [part for entry in entries[start : start + PAGE] for part in entry]
            last, count = self._store.call(WRITE, keys, [epoch, FORMAT, MAX_LOG, *page])
            written += count
        return last.decode(), written


def _named(store: Store, wanted: set[Name]) -> Iterator[Subject]:
    """Yield the subjects that orders are about, of names that are wanted, whose ever they are."""
    if not wanted:
        return
    pattern = f"* {escaped(next(iter(wanted))[2])}" if len(wanted) == 1 else "*"
    with store.asking() as client:
        for field, _ in client.hscan_iter(store.key("{orders}:state"), match=pattern, count=PAGE):
            subject = subject_of(field.decode(errors="replace"))
            if subject is not None and subject[:3] in wanted:
                yield subject
        if any(kind == "token" for _, kind, _ in wanted):
            for name, _ in client.zscan_iter(store.key("{orders}:tokens"), match=pattern, count=5 * PAGE):
                subject = subject_of(TOKEN + name.decode(errors="replace"))
                if subject is not None and subject[:3] in wanted:
                    yield subject
