"""Thousands of streams of one loop that must end: others have their turn in between, and none is forgotten."""

import asyncio
import threading
from typing import Any

import pytest

from interceptors.aio.endings import FEW, MANY, Endings


async def _nothing() -> None:
    await asyncio.sleep(0)


def ending(endings: Endings, number: int, end: Any) -> None:
    """Add ``end`` so many times, on another thread, as the judge does."""
    loop = asyncio.get_running_loop()
    threading.Thread(target=lambda: [endings.add(loop, end) for _ in range(number)]).start()


async def _reached(counts: list[int], number: int) -> None:
    while len(counts) < number:  # noqa: ASYNC110 - it counts, and is told of nothing
        await asyncio.sleep(0)


def test_others_have_their_turn_after_every_few() -> None:
    async def run() -> list[int]:
        began: list[int] = []
        turns = 0

        def end() -> Any:
            began.append(turns)
            return asyncio.get_running_loop().create_task(_nothing())

        ending(Endings(), 500, end)
        while len(began) < 500:
            turns += 1
            await asyncio.sleep(0)
        return [began.count(turn) for turn in set(began)]

    assert max(asyncio.run(run())) <= FEW


def test_end_that_fails_keeps_no_other_from_its_own(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> int:
        began: list[int] = []
        endings = Endings()

        def fail() -> None:
            began.append(1)
            raise RuntimeError("secret")

        ending(endings, 5, fail)
        await _reached(began, 5)
        ending(endings, 5, lambda: began.append(1))
        await _reached(began, 10)
        return len(began)

    assert asyncio.run(run()) == 10
    assert "secret" not in caplog.text


def test_clients_that_do_not_read_keep_no_other_from_its_end() -> None:
    """Nor are there ever so many at a time that new calls would wait."""

    async def run() -> list[int]:
        began: list[int] = []
        stuck = asyncio.get_running_loop().create_future()

        async def wait() -> None:
            await stuck

        def end() -> Any:
            began.append(1)
            return asyncio.get_running_loop().create_task(wait())

        ending(Endings(), 300, end)
        most, seen = [], 0
        while len(began) < 300:
            await asyncio.sleep(0)
            most.append(len(began) - seen)
            seen = len(began)
        stuck.set_result(None)
        return most

    assert FEW < max(asyncio.run(run())) <= MANY
