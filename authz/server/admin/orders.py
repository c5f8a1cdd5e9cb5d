"""The orders that the operator has given, as the page shows them."""

import heapq
from typing import Any

from authz.judge.orders.operator import Operator
from authz.judge.orders.order import MICROSECONDS, Order
from authz.server.admin.slices import LONG_SLICE, in_slices
from authz.server.shared_orders import SharedOrders

MAX_ORDERS_TOLD = 200
"""How many orders the page shows: the latest."""


def told_of(operator: Operator, shared: SharedOrders | None, now: float) -> dict[str, Any]:
    """Return the orders in force, who is suspended or revoked by them, and how many tokens are listed as revoked.

    It takes a while for many orders, so call this on a thread that does not decide.

    Args:
        operator: who knows them.
        shared: what shares them with other replicas, if anything does.
        now: the time, in POSIX seconds.

    """
    with operator.unchanged() as book:
        orders, tokens = list(book), len(book.tokens)
    standing = operator.standing
    in_force = [order for order in in_slices(orders, LONG_SLICE) if order.is_refusing and order.concerns(None, now)]
    return {
        "suspended": _first(standing.suspended_organizations),
        "revoked": _first(standing.revoked_clients),
        "orders": [_told(order) for order in heapq.nlargest(MAX_ORDERS_TOLD, in_force, key=lambda order: order.at)],
        "order_count": len(in_force),
        "token_count": tokens,
        **({"store": None, "replicas": [], "is_kept": False} if shared is None else shared.told()),
    }


def _first(names: set[str]) -> list[str]:
    return heapq.nsmallest(MAX_ORDERS_TOLD, in_slices(names, LONG_SLICE))


def _told(order: Order) -> dict[str, Any]:
    return {**order._asdict(), "at": order.at / MICROSECONDS}
