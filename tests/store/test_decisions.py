"""Decisions of all replicas: told while a page is open, by all of them, and harmless whatever the store holds."""

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from authz.decisions.sample import SAMPLED, Sample, Sampled
from authz.store.connection import Store
from authz.store.decisions import KEPT, MAX_ENTRY, SharedDecisions
from tests.decisions.samples import decision
from tests.doubles import ManualClock
from tests.store.engines import Engine

LOG, WATCHED = "authz:d:log", "authz:d:watched"
HERE, THERE = "00000000000a-1", "00000000000b-22"
TOLD: dict[str, Any] = {
    "time": 1.5,
    "event": "decision",
    "method": "/a.B/C",
    "verb": "POST",
    "verdict": "allowed",
    "reason": "",
    "organization": "o",
    "client": "c",
    "policy": "p",
    "rule": "r",
    "source": "cache",
    "milliseconds": 0.25,
}


class Deciding:
    """A process that decides, without a thread: it works when it is told to."""

    def __init__(self, store: Store, name: str = HERE, clock: ManualClock | None = None) -> None:
        self.sample = Sample()
        look: Callable[[], Sampled] = lambda: self.sample.look(time.time())  # noqa: E731
        self.shared = SharedDecisions(store, look, lambda: name, clock=(clock or ManualClock()).clock)
        self.work = self.shared.work

    def decide(self, count: int = 1, method: str = "/a.B/C") -> None:
        for _ in range(count):
            self.sample(decision(method=method)._replace(time=time.time()))

    def seen(self) -> list[tuple[str, str]]:
        return [(each["replica"], each["method"]) for each in self.shared.others().decisions]


@pytest.fixture
def store(engine: Engine) -> Iterator[Store]:
    store = engine.store()
    yield store
    store.close()


def keys(engine: Engine) -> set[bytes]:
    with engine.client() as client:
        return set(client.scan_iter())


def add(engine: Engine, text: str | bytes, **fields: str) -> None:
    with engine.client() as client:
        client.xadd(LOG, {"d": text, **fields})


def entry(*decisions: Any, replica: Any = THERE, left_out: Any = 0) -> str:
    return json.dumps({"replica": replica, "left_out": left_out, "decisions": list(decisions)})


def test_a_fleet_without_an_open_page_writes_nothing(engine: Engine, store: Store) -> None:
    here = Deciding(store)
    for _ in range(3):
        here.decide()
        assert here.work() == 2.0
    assert keys(engine) == set()
    assert here.shared.counts == {"sent": 0, "dropped": 0, "ignored": 0}


def test_while_a_page_is_open_it_hears_of_the_others_and_not_of_itself(engine: Engine, store: Store) -> None:
    here, there = Deciding(store), Deciding(store, THERE)
    assert here.seen() == []
    here.work()
    there.work()
    here.decide(method="/here")
    there.decide(method="/there")
    there.decide(30, method="/flood")
    there.work()
    here.work()

    assert here.seen() == [(THERE, "/there"), *[(THERE, "/flood")] * (SAMPLED - 1)]
    assert here.shared.left_out == 31 - SAMPLED
    assert there.shared.counts == {"sent": SAMPLED, "dropped": 31 - SAMPLED, "ignored": 0}
    with engine.client() as client:
        assert 0 < client.ttl(WATCHED) <= 10
        assert 0 < client.ttl(LOG) <= 60


def test_a_page_that_is_closed_is_soon_told_nothing(engine: Engine, store: Store) -> None:
    clock = ManualClock()
    here = Deciding(store, clock=clock)
    here.seen()
    assert here.work() == 1.0
    clock.advance(5.0)
    with engine.client() as client:
        client.delete(WATCHED)
    assert here.work() == 2.0
    assert WATCHED.encode() not in keys(engine)


def test_decisions_are_told_once_each_with_its_own_place(engine: Engine, store: Store) -> None:
    here = Deciding(store)
    here.seen()
    add(engine, entry(TOLD))
    here.work()
    here.work()
    [first] = here.shared.others().decisions
    add(engine, entry(TOLD))
    here.work()
    others = here.shared.others()

    assert [each["id"] for each in others.decisions] == [first["id"], others.cursor]
    assert {name: first[name] for name in TOLD} == TOLD


def test_decision_that_an_older_version_tells_is_understood(valkey: Engine) -> None:
    """It says nothing of the HTTP method."""
    store = valkey.store()
    here = Deciding(store)
    here.seen()
    add(valkey, entry({name: value for name, value in TOLD.items() if name != "verb"}))
    here.work()

    assert [each["verb"] for each in here.shared.others().decisions] == ["POST"]
    store.close()


