"""Leases: who waits for one, what becomes of the rest, and what happens while the store does not answer."""

import threading
import time
from collections.abc import Iterator
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from authz.errors import AuthzError, QuotaUnavailableError, ResourceExhaustedError
from authz.organizations.quota import Awaited, Quota
from authz.runtime.flow import Flow, run
from authz.store.connection import Store
from authz.store.leases import EMPTY, LEASE, MOST, UNUSED, SharedQuotas
from authz.store.trips import PATIENCE, Trips
from tests.doubles import ORG, ManualClock, drive
from tests.store.engines import KINDS, Engine
from tests.store.stand_ins import Way

OTHER = "org_01JYOTHER000000000000000"
PLAN = Quota("plan", 100, 200)
SLOW = Quota("slow", 0.001, 20)
EMPTY_ANSWER = [0, 2_000_000]


def calling(quotas: SharedQuotas, quota: Quota = PLAN, org_id: str = ORG) -> Flow[str]:
    """Make a call as the judge does; return why it is refused, or ``""``."""
    try:
        awaited = quotas.take(org_id, quota)
        while awaited is not None:
            yield from awaited.wait()
            awaited = quotas.take(org_id, quota, awaited)
    except AuthzError as error:
        return error.reason
    return ""


def taken(quotas: SharedQuotas, tries: int, quota: Quota = PLAN, org_id: str = ORG) -> int:
    return sum(run(calling(quotas, quota, org_id)) == "" for _ in range(tries))


@pytest.fixture
def way() -> Way:
    return Way()


def shared(way: Way, clock: ManualClock, **options: Any) -> SharedQuotas:
    return SharedQuotas(cast("Trips", way), clock=clock.clock, **options)


@pytest.fixture
def quotas(way: Way, clock: ManualClock) -> SharedQuotas:
    return shared(way, clock)


def begun(quotas: SharedQuotas, quota: Quota = PLAN, org_id: str = ORG) -> Awaited:
    """Make a call that has to wait."""
    awaited = quotas.take(org_id, quota)
    assert awaited is not None
    return awaited


def leased(quotas: SharedQuotas, way: Way, calls: int, quota: Quota = PLAN) -> None:
    """Have the organization get a lease, of which one call is used."""
    awaited = begun(quotas, quota)
    way.answer([calls, 0])
    assert quotas.take(ORG, quota, awaited) is None


# ---- Waiting for a lease ----


def test_calls_that_wait_share_one_request(quotas: SharedQuotas, way: Way) -> None:
    waiting = [begun(quotas) for _ in range(10)]
    begun(quotas, org_id=OTHER)
    assert [(request.key, request.script) for request in way.requests] == [
        (f"authz:q:{org_id}:100:200", LEASE) for org_id in (ORG, OTHER)
    ]

    way.answer([10, 0])

    assert all(awaited.future.done() for awaited in waiting)
    assert [quotas.take(ORG, PLAN, awaited) for awaited in waiting] == [None] * 10
    assert begun(quotas).future is not waiting[0].future


def test_who_finds_no_call_left_in_a_lease_waits_for_the_next(quotas: SharedQuotas, way: Way) -> None:
    first, second = calling(quotas), calling(quotas)
    waits = [next(first), next(second)]
    way.answer([1, 0])
    with pytest.raises(StopIteration) as done:
        first.send(None)
    again = second.send(None)

    assert (done.value.value, len(way.requests)) == ("", 1)
    assert again.future is not waits[1].future


def test_calls_of_a_lease_take_no_trip(quotas: SharedQuotas, way: Way) -> None:
    leased(quotas, way, 4)

    assert taken(quotas, 3) == 3
    assert way.requests == []


def test_the_next_lease_is_asked_for_while_one_lasts(quotas: SharedQuotas, way: Way) -> None:
    leased(quotas, way, 50)

    assert taken(quotas, 38) == 38
    assert way.asked == []
    assert taken(quotas, 1) == 1
    assert way.asked == [(MOST, 0)]
    assert taken(quotas, 5) == 5
    way.answer([50, 0])
    assert taken(quotas, 44) == 44
    assert len(way.requests) == 1


