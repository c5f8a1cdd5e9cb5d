"""Alarms ring by whichever clock comes first, and cost next to nothing until then."""

import logging
import threading
from typing import ClassVar

import pytest

from authz.runtime import alarms as alarms_module
from authz.runtime.alarms import Alarms, Spaced
from authz.runtime.clock import SYSTEM_CLOCK, Clock, Moment
from tests.doubles import ManualClock

PATIENCE = 120.0


def test_thread_sees_that_the_time_of_day_was_set_forward() -> None:
    """Although it sleeps by the other clock, which has not moved."""
    time, rung = ManualClock(), threading.Event()
    clock = Clock(lambda: time.now, SYSTEM_CLOCK.monotonic)
    alarms = Alarms("set-forward", clock=clock, look_seconds=0.01)
    alarms.set(clock.at(time.now + 3600), rung.set)
    time.advance(3600)

    assert rung.wait(PATIENCE)


def test_thread_that_waits_for_the_other_clock_begins_to_look_at_the_time_of_day() -> None:
    time, rung, is_asleep = ManualClock(), threading.Event(), threading.Event()

    def monotonic() -> float:
        # Under the lock, which the thread lets go of when it sleeps: whoever sets an alarm after this wakes it.
        if threading.current_thread().name == "begins-to-look":
            is_asleep.set()
        return SYSTEM_CLOCK.monotonic()

    alarms = Alarms("begins-to-look", clock=Clock(lambda: time.now, monotonic), look_seconds=0.01)
    alarms.set(Moment(monotonic=SYSTEM_CLOCK.monotonic() + 3600), rung.clear)
    assert is_asleep.wait(PATIENCE)
    alarms.set(Moment(time=time.now + 3600), rung.set)
    time.advance(3600)

    assert rung.wait(PATIENCE)


def test_a_look_reads_each_clock_once_however_many_alarms_wait() -> None:
    reads = []
    clock = Clock(lambda: reads.append("time") or 1000.0, lambda: reads.append("monotonic") or 1000.0)

    class ByHand(Alarms):
        def _keep_time(self) -> None:
            pass

    alarms, rung = ByHand("by-hand", clock=clock), []
    for number in range(1000):
        alarms.set(Moment(2000.0 + number, 2000.0 + number), lambda: rung.append(1))
    reads.clear()
    alarms.ring()

    assert (sorted(reads), rung) == (["monotonic", "time"], [])


def test_thread_without_work_ends(monkeypatch) -> None:
    monkeypatch.setattr("authz.runtime.alarms._LINGER", 0.01)
    rung = threading.Event()
    alarms = Alarms("without-work", look_seconds=0.01)
    alarms.set(SYSTEM_CLOCK.now().after(0.01), rung.set)
    assert rung.wait(PATIENCE)
    [thread] = [thread for thread in threading.enumerate() if thread.name == "without-work"] or [None]
    if thread is not None:
        thread.join(PATIENCE)
        assert not thread.is_alive()


def test_callback_that_wants_to_exit_keeps_no_other_from_being_called(caplog: pytest.LogCaptureFixture) -> None:
    rung, alarms = threading.Event(), Alarms("exits")

    def leave() -> None:
        raise SystemExit

    for callback in (leave, rung.set):
        alarms.set(SYSTEM_CLOCK.now(), callback)

    assert rung.wait(PATIENCE)
    assert "unforeseen_error where='exits' error='SystemExit'" in caplog.text
    assert "thread_died" not in caplog.text


def test_thread_that_has_died_is_begun_again_and_calls_what_was_due(caplog: pytest.LogCaptureFixture) -> None:
    """Else streams would not end at all."""
    called, is_dead = [], threading.Event()
    all_called = threading.Event()

    class Deadly(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            # Whatever it is that ends the thread: here, what a host does with our log.
            if getattr(record, "event", "") == "unforeseen_error" and not is_dead.is_set():
                is_dead.set()
                raise SystemExit

    def fail() -> None:
        called.append("failing")
        raise LookupError

    def succeed() -> None:
        called.append("next")
        all_called.set()

    logger, handler = logging.getLogger("authz"), Deadly()
    logger.addHandler(handler)
    try:
        alarms = Alarms("dies")
        for callback in (fail, succeed):
            alarms.set(SYSTEM_CLOCK.now(), callback)

        assert all_called.wait(PATIENCE)
    finally:
        logger.removeHandler(handler)
    assert called == ["failing", "next"]
    assert "thread_died thread='dies' error='SystemExit'" in caplog.text


class _Noted:
    """Alarms that are only noted."""

    at: ClassVar[list[float]] = []

    def __init__(self, *_: object, **__: object) -> None:
        self.at.clear()

    def set(self, at: Moment, _callback: object) -> None:
        self.at.append(at.monotonic)


def test_a_few_of_many_callbacks_come_at_once_and_the_others_one_after_the_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(alarms_module, "Alarms", _Noted)
    time, called = ManualClock(), list[int]()
    spaced = Spaced("spaced", few=2, seconds=0.5, clock=Clock(lambda: time.now, lambda: time.now))
    began = time.now
    for _ in range(5):
        spaced.call(lambda: called.append(1))
    at_first = len(called)
    time.advance(2.5)
    for _ in range(3):
        spaced.call(lambda: called.append(2))

    assert at_first == 2
    assert called == [1, 1, 2, 2]
    assert _Noted.at == [began + 1.0, began + 1.5, began + 2.0, began + 3.5]


def test_callbacks_come_at_once_where_no_thread_can_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(_Noted, "set", refused)
    monkeypatch.setattr(alarms_module, "Alarms", _Noted)
    spaced, called = Spaced("spaced", few=1, seconds=0.5), list[int]()
    for _ in range(3):
        spaced.call(lambda: called.append(1))

    assert called == [1, 1, 1]


def test_every_callback_has_its_turn_on_another_thread() -> None:
    spaced, threads, over = Spaced("spaced", few=1, seconds=0.001), list[str](), threading.Event()
    for _ in range(20):
        spaced.call(lambda: threads.append(threading.current_thread().name))
    spaced.call(over.set)

    assert over.wait(PATIENCE)
    assert len(threads) == 20
    assert "spaced" in threads
