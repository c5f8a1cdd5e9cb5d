"""``authz replicas``."""

import json
import time
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from authz.cli.app import ALLOWED, say, write
from authz.cli.orders.fleet import StoreFlags, aligned, has_applied, store_of

if TYPE_CHECKING:
    from authz.store.replicas import Replica

_HEAD = ("HOST", "REGION", "VERSION", "WORKERS", "RUNNING", "ORDERS", "KEYS", "POLICY", "ID")
_UNITS = (("d", 86_400), ("h", 3600), ("m", 60), ("s", 1))


def replicas(
    *, as_json: Annotated[bool, Parameter(name="--json", negative=())] = False, flags: StoreFlags = None
) -> int:
    """List the replicas that were seen in the last 15 seconds: who they are, and how far each has got.

    RUNNING says for how long, ORDERS whether all are in force there, KEYS how old the oldest of its issuers' keys are,
    and POLICY which is in force; replicas with the same policy show the same.

    Parameters
    ----------
    as_json
        Print one JSON object a line.

    """
    with store_of(flags) as store:
        from authz.store.orders_store import OrdersStore  # noqa: PLC0415 - the extra's
        from authz.store.replicas import Replicas  # noqa: PLC0415 - as above

        latest = OrdersStore(store).position().id
        seen = Replicas(store).all()
    if as_json:
        for replica in seen:
            write(json.dumps(replica._asdict()))
    elif seen:
        now = time.time()
        say(*aligned([_HEAD, *(_row(replica, latest, now) for replica in sorted(seen, key=_place))]))
    else:
        say("no replica has been seen; they need the same store and namespace")
    return ALLOWED


def _place(replica: "Replica") -> tuple[str, str, float]:
    return replica.region, replica.host, replica.started


def _row(replica: "Replica", latest: str, now: float) -> tuple[str, ...]:
    keys = "-" if replica.keys_age is None else _span(replica.keys_age)
    orders = "all" if has_applied(replica, latest) else "not all"
    return (
        *(replica.host or "-", replica.region or "-", replica.version or "-", str(replica.workers)),
        *(_span(now - replica.started), orders, keys, replica.policy or "none", replica.id),
    )


def _span(seconds: float) -> str:
    unit, length = next((each for each in _UNITS if seconds >= each[1]), _UNITS[-1])
    return f"{max(seconds, 0) // length:.0f}{unit}"
