"""Orders in a real store: what is written, what counts of two about one subject, and what a reader gets."""

import time
import tracemalloc
from collections.abc import Callable, Iterator

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from authz.errors import ConfigError
from authz.judge.orders.book import LIFTED_SECONDS, OrderBook
from authz.judge.orders.order import MICROSECONDS, Order, Subject
from authz.judge.orders.tokens import member
from authz.store.connection import Store, StoreError
from authz.store.orders_store import MAX_LOG, PAGE, OrdersStore
from tests.store.engines import KINDS, Engine

ISSUER = "https://acme.authkit.app"
SUSPEND = Order("suspend", "organization", "org_1", reason="unpaid", by="ops")
NOW = round(time.time()) * MICROSECONDS


@pytest.fixture
def store(engine: Engine) -> Iterator[Store]:
    store = engine.store()
    yield store
    store.close()


@pytest.fixture
def orders(store: Store) -> Iterator[OrdersStore]:
    orders = OrdersStore(store)
    yield orders
    orders.close()


def client(name: str, **more: object) -> Order:
    return Order("revoke", "client", name)._replace(**more)


def token(name: str, end: float | None = None, **more: object) -> Order:
    return Order("revoke", "token", name, until=end)._replace(**more)


def test_a_store_is_checked(store: Store) -> None:
    store.check()


def test_an_order_gets_its_time_of_the_stores_clock(engine: Engine, orders: OrdersStore) -> None:
    with engine.client() as asking:
        seconds, micro = asking.time()
    name = orders.write([SUSPEND, client("client_1")])

    book, last = orders.load()

    assert {order._replace(at=0) for order in book} == {SUSPEND, client("client_1")}
    assert all(0 <= order.at - (seconds * MICROSECONDS + micro) < 60 * MICROSECONDS for order in book)
    assert name == last


def test_a_later_order_gets_a_later_time_even_if_the_clock_was_set_back(orders: OrdersStore) -> None:
    ahead = NOW + 3600 * MICROSECONDS
    orders.restore([SUSPEND._replace(at=ahead)])

    orders.write([Order("resume", "organization", "org_1")])

    [order] = orders.load()[0]
    assert (order.verb, order.at) == ("resume", ahead + 1)


def test_the_log_has_every_order_once_and_in_order(orders: OrdersStore) -> None:
    begin = orders.position().id
    many = [client(f"client_{number}") for number in range(2 * PAGE + 1)]
    last = orders.write(many)

    seen: list[Order] = []
    while begin != last:
        found, begin = orders.read(begin, 0.1)
        seen += found

    assert [order.id for order in seen] == [order.id for order in many]
    assert orders.read(last, 0.01) == ([], last)
    assert set(orders.load()[0]) == set(seen)


def test_an_older_order_is_not_taken_and_not_told(orders: OrdersStore) -> None:
    orders.restore([SUSPEND._replace(at=NOW)])
    last = orders.position().id

    assert orders.restore([Order("resume", "organization", "org_1", at=NOW - 1), SUSPEND._replace(at=NOW)]) == 0
    assert orders.position().id == last


# Characters that collate otherwise than their bytes do in most languages.
WORDS = st.text(st.sampled_from("aBÄz é-_Z\x01ß"), max_size=3)


@pytest.fixture(scope="module", params=KINDS)
def lasting(request: pytest.FixtureRequest) -> Iterator[OrdersStore]:
    with Engine(request.param) as engine:
        orders = OrdersStore(engine.store())
        yield orders
        orders.close()


@given(st.lists(st.tuples(st.sampled_from(["suspend", "resume"]), WORDS, WORDS, st.integers(1, 3)), max_size=8))
def test_of_two_orders_at_the_same_time_the_same_counts_here_and_there(
    lasting: OrdersStore, told: list[tuple[str, str, str, int]]
) -> None:
    given_ = [
        Order("suspend" if verb == "suspend" else "resume", "organization", "org_1", reason=reason, by=by, at=at)
        for verb, reason, by, at in told
    ]
    book = OrderBook()
    for order in given_:
        book.take(order)
    with lasting._store.asking() as asking:  # noqa: SLF001 - to empty it
        asking.flushall()

    lasting.restore(given_)

    assert [order for page in lasting_all(lasting) for order in page] == list(book)


