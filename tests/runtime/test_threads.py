"""Threads that do the same work again and again."""

import threading
from collections.abc import Callable, Iterator

import pytest

from authz.runtime import threads
from authz.runtime.threads import Repeating

PATIENCE = 120


@pytest.fixture
def repeating() -> Iterator[Callable[[Callable[[], float]], Repeating]]:
    """Return a function that starts such a thread."""
    started: list[Repeating] = []

    def start(work: Callable[[], float]) -> Repeating:
        started.append(Repeating("tests", work))
        started[-1].start()
        return started[-1]

    yield start
    for each in started:
        each.stop()


def test_work_is_done_at_once_and_again_when_it_is_woken(repeating: Callable[..., Repeating]) -> None:
    done = threading.Semaphore(0)
    thread = repeating(lambda: done.release() or 3600.0)

    assert done.acquire(timeout=PATIENCE)
    thread.wake()
    assert done.acquire(timeout=PATIENCE)


def test_work_is_done_again_after_its_pause(repeating: Callable[..., Repeating]) -> None:
    done = threading.Semaphore(0)
    repeating(lambda: done.release() or 0.001)

    assert all(done.acquire(timeout=PATIENCE) for _ in range(5))


def test_work_under_way_has_ended_when_it_is_stopped(repeating: Callable[..., Repeating]) -> None:
    began, may_end, ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> float:
        began.set()
        may_end.wait(PATIENCE)
        ended.set()
        return 3600.0

    thread = repeating(work)
    began.wait(PATIENCE)
    threading.Timer(0.01, may_end.set).start()
    thread.stop()

    assert ended.is_set()
    assert thread.is_stopped


def test_it_can_be_started_again(repeating: Callable[..., Repeating]) -> None:
    done = threading.Semaphore(0)
    thread = repeating(lambda: done.release() or 3600.0)
    assert done.acquire(timeout=PATIENCE)
    thread.stop()
    thread.start()

    assert done.acquire(timeout=PATIENCE)
    assert not thread.is_stopped


def test_work_that_raises_is_done_again(repeating: Callable[..., Repeating], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_PAUSE", 0.001)
    done, errors = threading.Event(), iter([SystemExit(), ValueError()])

    def work() -> float:
        for error in errors:
            raise error
        done.set()
        return 3600.0

    repeating(work)

    assert done.wait(PATIENCE)


def test_it_knows_whether_it_is_asked_by_its_own_work() -> None:
    told: list[bool] = []
    done = threading.Event()

    def work() -> float:
        told.append(thread.is_this_thread)
        done.set()
        return 3600.0

    thread = Repeating("tests", work)
    thread.start()
    done.wait(PATIENCE)
    thread.stop()

    assert told == [True]
    assert not thread.is_this_thread