def test_nobody_waits_longer_than_50_ms_in_all(quotas: SharedQuotas, way: Way, clock: ManualClock) -> None:
    first = begun(quotas)
    assert first.seconds == pytest.approx(PATIENCE) == pytest.approx(0.05)
    clock.advance(0.03)
    way.answer([1, 0])
    assert quotas.take(ORG, PLAN) is None
    second = quotas.take(ORG, PLAN, first)
    assert second is not None
    assert second.seconds == pytest.approx(PATIENCE - 0.03, abs=1e-6)
    clock.advance(0.021)

    # It has waited long enough, so it is counted here.
    assert quotas.take(ORG, PLAN, second) is None
    assert quotas.counts["local"] == 1


def test_a_lease_that_comes_late_is_not_lost(quotas: SharedQuotas, way: Way, clock: ManualClock) -> None:
    assert drive(calling(quotas), clock) == ""
    way.answer([4, 0])

    assert quotas.counts == {"granted": 1, "empty": 0, "local": 1}
    assert (taken(quotas, 4), way.asked) == (4, [])


def test_without_a_rate_nothing_is_counted(quotas: SharedQuotas, way: Way) -> None:
    assert taken(quotas, 10, Quota("streams", concurrent_streams=1)) == 10
    assert way.requests == []


# ---- A quota that is used up ----


def test_a_quota_that_is_used_up_is_remembered_with_the_time_until_the_next_call(
    quotas: SharedQuotas, way: Way, clock: ManualClock
) -> None:
    awaited = begun(quotas)
    way.answer([0, 8_000_000 + 199 * 10_000])

    for passed in (0.0, EMPTY / 2):
        clock.advance(passed)
        with pytest.raises(ResourceExhaustedError) as caught:
            quotas.take(ORG, PLAN, awaited if passed == 0 else None)
        assert caught.value.retry_after == pytest.approx(8 - passed)
        with pytest.raises(ResourceExhaustedError):
            quotas.check(ORG, PLAN)
    assert way.requests == []
    clock.advance(EMPTY)
    quotas.check(ORG, PLAN)
    begun(quotas)
    assert way.asked == [(MOST, 0)]


def test_what_one_organization_has_used_up_is_not_anothers(quotas: SharedQuotas, way: Way) -> None:
    begun(quotas)
    way.answer(EMPTY_ANSWER)

    begun(quotas, org_id=OTHER)
    begun(quotas, quota=Quota("other", 100, 300))


# ---- What is left ----


def test_what_is_unused_after_a_second_goes_back(quotas: SharedQuotas, way: Way, clock: ManualClock) -> None:
    leased(quotas, way, 10)
    clock.advance(UNUSED / 2)
    quotas.settle()
    assert way.requests == []

    clock.advance(UNUSED / 2)
    quotas.settle()

    assert way.asked == [(0, -9)]
    way.answer(None)
    begun(quotas)
    assert way.asked == [(MOST, 0)]


def test_what_is_given_back_is_not_used_as_well(quotas: SharedQuotas, way: Way, clock: ManualClock) -> None:
    leased(quotas, way, 10)
    clock.advance(UNUSED)
    quotas.settle()
    # Nobody knows whether it has arrived.
    way.answer(None)

    begun(quotas)


def test_an_organization_that_does_not_call_leaves_nothing_behind(
    quotas: SharedQuotas, way: Way, clock: ManualClock
) -> None:
    leased(quotas, way, 10)
    for _ in range(3):
        clock.advance(UNUSED)
        quotas.settle()
        way.answer(*[EMPTY_ANSWER] * len(way.requests))

    assert len(quotas) == 0


def test_memory_is_bounded(way: Way, clock: ManualClock) -> None:
    quotas = shared(way, clock, max_counted=3)
    for number in range(10):
        begun(quotas, org_id=f"org_{number}")

    assert len(quotas) == 3


def test_everything_goes_back_at_the_end(quotas: SharedQuotas, way: Way) -> None:
    leased(quotas, way, 10)
    quotas.close()

    assert way.asked == [(0, -9)]


# ---- Without the store ----


def test_no_call_waits_while_the_store_does_not_answer(quotas: SharedQuotas, way: Way) -> None:
    way.is_answering = way.is_open = False

    assert taken(quotas, 300) == 200
    assert (way.requests, quotas.counts["local"]) == ([], 200)


def test_each_counts_against_its_share_then(way: Way, clock: ManualClock) -> None:
    quotas = shared(way, clock, replicas=lambda: 8)
    way.is_answering = False

    assert taken(quotas, 300) == 25
    clock.advance(1)
    assert taken(quotas, 300) == 12
    with pytest.raises(ResourceExhaustedError) as caught:
        quotas.take(ORG, PLAN)
    assert caught.value.retry_after == pytest.approx(0.04, abs=1e-3)
    with pytest.raises(ResourceExhaustedError):
        quotas.check(ORG, PLAN)


