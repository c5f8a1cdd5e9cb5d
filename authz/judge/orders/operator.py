"""Takes the operator's orders, carries them out, and tells who keeps or spreads them."""

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import overload

from authz.errors import ConfigError
from authz.judge.orders.book import OrderBook
from authz.judge.orders.order import Kind, Order, Verb
from authz.judge.orders.standing import Standing
from authz.judge.streams import OpenStreams
from authz.runtime import fork, telemetry
from authz.runtime.clock import Clock

Tell = Callable[[Sequence[Order]], object]
"""Is called with orders that are news, each with its time, once they are in force."""

_FIELDS: dict[Kind, str] = {"token": "token_id", "client": "client_id", "organization": "org_id", "key": "key_id"}
_EVENTS: dict[Verb, str] = {
    "revoke": "revoked",
    "reinstate": "reinstated",
    "suspend": "organization_suspended",
    "resume": "organization_resumed",
    "renew": "organization_renewed",
}
# How often to look for orders that say nothing any more.
_FORGET_SECONDS = 3600.0
# An order that lapses so soon is carried out to the end before its giver is answered.
_SOON_SECONDS = 60.0
# More at once are a snapshot, which is logged in one line.
_MOST_LOGGED = 20


class NotKeptError(Exception):
    """An order is in force, but what is to keep or to spread it has failed; the text says how, and what to do."""


class Operator:
    """What the operator can order, and what was ordered.

    Args:
        standing: says what the orders mean for a caller.
        streams: those that are open, which orders end.
        clock: its ``time`` gives orders their times.
        issuers: the issuers that an order may name; ``None`` for any.

    Attributes:
        standing: that of the argument.
        streams: those of the argument.

    """

    def __init__(
        self, standing: Standing, streams: OpenStreams, *, clock: Clock, issuers: Collection[str] | None = None
    ) -> None:
        self.standing, self.streams = standing, streams
        self._clock, self._issuers = clock, issuers
        self._watching: tuple[Tell, ...] = ()
        self._forget_at = clock.time() + _FORGET_SECONDS
        self._lock = fork.Lock()

    @property
    def book(self) -> OrderBook:
        """All orders that are known."""
        return self.standing.book

    @contextlib.contextmanager
    def unchanged(self) -> Iterator[OrderBook]:
        """Yield the book, which nothing changes in the block; an order that is given meanwhile waits."""
        with self._lock:
            yield self.book

    def order(self, order: Order) -> None:
        """Carry out a new order, from now on, and about everything of that name if it names no issuer.

        Raises:
            ConfigError: it says nothing that can be carried out, it is about an issuer whose tokens are not taken
                here, or too many tokens are revoked.
            NotKeptError: it is in force, but a watcher could not do its part.

        """
        order.check()
        if order.issuer and self._issuers is not None and order.issuer not in self._issuers:
            raise ConfigError(f"issuer: {order.issuer!a} is none of those whose tokens are taken here")
        book, now = self.standing.book, self._clock.time()
        with self._lock:
            orders = [book.timed(each, now) for each in book.spelled_out(order)]
            self._finish_what_is_replaced(orders)
            errors = self._take(lambda: self.standing.take(orders))
        if errors:
            raise errors[0]

    def carry_out(self, orders: Iterable[Order]) -> None:
        """Carry out orders that have their times, all in one step: those that were given elsewhere, or earlier."""
        orders = list(orders)
        with self._lock:
            self._finish_what_is_replaced(orders)
            _report(self._take(lambda: self.standing.take(orders)))

    def list_tokens(self, tokens: Iterable[tuple[str, float]]) -> None:
        """List tokens as revoked, all in one step; see :meth:`authz.judge.orders.tokens.RevokedTokens.add`."""
        with self._lock:
            _report(self._take(lambda: Listings(self.standing.list_tokens(tokens))))

    def watch(self, tell: Tell) -> None:
        """Have ``tell`` called with all orders that are news, one call at a time; the giver of an order waits for it.

        What it raises, the giver gets. It may not give orders itself.
        """
        self._watching = (*self._watching, tell)

    def _finish_what_is_replaced(self, orders: Iterable[Order]) -> None:
        """End the streams that earlier orders must end, where such an order may not count any more after these."""
        if self.streams.is_behind and any(self.book.get(order.subject) is not None for order in orders):
            self.streams.settle()

    def _take(self, take: Callable[[], Sequence[Order]]) -> list[Exception]:
        """Carry out what ``take`` takes in; return what watchers have raised."""
        news = take()
        if not news:
            return []
        if any(order.is_refusing for order in news):
            self.streams.judge(self.standing.refusal_of)
            if any(order.until is not None and order.until < self._clock.time() + _SOON_SECONDS for order in news):
                # It may lapse before a thread has told all streams.
                self.streams.settle()
        if len(news) > _MOST_LOGGED:
            telemetry.event(telemetry.WARNING, "orders_carried_out", orders=len(news))
        else:
            for order in news:
                _log(order)
        errors: list[Exception] = []
        for tell in self._watching:
            try:
                tell(news)
            except Exception as error:  # noqa: BLE001 - the other watchers are to do their part all the same
                errors.append(error)
        if self._clock.time() >= self._forget_at:
            self._forget_at = self._clock.time() + _FORGET_SECONDS
            self.standing.forget()
        return errors


class Listings(Sequence[Order]):
    """The orders that list tokens, each made when it is looked at, for there may be a million and none who looks.

    Args:
        tokens: see :meth:`Operator.list_tokens`.

    Attributes:
        tokens: those of the argument.

    """

    def __init__(self, tokens: Sequence[tuple[str, float]]) -> None:
        self.tokens = tokens

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.tokens)

    @overload
    def __getitem__(self, place: int) -> Order: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[Order]: ...

    def __getitem__(self, place: int | slice) -> Order | Sequence[Order]:
        """Return the order of that place."""
        return Listings(self.tokens[place]) if isinstance(place, slice) else listing(*self.tokens[place])


def _report(errors: Sequence[Exception]) -> None:
    # Who carries out what was ordered elsewhere can do nothing about it; a watcher has logged its NotKeptError.
    for error in errors:
        if not isinstance(error, NotKeptError):
            telemetry.unforeseen("orders", error)


def listing(name: str, end: float) -> Order:
    """Return the order to list a token as revoked; see :meth:`authz.judge.orders.tokens.RevokedTokens.add`."""
    issuer, _, token_id = name.partition(" ")
    return Order("revoke", "token", token_id, issuer, until=end)


def _log(order: Order) -> None:
    told = {name: getattr(order, name) for name in ("issuer", "issued_before", "until", "reason", "by", "source")}
    given = {name: value for name, value in told.items() if value not in ("", None)}
    level = telemetry.INFO if order.verb == "renew" else telemetry.WARNING
    telemetry.event(level, _EVENTS[order.verb], **{_FIELDS[order.kind]: order.id}, **given)
