"""What the users of the store may not do, on both engines: in scripts either, and whatever the command."""

import hashlib
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from authz.decisions.sample import Sampled
from authz.judge.orders.order import Order
from authz.server.workos.applications import Application
from authz.server.workos.place import Cursor, PlaceError
from authz.server.workos.shared_place import SharedPlace
from authz.server.workos.shared_register import SharedRegister
from authz.store.connection import Store, reason_of
from authz.store.decisions import SharedDecisions
from authz.store.orders_store import OrdersStore
from authz.store.replicas import Replicas
from tests.store.engines import Engine
from tests.store.fleet import authorizer, replicas, suspend, suspended, until

PASSWORD = "correct-horse-battery"
FILE = Path(__file__).parents[2] / "deploy/kubernetes/store/users.acl"
USERS = dict(re.findall(r"^user (authz-\w+) on #\w+ (.*)$", FILE.read_text(encoding="utf-8"), re.MULTILINE))

STATE, TOKENS, LOG, EPOCH = (f"authz:{{orders}}:{name}" for name in ("state", "tokens", "log", "epoch"))
WRITES = "return redis.call('HSET', '{key}', 'a', 'b')"
ADMIN = (
    *("FLUSHALL", "FLUSHDB", "SHUTDOWN NOSAVE", "SAVE", "BGSAVE", "CONFIG GET *", "CONFIG SET save x", "DEBUG SLEEP 0"),
    *("ACL LIST", "ACL SETUSER x on", "CLIENT KILL TYPE normal", "CLIENT LIST", "REPLICAOF NO ONE", "SCRIPT FLUSH"),
    *(
        "FUNCTION FLUSH",
        "MONITOR",
        "KEYS *",
        "SWAPDB 0 1",
        "MIGRATE h 1 k 0 1",
        "MODULE LIST",
        "PSYNC ? -1",
        "CLUSTER INFO",
    ),
    *("SORT {replicas}", "RESTORE authz:s:x 0 x", "PUBLISH channel x", "SUBSCRIBE channel"),
)
OTHERS = ("GET other", "SET other x", "DEL other", "EVAL WRITES 1 other", "EVAL WRITES 0", "COPY authz:s:x other")
ORDERS = (
    *(
        f"HSET {STATE} a b",
        f"HDEL {STATE} a",
        f"DEL {STATE}",
        f"UNLINK {STATE}",
        f"EXPIRE {STATE} 1",
        f"RENAME {STATE} authz:s:x",
    ),
    *(f"ZADD {TOKENS} 1 a", f"ZREM {TOKENS} a", f"ZREMRANGEBYRANK {TOKENS} 0 -1", f"ZPOPMIN {TOKENS}"),
    *(f"XADD {LOG} * o x", f"XDEL {LOG} 0-1", f"XTRIM {LOG} MAXLEN 0", f"XGROUP CREATE {LOG} g 0", f"XSETID {LOG} 9-9"),
    *(f"SET {EPOCH} x", f"GETDEL {EPOCH}", f"APPEND {EPOCH} x", "SET authz:{orders}:writing x"),
    *(
        f"EVAL WRITES 1 {STATE}",
        f"EVAL WRITES 0 {STATE}",
        f"COPY authz:s:x {STATE}",
        f"ZRANGESTORE {TOKENS} authz:s:x 0 -1",
    ),
    *(
        f"ZUNIONSTORE {TOKENS} 1 authz:s:x",
        f"SINTERSTORE {STATE} authz:s:x",
        f"GETEX {EPOCH} EX 1",
        f"RENAME authz:s:x {STATE}",
    ),
)
COUNTS = (
    "SET authz:q:org_1:1:1 5",
    "DEL authz:q:org_1:1:1",
    "ZADD authz:s:org_1 1 a",
    "GET authz:q:x",
    "HSET authz:u:x a 1",
    "SET authz:d:watched 1",
    "XADD authz:d:log * d x",
    "XRANGE authz:d:log - +",
    "SET authz:{workos}:cursor x",
    "HSET authz:{workos}:applications a b",
)
WORKOS = (
    "SET authz:{workos}:cursor x",
    "GETDEL authz:{workos}:nudge",
    "DEL authz:{workos}:leader",
    "HSET authz:{workos}:applications a b",
    "RENAME authz:s:x authz:{workos}:cursor",
    "EVAL WRITES 1 authz:{workos}:applications",
)
FORBIDDEN = {
    "authz-server": (*ADMIN, *OTHERS, *ORDERS, *WORKOS),
    "authz-source": (*ADMIN, *OTHERS),
    "authz-operator": (*ADMIN, *OTHERS, *COUNTS, *WORKOS),
}


