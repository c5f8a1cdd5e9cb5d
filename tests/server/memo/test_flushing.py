"""Whatever changes, a new generation begins: at once, after the change, and not too often."""

import asyncio
import threading

import pytest

from authz.server.memo.flushing import PAUSE, Flushing
from tests.doubles import PATIENCE


def play(change: object) -> list[str]:
    told: list[str] = []

    async def run() -> None:
        flushing = Flushing(told.append)
        async with flushing.running():
            await change(flushing, told)  # type: ignore[operator]

    asyncio.run(asyncio.wait_for(run(), PATIENCE))
    return told


async def until(told: list[str], count: int) -> None:
    while len(told) < count:  # noqa: ASYNC110 - a list has no event
        await asyncio.sleep(0.001)


def test_the_first_generation_begins_at_once_and_the_last_is_none() -> None:
    async def nothing(_flushing: Flushing, told: list[str]) -> None:
        assert len(told) == 1

    first, last = play(nothing)

    assert first.endswith("-0")
    assert last == ""


def test_a_change_on_another_thread_begins_one() -> None:
    async def change(flushing: Flushing, told: list[str]) -> None:
        thread = threading.Thread(target=flushing.flush)
        thread.start()
        await until(told, 2)
        thread.join()
        assert flushing.flushes == 1
        assert flushing.age < PATIENCE
        # And no more of them.
        await asyncio.sleep(3 * PAUSE)
        assert flushing.flushes == 1

    told = play(change)

    assert told[1].endswith("-1")
    assert len(set(told)) == 3


def test_many_changes_begin_few_and_the_last_counts() -> None:
    async def change(flushing: Flushing, told: list[str]) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        while loop.time() < began + 3 * PAUSE:
            flushing.flush()
            await asyncio.sleep(0)
        count = len(told)
        await until(told, count + 1)
        assert len(told) <= (loop.time() - began) / PAUSE + 3

    play(change)


def test_no_two_servers_have_a_generation_in_common() -> None:
    async def nothing(_flushing: Flushing, _told: list[str]) -> None:
        """Let the first generation be enough."""

    assert play(nothing)[0] != play(nothing)[0]


def test_what_could_not_be_told_is_told_again() -> None:
    failures = [OSError("disk full"), None]
    told: list[str] = []

    def publish(generation: str) -> None:
        if generation.endswith("-0") or not generation:
            return
        failure = failures.pop(0) if failures else None
        if failure is not None:
            raise failure
        told.append(generation)

    async def run() -> None:
        flushing = Flushing(publish)
        async with flushing.running():
            flushing.flush()
            await until(told, 1)

    asyncio.run(asyncio.wait_for(run(), PATIENCE))

    assert told[0].endswith("-2")


def test_nothing_is_flushed_before_and_after() -> None:
    told: list[str] = []
    flushing = Flushing(told.append)
    flushing.flush()

    assert told == []


@pytest.mark.parametrize("error", [OSError("full"), PermissionError("no")])
def test_a_server_whose_first_generation_cannot_be_told_does_not_start(error: OSError) -> None:
    def publish(_generation: str) -> None:
        raise error

    async def run() -> None:
        async with Flushing(publish).running():
            pytest.fail("it started")

    with pytest.raises(OSError, match=str(error)):
        asyncio.run(run())
