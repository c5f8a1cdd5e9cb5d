"""Where the applications are kept that are known: in the store, or without one as long as this process lives."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from authz.judge.orders.operator import Operator
from authz.judge.orders.order import Order
from authz.server.workos.applications import Application
from authz.server.workos.place import PlaceError

if TYPE_CHECKING:
    from authz.store.connection import Store

# How many are written in one step.
_AT_ONCE = 1000


class RegisterHere:
    """Keeps them as long as this process lives, the only one; see :class:`authz.server.workos.listing.Register`.

    An application that is deleted while there is no process is not missed by the next one.

    Args:
        operator: carries out the orders.

    """

    def __init__(self, operator: Operator) -> None:
        self._operator = operator
        self._known: Mapping[str, Application] = {}

    def known(self) -> Mapping[str, Application]:
        """See :class:`authz.server.workos.listing.Register`."""
        return self._known

    def standing(self) -> Sequence[Order]:
        """See :class:`authz.server.workos.listing.Register`."""
        return _standing(self._operator)

    def keep(self, orders: Sequence[Order], applications: Mapping[str, Application]) -> None:
        """See :class:`authz.server.workos.listing.Register`."""
        self._operator.carry_out(orders)
        self._known = dict(applications)


class SharedRegister:
    """Keeps them in a store, see :class:`authz.server.workos.listing.Register`.

    Args:
        store: the store.
        operator: knows the orders that are in the store.

    """

    def __init__(self, store: "Store", operator: Operator) -> None:
        from authz.store.orders_store import OrdersStore  # noqa: PLC0415 - not needed without a store

        self._store, self._orders, self._operator = store, OrdersStore(store), operator
        self._key = store.key("{workos}:applications")

    def known(self) -> Mapping[str, Application]:
        """See :class:`authz.server.workos.listing.Register`."""
        found: dict[str, Application] = {}
        with _said(), self._store.asking() as client:
            for name, text in client.hscan_iter(self._key, count=_AT_ONCE):
                application = Application.parse(name.decode(errors="replace"), text)
                if application is not None:
                    found[application.client_id] = application
        return found

    def standing(self) -> Sequence[Order]:
        """See :class:`authz.server.workos.listing.Register`."""
        return _standing(self._operator)

    def keep(self, orders: Sequence[Order], applications: Mapping[str, Application]) -> None:
        """See :class:`authz.server.workos.listing.Register`."""
        known = self.known()
        changed = iter([each for name, each in applications.items() if known.get(name) != each])
        gone = iter([name for name in known if name not in applications])
        with _said():
            # From there they come to this process too, as to all others.
            if orders:
                self._orders.restore(orders)
            with self._store.asking() as client:
                while some := {each.client_id: each.text() for each in islice(changed, _AT_ONCE)}:
                    client.hset(self._key, mapping=some)
                while names := list(islice(gone, _AT_ONCE)):
                    client.hdel(self._key, *names)


def _standing(operator: Operator) -> list[Order]:
    with operator.unchanged() as book:
        return [order for orders in book.named("revoke", "client").values() for order in orders.values()]


@contextlib.contextmanager
def _said() -> Iterator[None]:
    from authz.store.connection import StoreError  # noqa: PLC0415 - as above

    try:
        yield
    except StoreError as error:
        raise PlaceError(str(error)) from None