@pytest.mark.parametrize(("replicas", "burst", "seconds"), [(0, 5, 0.1), (1, 5, 0.1), (2, 2, 0.2), (10, 1, 1.0)])
def test_a_share_is_a_part_and_at_least_one_call(
    way: Way, clock: ManualClock, replicas: int, burst: int, seconds: float
) -> None:
    quotas, plan = shared(way, clock, replicas=lambda: replicas), Quota("p", 10, 5)
    way.is_answering = False

    assert taken(quotas, 10, plan) == burst
    clock.advance(seconds - 0.01)
    assert taken(quotas, 1, plan) == 0
    clock.advance(0.02)
    assert taken(quotas, 2, plan) == 1


def test_a_share_begins_with_what_there_was_when_the_store_last_answered(way: Way, clock: ManualClock) -> None:
    quotas = shared(way, clock, replicas=lambda: 4)
    awaited = begun(quotas)
    # Of 200 calls 150 are used.
    way.answer([1, 1_500_000])
    way.is_answering = False

    assert quotas.take(ORG, PLAN, awaited) is None
    assert taken(quotas, 100) == 12


def test_who_had_used_up_its_quota_is_served_again_without_the_store(
    quotas: SharedQuotas, way: Way, clock: ManualClock
) -> None:
    begun(quotas)
    way.answer(EMPTY_ANSWER)
    way.is_answering = way.is_open = False
    clock.advance(2 * EMPTY)

    assert taken(quotas, 10) == 0
    clock.advance(0.5)
    assert taken(quotas, 100) == 50


def test_the_store_learns_of_calls_that_were_counted_here(quotas: SharedQuotas, way: Way, clock: ManualClock) -> None:
    way.is_answering = way.is_open = False
    assert taken(quotas, 7) == 7
    way.is_answering = way.is_open = True

    waiting = begun(quotas)
    assert way.asked == [(MOST, 7)]
    # The answer is lost: they may have been counted, and are counted again rather than not at all.
    way.answer(None)
    begun(quotas)
    assert way.asked == [(MOST, 7)]
    way.answer([3, 0])
    assert quotas.take(ORG, PLAN, waiting) is None
    clock.advance(UNUSED)
    quotas.settle()
    assert way.asked == [(0, -2)]


def test_the_store_learns_of_them_without_another_call(quotas: SharedQuotas, way: Way, clock: ManualClock) -> None:
    way.is_answering = way.is_open = False
    plan = Quota("p", 1, 200)
    taken(quotas, 7, plan)
    clock.advance(UNUSED)
    quotas.settle()
    assert way.asked == []
    way.is_answering = way.is_open = True
    clock.advance(UNUSED)
    quotas.settle()

    # In two seconds two calls have come free, here as there.
    assert way.asked == [(0, 5)]


def test_deny_refuses_what_the_store_does_not_count(way: Way, clock: ManualClock) -> None:
    quotas = shared(way, clock, if_unavailable="deny")

    assert drive(calling(quotas), clock) == "quota_unavailable"
    way.answer([2, 0])
    way.is_answering = False
    # What was leased is counted already.
    assert [run(calling(quotas)) for _ in range(3)] == ["", "", "quota_unavailable"]
    with pytest.raises(QuotaUnavailableError):
        quotas.check(ORG, PLAN)


def test_a_lost_answer_is_not_asked_for_again_by_the_same_call(quotas: SharedQuotas, way: Way) -> None:
    flow = calling(quotas)
    next(flow)
    way.is_answering = way.is_open = False
    way.answer(None)

    with pytest.raises(StopIteration) as done:
        flow.send(None)
    assert (done.value.value, quotas.counts["local"], way.requests) == ("", 1, [])


# ---- The script, in real stores ----


@pytest.fixture(scope="module", params=KINDS)
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    with Engine(request.param) as engine:
        yield engine.store()


def lease(store: Store, quota: Quota, most: int = MOST, owed: int = 0, name: str = "q") -> int:
    return answer(store, quota, most, owed, name)[0]


