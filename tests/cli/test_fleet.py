"""How the commands wait until an order is in force in every replica."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from authz.cli.orders.fleet import aligned, wait_until_in_force
from authz.store.replicas import Replica
from tests.doubles import ManualClock

Wait = Callable[[Any, float], tuple[bool, list[str]]]

LATEST = "1700000000000-10"


def replica(name: str, applied: str, **more: str) -> Replica:
    return Replica(name, applied=applied, **more)


def seeing(*states: Sequence[Any]) -> Any:
    """Return a function that returns one state after the other, and then the last one again."""
    following: Iterator[Sequence[Any]] = iter(states)
    return lambda: next(following, states[-1])


@pytest.fixture
def wait(clock: ManualClock) -> Wait:
    """Return a function that waits in no time for what the replicas say."""
    return lambda seen, seconds: wait_until_in_force(seen, LATEST, seconds, clock=clock.clock, sleep=clock.advance)


@pytest.mark.parametrize("applied", [LATEST, "1700000000000-11", "1700000000001-0", "9999999999999-0"])
def test_order_is_in_force_once_every_replica_has_got_so_far(wait: Wait, applied: str) -> None:
    done, lines = wait(seeing([replica("a", applied), replica("b", LATEST)]), 60)

    assert (done, lines) == (True, ["in force in 2 of 2 replicas after 0.0 s"])


@pytest.mark.parametrize("applied", ["1700000000000-9", "999999999999-99", "0-0", ""])
def test_replica_that_has_not_got_so_far_is_named_when_the_time_is_over(wait: Wait, applied: str) -> None:
    states = seeing([replica("a", LATEST), replica("b", applied, host="pod-7", region="eu"), replica("c", applied)])
    done, lines = wait(states, 10)

    assert (done, lines) == (
        False,
        ["in force in 1 of 3 replicas after 10.0 s", "  not yet in pod-7 eu b", "  not yet in c"],
    )


def test_replica_is_waited_for(wait: Wait) -> None:
    behind, there = [replica("a", "1-0")], [replica("a", LATEST)]

    assert wait(seeing(behind, behind, behind, behind, there), 60) == (
        True,
        ["in force in 1 of 1 replicas after 0.2 s"],
    )


def test_replica_that_has_ended_meanwhile_is_not_waited_for(wait: Wait) -> None:
    states = seeing(*[[replica("a", LATEST), replica("b", "1-0")]] * 3, [replica("a", LATEST)])

    assert wait(states, 60)[1] == ["in force in 1 of 1 replicas after 0.1 s"]


def test_no_replica_at_all_is_no_confirmation(wait: Wait) -> None:
    done, lines = wait(seeing([]), 10)

    assert not done
    assert lines == ["written, but no replica has been seen; they need the same store and namespace"]


def test_columns_of_a_table_begin_one_below_the_other() -> None:
    assert aligned([("ID", "REGION"), ("host-1", ""), ("b", "eu")]) == ["ID      REGION", "host-1", "b       eu"]
