import pytest

from authz.runtime.backoff import Backoff, uniform


def pauses(failures, jitter=0.0):
    backoff = Backoff(lambda: jitter)
    for _ in range(failures):
        backoff.failed(100.0)
    return backoff.retry_at - 100.0


@pytest.mark.parametrize(
    ("failures", "pause"), [(1, 1), (2, 2), (3, 4), (4, 8), (5, 16), (6, 32), (7, 60), (8, 60), (5000, 60)]
)
def test_pauses_double_up_to_a_minute(failures, pause):
    assert pauses(failures) == pause


@pytest.mark.parametrize(("jitter", "pause"), [(-1, 3.6), (1, 4.4)])
def test_pauses_differ_by_a_tenth(jitter, pause):
    assert pauses(3, jitter) == pytest.approx(pause)


def test_what_the_server_asks_for_is_the_least():
    backoff = Backoff(lambda: 0.0)

    backoff.failed(100.0, at_least=30.0)

    assert backoff.retry_at == 130.0


def test_a_short_request_of_the_server_does_not_shorten_the_pause():
    backoff = Backoff(lambda: 0.0)
    for _ in range(7):
        backoff.failed(100.0, at_least=1.0)

    assert backoff.retry_at == 160.0


def test_a_success_forgets_the_failures():
    backoff = Backoff(lambda: 0.0)
    backoff.failed(100.0)
    backoff.failed(100.0)

    backoff.succeeded()

    assert (backoff.is_failing, backoff.retry_at) == (False, float("-inf"))


def test_at_first_nothing_has_failed():
    assert not Backoff().is_failing


def test_a_failure_is_remembered():
    backoff = Backoff()

    backoff.failed(100.0)

    assert backoff.is_failing


def test_the_jitter_lies_between_minus_one_and_one():
    draws = [uniform() for _ in range(1000)]

    assert min(draws) >= -1
    assert max(draws) <= 1
    assert len(set(draws)) > 900


def test_attempts_that_fail_together_are_one_failure():
    backoff = Backoff(lambda: 0.0)
    backoff.failed(100.0, began=99.0)
    for _ in range(15):
        backoff.failed(100.5, began=99.0)

    assert backoff.retry_at == 101.5


def test_an_attempt_from_before_the_pause_does_not_shorten_it():
    backoff = Backoff(lambda: 0.0)
    backoff.failed(100.0, at_least=30.0, began=99.0)
    backoff.failed(100.5, began=99.0)

    assert backoff.retry_at == 130.0


def test_an_attempt_after_the_pause_doubles_it():
    backoff = Backoff(lambda: 0.0)
    backoff.failed(100.0, began=99.0)
    backoff.failed(102.0, began=101.0)

    assert backoff.retry_at == 104.0


def test_steps_may_be_others(clock):
    backoff = Backoff(lambda: 0.0, first=0.1, last=0.3)
    pauses = []
    for _ in range(3):
        now = clock.now
        backoff.failed(now)
        pauses.append(round(backoff.retry_at - now, 3))
        clock.now = backoff.retry_at

    assert pauses == [0.1, 0.2, 0.3]
