"""All orders that are known: of several about one subject the latest, whichever way and in whichever order they came.

So replicas that have heard the same orders agree, replays do no harm, and what was lost in one place can be brought
back from another. A token that is revoked is only listed, without a time, as there may be a million; what was ordered
about it otherwise goes before the list.
"""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import get_args

from authz.errors import ConfigError
from authz.judge.orders.order import ACTS, MICROSECONDS, Act, Kind, Order, Subject
from authz.judge.orders.tokens import MAX_TOKENS, RevokedTokens, member

TOKEN_SECONDS = 366 * 86_400.0
"""How long a revoked token is remembered whose end is not given."""

LIFTED_SECONDS = 30 * 86_400.0
"""How long it is remembered that an order was taken back, so that an old copy of the order does not come back."""

_NONE: Mapping[str, Order] = MappingProxyType({})


class OrderBook:
    """The latest order about each subject. One thread at a time may change it; any number may read.

    Attributes:
        tokens: the revoked tokens that are listed without a time.

    """

    def __init__(self) -> None:
        # By name, then by the issuer that names it so, for every caller is looked up under two: "" and its own.
        self._orders: dict[tuple[Act, Kind], dict[str, dict[str, Order]]] = {
            (act, kind): {} for act in get_args(Act) for kind in get_args(Kind)
        }
        self.tokens = RevokedTokens()

    def __len__(self) -> int:
        """Return how many subjects there are orders about, besides the tokens that are listed."""
        return sum(sum(map(len, named.values())) for named in self._orders.values())

    def __iter__(self) -> Iterator[Order]:
        """Yield the latest order about each subject, without the list; what comes meanwhile may be left out."""
        # Each is copied in one step, for another thread may change it.
        every = (orders for named in self._orders.values() for orders in list(named.values()))
        return (order for orders in every for order in list(orders.values()))

    def get(self, subject: Subject) -> Order | None:
        """Return the latest order about a subject, without the list."""
        return self.about(*subject[:3]).get(subject.issuer)

    def about(self, act: Act, kind: Kind, name: str) -> Mapping[str, Order]:
        """Return the latest orders about what is named so, by the issuer that names it so; without the list."""
        return self._orders[act, kind].get(name, _NONE)

    def named(self, act: Act, kind: Kind) -> Mapping[str, Mapping[str, Order]]:
        """Return what :meth:`about` does for each name, now and later."""
        return self._orders[act, kind]

    def take(self, order: Order) -> bool:
        """Take in an order with its time, and say whether it is news."""
        if order.kind == "token" and order.is_listing:
            return bool(self.tokens.add([(member(order.id, order.issuer), order.until or 0)]))
        # A snapshot has thousands: here it takes half the time to make no Subject.
        named = self._orders[ACTS[order.verb], order.kind]
        orders = named.get(order.id)
        if orders is None:
            named[order.id] = {order.issuer: order}
            return True
        known = orders.get(order.issuer)
        is_news = known is None or known.counts_before(order)
        if is_news:
            orders[order.issuer] = order
        return is_news

    def timed(self, order: Order, now: float) -> Order:
        """Return a new ``order`` as it is to be taken in: with a time after every other one about its subject.

        Args:
            order: the order, whose ``at`` does not count.
            now: the time, in POSIX seconds.

        Raises:
            ConfigError: it is to revoke a token, and too many are revoked.

        """
        known = self.get(order.subject)
        if order.kind == "token" and order.verb == "revoke":
            if len(self.tokens) >= MAX_TOKENS:
                raise ConfigError(
                    f"revoke: {MAX_TOKENS:,} tokens are revoked already; revoke what their clients were issued earlier"
                )
            order = order._replace(until=order.until or now + TOKEN_SECONDS)
            if known is None:
                return order._replace(at=0)
        at = round(now * MICROSECONDS)
        return order._replace(at=at if known is None else max(at, known.at + 1))

    def spelled_out(self, order: Order) -> list[Order]:
        """Return ``order``, or if it takes back what was ordered about a name, one like it for every issuer's."""
        if not order.is_lifting or order.issuer:
            return [order]
        issuers = {"", *self.about(*order.subject[:3])}
        if order.kind == "token" and self.tokens.has_issuers:
            named = member(order.id)
            issuers.update(name.removesuffix(named) for name, _ in self.tokens if name.endswith(named))
        return [order._replace(issuer=issuer) for issuer in sorted(issuers)]

    def forget(self, now: float) -> list[Order]:
        """Forget what no longer says anything at ``now``, in POSIX seconds; return it, without the list."""
        self.tokens.forget(now)
        over = [order for order in self if is_over(order, now)]
        for order in over:
            act, kind, name, issuer = order.subject
            about = self._orders[act, kind][name]
            del about[issuer]
            if order.kind == "token":
                # It went before the list, which must not count again.
                self.tokens.remove(member(order.id, order.issuer))
            if not about:
                del self._orders[act, kind][name]
        return over


def is_over(order: Order, now: float) -> bool:
    """Say whether ``order`` no longer says anything at ``now``, in POSIX seconds, not even what is not to come back."""
    if order.verb == "renew":
        # An old copy of it does no harm.
        return order.until is not None and now >= order.until
    since = order.at / MICROSECONDS if order.is_lifting else order.until
    return since is not None and now >= since + LIFTED_SECONDS
