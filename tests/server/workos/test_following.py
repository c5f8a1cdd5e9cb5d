"""What happens in WorkOS is in force once, in order, whichever replica follows and whatever fails."""

import json
import random
import secrets
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

import pytest

from authz.demo.issuer.workos_api import event_json
from authz.errors import ConfigError
from authz.judge.orders.operator import Operator
from authz.judge.orders.order import MICROSECONDS, Order
from authz.judge.orders.standing import Standing
from authz.judge.streams import OpenStreams
from authz.server.workos.events import DELETED_SECONDS, RENEWAL_SECONDS
from authz.server.workos.following import FIRST_SECONDS, WorkOSEvents
from authz.server.workos.place import Cursor, PlaceHere
from authz.server.workos.shared_place import SharedPlace, followed
from authz.store.connection import Script, Store
from authz.store.entries import parsed
from authz.store.orders_store import OrdersStore
from tests.doubles import PATIENCE, ManualClock, eventually
from tests.events import told
from tests.server.workos.posts import Port, signature
from tests.server.workos.troubled import TroubledIssuer, body
from tests.store.engines import Engine

LEADER, CURSOR, LOG = (f"authz:{{{name}" for name in ("workos}:leader", "workos}:cursor", "orders}:log"))


class Killed(BaseException):
    """The process that followed is gone."""


class Interrupted(Store):
    """A store before and after each of whose scripts something may happen."""

    between: Callable[[], object] = staticmethod(lambda: None)

    def call(self, script: Script, keys: Sequence[str], args: Sequence[Any], client: Any = None) -> Any:
        self.between()
        answer = super().call(script, keys, args, client)
        self.between()
        return answer


@pytest.fixture
def operator(clock: ManualClock) -> Operator:
    return Operator(Standing(clock=clock.clock), OpenStreams(clock=clock.clock), clock=clock.clock)


@pytest.fixture
def alone(workos: TroubledIssuer, operator: Operator, clock: ManualClock) -> Iterator[WorkOSEvents]:
    """Return what follows for one process without a store; the test runs it."""
    api = workos.api()
    yield WorkOSEvents(api, PlaceHere(operator, None), clock=clock.clock)
    api.close()


def turn(events: WorkOSEvents, clock: ManualClock, times: int = 1) -> None:
    """Let as much time pass as it waits for, and let it work."""
    for _ in range(times):
        clock.advance(events.work() + 0.001)


def turns(events: WorkOSEvents, clock: ManualClock, condition: Callable[[], object]) -> None:
    """Let it work until a condition holds."""
    for _ in range(1000):
        if condition():
            return
        turn(events, clock)
    raise AssertionError(f"it never does: {events.error}")


def expected(workos: TroubledIssuer) -> list[Order]:
    """Return what all that has happened is to become."""
    orders = []
    for event in workos.environment.events.page(["organization.updated", "organization.deleted"], limit=10_000)[0]:
        # WorkOS tells times in milliseconds.
        at = round(datetime.fromisoformat(str(event_json(event)["created_at"])).timestamp() * MICROSECONDS)
        if event.name == "organization.deleted":
            until, more = at / MICROSECONDS + DELETED_SECONDS, {"reason": "deleted in WorkOS"}
            orders.append(
                Order("revoke", "organization", event.organization.id, until=until, source="workos", at=at, **more)
            )
        else:
            until = at / MICROSECONDS + RENEWAL_SECONDS
            orders.append(Order("renew", "organization", event.organization.id, until=until, source="workos", at=at))
    return orders


def last_id(workos: TroubledIssuer) -> str:
    names = ["organization.updated", "organization.deleted"]
    [event], _ = workos.environment.events.page(names, limit=1, is_ascending=False)
    return event.id


def test_what_happens_in_workos_is_in_force_and_its_cursor_moves(
    alone: WorkOSEvents, workos: TroubledIssuer, operator: Operator, clock: ManualClock
) -> None:
    first, second = workos.organization(), workos.organization()
    workos.update(first)
    workos.delete(second)
    turn(alone, clock)

    assert list(operator.book) == sorted(expected(workos), key=lambda order: order.verb, reverse=True)
    assert set(operator.standing.book.named("revoke", "organization")) == {second}
    assert alone.counts == {"organization.updated": 1, "organization.deleted": 1, "other": 0}
    turn(alone, clock)
    assert f"after={last_id(workos)}" in workos.asked[-1]
    assert all("order=asc" in query and "limit=100" in query for query in workos.asked)


