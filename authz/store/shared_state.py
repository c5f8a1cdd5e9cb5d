"""One word for all replicas: what a process shares with others by a store, from the beginning of a block to its end."""

import asyncio
import socket
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Protocol, Self

from authz.decisions.sample import Sample, Sampled
from authz.decisions.usage import Usage
from authz.errors import ConfigError, UnavailableError
from authz.judge.authorizer import Authorizer
from authz.runtime.clock import SYSTEM_CLOCK, Clock
from authz.runtime.configuration import extra
from authz.store.connection import Store, StoreError
from authz.store.decisions import SharedDecisions
from authz.store.follower import Follower, Target
from authz.store.limits import SharedLimits
from authz.store.replicas import Heartbeat
from authz.store.usage.counts import KEPT_DAYS
from authz.store.usage.writer import UsageWriter

if TYPE_CHECKING:
    from authz.settings.store import StoreSettings

_STALE_SECONDS, _WAIT_SECONDS = 3600.0, 30.0
# What stays so until an operator changes something.
_MISTAKES = frozenset({"denied", "version", "eviction", "format", "protocol"})


class Part(Protocol):
    """Something else that is shared, such as quotas."""

    def start(self) -> object:
        """Begin to share it."""

    def stop(self) -> object:
        """End that; what was borrowed is given back."""


class Sharing:
    """Keep what obeys orders and a store alike, from the beginning of a block to its end; see :class:`SharedState`.

    Args:
        store: the store.
        target: obeys the orders; what is ordered there is to be given to ``follower.send``.
        about: returns what this replica says of itself, by the names of :class:`authz.store.replicas.Replica`.
        look: returns a few of the decisions of this replica, see :meth:`authz.decisions.sample.Sample.look`.
        wait: as for :class:`SharedState`.
        region: as for :class:`SharedState`.
        stale: as for :class:`SharedState`.
        clock: tells the time.

    Attributes:
        store: that of the argument.
        follower: keeps the orders here and there alike.
        heartbeat: tells other replicas of this one.
        decisions: tells pages of other replicas what is decided here, and a page here what is decided there.
        more_about: returns what else this replica says of itself.
        parts: what else is shared; started and stopped with this.

    """

    def __init__(
        self,
        store: Store,
        target: Target,
        about: Callable[[], Mapping[str, Any]],
        look: Callable[[], Sampled],
        *,
        wait: float | None = _WAIT_SECONDS,
        region: str = "",
        stale: float = _STALE_SECONDS,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.store, self._wait, self._stale = store, wait, stale
        self._same, self._of_target = (
            {"host": socket.gethostname(), "version": version("grpc-org-authz"), "region": region},
            about,
        )
        self.more_about: Callable[[], Mapping[str, Any]] = dict
        self.heartbeat = Heartbeat(store, self._about, clock=clock)
        self.follower = Follower(store, target, applied=self.heartbeat.wake, clock=clock)
        self.decisions = SharedDecisions(store, look, lambda: self.heartbeat.id, clock=clock)
        self.parts: list[Part] = []

    @property
    def is_caught_up(self) -> bool:
        """Whether all orders in the store were put in force here; only then may a server say that it is SERVING."""
        return self.follower.wait(0)

    @property
    def is_stale(self) -> bool:
        """Whether nothing was heard of the store for so long that a server should say NOT_SERVING."""
        return self.follower.age >= self._stale

    def start(self) -> None:
        """Begin to share without waiting: until :attr:`is_caught_up` no call may be decided.

        Raises:
            ConfigError: the store is there, but cannot be used; the message says why, and what to do.

        """
        try:
            self.store.check()
        except StoreError as error:
            if error.reason in _MISTAKES:
                self.store.close()
                raise ConfigError(str(error)) from None
        for part in self._all():
            part.start()

    def stop(self) -> None:
        """Share nothing any more; what was ordered stays in force here."""
        for part in reversed(self._all()):
            part.stop()
        self.store.close()

    def catch_up(self) -> None:
        """Wait until all orders in the store are in force here.

        Raises:
            UnavailableError: the store did not give them in time.

        """
        if self._wait is not None and not self.follower.wait(self._wait):
            why = self.follower.error or f"store: {self.store.address} has not given all orders in time"
            raise UnavailableError(str(why))
        while not self.follower.wait(1.0):
            pass

    def __enter__(self) -> Self:
        """Begin to share, and wait until all orders in the store are in force here.

        Raises:
            ConfigError: as for :meth:`start`.
            UnavailableError: as for :meth:`catch_up`.

        """
        self.start()
        try:
            self.catch_up()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        return await asyncio.to_thread(self.__enter__)

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self.stop)

    def _about(self) -> dict[str, Any]:
        return {**self._same, "applied": self.follower.applied, **self._of_target(), **self.more_about()}

    def _all(self) -> Sequence[Part]:
        return self.follower, self.heartbeat, self.decisions, *self.parts