def lasting_all(orders: OrdersStore) -> list[list[Order]]:
    # Without those that are so old that they count no more.
    with orders._store.asking() as asking:  # noqa: SLF001 - nothing else shows them
        return [orders.parsed(asking.hgetall("authz:{orders}:state").values())]


def test_a_revoked_token_is_listed_with_its_end(engine: Engine, orders: OrdersStore) -> None:
    end = time.time() + 7200
    orders.write([token("jti_1", end), token("jti_2", end, issuer=ISSUER)])

    book, _ = orders.load()

    assert len(book) == 0
    assert {name for name, _ in book.tokens} == {member("jti_1"), member("jti_2", ISSUER)}
    with engine.client() as asking:
        assert asking.zscore("authz:{orders}:tokens", " jti_1") == end
    told, _ = orders.read("0-0", 0.1)
    assert [(order.id, order.until, order.is_listing) for order in told] == [("jti_1", end, True), ("jti_2", end, True)]


def test_a_token_is_listed_for_longer_but_never_for_shorter(engine: Engine, orders: OrdersStore) -> None:
    now = round(time.time())
    for end in (now + 100, now + 300, now + 200):
        orders.write([token("jti_1", end)])

    with engine.client() as asking:
        assert asking.zscore("authz:{orders}:tokens", " jti_1") == now + 300


def test_a_token_of_which_more_is_known_is_not_listed(engine: Engine, orders: OrdersStore) -> None:
    orders.write([Order("reinstate", "token", "jti_1")])
    last = orders.position()

    assert orders.restore([token("jti_1", time.time() + 60)]) == 0
    assert orders.position() == last
    with engine.client() as asking:
        assert asking.zcard("authz:{orders}:tokens") == 0


def test_a_token_that_was_listed_and_reinstated_is_revoked_by_an_order_of_its_own(orders: OrdersStore) -> None:
    orders.write([token("jti_1")])
    orders.write([Order("reinstate", "token", "jti_1")])
    orders.restore([token("jti_1", time.time() + 60)])

    [reinstated] = orders.load()[0]
    assert reinstated.verb == "reinstate"

    orders.write([token("jti_1")])

    [revoked] = orders.load()[0]
    assert (revoked.verb, revoked.at > reinstated.at) == ("revoke", True)


@pytest.mark.parametrize("name", ["client_1", "c*", "[c]?", "with blanks ", "\\"])
def test_what_is_taken_back_for_every_issuer_is_taken_back_for_each(orders: OrdersStore, name: str) -> None:
    others = [client("client_2", issuer=ISSUER), client(f"x {name}", issuer=ISSUER), client(f"{name}x", issuer=ISSUER)]
    orders.write([client(name), client(name, issuer=ISSUER), token(name, issuer=ISSUER), *others])

    orders.write([Order("reinstate", "client", name)])
    orders.write([Order("reinstate", "token", name), Order("reinstate", "key", "key_1")])

    book, _ = orders.load()
    lifted = {order.subject for order in book if order.is_lifting}
    both = [("client", name), ("token", name)]
    every = {Subject("revoke", kind, name, issuer) for kind, name in both for issuer in ("", ISSUER)}  # type: ignore[arg-type]
    assert lifted == every | {Subject("revoke", "key", "key_1")}
    assert {order for order in book if not order.is_lifting} == {
        each._replace(at=order.at) for each in others for order in book if order.subject == each.subject
    }


def test_what_is_over_is_removed_and_nothing_else(engine: Engine, orders: OrdersStore) -> None:
    long_ago = time.time() - LIFTED_SECONDS - 60
    over = [
        Order("resume", "organization", "org_2", at=round(long_ago * MICROSECONDS)),
        client("client_2", until=long_ago, at=NOW),
        *(token(f"old_{number}", time.time() - 60) for number in range(1500)),
    ]
    lasting = [SUSPEND._replace(at=1), client("client_1", until=time.time() - 60, at=NOW)]
    orders.restore([*over, *lasting, token("jti_1", time.time() + 60)])
    assert set(orders.load()[0]) == set(lasting)

    orders.forget()

    with engine.client() as asking:
        assert asking.hlen("authz:{orders}:state") == 2
        assert asking.zrange("authz:{orders}:tokens", 0, -1) == [b" jti_1"]