def test_it_begins_a_day_back_and_reads_all_pages(
    alone: WorkOSEvents, workos: TroubledIssuer, operator: Operator, clock: ManualClock
) -> None:
    old = workos.organization()
    workos.delete(old)
    clock.advance(FIRST_SECONDS)
    for _ in range(250):
        workos.delete(workos.organization())
    began = clock.now
    turn(alone, clock, 3)

    assert set(operator.book) == set(expected(workos)[1:])
    assert clock.now - began < 3
    assert alone.age < 3


def test_order_of_an_operator_stands_though_the_event_is_read_again(
    alone: WorkOSEvents, workos: TroubledIssuer, operator: Operator, clock: ManualClock
) -> None:
    org_id = workos.organization()
    workos.delete(org_id)
    turn(alone, clock)
    operator.order(Order("reinstate", "organization", org_id, by="ann"))
    again = WorkOSEvents(workos.api(), PlaceHere(operator, None), clock=clock.clock)
    turn(again, clock)

    assert again.counts["organization.deleted"] == 1
    assert [(order.verb, order.by) for order in operator.book] == [("reinstate", "ann")]


# ---- What fails ----


@pytest.mark.parametrize(
    "trouble",
    [
        ("429 7", "status 429"),
        ("500", "status 500"),
        ("401", "status 401 (WorkOS refused our API key)"),
        ("404", "status 404"),
        ("422", "status 422"),
        ("lost", "protocol"),
        (b"<html>", "not events"),
        (b"[]", "not events"),
        (b"{}", "not events"),
        (b'{"data": {}, "list_metadata": {}}', "not events"),
        (b'{"data": [7], "list_metadata": {}}', "not events"),
        (b"[" * 100_000, "not events"),
        (b"\xff\xfe", "not events"),
    ],
)
def test_source_that_is_down_changes_nothing_and_is_said_once(
    alone: WorkOSEvents, workos: TroubledIssuer, operator: Operator, clock: ManualClock, trouble: Any
) -> None:
    trouble, error = trouble
    workos.trouble = lambda: trouble
    with told("source_failed") as failures, told("source_recovered") as recoveries:
        workos.delete(workos.organization())
        turns(alone, clock, lambda: len(workos.asked) >= 3)
        during = (alone.error, alone.is_up, len(operator.book), alone.counts.total())
        workos.trouble = lambda: ""
        turns(alone, clock, lambda: not alone.error)

    assert during == (error, False, 0, 0)
    assert failures == [{"source": "workos", "error": error}]
    assert recoveries == [{"source": "workos"}]
    assert list(operator.book) == expected(workos)
    assert (alone.error, alone.is_up) == ("", True)


def test_pause_is_as_long_as_workos_asks_for_and_not_for_ever(
    alone: WorkOSEvents, workos: TroubledIssuer, clock: ManualClock
) -> None:
    workos.trouble = lambda: "429 7"
    began = clock.now
    turns(alone, clock, lambda: len(workos.asked) == 2)
    assert clock.now - began >= 7
    workos.trouble = lambda: f"429 {10**12}"
    turns(alone, clock, lambda: len(workos.asked) == 3)
    began = clock.now
    turns(alone, clock, lambda: len(workos.asked) == 4)

    assert clock.now - began <= 61


def test_slow_answer_is_given_up_and_asked_for_in_a_smaller_size(
    workos: TroubledIssuer, operator: Operator, clock: ManualClock
) -> None:
    api = workos.api(timeout=0.2)
    events = WorkOSEvents(api, PlaceHere(operator, None), clock=clock.clock)
    workos.trouble = lambda: "slow"
    turns(events, clock, lambda: len(workos.asked) == 2)
    during = events.error
    api.close()
    patient = WorkOSEvents(workos.api(), PlaceHere(operator, None), clock=clock.clock)
    workos.trouble = lambda: ""
    turn(patient, clock)

    assert during == "timeout"
    assert "limit=100" in workos.asked[0]
    assert "limit=25" in workos.asked[1]


