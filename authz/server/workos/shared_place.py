"""The cursor in the store: one replica follows at a time, and if that is gone another goes on from there."""

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from authz.judge.orders.order import Order
from authz.server.workos.place import Cursor, PlaceError
from authz.store.connection import Script, Store, StoreError
from authz.store.entries import LEASE
from authz.store.orders_store import OrdersStore

LEASE_SECONDS = 8.0
"""For how long a replica may follow that says nothing more."""

# By then WorkOS was asked in any case.
_NUDGE_SECONDS = 60
_MAX_ID = 64

# Only the one that follows moves it, and only from where it has read it: one that has slept meanwhile moves nothing.
_MOVE = Script("""
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if (redis.call('GET', KEYS[2]) or '') ~= ARGV[2] then return 0 end
redis.call('SET', KEYS[2], ARGV[3])
return 1
""")


class SharedPlace:
    """Keeps the cursor in a store, see :class:`authz.server.workos.place.Place`.

    Args:
        store: the store.
        replica: returns the id of this one.

    """

    def __init__(self, store: Store, replica: Callable[[], str]) -> None:
        self._store, self._orders, self._replica = store, OrdersStore(store), replica
        self._leader, self._cursor = _keys_of(store)
        self._nudge = store.key("{workos}:nudge")
        self._known = b""

    def lead(self) -> bool:
        """See :class:`authz.server.workos.place.Place`."""
        with told_as_place_errors():
            return bool(self._store.call(LEASE, [self._leader], [self._replica(), round(LEASE_SECONDS * 1000)]))

    def cursor(self) -> Cursor | None:
        """See :class:`authz.server.workos.place.Place`."""
        with told_as_place_errors(), self._store.asking() as client:
            self._known = client.get(self._cursor) or b""
        return _parsed(self._known)

    def move(self, orders: Sequence[Order], cursor: Cursor) -> bool:
        """See :class:`authz.server.workos.place.Place`."""
        text = json.dumps(cursor.told(), separators=(",", ":")).encode()
        with told_as_place_errors():
            # From there they come to this process too, as to all others.
            if orders:
                self._orders.restore(orders)
            arguments = [self._replica(), self._known, text]
            has_moved = bool(self._store.call(_MOVE, [self._leader, self._cursor], arguments))
        if has_moved:
            self._known = text
        return has_moved

    def nudge(self) -> None:
        """See :class:`authz.server.workos.place.Place`."""
        with told_as_place_errors(), self._store.asking() as client:
            client.set(self._nudge, b"", ex=_NUDGE_SECONDS)

    def is_nudged(self) -> bool:
        """See :class:`authz.server.workos.place.Place`."""
        with told_as_place_errors(), self._store.asking() as client:
            return client.getdel(self._nudge) is not None

    def leave(self) -> None:
        """See :class:`authz.server.workos.place.Place`."""
        with contextlib.suppress(StoreError):
            self._store.call(LEASE, [self._leader], [self._replica(), 0])


class Followed(NamedTuple):
    """What the store says of the events.

    Args:
        leader: the id of the replica that follows them; empty for none.
        cursor: how far they have become orders; ``None`` if that is not known.

    """

    leader: str = ""
    cursor: Cursor | None = None


def followed(store: Store) -> Followed:
    """Return which replica follows the events, and how far they have become orders.

    Raises:
        StoreError: the store does not say.

    """
    with store.asking() as client:
        leader, cursor = client.mget(_keys_of(store))
    return Followed((leader or b"").decode(errors="replace")[:_MAX_ID], _parsed(cursor or b""))


def _keys_of(store: Store) -> tuple[str, str]:
    return store.key("{workos}:leader"), store.key("{workos}:cursor")


def _parsed(text: bytes) -> Cursor | None:
    try:
        return Cursor.of(json.loads(text))
    except (ValueError, RecursionError):
        return None


@contextlib.contextmanager
def told_as_place_errors() -> Iterator[None]:
    """Raise what the store raises in the block as PlaceError."""
    try:
        yield
    except StoreError as error:
        raise PlaceError(str(error)) from None