class SharedState(Sharing):
    """Share the operator's orders with all processes that use the same store, from the beginning of a block to its end.

    At the beginning all orders in the store are put in force here. From then on an order that is given anywhere is in
    force here within a second, and one that is given here, such as by :meth:`authz.Authorizer.suspend`, everywhere.
    While the store is away, all orders stay in force; what it loses is written back.

    The store is followed on threads, in every forked child as well, so that ``with`` and ``async with`` serve sync and
    aio servers alike. Needs the extra ``store``.

    What each organization uses is counted as well, and sent to the store every ten seconds; ``authz usage`` shows it.

    Args:
        store: where it is, as for :class:`authz.store.connection.Store`, or that itself.
        authorizer: obeys the orders.
        wait: for how many seconds the beginning of the block may wait until all orders are in force here; ``None`` for
            as long as it takes.
        region: the name of this place, for people.
        stale: after how many seconds without the store ``is_stale`` says so.
        limits: count quotas and open streams together with the others; by default in the same store.
        usage_days: for how many days the store keeps what organizations use; 0 to send it none.

    Raises:
        ConfigError: the extra is not installed, or an argument cannot work.

    """

    def __init__(
        self,
        store: str | Store,
        authorizer: Authorizer,
        *,
        wait: float | None = _WAIT_SECONDS,
        region: str = "",
        stale: float = _STALE_SECONDS,
        limits: SharedLimits | None = None,
        usage_days: int = KEPT_DAYS,
    ) -> None:
        clock, sample = authorizer.verifier.clock, Sample()
        super().__init__(
            Store(store) if isinstance(store, str) else store,
            authorizer.operator,
            lambda: about(authorizer),
            lambda: sample.look(clock.time()),
            wait=wait,
            region=region,
            stale=stale,
            clock=clock,
        )
        authorizer.operator.watch(self.follower.send)
        authorizer.telling.observe(sample)
        self.parts.append(limits or SharedLimits(self.store, authorizer, clock=clock))
        if usage_days:
            usage = Usage()
            authorizer.telling.observe(usage)
            self.parts.append(UsageWriter(self.store, usage, days=usage_days))

    @classmethod
    def from_env(cls, authorizer: Authorizer, *, wait: float | None = _WAIT_SECONDS) -> "SharedState":
        """Share by the store that ``AUTHZ_STORE`` names, or the file that ``AUTHZ_ENV_FILE`` names.

        It needs the extra ``settings``.

        Args:
            authorizer: obeys the orders.
            wait: as for the class.

        Raises:
            ConfigError: a variable is missing or wrong; the message names it.

        """
        with extra("settings", "SharedState.from_env: this needs the extra 'settings'", package="pydantic"):
            from authz.settings.store import StoreSettings  # noqa: PLC0415 - the extra's, and slow to load

        shared = shared_state_of(StoreSettings.load(), authorizer, wait=wait)
        if shared is None:
            raise ConfigError("store: missing; set AUTHZ_STORE, such as redis://127.0.0.1:6379")
        return shared


def shared_state_of(
    settings: "StoreSettings",
    authorizer: Authorizer,
    *,
    wait: float | None = _WAIT_SECONDS,
    usage_days: int | None = None,
) -> SharedState | None:
    """Build what the settings say that is shared; ``None`` if they name no store.

    Args:
        settings: the settings.
        authorizer: obeys the orders.
        wait: as for :class:`SharedState`.
        usage_days: as for :class:`SharedState`, if not what the settings say.

    Raises:
        ConfigError: a setting cannot work.

    """
    store = Store.of(settings)
    if store is None:
        return None
    limits = SharedLimits.of(settings, authorizer)
    return SharedState(
        store,
        authorizer,
        wait=wait,
        region=settings.store_region or "",
        stale=settings.store_stale,
        limits=limits,
        usage_days=settings.usage_days if usage_days is None else usage_days,
    )


def about(authorizer: Authorizer) -> dict[str, Any]:
    """Return what a replica says of its authorizer, by the names of :class:`authz.store.replicas.Replica`."""
    policy = authorizer.policy
    ages = [health.age for health in authorizer.verifier.health().values() if health.age is not None]
    told = "" if policy is None else f"{policy.name} {policy.digest}"
    return {"policy": told, "keys_age": max(ages, default=None)}
