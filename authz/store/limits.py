"""Plans that hold for all processes together: the quotas and the places of streams of one authorizer, by a store."""

import os
import secrets
from typing import TYPE_CHECKING, Self

from authz.judge.authorizer import Authorizer
from authz.runtime.clock import SYSTEM_CLOCK, Clock
from authz.runtime.threads import Repeating
from authz.store.connection import Script, Store
from authz.store.leases import IfUnavailable, SharedQuotas
from authz.store.places import LEASE_SECONDS, SharedPlaces
from authz.store.trips import Request, Trips

if TYPE_CHECKING:
    from authz.settings.store import StoreSettings

# More often at first, when other processes may be starting, too.
_FIRST_BEAT_SECONDS, _BEAT_SECONDS, _SEEN_SECONDS = 0.25, 5.0, 15

# The processes that share plans, each with when it was seen last. ARGV: the process, seconds. Returns their number.
SEEN = Script("""\
local now = redis.call('TIME')[1]
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[2])
return redis.call('ZCARD', KEYS[1])
""")
LEFT = Script("return redis.call('ZREM', KEYS[1], ARGV[1])")


class SharedLimits:
    """Count the calls and the open streams of organizations together with other processes; a context manager.

    Args:
        store: where they are counted.
        authorizer: whose calls and streams are counted so.
        if_unavailable: ``local`` counts here what the store does not, ``deny`` refuses it.
        lease: seconds after which the places of a process that has crashed come free.
        clock: only its ``monotonic`` is read; plans go by the clock of the store.

    Attributes:
        quotas: count the calls.
        places: count the streams.
        processes: how many there are that share plans, as far as is known; each counts against its share of them while
            the store does not answer.

    """

    def __init__(
        self,
        store: Store,
        authorizer: Authorizer,
        *,
        if_unavailable: IfUnavailable = "local",
        lease: float = LEASE_SECONDS,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._authorizer, self._store, self._before = authorizer, store, authorizer.quotas
        self._trips = Trips(store, clock=clock)
        self.processes, self._name = 1, secrets.token_hex(6)
        self.quotas = SharedQuotas(
            self._trips, replicas=lambda: self.processes, if_unavailable=if_unavailable, clock=clock
        )
        self.places = SharedPlaces(
            self._trips, replicas=lambda: self.processes, if_unavailable=if_unavailable, lease=lease, clock=clock
        )
        self._pause = _FIRST_BEAT_SECONDS
        self._beating = Repeating("authz-limits", self._beat)

    @classmethod
    def of(cls, settings: "StoreSettings", authorizer: Authorizer) -> "SharedLimits | None":
        """Build what counts as the settings say; ``None`` if they name no store.

        Raises:
            ConfigError: a setting cannot work.

        """
        where = settings.store if settings.quota_store is None else settings.quota_store
        store = Store.of(settings.model_copy(update={"store": where}))
        clock = authorizer.verifier.clock
        return (
            None if store is None else cls(store, authorizer, if_unavailable=settings.quota_if_unavailable, clock=clock)
        )

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Count by the store from the next call on."""
        self._authorizer.quotas, self._authorizer.streams.places = self.quotas, self.places
        self._beating.start()

    def stop(self) -> None:
        """Count in this process again, and give back what was taken from the store."""
        self._authorizer.quotas, self._authorizer.streams.places = self._before, None
        self._beating.stop()
        self.quotas.close()
        self.places.close()
        if self._trips.is_answering:
            self._send(LEFT)
        self._trips.close()

    def _beat(self) -> float:
        policy = self._authorizer.policy
        if policy is not None and policy.has_quotas and self._trips.is_open:
            self._send(SEEN, _SEEN_SECONDS)
        self._pause = min(2 * self._pause, _BEAT_SECONDS)
        return self._pause

    def _send(self, script: Script, *args: int) -> None:
        # A forked child is another process.
        name = f"{self._name}-{os.getpid()}"
        self._trips.send(Request(script, self._store.key("q:processes"), [name, *args], self._hear))

    def _hear(self, processes: int | None) -> None:
        self.processes = processes or self.processes
