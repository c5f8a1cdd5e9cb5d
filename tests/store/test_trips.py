"""Trips to real stores: what goes together, what is lost, and how soon it is noticed that there is no answer."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from authz.runtime.clock import SYSTEM_CLOCK, Clock
from authz.store.connection import Script, Store
from authz.store.trips import PATIENCE, Request, Trips
from tests.events import told
from tests.programs import PATIENCE as LONG
from tests.store.engines import Engine

COUNT = Script("return redis.call('INCR', KEYS[1])")
WRONG = Script("return redis.call('LPUSH', KEYS[1], 'x')")


@pytest.fixture
def trips(engine: Engine) -> Iterator[Trips]:
    trips = Trips(engine.store(timeout=0.5))
    yield trips
    trips.close()


class Answers:
    """Collects answers, and waits for them."""

    def __init__(self) -> None:
        self.all: list[Any] = []
        self._changed = threading.Condition()

    def take(self, answer: Any) -> None:
        with self._changed:
            self.all.append(answer)
            self._changed.notify_all()

    def wait(self, number: int) -> list[Any]:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.all) >= number, LONG)
        return self.all


def counting(answers: Answers, script: Script = COUNT, *args: Any) -> Request:
    return Request(script, "authz:counted", args, answers.take)


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_each_request_is_answered_once_and_in_order(trips: Trips) -> None:
    answers = Answers()
    for _ in range(2000):
        trips.send(counting(answers))

    assert answers.wait(2000) == list(range(1, 2001))
    assert trips.is_answering


def test_a_request_that_fails_is_no_one_elses_failure(trips: Trips) -> None:
    answers = Answers()
    for script in (COUNT, WRONG, COUNT):
        trips.send(counting(answers, script))

    assert answers.wait(3) == [1, None, 2]


def test_a_connection_that_was_cut_is_replaced(engine: Engine, trips: Trips) -> None:
    answers = Answers()
    trips.send(counting(answers))
    answers.wait(1)
    engine.cut()
    trips.send(counting(answers))

    assert answers.wait(2) == [1, 2]


def test_after_a_crash_of_the_store_it_goes_on(engine: Engine, trips: Trips, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "authz")
    answers = Answers()
    trips.send(counting(answers))
    assert answers.wait(1) == [1]
    engine.kill()
    with told("quota_store_failed") as failed:
        trips.send(counting(answers))
        # Not repeated: it may have been served.
        assert answers.wait(2)[1] is None
    assert failed == [{"error": "unreachable"}]
    assert not trips.is_answering
    engine.start()

    with told("quota_store_recovered"):
        until(lambda: trips.is_open)
        trips.send(counting(answers))
        assert answers.wait(3)[2] is not None
    assert trips.is_answering


def test_a_store_that_hangs_is_waited_for_no_longer_than_a_moment(engine: Engine, trips: Trips) -> None:
    answers = Answers()
    trips.send(counting(answers))
    answers.wait(1)
    engine.hang()
    began = time.monotonic()
    trips.send(counting(answers))
    until(lambda: not trips.is_answering)
    assert time.monotonic() - began >= PATIENCE
    # Asked one at a time until it answers.
    assert not trips.is_open
    assert answers.wait(2)[1] is None
    engine.go_on()

    until(lambda: trips.is_open)
    trips.send(counting(answers))
    assert answers.wait(3)[2] >= 2


def test_what_waits_when_the_store_fails_has_no_answer_either(engine: Engine, trips: Trips) -> None:
    engine.hang()
    answers = Answers()
    for _ in range(1200):
        trips.send(counting(answers))

    assert answers.wait(1200) == [None] * 1200
    engine.go_on()


def test_without_a_store_nothing_waits_for_the_first_answer_for_long() -> None:
    now = [0.0]
    trips = Trips(Store("redis://127.0.0.1:1"), clock=Clock(SYSTEM_CLOCK.time, lambda: now[0]))
    answers = Answers()
    assert trips.is_answering
    trips.send(counting(answers))
    assert answers.wait(1) == [None]
    until(lambda: not trips.is_answering)

    assert not trips.is_open
    now[0] += 0.12
    assert trips.is_open
    trips.close()


def test_a_callback_that_fails_keeps_no_other_from_its_answer(trips: Trips) -> None:
    answers = Answers()

    def fail(_answer: object) -> None:
        raise RuntimeError

    trips.send(counting(answers)._replace(then=fail))
    trips.send(counting(answers))

    assert answers.wait(1) == [2]


def test_what_was_sent_before_the_end_arrives(engine: Engine) -> None:
    trips, answers = Trips(engine.store()), Answers()
    for _ in range(1200):
        trips.send(counting(answers))
    trips.close(LONG)

    assert answers.all == list(range(1, 1201))
    assert not trips.is_open
    assert not trips.is_answering


def test_the_thread_ends_when_there_is_nothing_to_do(trips: Trips, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("authz.store.trips._LINGER", 0.05)
    answers = Answers()
    for number in (1, 2):
        trips.send(counting(answers))
        answers.wait(number)
        until(lambda: not [each for each in threading.enumerate() if each.name == "authz-trips"])

    assert answers.all == [1, 2]
