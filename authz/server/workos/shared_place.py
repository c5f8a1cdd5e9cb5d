"""The cursor in the store: one replica follows at a time, and if that is gone another goes on from there."""

import contextlib
import json
import os
import secrets
from collections.abc import Iterator, Sequence

from authz.judge.orders.order import Order
from authz.server.workos.place import Cursor, PlaceError
from authz.store.connection import Script, Store, StoreError
from authz.store.entries import LEASE
from authz.store.orders_store import OrdersStore

LEASE_SECONDS = 8.0
"""For how long a replica may follow that says nothing more."""

# By then WorkOS was asked in any case.
_NUDGE_SECONDS = 60

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

    """

    def __init__(self, store: Store) -> None:
        self._store, self._orders = store, OrdersStore(store)
        self._leader, self._cursor, self._nudge = (
            store.key(f"{{workos}}:{name}") for name in ("leader", "cursor", "nudge")
        )
        self._name, self._known = secrets.token_hex(8), b""

    def lead(self) -> bool:
        """See :class:`authz.server.workos.place.Place`."""
        with told_as_place_errors():
            return bool(self._store.call(LEASE, [self._leader], [self._own_name, round(LEASE_SECONDS * 1000)]))

    def cursor(self) -> Cursor | None:
        """See :class:`authz.server.workos.place.Place`."""
        with told_as_place_errors(), self._store.asking() as client:
            self._known = client.get(self._cursor) or b""
        try:
            return Cursor.of(json.loads(self._known))
        except (ValueError, RecursionError):
            return None

    def move(self, orders: Sequence[Order], cursor: Cursor) -> bool:
        """See :class:`authz.server.workos.place.Place`."""
        text = json.dumps(cursor.told(), separators=(",", ":")).encode()
        with told_as_place_errors():
            # From there they come to this process too, as to all others.
            if orders:
                self._orders.restore(orders)
            arguments = [self._own_name, self._known, text]
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
            self._store.call(LEASE, [self._leader], [self._own_name, 0])

    @property
    def _own_name(self) -> str:
        # A forked child is another one.
        return f"{self._name}-{os.getpid()}"


@contextlib.contextmanager
def told_as_place_errors() -> Iterator[None]:
    """Raise what the store raises in the block as PlaceError."""
    try:
        yield
    except StoreError as error:
        raise PlaceError(str(error)) from None