def test_enormous_page_does_not_stop_it(workos: TroubledIssuer, operator: Operator, clock: ManualClock) -> None:
    events = WorkOSEvents(workos.api(max_bytes=2000), PlaceHere(operator, None), clock=clock.clock)
    for _ in range(100):
        workos.update(workos.organization())
    turns(events, clock, lambda: len(operator.book) == 100)

    assert list(operator.book) == expected(workos)


def test_answer_that_never_goes_on_is_an_error_and_no_loop(
    alone: WorkOSEvents, workos: TroubledIssuer, clock: ManualClock
) -> None:
    workos.update(workos.organization())
    turn(alone, clock)
    workos.trouble = lambda: "again"
    turn(alone, clock)

    assert alone.error == "not events"


def test_stopping_does_not_wait_for_an_answer(workos: TroubledIssuer, operator: Operator) -> None:
    events = WorkOSEvents(workos.api(timeout=PATIENCE), PlaceHere(operator, None))
    workos.trouble = lambda: "slow"
    events.start()
    with ThreadPoolExecutor(1) as other:
        eventually(lambda: workos.asked)
        assert other.submit(events.stop).result(PATIENCE / 2) is None


# ---- A cursor that WorkOS does not know ----


def test_cursor_that_workos_does_not_know_is_replaced_by_its_time(
    workos: TroubledIssuer, operator: Operator, clock: ManualClock
) -> None:
    place = PlaceHere(operator, None)
    first, second = workos.organization(), workos.organization()
    workos.delete(first)
    clock.advance(3600)
    place.move([], Cursor("event_of_another_environment", clock.now))
    workos.delete(second)
    events = WorkOSEvents(workos.api(), place, clock=clock.clock)
    with told("source_cursor_unknown"):
        turn(events, clock, 2)

    assert [order.id for order in operator.book] == [second]
    assert (place.cursor() or Cursor("", 0)).id == last_id(workos)


def test_cursor_older_than_what_workos_keeps_begins_with_what_it_has(
    workos: TroubledIssuer, operator: Operator, clock: ManualClock
) -> None:
    place = PlaceHere(operator, None)
    place.move([], Cursor("", clock.now - 400 * 86_400))
    turn(WorkOSEvents(workos.api(), place, clock=clock.clock), clock)

    [asked] = workos.asked
    assert "range_start=2026-" in asked or "range_start=2027-" in asked


# ---- What comes from outside ----

GOOD = {
    "id": "event_1",
    "event": "organization.deleted",
    "created_at": "2027-01-15T08:00:00.000Z",
    "data": {"id": "org_1"},
}


@pytest.mark.parametrize(
    "event",
    [
        {"data": {"id": "org_1\n"}},
        {"data": {"id": "org_1 x"}},
        {"data": {"id": "client_1"}},
        {"data": {"id": "org_" + "1" * 65}},
        {"data": {"id": ["org_1"]}},
        {"data": {"id": {"$ne": ""}}},
        {"data": {"id": ""}},
        {"data": {}},
        {"data": None},
        {"data": "org_1"},
        {"created_at": None},
        {"created_at": 1_800_000_000},
        {"created_at": "yesterday"},
        {"created_at": "2027-01-15T08:00:00"},
        {"created_at": "1960-01-15T08:00:00Z"},
        {"created_at": "2255-01-15T08:00:00Z"},
        {"event": "organization.destroyed"},
        {"event": "connection.deleted"},
        {"event": ["organization.deleted"]},
        {"event": None},
    ],
    ids=str,
)
def test_event_of_a_wrong_form_is_no_order_and_hides_no_other(
    alone: WorkOSEvents, workos: TroubledIssuer, operator: Operator, clock: ManualClock, event: dict[str, Any]
) -> None:
    after = {**GOOD, "id": "event_2", "data": {"id": "org_2"}}
    workos.trouble = lambda: body({**GOOD, **event}, {"id": 7}, None, after)
    with told("source_events_ignored") as ignored:
        turn(alone, clock)

    assert [order.id for order in operator.book] == ["org_2"]
    assert ignored == [{"source": "workos", "events": 3}]
    assert alone.counts == {"organization.updated": 0, "organization.deleted": 1, "other": 3}


