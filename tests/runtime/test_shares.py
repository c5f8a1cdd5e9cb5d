"""No caller uses up the shared places that another needs."""

import random
import threading
from collections import Counter, deque

import pytest

from authz.runtime.shares import Shares, Turns


def take_all(shares: Shares, key: str) -> int:
    taken = 0
    while shares.take(key):
        taken += 1
    return taken


@pytest.mark.parametrize(("places", "one"), [(1, 1), (2, 1), (4, 2), (16, 8), (256, 128), (1024, 512)])
def test_a_caller_alone_gets_half_of_the_places(places: int, one: int) -> None:
    assert take_all(Shares(places), "one") == one


def test_who_comes_later_gets_half_of_the_rest() -> None:
    shares = Shares(1024)

    assert [take_all(shares, f"caller-{number}") for number in range(11)] == [512, 256, 128, 64, 32, 16, 8, 4, 2, 1, 1]
    assert shares.taken == 1024
    assert not shares.take("one more")


def test_a_place_given_back_is_there_for_others() -> None:
    shares = Shares(4)
    take_all(shares, "one")
    shares.give_back("one")

    assert (take_all(shares, "other"), shares.taken) == (2, 3)
    assert not shares.take("one")


def test_callers_that_have_gone_leave_nothing_behind() -> None:
    shares = Shares(8)
    for number in range(1000):
        assert shares.take(number)
        shares.give_back(number)

    assert (shares.taken, shares._held) == (0, {})  # noqa: SLF001 - what grows without a bound is not seen elsewhere


def test_a_forked_child_has_every_place() -> None:
    shares = Shares(4)
    take_all(shares, "one")
    shares.after_fork()

    assert (shares.taken, take_all(shares, "one")) == (0, 2)


def test_racing_callers_take_no_more_than_there_are() -> None:
    shares, most = Shares(16), []
    together = threading.Barrier(8, timeout=120)

    def work(key: int) -> None:
        together.wait()
        for _ in range(2000):
            if shares.take(key):
                most.append(shares.taken)
                shares.give_back(key)

    threads = [threading.Thread(target=work, args=(number % 3,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert shares.taken == 0
    assert 0 <= max(most) <= 16


def test_a_share_is_like_a_semaphore() -> None:
    share = Shares(2).of("one")

    assert (share.acquire(blocking=False), share.acquire(blocking=False)) == (True, False)
    share.release()
    assert share.acquire(blocking=False)


def drain(turns: Turns[str]) -> list[str]:
    served = []
    while (item := turns.next()) is not None:
        served.append(item)
        turns.leave()
    return served


def test_callers_take_turns_however_many_items_each_has() -> None:
    turns = Turns[str](1, 100)
    for item in ("a1", "a2", "a3", "a4", "b1", "c1", "b2"):
        assert turns.join(item[0], item) is None

    assert drain(turns) == ["a1", "b1", "c1", "a2", "b2", "a3", "a4"]


def test_so_many_are_served_at_once() -> None:
    turns = Turns[str](2, 100)
    for item in ("a1", "a2", "a3"):
        turns.join("a", item)

    assert [turns.next(), turns.next(), turns.next()] == ["a1", "a2", None]
    turns.leave()
    assert turns.next() == "a3"


def test_where_too_many_wait_who_has_most_loses_its_latest() -> None:
    turns = Turns[str](1, 3)
    turns.join("x", "served")
    turns.next()
    for item in ("a1", "a2", "a3"):
        turns.join("a", item)

    assert turns.join("a", "a4") == "a4"
    assert turns.join("b", "b1") == "a3"
    assert turns.join("c", "c1") == "a2"
    assert turns.join("d", "d1") == "d1"
    turns.leave()
    assert drain(turns) == ["a1", "b1", "c1"]


def test_who_is_dismissed_waits_no_longer() -> None:
    turns = Turns[str](1, 3)
    for item in ("a1", "b1", "a2"):
        turns.join(item[0], item)

    assert (sorted(turns.dismiss()), turns.next()) == (["a1", "a2", "b1"], None)
    assert turns.join("a", "a3") is None
    assert turns.next() == "a3"


def test_turns_at_random_are_fair_and_bounded() -> None:
    """A seeded walk: no caller that waits is passed over twice by the same one, and no more wait than may."""
    chance = random.Random(3)  # noqa: S311 - the same walk on every run
    turns, waiting, passed = Turns[tuple[str, int]](4, 32), dict[str, deque[int]](), Counter[tuple[str, str]]()
    serving = 0
    for number in range(20_000):
        key = chance.choice("aaaaaaaaaabcd")
        waiting.setdefault(key, deque()).append(number)
        gone = turns.join(key, (key, number))
        if gone is not None:
            waiting[gone[0]].remove(gone[1])
        if serving and chance.random() < 0.7:
            turns.leave()
            serving -= 1
        while (item := turns.next()) is not None:
            serving += 1
            served, first = item
            assert waiting[served].popleft() == first
            for other, queue in waiting.items():
                if other != served and queue:
                    passed[other, served] += 1
                    assert passed[other, served] <= 1
            for pair in [pair for pair in passed if pair[0] == served]:
                del passed[pair]
        assert serving <= 4
        assert sum(map(len, waiting.values())) <= 32
