"""What the orders of the operator say of one caller: whether it is revoked or suspended."""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from authz.call.call import Call
from authz.call.principal import Principal
from authz.errors import AuthzError, OrdersUnknownError, TokenInactiveError, suspended
from authz.judge.orders.book import OrderBook
from authz.judge.orders.order import OPERATOR, Order, Source
from authz.judge.orders.tokens import member
from authz.runtime.clock import SYSTEM_CLOCK, Clock


class Doubt(NamedTuple):
    """Whether not all orders may be known.

    Args:
        why: empty if they are.
        refuses: whether callers must be refused for it.

    """

    why: str = ""
    refuses: bool = False


class Standing:
    """Two deny-lists by identity: what is revoked, and which organizations are suspended.

    A token is listed by its ``jti``, never by its text: one signature may be written in several ways.
    Any number of threads may ask, one at a time may change it.

    Args:
        clock: only its ``time`` is read, by which orders lapse.
        doubted: is called when it has changed whether the orders may not all be known.

    Attributes:
        book: the orders.
        doubt: whether the orders may not all be known.

    """

    def __init__(self, *, clock: Clock = SYSTEM_CLOCK, doubted: Callable[[], object] = bool) -> None:
        self._time, self._doubted = clock.time, doubted
        self.book = OrderBook()
        self.doubt = Doubt()
        # By what they name: every call looks it up.
        self._clients = self.book.named("revoke", "client")
        self._organizations = self.book.named("revoke", "organization")
        self._keys = self.book.named("revoke", "key")
        self._suspended = self.book.named("suspend", "organization")
        # Most servers have never revoked a token, and look for none.
        self._has_tokens = False

    def take(self, orders: Iterable[Order]) -> list[Order]:
        """Take in orders with their times; return those that are news."""
        news = [order for order in orders if self.book.take(order)]
        self._has_tokens = self._has_tokens or bool(self.book.tokens or self.book.named("revoke", "token"))
        return news

    def list_tokens(self, tokens: Iterable[tuple[str, float]]) -> list[tuple[str, float]]:
        """List tokens as revoked, see :meth:`authz.judge.orders.tokens.RevokedTokens.add`."""
        added = self.book.tokens.add(tokens)
        self._has_tokens = self._has_tokens or bool(added)
        return added

    def forget(self) -> None:
        """Forget the orders that have lapsed, or were taken back, a long time ago."""
        self.book.forget(self._time())

    @property
    def suspended_organizations(self) -> set[str]:
        """The ids of those that are suspended."""
        return _lasting(self._suspended, self._time())

    @property
    def revoked_clients(self) -> set[str]:
        """The ids of the applications that are revoked, of any issuer, with all their tokens or with older ones."""
        return _lasting(self._clients, self._time())

    def be_in_doubt(self, doubt: Doubt) -> None:
        """Note whether the orders may not all be known, and refuse all callers while that is to be."""
        self.doubt = doubt
        # In the place of the method, which so costs nothing more: every call takes it.
        if doubt.refuses:
            vars(self)["check"] = _refuse
        else:
            vars(self).pop("check", None)
        self._doubted()

    def check(self, principal: Principal) -> None:
        """Check that the operator has neither revoked nor suspended anything of ``principal``.

        Raises:
            TokenInactiveError: its token, application, organization or key is revoked.
            PermissionDeniedError: its organization is suspended.

        """
        error = self.refusal(principal)
        if error is not None:
            raise error

    def refusal_of(self, _call: Call | None, principal: Principal) -> AuthzError | None:
        """Return why the operator would have an open stream of ``principal`` end, if so; doubt ends none."""
        return self.refusal(principal)

    def refusal(self, principal: Principal) -> AuthzError | None:
        """Return what :meth:`check` raises, with where the order came from; ``None`` if there is none."""
        organization = self._organizations.get(principal.org_id)
        client = self._clients.get(principal.client_id)
        key = self._keys.get(principal.key_id)
        source = self._first(principal, organization, client, key) if organization or client or key else None
        if source is None and self._has_tokens:
            source = self._source_of_token(principal)
        if source is not None:
            return _ordered(TokenInactiveError(), source)
        if self._suspended:
            source = self._first(principal, self._suspended.get(principal.org_id))
        return None if source is None else _ordered(suspended(), source)

    def _first(self, principal: Principal, *named: Mapping[str, Order] | None) -> Source | None:
        # Every one that is in force counts: of two about the tokens before some time the later time.
        for orders in named:
            for order in () if orders is None else (orders.get(""), orders.get(principal.issuer)):
                if order is not None and _counts(order, principal.issued_at, self._time()):
                    return order.origin
        return None

    def _source_of_token(self, principal: Principal) -> Source | None:
        name = principal.token_id
        if not name:
            return None
        orders, tokens = self.book.about("revoke", "token", name), self.book.tokens
        for issuer in ("", principal.issuer):
            order = orders.get(issuer)
            if order is None:
                if member(name, issuer) in tokens:
                    # The list does not say who has written it.
                    return OPERATOR
            elif _counts(order, None, self._time()):
                return order.origin
        return None


def _refuse(_principal: Principal) -> None:
    raise OrdersUnknownError("the orders of the operator are not known yet")


def _ordered(error: AuthzError, source: Source) -> AuthzError:
    error.order_source = source
    return error


def _counts(order: Order, issued_at: float | None, now: float) -> bool:
    return not order.is_lifting and order.concerns(issued_at, now)


def _lasting(names: Mapping[str, Mapping[str, Order]], now: float) -> set[str]:
    # Another thread may change them; a list of pairs would not be made in one step, for garbage is collected meanwhile.
    copied = dict(names)
    return {
        name for name, orders in copied.items() if any(_counts(order, None, now) for order in list(orders.values()))
    }