@pytest.fixture(scope="module", params=["valkey", "redis"])
def guarded(request: pytest.FixtureRequest) -> Iterator[Engine]:
    with Engine(request.param) as engine:
        with engine.client() as asking:
            for name, rules in USERS.items():
                digest = hashlib.sha256(PASSWORD.encode()).hexdigest()
                asking.execute_command("ACL", "SETUSER", name, "on", f"#{digest}", *rules.split())
            asking.zadd("authz:s:x", {"a": 1})
        OrdersStore(engine.store()).write([suspend("org_1")])
        yield engine


def as_user(engine: Engine, name: str) -> redis.Redis:
    return redis.Redis(
        unix_socket_path=engine.socket,
        username=name,
        password=PASSWORD,
        protocol=2,
        socket_timeout=60,
        driver_info=None,
    )


def dump(engine: Engine) -> dict[bytes, object]:
    with engine.client() as asking:
        return {key: asking.dump(key) for key in asking.scan_iter() if b"{replicas}" not in key}


@pytest.mark.parametrize(("name", "command"), [(name, each) for name, all_ in FORBIDDEN.items() for each in all_])
def test_it_is_refused(guarded: Engine, name: str, command: str) -> None:
    parts = command.split()
    if "WRITES" in parts:
        key = parts[-1] if len(parts) > 3 else "other"
        parts = [
            WRITES.replace("{key}", key) if part == "WRITES" else part
            for part in parts[: None if parts[2] == "1" else 3]
        ]
    before = dump(guarded)

    with as_user(guarded, name) as asking, pytest.raises(redis.ResponseError) as raised:
        asking.execute_command(*parts)

    # Redis 7.0 has other words for a script, and both for DEBUG.
    assert reason_of(raised.value) == "denied" or "DEBUG command not allowed" in str(raised.value)
    assert dump(guarded) == before


def test_a_server_reads_orders_says_that_it_is_there_and_can_do_no_more(guarded: Engine) -> None:
    store: Callable[[], Store] = lambda: guarded.store(username="authz-server", password=PASSWORD)  # noqa: E731
    before = OrdersStore(guarded.store()).load()[0]
    with replicas(store) as [(judge, shared)]:
        assert suspended(judge) == {order.id for order in before if not order.is_lifting}
        until(lambda: [replica.id for replica in Replicas(store()).all()] == [shared.heartbeat.id])
        judge.suspend(org_id="org_here")
        until(lambda: shared.follower.writer.failures)
        told = SharedDecisions(store(), lambda: Sampled([], 1), lambda: shared.heartbeat.id)
        told.others()
        assert told.work() < 2.0

    assert set(OrdersStore(guarded.store()).load()[0]) == set(before)


def test_a_source_leads_gives_orders_and_keeps_its_place(guarded: Engine) -> None:
    store, name = guarded.store(username="authz-source", password=PASSWORD), f"org_{time.time_ns()}"
    place, register = SharedPlace(store, lambda: "replica_1"), SharedRegister(store, authorizer().operator)
    order = Order("revoke", "organization", name, source="workos", at=1)
    place.nudge()
    assert (place.lead(), place.is_nudged(), place.cursor()) == (True, True, None)
    assert place.move([order], Cursor("event_1", 1.0))
    register.keep([order._replace(kind="client")], {"client_1": Application("client_1", "conn_app_1")})
    place.leave()

    book, _ = OrdersStore(guarded.store()).load()
    assert {each.kind for each in book if each.id == name} == {"organization", "client"}
    assert (SharedPlace(store, lambda: "replica_1").cursor(), list(register.known())) == (
        Cursor("event_1", 1.0),
        ["client_1"],
    )


def test_a_server_that_may_only_read_follows_nothing_and_says_why(guarded: Engine) -> None:
    place = SharedPlace(guarded.store(username="authz-server", password=PASSWORD), lambda: "replica_1")
    for refused in (place.lead, place.nudge, place.is_nudged):
        with pytest.raises(PlaceError, match="refuses the user, the password or a command"):
            refused()


def test_an_operator_gives_orders_and_sees_who_obeys(guarded: Engine) -> None:
    store = guarded.store(username="authz-operator", password=PASSWORD)
    store.check()
    name = f"org_{time.time_ns()}"
    orders = OrdersStore(store)

    orders.write([suspend(name)])
    orders.forget()

    assert name in {order.id for order in orders.load()[0]}
    assert orders.read("0-0", 0.1)[0]
    assert Replicas(store).all() == []
