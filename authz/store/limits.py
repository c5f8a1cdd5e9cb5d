"""Plans that hold for all processes together: the quotas and the places of streams of one authorizer, by a store."""

from collections.abc import Callable

from authz.judge.authorizer import Authorizer
from authz.runtime.clock import SYSTEM_CLOCK, Clock
from authz.store.connection import Store
from authz.store.leases import IfUnavailable, SharedQuotas
from authz.store.places import LEASE_SECONDS, SharedPlaces
from authz.store.trips import Trips


class SharedLimits:
    """Count the calls and the open streams of organizations together with other processes, from start to stop.

    Args:
        store: where they are counted.
        authorizer: whose calls and streams are counted so.
        replicas: returns how many processes share the plans, as far as is known; called without the store.
        if_unavailable: ``local`` counts here what the store does not, ``deny`` refuses it.
        lease: seconds after which the places of a process that has crashed come free.
        clock: only its ``monotonic`` is read; plans go by the clock of the store.

    Attributes:
        quotas: count the calls.
        places: count the streams.

    """

    def __init__(
        self,
        store: Store,
        authorizer: Authorizer,
        *,
        replicas: Callable[[], int] = lambda: 1,
        if_unavailable: IfUnavailable = "local",
        lease: float = LEASE_SECONDS,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._authorizer = authorizer
        self._trips = Trips(store, clock=clock)
        self.quotas = SharedQuotas(self._trips, replicas=replicas, if_unavailable=if_unavailable, clock=clock)
        self.places = SharedPlaces(
            self._trips, replicas=replicas, if_unavailable=if_unavailable, lease=lease, clock=clock
        )

    def start(self) -> None:
        """Count by the store from the next call on."""
        self._before = self._authorizer.quotas
        self._authorizer.quotas, self._authorizer.streams.places = self.quotas, self.places

    def stop(self) -> None:
        """Count in this process again, and give back what was taken from the store."""
        self._authorizer.quotas, self._authorizer.streams.places = self._before, None
        self.quotas.close()
        self.places.close()
        self._trips.close()