def test_every_order_of_an_event_is_one_that_can_be_carried_out(
    alone: WorkOSEvents, workos: TroubledIssuer, operator: Operator, clock: ManualClock
) -> None:
    workos.trouble = lambda: body(GOOD, {**GOOD, "id": "event_2", "event": "organization.updated"})
    turn(alone, clock)

    assert len(operator.book) == 2
    for order in operator.book:
        try:
            order.check()
        except ConfigError as error:  # pragma: no cover - only where it fails
            pytest.fail(str(error))


# ---- Several replicas ----


def follower(workos: TroubledIssuer, store: Store, clock: ManualClock, *, is_told: bool = False) -> WorkOSEvents:
    replica = secrets.token_hex(4)
    place = SharedPlace(store, lambda: replica)
    return WorkOSEvents(workos.api(timeout=2.0), place, is_told=is_told, clock=clock.clock)


def logged(engine: Engine) -> list[Order]:
    """Return all orders that were news to the store, in their order."""
    with engine.client() as asking:
        entries: Any = asking.xrange(LOG)
    return [parsed(fields[b"o"]) for _, fields in entries]


def cursor_of(engine: Engine) -> Any:
    with engine.client() as asking:
        found: Any = asking.get(CURSOR)
    return json.loads(found)


def let_go(engine: Engine) -> None:
    """Let the time pass after which another replica may follow."""
    with engine.client() as asking:
        asking.delete(LEADER)


def test_one_replica_follows_and_when_it_stops_another_goes_on(
    workos: TroubledIssuer, engine: Engine, clock: ManualClock
) -> None:
    with engine.client() as asking:
        one, other = (follower(workos, engine.store(), clock) for _ in range(2))
        first, second = workos.organization(), workos.organization()
        workos.delete(first)
        turn(one, clock)
        turn(other, clock)
        led = (one.is_leading, other.is_leading, len(workos.asked))
        seconds: Any = asking.pttl(LEADER)
        one.stop()
        workos.delete(second)
        turn(other, clock)
        other.stop()

        assert led == (True, False, 1)
        assert 0 < seconds <= 8000
        assert other.is_up
        assert [order.id for order in logged(engine)] == [first, second]
        assert cursor_of(engine)["id"] == last_id(workos)
        assert asking.exists(LEADER) == 0


def test_replica_that_cannot_reach_workos_gives_way(workos: TroubledIssuer, engine: Engine, clock: ManualClock) -> None:
    cut_off, other = (follower(workos, engine.store(), clock) for _ in range(2))
    workos.trouble = lambda: "500"
    turn(cut_off, clock)
    workos.trouble = lambda: ""
    workos.delete(workos.organization())
    turn(other, clock)

    assert (cut_off.is_leading, other.is_leading) == (False, True)
    assert logged(engine) == expected(workos)
    turn(cut_off, clock)
    assert (cut_off.is_leading, cut_off.is_up) == (False, True)


def test_leader_that_wakes_up_late_moves_no_cursor_back(
    workos: TroubledIssuer, engine: Engine, clock: ManualClock
) -> None:
    store = Interrupted(engine.url)
    sleeper, other = follower(workos, store, clock), follower(workos, engine.store(), clock)
    for _ in range(150):
        workos.delete(workos.organization())

    def sleep() -> None:
        if len(workos.asked) != 1:
            return
        # It has read a page, and written nothing yet.
        store.between = lambda: None
        let_go(engine)
        turn(other, clock, 2)
        other.stop()

    store.between = sleep
    turn(sleeper, clock)
    slept = (sleeper.is_leading, cursor_of(engine)["id"], sleeper.counts.total())
    turn(sleeper, clock)

    assert slept == (False, last_id(workos), 0)
    assert logged(engine) == expected(workos)
    assert sleeper.is_leading


def test_store_that_is_away_is_said_and_misses_nothing(
    workos: TroubledIssuer, engine: Engine, clock: ManualClock
) -> None:
    events = follower(workos, engine.store(), clock)
    turn(events, clock)
    engine.kill()
    workos.delete(workos.organization())
    with told("source_failed") as failures:
        turn(events, clock, 2)
    engine.start()
    turns(events, clock, lambda: not events.error)

    assert [failure["error"].partition(";")[0] for failure in failures] == [
        f"store: {engine.url} cannot be reached (refused)"
    ]
    assert logged(engine) == expected(workos)


