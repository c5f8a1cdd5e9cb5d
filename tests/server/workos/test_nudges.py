"""A webhook has WorkOS asked sooner, by whichever replica leads; thousands of them no more than one."""

import secrets
from collections.abc import Iterator
from typing import Any

import pytest

from authz.judge.orders.operator import Operator
from authz.judge.orders.standing import Standing
from authz.judge.streams import OpenStreams
from authz.server.workos.following import WorkOSEvents
from authz.server.workos.place import PlaceHere
from authz.server.workos.shared_place import SharedPlace
from authz.store.connection import Store
from tests.doubles import PATIENCE, ManualClock, eventually
from tests.server.workos.test_following import expected, logged, turn
from tests.server.workos.troubled import TroubledIssuer
from tests.store.engines import Engine

NUDGE = "authz:{workos}:nudge"


@pytest.fixture
def operator(clock: ManualClock) -> Operator:
    return Operator(Standing(clock=clock.clock), OpenStreams(clock=clock.clock), clock=clock.clock)


@pytest.fixture
def alone(workos: TroubledIssuer, operator: Operator, clock: ManualClock) -> Iterator[WorkOSEvents]:
    """Return what asks once a minute, for one process without a store; the test runs it."""
    api = workos.api()
    yield WorkOSEvents(api, PlaceHere(operator, None), interval=60.0, is_told=True, clock=clock.clock)
    api.close()


def follower(workos: TroubledIssuer, store: Store, clock: ManualClock) -> WorkOSEvents:
    """Return what asks once a minute, for one of several replicas."""
    replica = secrets.token_hex(4)
    place = SharedPlace(store, lambda: replica)
    return WorkOSEvents(workos.api(timeout=2.0), place, interval=60.0, is_told=True, clock=clock.clock)


def pass_time(clock: ManualClock, seconds: float, *followers: WorkOSEvents) -> None:
    """Let time pass, and wake all of them each tenth of a second, as a nudge does."""
    for _ in range(round(seconds * 10)):
        clock.advance(0.1)
        for each in followers:
            each.work()


def test_nudge_has_the_next_question_asked_within_half_a_second(
    alone: WorkOSEvents, workos: TroubledIssuer, operator: Operator, clock: ManualClock
) -> None:
    turn(alone, clock)
    workos.delete(workos.organization())
    pass_time(clock, 10, alone)
    before = (len(workos.asked), len(operator.book))
    alone.nudge()
    pass_time(clock, 0.6, alone)

    assert before == (1, 0)
    assert len(workos.asked) == 2
    assert list(operator.book) == expected(workos)


def test_ten_thousand_nudges_are_twenty_questions_in_ten_seconds(
    alone: WorkOSEvents, workos: TroubledIssuer, clock: ManualClock
) -> None:
    turn(alone, clock)
    for _ in range(100):
        for _ in range(100):
            alone.nudge()
        pass_time(clock, 0.1, alone)

    assert 15 <= len(workos.asked) - 1 <= 21


def test_nudge_cuts_no_pause_that_workos_has_asked_for(
    alone: WorkOSEvents, workos: TroubledIssuer, clock: ManualClock
) -> None:
    workos.trouble = lambda: "429 30"
    turn(alone, clock)
    for _ in range(28):
        alone.nudge()
        pass_time(clock, 1, alone)
    during = len(workos.asked)
    pass_time(clock, 3, alone)

    assert (during, len(workos.asked)) == (1, 2)


def test_nudge_wakes_the_thread_that_waits(workos: TroubledIssuer, operator: Operator) -> None:
    events = WorkOSEvents(workos.api(timeout=PATIENCE), PlaceHere(operator, None), interval=60.0, is_told=True)
    events.start()
    eventually(lambda: len(workos.asked) == 1)
    events.nudge()
    eventually(lambda: len(workos.asked) == 2)
    events.stop()


def test_nudge_of_one_replica_reaches_the_one_that_leads(
    workos: TroubledIssuer, engine: Engine, clock: ManualClock
) -> None:
    leader, other = (follower(workos, engine.store(), clock) for _ in range(2))
    pass_time(clock, 0.3, leader, other)
    workos.delete(workos.organization())
    pass_time(clock, 5, leader, other)
    before = len(logged(engine))
    other.nudge()
    pass_time(clock, 1.2, leader, other)

    assert (leader.is_leading, other.is_leading, before) == (True, False, 0)
    assert logged(engine) == expected(workos)
    assert len(workos.asked) == 2


def test_flood_in_replicas_that_do_not_lead_is_two_writes_of_each_and_two_questions_a_second(
    workos: TroubledIssuer, engine: Engine, clock: ManualClock
) -> None:
    leader, *others = (follower(workos, engine.store(), clock) for _ in range(3))
    pass_time(clock, 0.3, leader, *others)
    with engine.client() as asking:
        asking.config_resetstat()
        for _ in range(50):
            for each in others:
                for _ in range(100):
                    each.nudge()
            pass_time(clock, 0.1, leader, *others)
        told: Any = asking.info("commandstats")
        seconds: Any = asking.ttl(NUDGE)

    assert leader.is_leading
    assert 5 <= len(workos.asked) - 1 <= 11
    assert told["cmdstat_getdel"]["calls"] <= 11
    # The lease is renewed by SET, too.
    assert told["cmdstat_set"]["calls"] <= 2 * 11 + 3
    assert seconds <= 60


def test_store_that_is_away_costs_a_nudge_and_no_event(
    workos: TroubledIssuer, engine: Engine, clock: ManualClock
) -> None:
    leader, other = (follower(workos, engine.store(), clock) for _ in range(2))
    pass_time(clock, 0.3, leader, other)
    engine.kill()
    workos.delete(workos.organization())
    other.nudge()
    pass_time(clock, 3, leader, other)
    engine.start()
    pass_time(clock, 60, leader, other)

    assert logged(engine) == expected(workos)
