"""The applications that are known, in the store: another replica that goes on knows them too."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice

from authz.judge.orders.operator import Operator
from authz.judge.orders.order import Order
from authz.server.workos.applications import Application
from authz.server.workos.register import standing_of
from authz.server.workos.shared_place import told_as_place_errors
from authz.store.connection import Store, StoreError
from authz.store.orders_store import OrdersStore

# How many are written in one step.
_AT_ONCE = 1000


class SharedRegister:
    """Keeps them in a store, see :class:`authz.server.workos.listing.Register`.

    Args:
        store: the store.
        operator: knows the orders that are in the store.

    """

    def __init__(self, store: Store, operator: Operator) -> None:
        self._store, self._orders, self._operator = store, OrdersStore(store), operator
        self._key = _key_of(store)
        self._read: dict[str, Application] = {}

    def known(self) -> Mapping[str, Application]:
        """See :class:`authz.server.workos.listing.Register`."""
        found: dict[str, Application] = {}
        with told_as_place_errors(), self._store.asking() as client:
            for name, text in client.hscan_iter(self._key, count=_AT_ONCE):
                application = Application.parse(name.decode(errors="replace"), text)
                if application is not None:
                    found[application.client_id] = application
        self._read = found
        return found

    def standing(self) -> Sequence[Order]:
        """See :class:`authz.server.workos.listing.Register`."""
        return standing_of(self._operator)

    def keep(self, orders: Sequence[Order], applications: Mapping[str, Application]) -> None:
        """See :class:`authz.server.workos.listing.Register`."""
        # Read when the list began: one replica at a time writes.
        known = self._read
        changed = iter([each for name, each in applications.items() if known.get(name) != each])
        gone = iter([name for name in known if name not in applications])
        with told_as_place_errors():
            # From there they come to this process too, as to all others.
            if orders:
                self._orders.restore(orders)
            with self._store.asking() as client:
                while some := {each.client_id: each.text() for each in islice(changed, _AT_ONCE)}:
                    client.hset(self._key, mapping=some)
                while names := list(islice(gone, _AT_ONCE)):
                    client.hdel(self._key, *names)
        self._read = dict(applications)


def names_in(store: Store, client_ids: Iterable[str]) -> dict[str, str]:
    """Return what applications are called, as far as that is known and this user of the store may read it.

    Raises:
        StoreError: the store does not say.

    """
    wanted, names = iter(dict.fromkeys(client_ids)), dict[str, str]()
    try:
        while some := list(islice(wanted, _AT_ONCE)):
            with store.asking() as client:
                texts = client.hmget(_key_of(store), some)
            found = (Application.parse(*each) for each in zip(some, texts, strict=True) if each[1] is not None)
            names.update({each.client_id: each.name for each in found if each is not None and each.name})
    except StoreError as error:
        if error.reason != "denied":
            raise
    return names


def _key_of(store: Store) -> str:
    return store.key("{workos}:applications")