@pytest.mark.parametrize(
    "text",
    [
        *("", "{}", "[]", "null", "[" * 20_000, "1" * 10_000, b"\xff\xfe", '"replica"'),
        *(entry(replica=name) for name in ("", "<img src=x>", "a" * 64, None, 7, [THERE], "00000000000b-22\n")),
        *(entry(left_out=number) for number in (-1, "1", None, 10**400, float("nan"), float("inf"))),
        *(entry(each) for each in (None, [], "text", {}, {**TOLD, "method": None}, {**TOLD, "verb": 7})),
        *(entry({**TOLD, name: "x" * 1025}) for name in ("method", "verb", "organization", "client", "rule")),
        *(entry({**TOLD, name: "<b>"}) for name in ("verdict", "event", "source", "time", "milliseconds")),
        *(entry({**TOLD, "time": number}) for number in (float("nan"), float("inf"), -1.0, 10**400, 1e12, [])),
        json.dumps({"replica": THERE, "left_out": 0, "decisions": {"a": "b"}}),
        json.dumps({"replica": THERE, "left_out": 0, "decisions": 5}),
    ],
)
def test_what_is_no_decision_is_ignored_and_counted(valkey: Engine, text: str | bytes) -> None:
    valkey.flush()
    here = Deciding(valkey.store())
    here.seen()
    add(valkey, text)
    add(valkey, entry(TOLD))
    here.work()

    assert here.seen() == [(THERE, "/a.B/C")]
    assert here.shared.counts["ignored"] == 1


@pytest.fixture(scope="module")
def valkey() -> Iterator[Engine]:
    with Engine("valkey") as engine:
        yield engine


def test_text_of_a_caller_comes_as_it_is(store: Store) -> None:
    hostile = "/<script>alert(1)</script>\u202e\x00\ud800"
    here, there = Deciding(store), Deciding(store, THERE)
    here.seen()
    here.work()
    there.work()
    there.decide(method=hostile)
    there.work()
    here.work()

    assert here.seen() == [(THERE, hostile.replace("\ud800", "?"))]


def test_what_is_too_long_stays_in_the_store(engine: Engine, store: Store) -> None:
    here = Deciding(store)
    here.seen()
    add(engine, "x" * 50_000_000)
    for _ in range(250):
        add(engine, "y" * MAX_ENTRY)
    add(engine, entry({**TOLD, "method": "/long"}) + " " * MAX_ENTRY)
    add(engine, entry(TOLD))
    got: list[int] = []
    call = store.call

    def measured(*arguments: Any) -> Any:
        answer = call(*arguments)
        got.append(sum(map(len, answer[1])) if isinstance(answer, list) else 0)
        return answer

    store.call = measured  # type: ignore[method-assign]
    here.work()

    assert here.seen() == [(THERE, "/a.B/C")]
    assert max(got) <= 512 * 1024
    # What could not be read at once is not read later, when it is old.
    here.work()
    assert got[-1] == 0


def test_a_flood_of_replicas_is_bounded_and_its_number_told(engine: Engine, store: Store) -> None:
    here = Deciding(store)
    here.seen()
    for number in range(100):
        add(engine, entry(*[TOLD] * (2 * SAMPLED + 3), replica=f"{256 + number:012x}-1"))
    here.work()
    others = here.shared.others()

    assert len(others.decisions) == KEPT
    assert int(others.cursor.partition("-")[2]) == 100 * 2 * SAMPLED


def test_long_names_do_not_make_a_long_entry(engine: Engine, store: Store) -> None:
    here, there = Deciding(store), Deciding(store, THERE)
    here.seen()
    here.work()
    there.work()
    there.decide(SAMPLED, method="\U0001f600" * 512)
    there.work()
    here.work()

    assert 0 < len(here.seen()) < SAMPLED
    assert there.shared.counts["dropped"] == SAMPLED - len(here.seen())
    with engine.client() as client:
        assert all(len(fields[b"d"]) <= MAX_ENTRY for _, fields in client.xrange(LOG))


@pytest.mark.parametrize("key", [LOG, WATCHED])
def test_another_thing_under_our_names_is_said_once_and_harms_nothing(
    engine: Engine, store: Store, key: str, caplog: pytest.LogCaptureFixture
) -> None:
    with engine.client() as client:
        client.sadd(key, "a")
    here = Deciding(store)
    here.seen()
    here.work()
    here.decide()
    pauses = [here.work(), here.work()]

    assert here.seen() == []
    warnings = [each for each in caplog.records if getattr(each, "event", "") == "decisions_not_shared"]
    # The key that a page writes is written over.
    assert len(warnings) == (key == LOG)
    assert pauses == [10.0 if key == LOG else 1.0] * 2


def test_a_store_that_loses_its_newest_entries_is_read_on(engine: Engine, store: Store) -> None:
    here = Deciding(store)
    here.seen()
    with engine.client() as client:
        client.xadd(LOG, {"d": entry(TOLD)}, id=f"{2**60}-0")
    here.work()
    engine.flush()
    here.work()
    add(engine, entry({**TOLD, "method": "/later"}))
    here.work()

    assert [method for _, method in here.seen()] == ["/a.B/C", "/later"]


def test_a_store_that_is_away_delays_neither_page_nor_decision_and_is_counted(engine: Engine, store: Store) -> None:
    here = Deciding(store)
    here.seen()
    here.work()
    here.decide(3)
    engine.hang()
    try:
        began = time.monotonic()
        here.seen()
        here.decide()
        assert time.monotonic() - began < 1.0
        assert here.work() == 10.0
    finally:
        engine.go_on()
    assert here.work() == 1.0
    assert here.shared.counts["sent"] + here.shared.counts["dropped"] == 4
