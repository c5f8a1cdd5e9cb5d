"""The counting: burst, steady rate, and when there is room again. Time stands still unless a test says so."""

import math
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.errors import ResourceExhaustedError
from authz.organizations.quota import Quota, Quotas
from authz.runtime.clock import Clock

ORG, OTHER = "org_acme", "org_globex"
TEN = Quota("ten", 10, 20)


class Ticks:
    """A clock that stands still until a test moves it, and counts whole microseconds."""

    def __init__(self) -> None:
        self.hours, self._microseconds = 0, 10**9
        self.clock = Clock(lambda: 3600.0 * self.hours, lambda: self._microseconds / 1e6)

    def advance(self, seconds: float) -> None:
        self._microseconds += round(seconds * 1e6)


@pytest.fixture
def clock() -> Ticks:
    return Ticks()


@pytest.fixture
def quotas(clock: Ticks) -> Quotas:
    return Quotas(clock=clock.clock)


def taken(quotas: Quotas, quota: Quota = TEN, tries: int = 1000, org_id: str = ORG) -> int:
    """Return how many of so many calls are admitted, one right after the other."""
    return sum(wait(quotas, quota, org_id) == 0 for _ in range(tries))


def wait(quotas: Quotas, quota: Quota = TEN, org_id: str = ORG) -> float:
    """Make a call; return how long it is to wait, or 0 if it is admitted."""
    try:
        quotas.take(org_id, quota)
    except ResourceExhaustedError as error:
        return error.retry_after
    return 0.0


def test_a_burst_is_admitted_and_not_one_more(quotas: Quotas) -> None:
    assert taken(quotas) == 20


def test_a_check_alone_takes_no_place_of_another_organization(clock: Ticks) -> None:
    quotas = Quotas(clock=clock.clock, max_counted=1)
    taken(quotas)
    quotas.check(OTHER, TEN)

    assert taken(quotas) == 0


def test_then_it_goes_at_the_rate(quotas: Quotas, clock: Ticks) -> None:
    taken(quotas)

    admitted = 0
    for _ in range(1000):
        clock.advance(0.01)
        admitted += taken(quotas, tries=3)

    assert admitted == 100


def test_after_a_pause_a_burst_is_admitted_again_and_no_more(quotas: Quotas, clock: Ticks) -> None:
    taken(quotas)

    clock.advance(0.55)
    assert taken(quotas) == 5
    clock.advance(1e9)
    assert taken(quotas) == 20


@pytest.mark.parametrize("quota", [TEN, Quota("half", 0.5, 1), Quota("thirds", 3, 2), Quota("rare", 0.001, 1)])
def test_who_waits_as_told_is_admitted_and_who_waits_less_is_not(quotas: Quotas, clock: Ticks, quota: Quota) -> None:
    taken(quotas, quota)
    assert quota.requests_per_second is not None

    told = wait(quotas, quota)
    assert told == pytest.approx(1 / quota.requests_per_second, rel=1e-5)
    clock.advance(told - 3e-6)
    assert 0 < wait(quotas, quota) < 10e-6
    clock.advance(10e-6)
    assert wait(quotas, quota) == 0


def test_refused_calls_are_not_counted(quotas: Quotas, clock: Ticks) -> None:
    taken(quotas, tries=10_000)

    clock.advance(0.1)
    assert taken(quotas) == 1


@pytest.mark.parametrize("before", [0, 1])
def test_to_ask_is_not_to_take(quotas: Quotas, before: int) -> None:
    taken(quotas, tries=before)
    for _ in range(100):
        quotas.check(ORG, TEN)

    assert taken(quotas) == 20 - before
    with pytest.raises(ResourceExhaustedError):
        quotas.check(ORG, TEN)


def test_organizations_do_not_share(quotas: Quotas) -> None:
    taken(quotas, org_id=OTHER)

    assert taken(quotas) == 20


def test_without_a_rate_nothing_is_counted(quotas: Quotas) -> None:
    assert taken(quotas, Quota("streams", concurrent_streams=1), tries=1000) == 1000


def test_a_clock_that_goes_back_admits_no_more(quotas: Quotas, clock: Ticks) -> None:
    assert taken(quotas) == 20
    clock.advance(-1000)
    assert taken(quotas) == 0
    clock.advance(1000.1)
    assert taken(quotas) == 1


def test_time_of_day_does_not_matter(quotas: Quotas, clock: Ticks) -> None:
    taken(quotas)

    clock.hours += 1

    assert taken(quotas) == 0


def test_counts_go_on_where_the_rate_stays(quotas: Quotas) -> None:
    taken(quotas)

    assert taken(quotas, Quota("renamed", 10.0, 20, concurrent_streams=5)) == 0
    # An hour's debt of one plan would be a lock-out for the next.
    assert taken(quotas, Quota("ten", 10, 30)) == 30


def test_racing_calls_take_no_more_than_there_are(quotas: Quotas) -> None:
    start = threading.Barrier(8)

    def race(_number: int) -> int:
        start.wait(120)
        return taken(quotas, Quota("many", 10, 500), tries=200)

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(race, range(8))) == 500


def test_memory_is_bounded_and_the_least_recent_starts_anew(clock: Ticks) -> None:
    quotas = Quotas(clock=clock.clock, max_counted=3)
    taken(quotas)
    for number in range(2):
        taken(quotas, org_id=f"org_{number}")
    wait(quotas)  # it still calls
    for number in range(2, 4):
        wait(quotas, org_id=f"org_{number}")

    assert taken(quotas) == 0
    assert taken(quotas, org_id="org_0") == 20


@given(
    st.floats(0.001, 1e6),
    st.integers(1, 50),
    st.lists(st.tuples(st.floats(0, 10), st.integers(1, 60)), min_size=1, max_size=20),
)
def test_no_more_is_ever_admitted_than_a_burst_and_the_rate(
    rate: float, burst: int, arrivals: list[tuple[float, int]]
) -> None:
    clock = Ticks()
    quotas, quota = Quotas(clock=clock.clock), Quota("any", rate, burst)
    began, admitted = clock.clock.monotonic(), 0

    for pause, calls in arrivals:
        clock.advance(pause)
        admitted += taken(quotas, quota, tries=calls)
        passed = clock.clock.monotonic() - began
        # What is configured to a millionth, and measured to a microsecond.
        assert admitted <= burst + math.ceil((passed + 1e-5) * (rate + 1e-6))
