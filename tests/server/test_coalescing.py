"""What is made once for many who ask."""

import asyncio
from collections.abc import Awaitable
from typing import Any

import pytest

from authz.server.coalescing import Coalesced, Paced

PATIENCE = 120.0
ASKERS = 100


def run(story: Awaitable[Any]) -> Any:
    async def told() -> Any:
        async with asyncio.timeout(PATIENCE):
            return await story

    return asyncio.run(told())


class Maker:
    """Makes numbers, one after the other, when it may."""

    def __init__(self) -> None:
        self.made = 0
        self.may_make = asyncio.Event()
        self.is_making = asyncio.Event()

    async def make(self) -> int:
        self.is_making.set()
        await self.may_make.wait()
        self.made += 1
        return self.made


def test_all_who_ask_at_once_get_the_same() -> None:
    async def story() -> list[int]:
        maker = Maker()
        maker.may_make.set()
        coalesced = Coalesced(maker.make, pause=0.01)
        return await asyncio.gather(*(coalesced.get() for _ in range(ASKERS)))

    assert run(story()) == [1] * ASKERS


def test_what_was_begun_before_a_question_is_no_answer_to_it() -> None:
    async def story() -> list[int]:
        maker = Maker()
        coalesced = Coalesced(maker.make, pause=0.01)
        first = asyncio.create_task(coalesced.get())
        await maker.is_making.wait()
        later = [asyncio.create_task(coalesced.get()) for _ in range(ASKERS)]
        await asyncio.sleep(0)
        maker.may_make.set()
        return [await first, *await asyncio.gather(*later)]

    assert run(story()) == [1, *[2] * ASKERS]


def test_who_asks_as_fast_as_possible_has_it_made_at_the_pace_that_is_set() -> None:
    async def story() -> tuple[int, float]:
        maker = Maker()
        maker.may_make.set()
        coalesced = Coalesced(maker.make, pause=0.05)
        began = asyncio.get_running_loop().time()

        async def ask() -> None:
            for _ in range(5):
                await coalesced.get()

        await asyncio.gather(*(ask() for _ in range(ASKERS)))
        return maker.made, asyncio.get_running_loop().time() - began

    made, seconds = run(story())

    assert made == 5
    assert seconds >= 4 * 0.05


def test_failure_is_that_of_all_who_waited_and_the_next_try_is_a_new_one() -> None:
    tries = 0

    async def make() -> int:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise LookupError
        return tries

    async def story() -> tuple[list[Any], int]:
        coalesced = Coalesced(make, pause=0.01)
        failed = await asyncio.gather(*(coalesced.get() for _ in range(3)), return_exceptions=True)
        return failed, await coalesced.get()

    failed, later = run(story())

    assert [type(each) for each in failed] == [LookupError] * 3
    assert later == 2


def test_asker_that_goes_away_takes_nothing_from_the_others() -> None:
    async def story() -> int:
        maker = Maker()
        coalesced = Coalesced(maker.make, pause=0.01)
        gone, stays = asyncio.create_task(coalesced.get()), asyncio.create_task(coalesced.get())
        await maker.is_making.wait()
        gone.cancel()
        maker.may_make.set()
        return await stays

    assert run(story()) == 1


def test_those_who_waited_go_on_one_in_each_turn_of_the_loop() -> None:
    async def story() -> int:
        maker, turn, together = Maker(), 0, dict[int, int]()
        maker.may_make.set()
        coalesced = Coalesced(maker.make, pause=0.01)

        async def ask() -> None:
            await coalesced.get()
            together[turn] = together.get(turn, 0) + 1

        asking = asyncio.gather(*(ask() for _ in range(ASKERS)))
        while not asking.done():
            turn += 1
            await asyncio.sleep(0)
        return max(together.values())

    assert run(story()) == 1


@pytest.mark.parametrize("fails", [False, True])
def test_paced_work_is_one_at_a_time_and_in_turn(*, fails: bool) -> None:
    order: list[int] = []
    working: list[int] = []

    async def work(paced: Paced, number: int) -> None:
        async with paced.turn():
            working.append(number)
            await asyncio.sleep(0)
            order.append(number)
            assert working.pop() == number
            if fails:
                raise LookupError

    async def story() -> None:
        paced = Paced(pause=0.001)
        await asyncio.gather(*(work(paced, number) for number in range(10)), return_exceptions=True)

    run(story())

    assert order == list(range(10))


def test_long_work_is_followed_by_a_long_pause() -> None:
    async def story() -> tuple[float, float]:
        paced, loop = Paced(pause=0.0), asyncio.get_running_loop()
        async with paced.turn():
            began = loop.time()
            await asyncio.sleep(0.05)
            took = loop.time() - began
        async with paced.turn():
            return took, loop.time() - began

    took, until_next = run(story())

    assert until_next >= 4 * took
