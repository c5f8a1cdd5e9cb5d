"""The orders of the operator beyond this process: kept in a file, and shared with other replicas by a store."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from authz.decisions.sample import Sampled
from authz.errors import ConfigError
from authz.judge.orders.file import OrdersFile
from authz.judge.orders.operator import Listings, Operator
from authz.judge.orders.order import OPERATOR, Order, Source, Verb
from authz.judge.orders.standing import Doubt, Standing
from authz.judge.streams import OpenStreams
from authz.runtime.clock import SYSTEM_CLOCK
from authz.settings.settings import Settings

if TYPE_CHECKING:
    from authz.server.workos.following import WorkOSEvents
    from authz.server.workos.listing import WorkOSApplications
    from authz.server.workos.webhooks import Webhooks
    from authz.store.shared_state import Sharing

Way = Literal["here", "store"]
"""How an order comes to this process: it is given here, or the store has it."""

_CONNECTING = "connecting"
# How often to look whether the orders are known: while calls are refused for it, and else.
_SOON, _PAUSE = 0.05, 1.0
# A store that is well has given all orders by then, so that a server need not say NOT_SERVING first.
_AT_ONCE_SECONDS = 1.0


class SharedOrders:
    """What keeps and shares the orders of this process.

    Args:
        operator: that of this process.
        file: the file that they are kept in, if there is one.
        sharing: shares them with other replicas, if there is a store.
        stale: after how many seconds without the store the orders count as unknown.

    Attributes:
        operator: that of the argument.
        sharing: that of the argument.
        events: follows the events of WorkOS, if anything does.
        applications: lists the applications of WorkOS, if anything does.
        webhooks: takes webhooks of WorkOS, if anything does.
        given: how many orders there were since the start, by verb, what they come from, and the way that they came:
            ``here`` or ``store``.

    """

    def __init__(self, operator: Operator, file: OrdersFile | None, sharing: "Sharing | None", *, stale: float) -> None:
        self.operator, self.sharing, self._file, self._stale = operator, sharing, file, stale
        self.events: WorkOSEvents | None = None
        self.applications: WorkOSApplications | None = None
        self.webhooks: Webhooks | None = None
        self.given: Counter[tuple[Verb, Source, Way]] = Counter()
        self._known_until = -1.0
        age = None if file is None else file.age(time.time())
        if age is not None:
            self._known_until = time.monotonic() + stale - age
        self._was_known = age is not None and age < stale
        operator.watch(self._count)

    def doubt(self) -> Doubt:
        """Return whether not all orders may be known."""
        sharing = self.sharing
        if sharing is None:
            return Doubt()
        is_known = not sharing.is_stale if sharing.is_caught_up else time.monotonic() < self._known_until
        # What was known once stays in force, so that calls can still be decided.
        self._was_known |= sharing.is_caught_up
        if is_known:
            return Doubt()
        error = sharing.follower.error
        cause = _CONNECTING if error is None else error.reason
        return Doubt(f"orders_{'stale' if self._was_known else 'unknown'}: {cause}", not self._was_known)

    async def keep_telling(self, tell: Callable[[Doubt], object]) -> None:
        """Tell of every change of :meth:`doubt`, and note in the file until when all is known; until cancelled."""
        told = None
        while True:
            doubt = self.doubt()
            if doubt != told:
                told = doubt
                tell(doubt)
            sharing = self.sharing
            if self._file is not None and sharing is not None and sharing.is_caught_up:
                self._file.caught_up(time.time() - sharing.follower.age)
            await asyncio.sleep(_SOON if doubt.refuses else _PAUSE)

    def told(self) -> dict[str, Any]:
        """Return what the admin page shows of the store; call it on a thread, for it asks the store."""
        sharing = self.sharing
        is_kept = sharing is not None or self._file is not None
        if sharing is None:
            return {"store": None, "replicas": [], "is_kept": is_kept, "source": _source(self.events)}
        error, follower = sharing.follower.error, sharing.follower
        store = {"is_up": error is None, "age": follower.age, "error": "" if error is None else str(error)}
        store |= {"is_caught_up": sharing.is_caught_up, "left_out": sharing.decisions.left_out}
        replicas = _replicas(sharing)
        source = _shared_source(self.events, sharing, replicas)
        return {"store": store, "replicas": replicas, "is_kept": is_kept, "source": source}

    def _count(self, orders: Sequence[Order]) -> None:
        is_from_store = self.sharing is not None and self.sharing.follower.is_this_thread
        way: Way = "store" if is_from_store else "here"
        if isinstance(orders, Listings):
            self.given["revoke", OPERATOR, way] += len(orders)
            return
        for order in orders:
            self.given[order.verb, order.origin, way] += 1


@contextlib.asynccontextmanager
async def shared_orders(
    settings: Settings,
    operator: Operator,
    share: "Callable[[], Sharing | None]",
    tell: Callable[[Doubt], object],
    *,
    name: Callable[[Mapping[str, str]], object],
) -> AsyncIterator[SharedOrders]:
    """Keep and share the orders as the settings say, until the end of the block.

    Args:
        settings: the settings.
        operator: takes the orders in this process.
        share: builds what shares them, if the settings name a store.
        tell: is told whether they are known.
        name: is told what applications are called by now, by client id.

    Raises:
        ConfigError: the file or the store cannot be used.

    """
    async with contextlib.AsyncExitStack() as ending:
        file = None if settings.orders is None else OrdersFile(settings.orders, operator)
        if file is not None:
            # On a thread: it waits for the disk, and for workers that obey.
            await asyncio.to_thread(file.__enter__)
            ending.push_async_callback(asyncio.to_thread, file.__exit__)
        sharing = share()
        shared = SharedOrders(operator, file, sharing, stale=settings.store_stale)
        if sharing is not None:
            # The admin page tells what another replica follows; nothing is to be loaded once calls are decided.
            import authz.server.workos.shared_place  # noqa: F401, PLC0415

            tell(shared.doubt())
            await asyncio.to_thread(sharing.start)
            ending.push_async_callback(asyncio.to_thread, sharing.stop)
            await asyncio.to_thread(sharing.follower.wait, _AT_ONCE_SECONDS)
            telling = asyncio.create_task(shared.keep_telling(tell))
            ending.callback(telling.cancel)
        if settings.workos_events:
            await ending.enter_async_context(_following(settings, shared, file, name))
        yield shared


@contextlib.asynccontextmanager
async def _following(
    settings: Settings, shared: SharedOrders, file: OrdersFile | None, name: Callable[[Mapping[str, str]], object]
) -> AsyncIterator[None]:
    """Follow the events of WorkOS, list its applications and take its webhooks, until the end of the block.

    Raises:
        ConfigError: a setting cannot work.

    """
    from authz.server.workos.configured import workos_applications_of, workos_events_of  # noqa: PLC0415 - as above

    shared.events = events = workos_events_of(settings, shared.operator, file, shared.sharing)
    if shared.sharing is not None:
        shared.sharing.more_about = lambda: {"source_age": events.age, "source_error": events.error}
    followers: list[WorkOSEvents | WorkOSApplications] = [events]
    if settings.workos_applications:
        shared.applications = workos_applications_of(
            settings, shared.operator, shared.sharing, lambda: events.is_leading, name
        )
        followers.append(shared.applications)
    async with contextlib.AsyncExitStack() as ending:
        for each in followers:
            each.start()
            ending.push_async_callback(asyncio.to_thread, each.stop)
        if settings.workos_webhooks is not None:
            # Late, as above.
            from authz.server.workos.webhooks import Webhooks, receiving  # noqa: PLC0415

            shared.webhooks = webhooks = Webhooks(settings.webhook_secrets(), events.nudge)
            await ending.enter_async_context(receiving(webhooks, settings.workos_webhooks))
        yield


def sharing_of(
    settings: Settings, operator: Operator, about: Callable[[], Mapping[str, Any]], look: Callable[[], Sampled]
) -> "Sharing | None":
    """Return what shares the orders of a process that decides nothing itself; ``None`` without a store.

    Args:
        settings: the settings.
        operator: takes the orders in this process.
        about: returns what this replica says of itself.
        look: returns a few of its decisions.

    Raises:
        ConfigError: a setting cannot work.

    """
    if settings.store is None:
        return None
    # Imported late: nothing of it is needed without a store.
    from authz.store.connection import Store  # noqa: PLC0415
    from authz.store.shared_state import Sharing  # noqa: PLC0415

    store = Store.of(settings)
    if store is None:
        raise ConfigError("store: missing")
    sharing = Sharing(store, operator, about, look, region=settings.store_region or "", stale=settings.store_stale)
    operator.watch(sharing.follower.send)
    return sharing


def operator_of(settings: Settings) -> Operator:
    """Return what takes orders in a process that decides nothing itself, for its workers.

    Raises:
        ConfigError: the file of issuers cannot be read.

    """
    listed = settings.listed()
    issuers = [settings.issuer] if listed is None else [each.name for each in listed.listed]
    return Operator(Standing(), OpenStreams(), clock=SYSTEM_CLOCK, issuers=[each for each in issuers if each])


def _replicas(sharing: "Sharing") -> list[dict[str, Any]]:
    from authz.store.connection import StoreError  # noqa: PLC0415 - late, as above
    from authz.store.replicas import Replicas  # noqa: PLC0415

    try:
        replicas = Replicas(sharing.store).all()
    except StoreError:
        return []
    newest = max((_place(each.applied) for each in replicas), default=(0, 0))
    own = sharing.heartbeat.id
    return [
        {**each._asdict(), "is_behind": _place(each.applied) < newest, "is_this": each.id == own} for each in replicas
    ]


def _source(events: "WorkOSEvents | None") -> dict[str, Any] | None:
    """Return how far the events of WorkOS have become orders here; ``None`` if nothing follows them."""
    if events is None:
        return None
    cursor = None if events.cursor is None else events.cursor.told()
    return {"leader": "", "cursor": cursor, "age": events.age, "error": events.error}


def _shared_source(
    events: "WorkOSEvents | None", sharing: "Sharing", replicas: Sequence[Mapping[str, Any]]
) -> dict[str, Any] | None:
    """Return how far the events of WorkOS have become orders, and which replica sees to that; ``None`` if none does."""
    from authz.server.workos.shared_place import Followed, followed  # noqa: PLC0415 - loaded by shared_orders()
    from authz.store.connection import StoreError  # noqa: PLC0415 - late, as above

    try:
        leader, cursor = followed(sharing.store)
    except StoreError:
        leader, cursor = Followed()
    if events is None and not leader and cursor is None:
        return None
    leading = next((each for each in replicas if each["id"] == leader), {})
    told = {"leader": leader, "cursor": None if cursor is None else cursor.told()}
    if events is not None and leading.get("is_this"):
        return {**told, "age": events.age, "error": events.error}
    errors = [leading.get("source_error", "")] if leader else [each["source_error"] for each in replicas]
    return {**told, "age": leading.get("source_age"), "error": next(filter(None, errors), "")}


def _place(applied: str) -> tuple[int, int]:
    """Return the id of an entry of the log as numbers; before all others if it is none."""
    milliseconds, _, number = applied.partition("-")
    if not (milliseconds.isdecimal() and number.isdecimal()):
        return -1, 0
    return int(milliseconds), int(number)