def answer(store: Store, quota: Quota, most: int = MOST, owed: int = 0, name: str = "q") -> list[int]:
    assert quota.requests_per_second is not None
    gap = repr(1e6 / quota.requests_per_second)
    told: list[int] = store.call(LEASE, [store.key(name)], [gap, quota.burst, most, owed])
    return told


@pytest.fixture
def fresh(store: Store) -> Store:
    with store.asking() as client:
        client.flushall()
    return store


def test_a_lease_is_a_tenth_of_what_there_is_from_1_to_50(fresh: Store) -> None:
    assert lease(fresh, Quota("a", 0.001, 1000), name="a") == 50
    assert lease(fresh, Quota("b", 0.001, 200), name="b") == 20
    assert [lease(fresh, Quota("c", 0.001, 3), name="c") for _ in range(4)][:3] == [1, 1, 1]


def test_a_burst_is_leased_and_not_one_call_more(fresh: Store) -> None:
    leases = [lease(fresh, SLOW) for _ in range(30)]

    assert sum(leases) == 20
    assert 19_999e6 < answer(fresh, SLOW)[1] <= 20_000e6


def test_what_is_given_back_can_be_leased_again_and_no_more(fresh: Store) -> None:
    used = sum(lease(fresh, SLOW) for _ in range(30))
    lease(fresh, SLOW, most=0, owed=-5)
    assert sum(lease(fresh, SLOW) for _ in range(30)) == 5
    lease(fresh, SLOW, most=0, owed=-1000)

    assert sum(lease(fresh, SLOW) for _ in range(60)) == used == 20


def test_calls_that_are_told_of_are_counted_and_a_debt_is_no_lock_out(fresh: Store) -> None:
    assert lease(fresh, SLOW, most=0, owed=15) == 0
    assert sum(lease(fresh, SLOW) for _ in range(30)) == 5
    lease(fresh, SLOW, most=0, owed=10_000)

    # A burst more than there is, and not longer.
    assert 39_999e6 < answer(fresh, SLOW)[1] <= 40_000e6


def test_a_key_ends_when_its_bucket_is_full(fresh: Store) -> None:
    lease(fresh, SLOW)
    with fresh.asking() as client:
        assert 1999e3 < client.pttl(fresh.key("q")) <= 2000e3 + 2


def test_a_clock_that_was_set_back_locks_no_organization_out(fresh: Store) -> None:
    with fresh.asking() as client:
        client.set(fresh.key("q"), b"4102444800000000")

    assert 39_999e6 < answer(fresh, SLOW)[1] <= 40_000e6


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rate=st.floats(0.001, 1e6),
    burst=st.integers(1, 2000),
    steps=st.lists(st.tuples(st.integers(0, 80), st.integers(-5, 20)), min_size=1, max_size=30),
)
def test_no_more_is_ever_leased_than_a_burst_and_the_rate(
    fresh: Store, rate: float, burst: int, steps: list[tuple[int, int]]
) -> None:
    quota = Quota("any", rate, burst)
    name, used, held = f"q{time.perf_counter_ns()}", 0, 0
    began = time.time()
    for most, owed in steps:
        back = min(max(-owed, 0), held)
        calls = lease(fresh, quota, most, -back, name)
        used, held = used + calls - back, held + calls - back
        assert used <= burst + (time.time() - began + 1e-5) * rate


# ---- Real stores and threads ----


def test_racing_threads_of_several_replicas_take_no_more_than_there_are(engine: Engine) -> None:
    ways = [Trips(engine.store()) for _ in range(4)]
    replicas = [SharedQuotas(way) for way in ways]
    start, admitted = threading.Barrier(8), []

    def race(quotas: SharedQuotas) -> None:
        start.wait(120)
        admitted.append(taken(quotas, 100, Quota("many", 0.001, 300)))

    threads = [threading.Thread(target=race, args=(quotas,)) for quotas in replicas * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    for way in ways:
        way.close()

    local = sum(quotas.counts["local"] for quotas in replicas)
    # What a slow machine had counted locally is told to the store.
    assert sum(admitted) - local <= 300 <= sum(admitted) + 8


def test_a_replica_that_stops_leaves_what_it_has_not_used_to_others(engine: Engine) -> None:
    first, second = Trips(engine.store()), Trips(engine.store())
    stopped, other = SharedQuotas(first), SharedQuotas(second)
    assert taken(stopped, 1, SLOW) == 1
    stopped.close()
    first.close()

    assert taken(other, 30, SLOW) == 19
    second.close()
