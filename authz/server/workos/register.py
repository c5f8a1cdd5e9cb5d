"""Where the applications are kept that are known, without a store: as long as this process lives."""

from collections.abc import Mapping, Sequence

from authz.judge.orders.operator import Operator
from authz.judge.orders.order import Order
from authz.server.workos.applications import Application


class RegisterHere:
    """Keeps them as long as this process lives, the only one; see :class:`authz.server.workos.listing.Register`.

    The next process does not learn of an application that is deleted while there is none.

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
        return standing_of(self._operator)

    def keep(self, orders: Sequence[Order], applications: Mapping[str, Application]) -> None:
        """See :class:`authz.server.workos.listing.Register`."""
        self._operator.carry_out(orders)
        self._known = dict(applications)


def standing_of(operator: Operator) -> list[Order]:
    """Return the orders about applications that are in force."""
    with operator.unchanged() as book:
        return [order for orders in book.named("revoke", "client").values() for order in orders.values()]
