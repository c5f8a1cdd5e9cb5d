"""A replica as a process of its own: ``python -m tests.store.replica URL``. It says when each order is in force.

It ends when its standard input does; its last line is what is in force then.
"""

import json
import sys
import time
from collections.abc import Sequence

from authz import SharedState
from authz.judge.orders.order import Order
from authz.store.connection import Store
from tests.store.fleet import authorizer, suspended


def main(url: str) -> None:
    """Follow the store until the end of standard input."""
    judge = authorizer()

    def tell(orders: Sequence[Order]) -> None:
        now = time.time()
        sys.stdout.write("".join(f"{now} {order.verb} {order.id}\n" for order in orders))
        sys.stdout.flush()

    judge.operator.watch(tell)
    with SharedState(Store(url), judge, wait=None) as shared:
        print("caught up", flush=True)  # noqa: T201 - a program
        sys.stdin.read()
        told = {"in_force": sorted(suspended(judge)), "regressed": shared.follower.regressed}
        print(json.dumps(told), flush=True)  # noqa: T201 - as above


if __name__ == "__main__":
    main(*sys.argv[1:])
