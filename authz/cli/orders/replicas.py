"""``authz replicas``."""

import json
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from authz.cli.app import ALLOWED, say, write
from authz.cli.orders.fleet import StoreFlags, aligned, has_applied, store_of
from authz.cli.times import shown
from authz.runtime.text.printable import printable

if TYPE_CHECKING:
    from authz.server.workos.shared_place import Followed
    from authz.store.connection import Store
    from authz.store.replicas import Replica

_HEAD = ("HOST", "REGION", "VERSION", "WORKERS", "RUNNING", "ORDERS", "KEYS", "WORKOS", "POLICY", "ID")
_MOST = 200
_UNITS = (("d", 86_400), ("h", 3600), ("m", 60), ("s", 1))


def replicas(
    *, as_json: Annotated[bool, Parameter(name="--json", negative=())] = False, flags: StoreFlags = None
) -> int:
    """List the replicas that were seen in the last 15 seconds: who they are, and how far each has got.

    RUNNING says for how long, ORDERS whether all are in force there, KEYS how old the oldest of its issuers' keys are,
    WORKOS which replica follows what happens there, and POLICY which is in force; replicas with the same policy show
    the same. A line below says up to which event WorkOS is followed.

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
        followed = _followed(store)
    if as_json:
        for replica in seen:
            write(json.dumps({**replica._asdict(), **_following(replica, followed)}))
    elif seen:
        now, ordered = time.time(), sorted(seen, key=_place)
        say(*aligned([_HEAD, *(_row(replica, latest, followed.leader, now) for replica in ordered)]))
        say(*_source(ordered, followed))
    else:
        say("no replica has been seen; they need the same store and namespace")
    return ALLOWED


def _followed(store: "Store") -> "Followed":
    from authz.server.workos.shared_place import Followed, followed  # noqa: PLC0415 - the extra's
    from authz.store.connection import StoreError  # noqa: PLC0415 - as above

    try:
        return followed(store)
    except StoreError as error:
        if error.reason != "denied":
            raise
        # A user of the store that may see replicas, and nothing of WorkOS.
        return Followed()


def _following(replica: "Replica", followed: "Followed") -> dict[str, Any]:
    is_leading = replica.id == followed.leader
    cursor = followed.cursor if is_leading else None
    return {"is_leading": is_leading, "cursor": None if cursor is None else cursor.told()}


def _source(replicas: "Sequence[Replica]", followed: "Followed") -> Iterator[str]:
    """Yield what is to be said of the events of WorkOS, if anything follows them."""
    if followed.cursor is not None:
        event = f"event {followed.cursor.id} of " if followed.cursor.id else ""
        yield f"WorkOS is followed up to {event}{shown(followed.cursor.at)}"
    elif followed.leader:
        yield "WorkOS is followed, and has told of no event yet"
    for each in replicas:
        if each.source_error:
            yield f"  {each.host or each.id} does not hear it: {printable(each.source_error, _MOST)}"


def _place(replica: "Replica") -> tuple[str, str, float]:
    return replica.region, replica.host, replica.started


def _row(replica: "Replica", latest: str, leader: str, now: float) -> tuple[str, ...]:
    keys = "-" if replica.keys_age is None else _span(replica.keys_age)
    source = "-" if replica.source_age is None else "waits"
    if replica.id == leader:
        source = "follows"
    orders = "all" if has_applied(replica, latest) else "not all"
    return (
        *(replica.host or "-", replica.region or "-", replica.version or "-", str(replica.workers)),
        *(_span(now - replica.started), orders, keys, source, replica.policy or "none", replica.id),
    )


def _span(seconds: float) -> str:
    unit, length = next((each for each in _UNITS if seconds >= each[1]), _UNITS[-1])
    return f"{max(seconds, 0) // length:.0f}{unit}"