@pytest.mark.parametrize("garbage", [b"", b"x", b"[]", b'{"id":7,"at":0}', b'{"id":"a b","at":0}', b"[" * 100_000])
def test_cursor_that_is_none_is_replaced(
    workos: TroubledIssuer, engine: Engine, clock: ManualClock, garbage: bytes
) -> None:
    with engine.client() as asking:
        asking.set(CURSOR, garbage)
    workos.delete(workos.organization())
    turn(follower(workos, engine.store(), clock), clock)

    assert logged(engine) == expected(workos)
    assert cursor_of(engine)["id"] == last_id(workos)


class Fleet:
    """Three replicas that are told of webhooks, of which one dies now and then between two steps, and is replaced.

    Args:
        chance: says when.
        kills: how many are to die.

    Attributes:
        left: how many are to die still.

    """

    def __init__(
        self, workos: TroubledIssuer, engine: Engine, clock: ManualClock, chance: random.Random, kills: int
    ) -> None:
        self._workos, self._engine, self._clock, self._chance, self.left = workos, engine, clock, chance, kills
        self._replicas = [self._replica() for _ in range(3)]

    def nudge(self) -> None:
        """Tell any of them of a webhook."""
        self._chance.choice(self._replicas).nudge()

    def turn(self) -> None:
        for number, each in enumerate(self._replicas):
            try:
                turn(each, self._clock)
            except Killed:
                let_go(self._engine)
                self._replicas[number] = self._replica()

    def _replica(self) -> WorkOSEvents:
        store = Interrupted(self._engine.url)
        store.between = self._perhaps_die
        return follower(self._workos, store, self._clock, is_told=True)

    def _perhaps_die(self) -> None:
        if self.left and self._chance.random() < 0.1:
            self.left -= 1
            raise Killed


class Late:
    """Posts webhooks as WorkOS may: late, some twice, out of order.

    Args:
        workos: what happens there.
        port: takes them.
        chance: says which comes when.

    """

    def __init__(self, workos: TroubledIssuer, port: Port, clock: ManualClock, chance: random.Random) -> None:
        self._port, self._clock, self._chance = port, clock, chance
        self._waiting: list[bytes] = []
        workos.environment.watch(lambda event: self._waiting.append(json.dumps(event_json(event)).encode()))

    def post(self) -> int:
        """Post one of those that wait, or keep it for later as well."""
        body = self._chance.choice(self._waiting)
        if self._chance.random() < 0.7:
            self._waiting.remove(body)
        return self._port.post(body, signature(body, self._clock.now))


def test_nothing_is_missed_or_done_twice_though_leaders_die_and_workos_fails(
    workos: TroubledIssuer, engine: Engine, clock: ManualClock
) -> None:
    chance = random.Random(18)  # noqa: S311 - hides nothing
    troubles: list[str | bytes] = ["429 2", "500", "503", "slow", "lost", "again", b"<html>", b"{}", *[""] * 15]
    workos.trouble = lambda: chance.choice(troubles)
    fleet, known = Fleet(workos, engine, clock, chance, 20), [workos.organization()]
    with Port(clock.clock, fleet.nudge) as port:
        late = Late(workos, port, clock, chance)
        for happened in range(1000):
            org_id = chance.choice(known)
            if happened % 10 == 0:
                known = [*(each for each in known if each != org_id), workos.organization(), workos.organization()]
                workos.delete(org_id)
                assert late.post() == 204
                fleet.turn()
            else:
                workos.update(org_id)
    workos.trouble = lambda: ""
    for _ in range(1000):
        if fleet.left == 0 and cursor_of(engine)["id"] == last_id(workos):
            break
        fleet.turn()

    wanted = expected(workos)
    book, _ = OrdersStore(engine.store()).load()
    assert (fleet.left, len(wanted), port.webhooks.counts["signed"]) == (0, 1000, 100)
    assert logged(engine) == wanted
    assert followed(engine.store()).cursor == Cursor(last_id(workos), wanted[-1].at / MICROSECONDS)
    assert {order.subject: order for order in book} == {order.subject: order for order in wanted}
