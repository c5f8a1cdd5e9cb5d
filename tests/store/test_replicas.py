"""Each replica says that it is there, and what is in force in it."""

import json
import time

import pytest

from authz import Policy
from authz.store.orders_store import OrdersStore
from authz.store.replicas import MAX_REPLICAS, MAX_SAID, SEEN_SECONDS, Heartbeat, Replicas
from tests.doubles import ManualClock
from tests.store.engines import Engine
from tests.store.fleet import replicas, suspend, until

# Longer than any says; what JSON cannot say, and a browser cannot read.
HOSTILE = (
    json.dumps({"id": "a", "host": "x" * MAX_SAID}),
    '{"id": "a", "keys_age": NaN}',
    '{"id": "a", "started": Infinity}',
    '{"id": "a", "workers": 1e999}',
    json.dumps({"id": "a", "workers": 10**400}),
)
OTHER = {"name": "plans", "allow_rules": [{"name": "some"}]}
POLICY = {"name": "plans", "allow_rules": [{"name": "all"}]}


def test_replicas_are_listed_with_what_is_in_force_in_them(engine: Engine) -> None:
    seen = Replicas(engine.store())
    with replicas(engine.store, 3, region="eu-1") as found:
        found[0][0].replace_policy(Policy.from_document(POLICY))
        last = OrdersStore(engine.store()).write([suspend("org_1")])

        until(lambda: [replica.applied for replica in seen.all()] == [last] * 3)

        [one, *_] = seen.all()
        assert (one.region, one.version, one.workers) == ("eu-1", "0.1.0", 1)
        assert one.started <= time.time()
        policy = found[0][0].policy
        assert policy is not None
        assert policy.digest == Policy.from_document(dict(POLICY)).digest != Policy.from_document(OTHER).digest
        until(lambda: {replica.policy for replica in seen.all()} == {"", f"plans {policy.digest}"})
        assert {replica.id for replica in seen.all()} == {shared.heartbeat.id for _, shared in found}
        assert len(seen.all()) == 3
    assert seen.all() == []


def test_it_is_said_at_once_what_is_in_force(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("authz.store.replicas._BEAT_SECONDS", 3600)
    seen = Replicas(engine.store())
    with replicas(engine.store, 2):
        until(lambda: len(seen.all()) == 2)
        last = OrdersStore(engine.store()).write([suspend("org_1")])

        until(lambda: [replica.applied for replica in seen.all()] == [last] * 2)


def beat(engine: Engine, clock: ManualClock, **about: object) -> Heartbeat:
    return Heartbeat(engine.store(), lambda: about, clock=clock.clock)


def test_many_orders_do_not_make_many_beats(engine: Engine) -> None:
    clock = ManualClock()
    heartbeat = beat(engine, clock, applied="1-1")
    assert heartbeat.work() == 5
    with engine.client() as asking:
        asking.flushall()

    assert heartbeat.work() == pytest.approx(0.2)
    assert Replicas(engine.store()).all() == []
    clock.advance(0.2)
    assert heartbeat.work() == 5
    assert len(Replicas(engine.store()).all()) == 1


def test_who_says_nothing_is_not_there_any_more(engine: Engine) -> None:
    beat(engine, ManualClock()).work()
    late = time.time() - SEEN_SECONDS - 1
    with engine.client() as asking:
        [name] = asking.zrange("authz:{replicas}:seen", 0, -1)
        asking.zadd("authz:{replicas}:seen", {name: late})
        asking.zadd("authz:{replicas}:seen", {"gone": late - 4 * SEEN_SECONDS})
        asking.hset("authz:{replicas}:said", "gone", "{}")

    other = beat(engine, ManualClock())
    other.work()

    assert [replica.id for replica in Replicas(engine.store()).all()] == [other.id]
    assert other.count == 1
    with engine.client() as asking:
        assert asking.hexists("authz:{replicas}:said", "gone") is False


@pytest.mark.parametrize(
    "said", ["", "x", "[]", "{}", '{"id": 3}', '{"id": "a", "applied": null}', "[" * 4000, *HOSTILE]
)
def test_what_cannot_be_read_is_left_out(engine: Engine, said: str) -> None:
    heartbeat = beat(engine, ManualClock(), applied="1-1", of_a_later_version=[1])
    heartbeat.work()
    with engine.client() as asking:
        asking.zadd("authz:{replicas}:seen", {"odd": time.time()})
        asking.hset("authz:{replicas}:said", "odd", said)

    assert [replica.id for replica in Replicas(engine.store()).all()] == [heartbeat.id]


def test_a_flood_of_replicas_is_told_in_part(engine: Engine) -> None:
    said = {f"{number}": json.dumps({"id": f"{number}"}) for number in range(MAX_REPLICAS + 1000)}
    with engine.client() as asking:
        asking.zadd("authz:{replicas}:seen", dict.fromkeys(said, time.time() + 1e6))
        asking.hset("authz:{replicas}:said", mapping=said)

    assert len(Replicas(engine.store()).all()) == MAX_REPLICAS