def test_a_replica_whose_clock_is_ahead_removes_nothing_that_others_need(
    orders: OrdersStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    orders.restore([token("jti_1", now + 600), client("client_1", until=now + 600, at=NOW)])
    monkeypatch.setattr("authz.store.orders_store.time.time", lambda: now + 2 * LIFTED_SECONDS)
    orders.forget()
    monkeypatch.undo()

    book, _ = orders.load()
    assert [name for name, _ in book.tokens] == [member("jti_1")]
    assert [order.id for order in book] == ["client_1"]


def test_garbage_in_the_store_takes_neither_memory_nor_the_log(
    engine: Engine, orders: OrdersStore, caplog: pytest.LogCaptureFixture
) -> None:
    with engine.client() as asking:
        for start in range(0, 100_000, 10_000):
            asking.hset(
                "authz:{orders}:state", mapping={f"f{number}": "x" * 100 for number in range(start, start + 10_000)}
            )
    orders.restore([SUSPEND._replace(at=1)])
    tracemalloc.start()
    pages = [len(page) for page in orders.pages()]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert (sum(pages), orders.ignored) == (1, 100_000)
    assert peak < 5_000_000
    assert len([one for one in caplog.records if getattr(one, "event", "") == "orders_ignored"]) <= 2 + len(pages) // 50


def test_a_token_that_was_reinstated_long_ago_is_not_listed_again(engine: Engine, orders: OrdersStore) -> None:
    orders.restore([token("jti_1", time.time() + 60, issuer=ISSUER)])
    long_ago = round((time.time() - LIFTED_SECONDS - 60) * MICROSECONDS)
    orders.restore([Order("reinstate", "token", "jti_1", ISSUER, at=long_ago)])

    orders.forget()

    with engine.client() as asking:
        assert set(asking.keys()) == {b"authz:{orders}:log", b"authz:{orders}:epoch"}


def test_what_is_no_order_is_ignored_and_counted(engine: Engine, orders: OrdersStore) -> None:
    with engine.client() as asking:
        for entry in (b"", b"x {}", b"1 {}", b"%016d " % 0 + SUSPEND.text(), b"1 " + SUSPEND.text()):
            asking.xadd("authz:{orders}:log", {"o": entry})
        asking.xadd("authz:{orders}:log", {"other": "x"})
        asking.xadd("authz:{orders}:log", {"o": b"%016d " % 5 + SUSPEND.text()})
        asking.hset("authz:{orders}:state", "suspend organization  org_2", b"\xff")

    good, _ = orders.read("0-0", 0.1)

    assert good == [SUSPEND._replace(at=5)]
    assert orders.ignored == 6
    assert len(orders.load()[0]) == 0
    assert orders.ignored == 7


def filled(orders: OrdersStore) -> None:
    orders.write([SUSPEND, client("client_1"), token("jti_1")])


def test_a_log_that_goes_on_is_told_from_one_that_does_not(engine: Engine, orders: OrdersStore) -> None:
    assert orders.continues(orders.position()) == "yes"
    filled(orders)
    position = orders.position()
    assert orders.continues(position) == "yes"
    orders.write([client("client_2")])
    assert orders.continues(position) == "yes"

    with engine.client() as asking:
        asking.xtrim("authz:{orders}:log", maxlen=1, approximate=False)
    assert orders.continues(position) == "behind"
    with engine.client() as asking:
        asking.delete("authz:{orders}:log")
    assert orders.continues(position) == "lost"


EVILS: dict[str, Callable[[redis.Redis, OrdersStore], object]] = {
    "emptied": lambda asking, _: asking.flushall(),
    "emptied and used again": lambda asking, orders: (asking.flushall(), filled(orders)),
    "another log with the same epoch": lambda asking, _: (
        asking.delete("authz:{orders}:log"),
        asking.xadd("authz:{orders}:log", {"o": b"1 " + SUSPEND.text()}, id="1-1"),
    ),
}


@pytest.mark.parametrize("evil", EVILS)
def test_a_store_that_lost_something_is_told_from_one_that_did_not(
    engine: Engine, orders: OrdersStore, evil: str
) -> None:
    filled(orders)
    position = orders.position()

    with engine.client() as asking:
        EVILS[evil](asking, orders)

    assert orders.continues(position) == "lost"


def test_a_store_that_is_emptied_right_after_its_first_orders_has_lost_them(
    engine: Engine, orders: OrdersStore
) -> None:
    nothing = orders.position()
    filled(orders)
    assert orders.continues(nothing) == "behind"
    first = nothing._replace(id=(read := orders.entries("0-0", 0.1))[-1][0], entry=read[-1][1])
    assert orders.continues(first) == "behind"

    engine.flush()

    assert orders.continues(first) == "lost"
    assert orders.continues(nothing) == "yes"
    filled(orders)
    assert orders.continues(first) == "lost"


def test_another_entry_of_the_same_id_is_not_taken_for_the_one_that_was_read(
    engine: Engine, orders: OrdersStore
) -> None:
    filled(orders)
    position = orders.position()
    with engine.client() as asking:
        asking.delete("authz:{orders}:log")
        asking.xadd("authz:{orders}:log", {"o": b"1 " + SUSPEND.text()}, id=position.id)

    assert orders.continues(position) == "lost"


def test_what_the_store_lacks_is_found_and_nothing_else(orders: OrdersStore) -> None:
    end = time.time() + 7200
    known = [SUSPEND._replace(at=NOW), client("client_1", at=NOW), token("jti_1", end)]
    orders.restore(known)
    newer = SUSPEND._replace(at=NOW + 1)
    missing = [newer, client("client_3", at=NOW), token("jti_2", end), token("jti_1", end + 3600)]

    book, _ = orders.load()
    listed = [token(name[1:], each) for name, each in book.tokens]

    assert orders.lacking([*book, *listed]) == []
    assert orders.lacking([*known, SUSPEND._replace(at=NOW - 1)]) == []
    assert orders.lacking(missing) == missing
    assert orders.restore(missing) == len(missing)
    assert orders.lacking(missing) == []


def test_the_log_does_not_grow_for_ever(engine: Engine, orders: OrdersStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("authz.store.orders_store.MAX_LOG", 200)
    for _ in range(10):
        orders.write([client(f"client_{number}") for number in range(200)])

    with engine.client() as asking:
        assert 200 <= asking.xlen("authz:{orders}:log") < 500
    assert MAX_LOG == 100_000


def test_another_format_is_left_alone(engine: Engine, store: Store, orders: OrdersStore) -> None:
    with engine.client() as asking:
        asking.set("authz:{orders}:epoch", "authz-9 abc")

    for ask in (store.check, orders.load, lambda: orders.write([SUSPEND])):
        with pytest.raises(StoreError, match="has something else under these names") as raised:
            ask()
        assert raised.value.reason == "format"
    with engine.client() as asking:
        assert asking.keys() == [b"authz:{orders}:epoch"]


def test_what_can_be_no_order_is_not_written(engine: Engine, orders: OrdersStore) -> None:
    with pytest.raises(ConfigError, match="empty"):
        orders.write([SUSPEND, client("")])

    with engine.client() as asking:
        assert asking.keys() == []


def test_two_namespaces_do_not_mix(engine: Engine, orders: OrdersStore) -> None:
    other = OrdersStore(engine.store(namespace="staging"))
    filled(orders)

    assert len(other.load()[0]) == 0


def test_nonsense_in_the_place_of_an_order_gives_way_to_an_order(engine: Engine, orders: OrdersStore) -> None:
    with engine.client() as asking:
        asking.hset("authz:{orders}:state", "suspend organization  org_1", "zzz")
    given = SUSPEND._replace(at=NOW)

    assert orders.lacking([given]) == [given]
    assert orders.restore([given]) == 1
    assert list(orders.load()[0]) == [given]
