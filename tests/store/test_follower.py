"""A replica and the store are alike, whatever happens to the store, to the way there, or to the replica."""

import asyncio
import logging
import time
from collections.abc import Callable

import pytest

from authz import ConfigError, SharedState, UnavailableError
from authz.judge.orders.book import LIFTED_SECONDS, OrderBook
from authz.judge.orders.order import MICROSECONDS, Order
from authz.judge.orders.tokens import member
from authz.store.connection import Store
from authz.store.follower import Follower
from authz.store.orders_store import OrdersStore
from authz.store.writer import Writer, known_orders
from tests.doubles import ManualClock
from tests.programs import PATIENCE
from tests.store.engines import Engine, free_port
from tests.store.fleet import authorizer, replicas, suspend, suspended, until
from tests.store.wire import Proxy

EVENTS = {"store_lost", "store_found", "store_regressed", "orders_written_back", "orders_not_written", "store_unfit"}


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look sooner whether all is well."""
    monkeypatch.setattr("authz.store.follower._BLOCK_SECONDS", 0.2)


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """Return the events about the store so far."""
    caplog.set_level(logging.INFO, "authz")
    return lambda: [name for record in caplog.records if (name := record.__dict__.get("event")) in EVENTS]


def in_store(engine: Engine) -> OrderBook:
    return OrdersStore(engine.store()).load()[0]


def names(book: OrderBook) -> set[str]:
    return {order.id for order in book if not order.is_lifting}


def test_an_order_given_in_one_replica_is_in_force_in_all(engine: Engine) -> None:
    with replicas(engine.store, 3) as found:
        found[0][0].suspend(org_id="org_1", reason="unpaid")

        until(lambda: all(suspended(judge) == {"org_1"} for judge, _ in found))
        until(lambda: found[0][1].follower.writer.sent == 1)
        assert [shared.follower.writer.sent for _, shared in found[1:]] == [0, 0]


def test_what_was_ordered_before_is_in_force_from_the_beginning(engine: Engine) -> None:
    OrdersStore(engine.store()).write([suspend("org_1"), Order("revoke", "token", "jti_1")])

    with replicas(engine.store) as [(judge, shared)]:
        assert suspended(judge) == {"org_1"}
        assert member("jti_1") in judge.operator.book.tokens
        assert shared.is_caught_up


def test_what_was_ordered_here_before_is_told_to_the_others(engine: Engine) -> None:
    judge = authorizer()
    judge.suspend(org_id="org_1")
    judge.revoke(token_id="jti_1")

    with replicas(engine.store) as [(other, _)], SharedState(engine.store(), judge):
        until(lambda: suspended(other) == {"org_1"} and member("jti_1") in other.operator.book.tokens)


def test_what_is_taken_back_in_one_replica_is_in_all(engine: Engine) -> None:
    with replicas(engine.store, 2) as [(judge, _), (other, _)]:
        judge.suspend(org_id="org_1")
        judge.revoke(token_id="jti_1")
        until(lambda: suspended(other) == {"org_1"})
        other.resume(org_id="org_1")
        other.reinstate(token_id="jti_1")

        until(lambda: not suspended(judge))
        until(lambda: {order.verb for order in judge.operator.book} == {"resume", "reinstate"})


def test_several_orders_of_one_moment_reach_all_in_the_end(engine: Engine) -> None:
    with replicas(engine.store, 3) as found:
        for number in range(200):
            found[number % 3][0].suspend(org_id=f"org_{number % 50}", reason=str(number))
            if number % 4 == 0:
                found[(number + 1) % 3][0].resume(org_id=f"org_{number % 50}")

        until(lambda: len({frozenset(judge.operator.book) for judge, _ in found}) == 1)
        until(lambda: set(in_store(engine)) == set(found[0][0].operator.book))


LOSSES: dict[str, Callable[[Engine], object]] = {
    "emptied": Engine.flush,
    "killed": lambda engine: (engine.kill(), engine.start()),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_nothing_is_lifted_by_a_store_that_loses_everything_and_it_is_written_back(
    engine: Engine, told: Callable[[], list[str]], loss: str
) -> None:
    many = {f"org_{number}" for number in range(1500)}
    # What the store has taken is counted from its answers: on a busy machine one may come late.
    with replicas(lambda: engine.store(timeout=PATIENCE), 2) as found:
        OrdersStore(engine.store()).write([*map(suspend, sorted(many)), Order("revoke", "token", "jti_1")])
        until(lambda: all(suspended(judge) == many for judge, _ in found))

        LOSSES[loss](engine)
        until(lambda: names(in_store(engine)) == many)
        until(lambda: member("jti_1") in in_store(engine).tokens)

        assert all(suspended(judge) == many for judge, _ in found)
        until(lambda: told().count("store_regressed") == 2)
        until(lambda: sum(shared.follower.writer.written_back for _, shared in found) == len(many) + 1)
        with replicas(engine.store) as [(late, _)]:
            assert suspended(late) == many


def test_an_older_copy_of_the_store_takes_nothing_back(engine: Engine, told: Callable[[], list[str]]) -> None:
    with replicas(engine.store, 2) as found:
        found[0][0].suspend(org_id="org_1")
        found[0][0].suspend(org_id="org_2")
        until(lambda: names(in_store(engine)) == {"org_1", "org_2"})
        with engine.client() as asking:
            asking.save()
        found[1][0].resume(org_id="org_2")
        found[1][0].suspend(org_id="org_3")
        until(lambda: names(in_store(engine)) == {"org_1", "org_3"})
        engine.kill()
        engine.start()

        until(lambda: names(in_store(engine)) == {"org_1", "org_3"})
        assert [suspended(judge) for judge, _ in found] == [{"org_1", "org_3"}] * 2
        assert "store_regressed" in told()


def test_orders_given_while_the_store_is_away_are_written_when_it_is_back(
    engine: Engine, told: Callable[[], list[str]]
) -> None:
    with replicas(engine.store) as [(judge, shared)]:
        engine.kill()
        judge.suspend(org_id="org_1")
        until(lambda: shared.follower.error is not None)
        assert suspended(judge) == {"org_1"}
        judge.suspend(org_id="org_2")
        engine.start()

        until(lambda: names(in_store(engine)) == {"org_1", "org_2"})
        until(lambda: shared.follower.error is None)
        assert told().count("store_lost") == told().count("store_found") == 1


def test_nothing_is_missed_by_a_reader_whose_connections_are_cut(engine: Engine) -> None:
    orders = OrdersStore(engine.store())
    with replicas(engine.store, 2) as found:
        for number in range(40):
            orders.write([suspend(f"org_{number}")])
            if number % 4 == 0:
                engine.cut()

        until(lambda: all(len(suspended(judge)) == 40 for judge, _ in found))
        assert [shared.follower.regressed for _, shared in found] == [0, 0]


def test_a_way_that_goes_silent_is_noticed_and_the_rest_is_read_when_it_speaks_again(engine: Engine) -> None:
    orders = OrdersStore(engine.store())
    with (
        Proxy(engine.socket) as proxy,
        replicas(lambda: Store(proxy.url, timeout=0.3)) as [(judge, shared)],
    ):
        proxy.part()
        orders.write([suspend("org_1")])
        until(lambda: shared.follower.error is not None)
        assert shared.follower.error is not None
        assert shared.follower.error.reason == "timeout"
        proxy.heal()

        until(lambda: suspended(judge) == {"org_1"})


def test_a_server_that_hangs_and_goes_on_has_not_lost_anything(engine: Engine, told: Callable[[], list[str]]) -> None:
    with replicas(lambda: engine.store(timeout=0.3)) as [(judge, shared)]:
        engine.hang()
        judge.suspend(org_id="org_1")
        until(lambda: shared.follower.error is not None)
        engine.go_on()

        until(lambda: names(in_store(engine)) == {"org_1"})
        assert "store_regressed" not in told()


def test_who_was_away_for_longer_than_the_log_reaches_loads_all(
    engine: Engine, told: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("authz.store.orders_store.MAX_LOG", 10)
    orders = OrdersStore(engine.store())
    orders.write([suspend("org_first")])
    with Proxy(engine.socket) as proxy, replicas(lambda: Store(proxy.url, timeout=0.3)) as [(judge, shared)]:
        assert suspended(judge) == {"org_first"}
        proxy.part()
        for number in range(1000):
            orders.write([suspend(f"org_{number}")])
        with engine.client() as asking:
            assert asking.xlen("authz:{orders}:log") < 500
        until(lambda: shared.follower.error is not None)
        proxy.heal()

        until(lambda: len(suspended(judge)) == 1001)
        assert shared.follower.regressed == 0
        assert "store_regressed" not in told()


def test_one_replica_at_a_time_writes_back(engine: Engine) -> None:
    many = [suspend(f"org_{number}", at=round(time.time() * MICROSECONDS)) for number in range(300)]
    judges = [authorizer() for _ in range(3)]
    for judge in judges:
        judge.operator.carry_out(many)
    orders = OrdersStore(engine.store())
    assert orders.may_write_back("somebody", 3600)
    followers = [Follower(engine.store(), judge.operator) for judge in judges]
    for follower in followers:
        follower.start()
        assert follower.wait(60)
    # Each has compared, and waits for the one that has the lease.
    until(lambda: all(follower.writer.lacks for follower in followers))
    assert names(in_store(engine)) == set()

    assert not orders.may_write_back("somebody else", 0)
    assert orders.may_write_back("somebody", 0)

    until(lambda: len(names(in_store(engine))) == 300)
    until(lambda: not any(follower.writer.lacks for follower in followers))
    assert sum(follower.writer.written_back for follower in followers) == 300
    for follower in followers:
        follower.stop()


def test_a_server_that_may_not_write_says_so_once_and_obeys(engine: Engine, told: Callable[[], list[str]]) -> None:
    with engine.client() as asking:
        asking.execute_command(
            *("ACL", "SETUSER", "reader", "on", ">s", "%R~authz:{orders}:*", "~authz:{replicas}:*", "+@all")
        )
    with replicas(lambda: engine.store(username="reader", password="s")) as [(judge, shared)]:
        judge.suspend(org_id="org_1")
        until(lambda: shared.follower.writer.failures >= 2)
        OrdersStore(engine.store()).write([suspend("org_2")])

        until(lambda: suspended(judge) == {"org_1", "org_2"})
        assert told() == ["orders_not_written"]
        assert names(in_store(engine)) == {"org_2"}


def test_a_full_store_is_told_of_and_gets_the_orders_when_it_has_room(
    engine: Engine, told: Callable[[], list[str]]
) -> None:
    with engine.client() as asking, replicas(engine.store) as [(judge, _)]:
        asking.config_set("maxmemory", "100kb")
        judge.suspend(org_id="org_1")
        until(lambda: "orders_not_written" in told())
        asking.config_set("maxmemory", "0")

        until(lambda: names(in_store(engine)) == {"org_1"})


def test_a_store_that_becomes_unfit_is_told_of_and_its_orders_count(
    engine: Engine, told: Callable[[], list[str]]
) -> None:
    with replicas(engine.store) as [(judge, shared)]:
        engine.kill()
        engine.start("--maxmemory-policy", "allkeys-lru")
        until(lambda: "store_found" in told())
        assert "store_unfit" in told()
        OrdersStore(engine.store()).write([suspend("org_1")])

        until(lambda: suspended(judge) == {"org_1"})
        assert shared.follower.error is None


def test_what_is_no_order_does_not_stop_the_follower(engine: Engine) -> None:
    with engine.client() as asking, replicas(engine.store) as [(judge, shared)]:
        asking.xadd("authz:{orders}:log", {"o": b"x"})
        OrdersStore(engine.store()).write([suspend("org_1")])

        until(lambda: suspended(judge) == {"org_1"})
        assert shared.follower.ignored == 1


def test_what_no_longer_says_anything_is_not_written_back() -> None:
    now = time.time()
    book = OrderBook()
    lasting = [suspend("org_1", at=1), Order("revoke", "token", "jti_3", at=5), Order("reinstate", "token", "jti_2")]
    lasting[2] = lasting[2]._replace(at=round(now * MICROSECONDS))
    for order in (
        *lasting,
        Order("resume", "organization", "org_2", at=round((now - LIFTED_SECONDS - 60) * MICROSECONDS)),
    ):
        book.take(order)
    book.tokens.add([(member("jti_1"), now + 7200), (member("jti_2"), now + 7200), (member("old"), now - 7200)])

    known = list(known_orders(book, now))

    assert sorted(order for order in known if not order.is_listing) == sorted(lasting)
    assert [order.id for order in known if order.is_listing] == ["jti_1"]


def test_what_is_over_is_removed_from_the_store_every_hour(engine: Engine) -> None:
    clock = ManualClock()
    writer = Writer(engine.store(), OrderBook(), clock=clock.clock)
    over = Order("revoke", "token", "jti_1", until=time.time() - 60)
    OrdersStore(engine.store()).restore([over])

    assert writer.work() == 3600
    clock.advance(3599)
    assert writer.work() == 1
    with engine.client() as asking:
        assert asking.zcard("authz:{orders}:tokens") == 1
        clock.advance(1)
        assert writer.work() == 3600
        assert asking.zcard("authz:{orders}:tokens") == 0


def test_more_orders_than_can_wait_are_found_by_comparing(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("authz.store.writer._MOST_UNSENT", 10)
    judge = authorizer()
    writer = Writer(engine.store(), judge.operator.book)
    judge.operator.watch(writer.send)
    engine.kill()
    for number in range(30):
        judge.suspend(org_id=f"org_{number}")
    assert writer.work() > 0
    engine.start()
    until(lambda: writer.work() and not writer.lacks)

    assert len(names(in_store(engine))) == 30


def test_the_age_is_since_the_store_was_last_heard(engine: Engine) -> None:
    clock = ManualClock()
    follower = Follower(engine.store(), authorizer().operator, clock=clock.clock)
    clock.advance(100)
    assert follower.age == 100
    follower.work()
    assert follower.age == 0
    clock.advance(50)
    engine.kill()
    follower.work()

    assert follower.age == 50
    assert follower.error is not None


def test_a_store_that_is_away_at_the_beginning_is_waited_for(engine: Engine) -> None:
    OrdersStore(engine.store()).write([suspend("org_1")])
    with engine.client() as asking:
        asking.save()
    engine.kill()
    judge = authorizer()
    shared = SharedState(engine.store(), judge)
    shared.start()
    until(lambda: shared.follower.error is not None)
    assert not shared.is_caught_up
    engine.start()
    shared.catch_up()

    assert suspended(judge) == {"org_1"}
    shared.stop()


def test_a_store_that_stays_away_at_the_beginning_is_an_error() -> None:
    shared = SharedState(f"redis://127.0.0.1:{free_port()}", authorizer(), wait=0.2)

    with pytest.raises(UnavailableError, match="cannot be reached"), shared:
        raise AssertionError("nothing may be decided before all orders are in force")


def test_a_store_that_cannot_be_used_is_an_error_at_the_beginning(engine: Engine) -> None:
    with engine.client() as asking:
        asking.config_set("maxmemory-policy", "allkeys-lru")

    with pytest.raises(ConfigError, match="noeviction"), SharedState(engine.store(), authorizer()):
        raise AssertionError("such a store may lift orders")


def test_it_is_stale_after_so_long_without_the_store(engine: Engine) -> None:
    with replicas(engine.store, stale=10) as [(_, shared)]:
        assert not shared.is_stale
    assert SharedState(engine.store(), authorizer(), stale=0).is_stale


def test_a_task_waits_without_holding_up_the_others(engine: Engine) -> None:
    OrdersStore(engine.store()).write([suspend("org_1")])
    judge = authorizer()

    async def main() -> set[str]:
        async with SharedState(engine.store(), judge):
            return suspended(judge)

    assert asyncio.run(main()) == {"org_1"}


def test_an_order_that_is_given_right_before_the_end_is_written(engine: Engine) -> None:
    for number in range(5):
        with SharedState(engine.store(), judge := authorizer()):
            judge.suspend(org_id=f"org_{number}")

    assert names(in_store(engine)) == {f"org_{number}" for number in range(5)}


def test_the_block_can_be_entered_again(engine: Engine) -> None:
    judge = authorizer()
    shared = SharedState(engine.store(), judge)
    with shared:
        judge.suspend(org_id="org_1")
    with shared:
        judge.suspend(org_id="org_2")
        until(lambda: names(in_store(engine)) == {"org_1", "org_2"})


def test_settings_from_variables(engine: Engine, no_settings: None, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ARG001
    with pytest.raises(ConfigError, match="AUTHZ_STORE"):
        SharedState.from_env(authorizer())
    monkeypatch.setenv("AUTHZ_STORE", engine.url)
    monkeypatch.setenv("AUTHZ_STORE_REGION", "eu-1")

    with SharedState.from_env(authorizer()) as shared:
        until(lambda: shared.heartbeat.count == 1)
